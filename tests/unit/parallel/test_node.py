"""Cores, memory and scratch of a rank."""

from pathlib import Path

import pytest

from amst_hpc.parallel.node import memory_per_rank, scratch_folder, share_of_cores


@pytest.mark.parametrize(
    ("everyone", "expected"),
    [
        ([range(16)], [16]),
        ([range(16)] * 4, [4] * 4),
        ([range(16)] * 3, [5] * 3),
        ([range(16)] * 32, [1] * 32),
        ([range(4, 12)] * 8, [1] * 8),  # unbound in a cpuset of a larger node
        ([range(4, 12)] * 2, [4] * 2),
        ([range(2), range(2, 4)], [2, 2]),  # bound
        ([range(8), range(8), range(8, 16), range(8, 16)], [4] * 4),  # bound to a socket
        ([range(1), range(16), range(16)], [1, 7, 7]),
        ([range(3)] * 3, [1] * 3),
    ],
)
def test_a_core_of_several_ranks_is_shared_by_them(everyone, expected):
    cores = [set(each) for each in everyone]
    assert [share_of_cores(mine, cores) for mine in cores] == expected


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
