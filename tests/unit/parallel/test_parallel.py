"""What the environment says of the launch and the node, and how a job ends; one process."""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from amst_hpc.config import InputError
from amst_hpc.parallel.communicator import guard, on_all_ranks
from amst_hpc.parallel.launch import STARTED_BY_MPI, launched, refuse_copies
from amst_hpc.parallel.node import cores_per_rank, memory_per_rank, scratch_folder
from amst_hpc.parallel.signals import Stopped, StopRequest


@dataclass
class Communicator:
    """One of `size` ranks; the others had nothing to complain about."""

    rank: int = 0
    size: int = 1
    aborted: list[int] = field(default_factory=list)

    def allgather(self, value):
        return [value] + [""] * (self.size - 1)

    def Abort(self, code):  # noqa: N802
        self.aborted.append(code)


@pytest.mark.parametrize(
    ("size", "environment"),
    [
        (1, {}),
        (1, {"SLURM_NTASKS": "1"}),
        (4, {"SLURM_NTASKS": "4"}),
        (4, {"OMPI_COMM_WORLD_SIZE": "4"}),
        (1, {"SLURM_NTASKS": "8", "OMPI_COMM_WORLD_SIZE": "1"}),  # mpirun -n 1 in an allocation
        (1, {"SLURM_NTASKS": ""}),
    ],
)
def test_launches_that_are_what_they_say(size, environment):
    refuse_copies(size, environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "4"},
        {"PMI_SIZE": "4"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"MPI_LOCALNRANKS": "4"},
    ],
)
def test_separate_copies_are_refused(environment):
    with pytest.raises(InputError, match=r"= 4, but MPI sees 1 process: 4 separate copies"):
        refuse_copies(1, environment)


def test_launched_looks_at_the_launchers_variables(monkeypatch):
    for name in STARTED_BY_MPI:
        monkeypatch.delenv(name, raising=False)
    assert not launched()
    monkeypatch.setenv("PMIX_RANK", "0")
    assert launched()


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


def test_together_raises_what_any_rank_found():
    assert on_all_ranks(Communicator(size=3), lambda: 5) == 5

    def bad():
        raise InputError("slice 7: cut short")

    with pytest.raises(InputError, match="slice 7: cut short"):
        on_all_ranks(Communicator(size=3), bad)


@pytest.mark.parametrize("error", [InputError("bad"), Stopped("writing")])
def test_errors_that_all_ranks_share_pass_the_guard(error):
    comm = Communicator(size=3)
    with pytest.raises(type(error)), guard(comm):
        raise error
    assert not comm.aborted


def test_the_guard_ends_the_whole_job(caplog):
    comm = Communicator(rank=1, size=3)
    with guard(comm):
        raise RuntimeError("boom")
    assert comm.aborted == [1]
    assert "rank 1 of 3 failed" in caplog.text


def test_a_single_process_exits_and_a_full_disk_is_one_line(caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(SystemExit) as ended, guard(Communicator()):
        raise OSError(28, "No space left on device", "out.h5")
    assert ended.value.code == 1
    assert "Traceback" not in caplog.text
    assert "No space left on device: 'out.h5'" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_asks_to_stop_and_tells_the_others(tmp_path, number):
    flag = tmp_path / "stop"
    before = signal.getsignal(number)
    with StopRequest(flag) as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert flag.exists()
        assert StopRequest(flag)
    assert signal.getsignal(number) is before


def test_a_library_that_takes_the_signals_does_not_keep_them(tmp_path):
    with StopRequest(tmp_path / "stop") as stop:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # as Intel's OpenCL does
        assert not stop
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop


def test_a_command_takes_one_thread_for_matrices_unless_it_is_told_otherwise():
    """numpy looks at the variable when it is imported: the command line must not have done so."""
    code = """
import os, sys
from amst_hpc.cli import app as cli
assert "numpy" not in sys.modules
cli.app = lambda: print(os.environ["OPENBLAS_NUM_THREADS"])
cli.main()
"""

    def threads(environment):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout.strip()

    without = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    assert threads(without) == "1"
    assert threads(without | {"OPENBLAS_NUM_THREADS": "4"}) == "4"
