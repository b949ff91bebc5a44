"""Runs `amst-hpc` as a user does, and reads what it left behind with independent eyes."""

import contextlib
import csv
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import h5py
from launch import JOB_ENVIRONMENT

from amst_hpc.parallel.launch import find_mpirun

CHECKOUT = Path(__file__).resolve().parents[2]
XCORR = ("--set", "coarse.method=xcorr")
"""XCORR needs no OpenCL and starts in half the time; the default (SIFT) has tests of its own."""
FAST = (*XCORR, "--set", "refine.backend=none", "--set", "output.report=false")
"""Without elastix, which needs 10 s to start, and without pictures."""
SLOWED = (CHECKOUT / "tests/faults/driver.py",)
"""The program of a `Job` that waits before each slice; see the driver."""

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and how long it took, s."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def faults(self) -> list[str]:
        """What the program itself said was wrong (not its log, not mpirun's banner)."""
        return [line for line in self.stderr.splitlines() if line.startswith("amst-hpc: ")]


def environment() -> dict[str, str]:
    """Of a job: this checkout, MPI on one machine, warnings of libraries as they are."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **JOB_ENVIRONMENT, "PYTHONPATH": path, "PYTHONWARNINGS": ""}


def command_line(ranks: int, arguments: Command, program: Command = ("-m", "amst_hpc")) -> list:
    """`amst-hpc ARGUMENTS` on `ranks` ranks; 0: without mpirun."""
    launcher = [find_mpirun(), "-n", str(ranks)] if ranks else []
    return [*launcher, sys.executable, *map(str, program), *map(str, arguments)]


UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") * (os.getuid() == 0)
"""Before a command: file modes count, for root too."""


def run(
    ranks: int,
    *arguments: str | Path,
    timeout: float = 500,
    before: Command = (),
    program: Command = ("-m", "amst_hpc"),
    **options,
) -> Ended:
    """Run `amst-hpc ARGUMENTS` to its end; `before` goes before the command."""
    began = time.monotonic()
    done = subprocess.run(
        [*before, *command_line(ranks, arguments, program)],
        **{"env": environment(), "capture_output": True, "text": True, **options},
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Signal handlers, logging and environment of this process are afterwards as before."""
    stops = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in stops}
    environ, root, own = dict(os.environ), logging.getLogger(), logging.getLogger("amst_hpc")
    handlers, levels = root.handlers[:], (root.level, own.level)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environ)
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def call(*arguments: str | Path) -> Ended:
    """`amst-hpc ARGUMENTS` to its end, on one rank, in this process: no interpreter starts."""
    from typer.testing import CliRunner

    from amst_hpc.cli.app import app

    # click before 8.2 mixes the two streams unless told otherwise, later ones cannot be told
    can_mix = "mix_stderr" in signature(CliRunner).parameters
    apart = {"mix_stderr": False} if can_mix else {}

    began = time.monotonic()
    with restored():
        done = CliRunner(**apart).invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr, time.monotonic() - began)


def finished(ended: Ended, *codes: int) -> Ended:
    """The same; an assertion that it ended with one of `codes` (0)."""
    assert ended.code in (codes or (0,)), ended.stderr
    return ended


class Job:
    """A running `amst-hpc align`, in a process group of its own."""

    def __init__(self, ranks: int, *arguments: str | Path, program: Command = ("-m", "amst_hpc")):
        self.out = next(Path(a) for a in arguments if str(a).endswith(".h5") or "out" in str(a))
        self.folder = self.out.with_suffix(".amst")
        self.log = self.out.with_name(f"{self.out.name}.log")
        self._stream = self.log.open("w")
        self.process = subprocess.Popen(
            command_line(ranks, arguments, program),
            env=environment(),
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.began = time.monotonic()

    def running(self) -> bool:
        return self.process.poll() is None

    def ranks(self) -> list[int]:
        """Process ids of the ranks: Python processes of this job below mpirun (itself without)."""
        found = []
        for pid in descendants(self.process.pid):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                environ = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if b"python" in line[0] and b"OMPI_COMM_WORLD_RANK=" in environ:
                found.append(pid)
        return sorted(found) or [self.process.pid]

    def wait_for(self, happened: Callable[[], bool], timeout: float = 300) -> bool:
        """True when `happened`, False if the job ended first."""
        limit = time.monotonic() + timeout
        while not happened():
            if not self.running():
                return False
            if time.monotonic() > limit:
                raise TimeoutError(f"{self.out} did not get there:\n{self.log.read_text()}")
            time.sleep(0.005)
        return True

    def registered(self) -> int:
        return len(registrations(self.folder))

    def writing(self) -> bool:
        return any(r["kind"] == "begun" for r in journal(self.folder, "write"))

    def end(self, timeout: float = 300) -> Ended:
        """Wait for the end; whatever the job left running is killed."""
        try:
            code = self.process.wait(timeout)
        finally:
            for pid in descendants(self.process.pid):
                send(pid, signal.SIGKILL)
            if self.running():
                self.process.kill()
            self._stream.close()
        text = self.log.read_text()
        return Ended(code, text, text, time.monotonic() - self.began)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def descendants(pid: int) -> list[int]:
    """Children of a process, theirs, and so on."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def journal(folder: Path, work: str) -> list[dict]:
    """Whole records of `register` or `write`, read without the program's own reader."""
    found = []
    for path in sorted((folder / "journal").glob(f"*.{work}.log")):
        for line in path.read_bytes().split(b"\n"):
            try:
                found.append(json.loads(line[9:]))
            except ValueError:
                continue
    return found


def registrations(folder: Path) -> list[int]:
    """The slices that were registered, as often as they were."""
    return [r["z"] for r in journal(folder, "register") if r["kind"] == "slice"]


def contents(path: Path) -> dict[str, str]:
    """A digest of each dataset and attribute of an HDF5 file: equal if the contents are."""
    found = {}

    def visit(name, item):
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = repr(value)
        if isinstance(item, h5py.Dataset):
            head = f"{item.shape} {item.dtype} {item.chunks} {item.compression}".encode()
            found[name] = hashlib.sha256(head + item[()].tobytes()).hexdigest()

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def assert_same(out: Path, wanted: Path) -> None:
    """The voxels of all levels and the transforms of two runs, whose files have other tokens."""
    mine, theirs = contents(out), contents(wanted)
    for found in (mine, theirs):
        [found.pop(key) for key in [*found] if key.startswith("@") or key == "/"]
    assert mine == theirs
    assert transforms(out) == transforms(wanted)


def slices(out: Path) -> list[dict[str, str]]:
    """The rows of OUT.amst/slices.csv."""
    with (out.with_suffix(".amst") / "slices.csv").open() as file:
        return list(csv.DictReader(file))


def statuses(out: Path) -> list[str]:
    """What became of each slice."""
    return [row["status"] for row in slices(out)]


def transforms(out: Path) -> list:
    """OUT.amst/transforms.json."""
    return json.loads((out.with_suffix(".amst") / "transforms.json").read_text())


def score(shared: Path, truth: Path, out: Path | None) -> dict:
    """What score_gt.py says of a run; None: of the pre-alignment."""
    of = ["--baseline", "pre"] if out is None else [out.with_suffix(".amst") / "transforms.json"]
    done = subprocess.run(
        [sys.executable, str(shared / "tools/score_gt.py"), str(truth), *map(str, of)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
