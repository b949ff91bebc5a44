"""The communicator, what a rank may use of its node, and how a job of many ranks ends.

Only this module imports mpi4py, and it reads the environment that launchers set. Every rank makes
the same collective calls in the same order; an error on one rank alone ends the whole job
(`guard`), since the others wait for it.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from amst_hpc.config import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")
EX_TEMPFAIL = 75
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LAUNCHERS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
STARTED_BY_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")


class Stopped(Exception):
    """The job was asked to stop and did so in good order (exit code 75).

    The same command continues it.
    """


def world(copies: bool = False) -> Any:
    """`MPI.COMM_WORLD`.

    Raises `InputError` where MPI is missing or, unless `copies`, N separate copies were started.
    """
    os.environ.setdefault("OMPI_MCA_io", "^ompio")  # has hung with HDF5
    os.environ.setdefault(
        "HDF5_USE_FILE_LOCKING", "FALSE"
    )  # all writers are ours; NFS and Lustre refuse locks
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"MPI cannot be loaded ({error}): install amst-hpc[all], or load the site's MPI"
        ) from None
    comm = MPI.COMM_WORLD
    if not copies:
        refuse_copies(comm.size, os.environ)
    return comm


def refuse_copies(size: int, environment: Mapping[str, str]) -> None:
    """N tasks of a launcher which do not see each other would run the whole job N times."""
    if size > 1 or environment.get("OMPI_COMM_WORLD_SIZE") == "1":
        return
    for name in LAUNCHERS:
        count = environment.get(name, "1")
        if count.isdigit() and int(count) > 1:
            raise InputError(
                f"{name} = {count}, but MPI sees 1 process: {count} separate copies would run. "
                f"{_why_alone(environment)}. Start it with mpirun or srun --mpi=pmix of the MPI "
                "that `amst-hpc devices` names"
            )


def _why_alone(environment: Mapping[str, str]) -> str:
    """What the launcher gave, and why Open MPI could not use it."""
    if "PMIX_RANK" in environment:
        return "The launcher offered PMIx, but the MPI here could not reach it"
    if "PMI_RANK" in environment or "PMI_FD" in environment:
        return "The launcher speaks PMI (MPICH, Intel MPI, srun --mpi=pmi2), the MPI here only PMIx"
    return "The launcher offered no PMIx"


def describe_launch(environment: Mapping[str, str]) -> str:
    """What the launcher gave this process: its kind, PMI, number of tasks, node-local rank."""

    def first(*names: str) -> str:
        return next((environment[name] for name in names if environment.get(name)), "?")

    if "PMIX_RANK" in environment:
        pmi = f"PMIx {first('PMIX_VERSION')}"
    elif "PMI_RANK" in environment or "PMI_FD" in environment:
        pmi = "PMI " + first("PMI_VERSION", "PMI_SUBVERSION")
    else:
        pmi = "no PMI"
    if "OMPI_COMM_WORLD_SIZE" in environment:
        kind = "mpirun (Open MPI)"
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        kind = f"srun (--mpi={first('SLURM_MPI_TYPE')})"
    elif pmi != "no PMI":
        kind = "mpiexec"
    else:
        return "none: one process"
    tasks = first("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "PMI_SIZE")
    local = first("OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "MPI_LOCALRANKID")
    return f"{kind}, {pmi}: tasks {tasks}, local rank {local}"


def launch_of(comm: Any) -> tuple[str, str, bool]:
    """(what the launcher gave, what is wrong with it, is this its first task).

    The second is empty where nothing is wrong.
    """
    fault = ""
    try:
        refuse_copies(comm.size, os.environ)
    except InputError as error:
        fault = str(error)
    return describe_launch(os.environ), fault, comm.rank == 0 and _task(os.environ) == 0


def _task(environment: Mapping[str, str]) -> int:
    """The number of this process among those that the launcher started, MPI or not."""
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "PMI_RANK"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0


def launched() -> bool:
    """True if an MPI launcher started this process."""
    return any(name in os.environ for name in STARTED_BY_MPI)


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run `python -m amst_hpc ARGUMENTS` on `ranks` ranks of this machine; its exit code."""
    beside = Path(sys.executable).parent / "mpirun"
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun")
    if mpirun is None:
        raise InputError("mpirun: not found; install amst-hpc[all], or load the site's MPI")
    environment = dict(os.environ)
    # more ranks than cores, and root, are fine on one's own machine (names of OpenMPI 4 and 5)
    environment |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    command = [mpirun, "-n", str(ranks), sys.executable, "-m", "amst_hpc", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def mpi_library() -> str:
    """Name and version of the MPI in use."""
    from mpi4py import MPI

    return str(MPI.Get_library_version()).splitlines()[0].strip("\0 ")


def local_place(comm: Any) -> tuple[int, int]:
    """(rank on this node, ranks on this node)."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    place = (node.rank, node.size)
    node.Free()
    return place


def cores_per_rank(local_size: int) -> int:
    """Processor cores that this rank may use without taking those of its neighbours."""
    mine = len(os.sched_getaffinity(0))
    return max(1, mine // local_size) if mine == os.cpu_count() else mine


def memory_per_rank(local_size: int) -> int:
    """Bytes of free memory that this rank may count on.

    Of the node or of its cgroup, shared by its ranks.
    """
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    limits = [int(fields["MemAvailable"].split()[0]) * 1024]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    if os.environ.get("SLURM_MEM_PER_NODE", "").isdigit():
        limits.append(int(os.environ["SLURM_MEM_PER_NODE"]) << 20)
    return min(limits) // local_size


def batch_job() -> str:
    """The number of the Slurm job that this process is part of, empty outside of one."""
    return os.environ.get("SLURM_JOB_ID", "")


def array_task() -> str:
    """The index of the Slurm array task that this process is part of, empty outside of one."""
    return os.environ.get("SLURM_ARRAY_TASK_ID", "")


def restarts() -> int:
    """How often Slurm has started this job again (requeue, preemption, lost node)."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


@contextmanager
def scratch_folder(local_rank: int) -> Iterator[Path]:
    """A node-local folder of this rank alone, gone at the end."""
    with tempfile.TemporaryDirectory(
        prefix=f"amst_hpc_{local_rank}_", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def together(comm: Any, work: Callable[[], T]) -> T:
    """Run `work` on every rank; if it raises `InputError` on any, all raise the first one."""
    fault, result = "", None
    try:
        result = work()
    except InputError as error:
        fault = str(error)
    faults = [text for text in comm.allgather(fault) if text]
    if faults:
        raise InputError(faults[0])
    return result  # type: ignore[return-value]


@contextmanager
def guard(comm: Any) -> Iterator[None]:
    """End the whole job when this rank fails alone. Errors that all ranks share pass through."""
    try:
        yield
    except (InputError, Stopped):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None:
            log.error("%s", error)
        else:
            log.error("%s", "".join(traceback.format_exception(error)))
        log.error(
            "rank %d of %d failed: the job ends; the same command continues it",
            comm.rank,
            comm.size,
        )
        if comm.size == 1:
            raise SystemExit(1) from None
        sys.stderr.flush()
        comm.Abort(1)


def stop_at_once() -> None:
    """Until a `StopRequest` takes over, and after it, a stop signal ends the rank, with exit 75.

    Nothing is in hand then: what is on disk is whole, and the same command continues.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(EX_TEMPFAIL))


class StopRequest:
    """Set by SIGTERM, SIGUSR1 or SIGINT on any rank.

    Or by the file `flag` that a rank so told leaves for the others. Asking puts the handlers in
    place again: Intel's OpenCL sets its own as soon as a device is used, and they swallow all.
    """

    def __init__(self, flag: Path) -> None:
        self.flag = flag
        self.received = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name

    def __bool__(self) -> bool:
        for number in self._before:
            signal.signal(number, self._receive)
        if self.received and not self.flag.exists():
            self.flag.touch()
        return bool(self.received) or self.flag.exists()
