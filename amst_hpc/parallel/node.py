"""What a rank may use of its node: its place among the ranks there, cores, memory, scratch."""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from amst_hpc.config import InputError

log = logging.getLogger(__name__)

SCRATCH_BYTES = 2**24


@contextmanager
def _ranks_of_node(comm: Any) -> Iterator[Any]:
    """A communicator of the ranks on this node; collective."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        yield node
    finally:
        node.Free()


def local_place(comm: Any) -> tuple[int, int]:
    """(rank on this node, ranks on this node); collective."""
    with _ranks_of_node(comm) as node:
        return node.rank, node.size


def cores_per_rank(comm: Any) -> int:
    """Processor cores that this rank may use without taking those of its neighbours; collective.

    From what the launcher has bound each rank of the node to; one call per process is enough.
    """
    mine = os.sched_getaffinity(0)
    with _ranks_of_node(comm) as node:
        return share_of_cores(mine, node.allgather(mine))


def share_of_cores(mine: Set[int], everyone: Sequence[Set[int]]) -> int:
    """A core that n ranks may use counts 1/n for each of them; at least 1.

    mine : the cores that a rank may use. everyone : those of each rank of its node, this one too.
    """
    ranks = Counter(core for cores in everyone for core in cores)
    return max(1, int(sum(Fraction(1, ranks[core]) for core in mine)))


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


def restarts() -> int:
    """How often Slurm has started this job again (requeue, preemption, lost node)."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


@contextmanager
def scratch_folder(local_rank: int) -> Iterator[Path]:
    """A node-local folder of this rank alone, gone at the end.

    Raises `InputError` where there is none, or no room in it.
    """
    try:
        made = tempfile.TemporaryDirectory(
            prefix=f"amst_hpc_{local_rank}_", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise InputError(f"TMPDIR: {error.strerror}; expected a folder of the node") from None
    with made as folder:
        wanted, space = os.environ.get("TMPDIR", ""), os.statvfs(folder)
        free = space.f_bavail * space.f_frsize
        if wanted and Path(folder).parent.resolve() != Path(wanted).resolve():
            log.warning("TMPDIR %s cannot be written: %s is taken", wanted, Path(folder).parent)
        if free < SCRATCH_BYTES:
            raise InputError(
                f"TMPDIR {Path(folder).parent}: {free / 1e9:.3f} GB free; expected "
                f"{SCRATCH_BYTES / 1e9:.3f} for compiled kernels and the files of elastix"
            )
        yield Path(folder)
