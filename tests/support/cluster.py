"""What the tests of the batch scripts share: the running Slurm, the program, comparisons."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from amst_hpc.job.journal import records

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "amst_hpc"]
# Both nodes are this machine, and they share one /dev/shm.
ONE_MACHINE = {
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "tcp,self",
    "OMPI_MCA_btl_tcp_if_include": "lo",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
LEVELS = ("--set", "output.levels=3", "--set", "output.layer=4", "--set", "output.report=false")


def run(
    command: Sequence[str | Path], cwd: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """A command, its output captured."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout
    )  # fmt: skip


def amst(cwd: Path, *arguments: str | Path, code: int = 0) -> str:
    """What `amst-hpc ARGUMENTS` prints, both streams; it must end with `code`."""
    done = run([*PROGRAM, *arguments], cwd)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


@dataclass
class Cluster:
    """The running Slurm."""

    folder: Path

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        done = run(command, self.folder)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def states(self) -> list[str]:
        """`JOB TASK STATE NODE` of what waits or runs."""
        return self.ask("squeue", "-h", "-r", "--format=%F %K %T %N").splitlines()

    def wait(self, done: Callable[[], bool], what: str, seconds: float = 240) -> None:
        """Wait until `done()`; fails with the queue after `seconds`."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                pytest.fail(f"{what}: not after {seconds} s; the queue: {self.states()}")
            time.sleep(0.5)

    def wait_empty(self, seconds: float = 240) -> None:
        """Wait until nothing waits or runs."""
        self.wait(lambda: not self.states(), "an empty queue", seconds)


def edited(script: str, lines: Mapping[str, str], program: Sequence[str] = PROGRAM) -> str:
    """A file of slurm/ with lines at its top edited, by how they begin; and the program of the
    tests.
    """
    text = (CHECKOUT / "slurm" / script).read_text()
    words = " ".join(program)
    changes = {"AMST=": f"AMST=({words})", "#SBATCH --mem=": "#SBATCH --mem=3000M"}
    changes |= {"#SBATCH --time=": "#SBATCH --time=30", **lines}
    top, mark, rest = text.partition("# ---- nothing to edit below")
    for start, line in changes.items():
        fitting = [old for old in top.splitlines() if old.startswith(start)]
        assert len(fitting) == 1, f"{script}: {start} is there {len(fitting)} times"
        top = top.replace(fitting[0], line)
    return top + mark + rest


def registered(folder: Path) -> list[int]:
    """The slices that a journal holds, once for each time that one was registered."""
    return sorted(r["z"] for r in records(folder / "journal") if r["kind"] == "slice")


def assert_same(one: Path, other: Path) -> None:
    """The same values on all mipmap levels."""
    with h5py.File(one) as a, h5py.File(other) as b:
        levels = len(a["s00/resolutions"])
        assert np.array_equal(a["s00/resolutions"], b["s00/resolutions"])
        for k in range(levels):
            name = f"t00000/s00/{k}/cells"
            assert np.array_equal(a[name], b[name]), f"level {k} differs"
