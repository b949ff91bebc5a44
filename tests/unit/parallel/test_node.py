"""Cores, memory and scratch of a rank."""

import os
from pathlib import Path

import pytest

from amst_hpc.parallel.node import cores_per_rank, memory_per_rank, scratch_folder


@pytest.mark.parametrize(
    ("allowed", "there", "ranks", "expected"),
    [(16, 16, 4, 4), (16, 16, 32, 1), (16, 16, 1, 16), (2, 16, 4, 2), (1, 16, 4, 1)],
)
def test_cores_are_shared_unless_the_launcher_bound_them(
    monkeypatch, allowed, there, ranks, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    assert cores_per_rank(ranks) == expected


def test_memory_is_shared_and_never_more_than_slurm_gives(monkeypatch):
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    whole = memory_per_rank(1)
    assert 0 < memory_per_rank(4) <= whole
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "64")
    assert memory_per_rank(4) == 16 << 20


def test_memory_is_never_more_than_the_cgroup_gives(monkeypatch):
    read = Path.read_text

    def limited(path, *args, **kwargs):
        return "1048576\n" if path.name == "memory.max" else read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", limited)
    assert memory_per_rank(2) == 1 << 19


def test_scratch_folders_are_private_and_go_away():
    with scratch_folder(0) as first, scratch_folder(0) as second:
        assert first != second
        (first / "file").touch()
    assert not first.exists()
