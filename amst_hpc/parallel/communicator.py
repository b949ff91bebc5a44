"""The communicator, and how an error on one rank ends the job on all.

Only this room imports mpi4py. Every rank makes the same collective calls in the same order; an
error on one rank alone ends the whole job (`guard`), since the others wait for it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

from amst_hpc.config import InputError
from amst_hpc.parallel.crash import describe_error
from amst_hpc.parallel.launch import provide_home, refuse_copies
from amst_hpc.parallel.signals import Stopped

log = logging.getLogger(__name__)

MEET_SECONDS = 0.005
T = TypeVar("T")


class Communicator(Protocol):
    """What this program calls of an mpi4py communicator; the methods in capitals take buffers."""

    @property
    def rank(self) -> int:
        """Number of this process, 0 to size - 1."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The object of `root`, on all ranks."""

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        """The objects of all ranks, in their order, on `root`."""

    def allgather(self, obj: Any) -> list[Any]:
        """The objects of all ranks, in their order, on all."""

    def send(self, obj: Any, dest: int) -> None:
        """Returns when the object may be changed."""

    def isend(self, obj: Any, dest: int) -> Any:
        """A request, whose `wait` returns when the object is sent."""

    def iprobe(self, source: int = ..., tag: int = ...) -> bool:
        """True if an object can be received."""

    def recv(self, buf: Any = ..., source: int = ...) -> Any:
        """The next object that was sent."""

    def Barrier(self) -> None:
        """Returns when all ranks have called it."""

    def Ibarrier(self) -> Any:
        """A request that is done when all ranks have called it."""

    def Dup(self) -> Any:
        """The same ranks, with messages of their own."""

    def Split_type(self, split_type: int) -> Any:
        """The ranks of this node."""

    def Free(self) -> None:
        """The communicator is used no more."""

    def Abort(self, errorcode: int = 0) -> Any:
        """End all ranks."""


def world(copies: bool = False) -> Communicator:
    """`MPI.COMM_WORLD`.

    Raises `InputError` where MPI is missing or, unless `copies`, N separate copies were started.
    """
    os.environ.setdefault("OMPI_MCA_io", "^ompio")  # has hung with HDF5
    os.environ.setdefault(
        "HDF5_USE_FILE_LOCKING", "FALSE"
    )  # all writers are ours; NFS and Lustre refuse locks
    provide_home(os.environ)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"MPI cannot be loaded ({error}): install amst-hpc[all], or load the site's MPI"
        ) from None
    comm = cast(Communicator, MPI.COMM_WORLD)
    if not copies:
        refuse_copies(comm.size, os.environ)
    return comm


def on_all_ranks(comm: Communicator, work: Callable[[], T]) -> T:
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


def on_rank_0(comm: Communicator, work: Callable[[], T]) -> T:
    """Run `work` on rank 0 alone; all get its result, or raise its `InputError`."""
    fault, result = "", None
    if comm.rank == 0:
        try:
            result = work()
        except InputError as error:
            fault = str(error)
    meet(comm)
    found: tuple[str, T] = comm.bcast((fault, result))
    if found[0]:
        raise InputError(found[0])
    return found[1]


def meet(comm: Communicator) -> None:
    """Returns when all ranks are here; meanwhile they sleep, where MPI would have them spin."""
    if comm.size == 1:
        return
    arrived = comm.Ibarrier()
    while not arrived.Test():
        time.sleep(MEET_SECONDS)


def part(comm: Communicator) -> bool:
    """The ranks have nothing more to do together; collective. True on rank 0, which may go on while
    the others end. MPI is over then, and `comm` of no use.
    """
    first = comm.rank == 0
    if comm.size > 1:
        from mpi4py import MPI

        MPI.Finalize()
    return first


@contextmanager
def guard(comm: Communicator) -> Iterator[None]:
    """End the whole job when this rank fails alone. Errors that all ranks share pass through."""
    try:
        yield
    except (InputError, Stopped):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None:
            log.error("%s", error)
        else:
            log.error("%s", describe_error(error))
        log.error(
            "rank %d of %d failed: the job ends; the same command continues it",
            comm.rank,
            comm.size,
        )
        if comm.size == 1:
            raise SystemExit(1) from None
        sys.stderr.flush()
        comm.Abort(1)


def threads_allowed() -> bool:
    """True if any thread may call MPI at any time."""
    from mpi4py import MPI

    return bool(MPI.Query_thread() == MPI.THREAD_MULTIPLE)


def io_hints(values: Mapping[str, str]) -> Any:
    """An MPI.Info of these."""
    from mpi4py import MPI

    info = MPI.Info.Create()
    for name, value in values.items():
        info.Set(name, value)
    return info


def mpi_library() -> str:
    """Name and version of the MPI in use."""
    from mpi4py import MPI

    return str(MPI.Get_library_version()).splitlines()[0].strip("\0 ")
