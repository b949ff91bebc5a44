"""Another stack of the slices of a finished run, opened, paired with them and checked.

As RAW and PREALIGNED are (`images.pairing`): by the numbers in the names, or in their order where
the counts are the same and no name says anything else. Nothing is written here.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amst_hpc.config import Config, InputError
from amst_hpc.geometry import share_of
from amst_hpc.images.chunked import describe_unwritten
from amst_hpc.images.headers import Looked, read_header, stamp_of
from amst_hpc.images.names import number_fault
from amst_hpc.images.opening import open_stacks
from amst_hpc.images.paired import PairedStack
from amst_hpc.images.pairing import (
    Inputs,
    Job,
    name_fault,
    refuse_different_views,
    refuse_own_input,
)
from amst_hpc.images.stack import Header, Stack
from amst_hpc.job.finished_run import FinishedRun, Yx
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import scaled

log = logging.getLogger(__name__)
OTHER = "OTHER_RAW"
MISSING = "missing"
"""Status of a slice that the other stack lacks; it stays black."""
UNREADABLE = "unreadable"
NAMED = 4  # slices in a message


@dataclass(frozen=True)
class Application:
    """What is to be done with the transforms of a run, as named on the command line.

    job : its `raw` is OTHER_RAW. scale : pixels of OTHER_RAW in y and x for one of RAW. nearest :
    OTHER_RAW holds labels. add_to : the XML that is to show it, too, as `channel`.
    """

    run: Path
    job: Job
    scale: float = 1.0
    nearest: bool = False
    add_to: Path | None = None
    channel: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and 1 / 64 <= self.scale <= 64):
            raise InputError(f"--scale {self.scale:g}: expected a number from 1/64 to 64")
        if self.channel and self.add_to is None:
            raise InputError(f"--channel {self.channel}: expected --add-to OUT.xml with it")
        if not self.channel.isprintable():
            raise InputError(f"--channel {self.channel!r}: expected letters, digits and signs")


def open_counterpart(
    task: Application, run: FinishedRun, config: Config, comm: Communicator
) -> tuple[Inputs, list[SliceResult]]:
    """OTHER_RAW under the numbers of RAW, and what is applied to each slice; collective.

    The header of every slice is read, shared out over the ranks. Raises `InputError`.
    """
    job = task.job
    [other] = open_stacks([(job.raw, OTHER)], comm)
    refuse_different_views(other, other, comm)
    for note in describe_unwritten(other) if comm.rank == 0 else []:
        log.info("%s %s", OTHER, note)
    on_all_ranks(comm, lambda: refuse_own_input(job, other, other))
    select = on_all_ranks(comm, lambda: _select(job.range, run))
    places = on_all_ranks(comm, lambda: pair_slices(job, other, run, select, config))
    there = [z for z in select if z in places]
    names = {r.z: r.file for r in run.results}
    stack = PairedStack(other, places, [names.get(z, "") for z in range(run.depth)])
    faults, looked = _look_at_slices(stack, there, task, run, comm)
    if fault := name_fault(job.out, config.output):
        faults.append(f"OUT {job.out}: {fault}")
    if len({stack.names[z] for z in select}) < len(select):
        faults.append(f"{OTHER} {other.source}: lacks slices that others have the names of")
    if faults:
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more)" if faults[1:] else ""))
    first = looked.first["raw"]
    shape = scaled_shape(run.shape, run.raw_size(there[0]), first.shape, task.scale)
    applied = {"transforms": run.digest, "canvas": list(shape), "scale": task.scale}
    applied["nearest"] = task.nearest
    inputs = Inputs(stack, stack, run.depth, shape, first.dtype, select, applied=applied)
    inputs = replace(inputs, looked=looked)
    return inputs, [_applied(r, stack, task.scale) for r in run.results if r.z in select]


def _look_at_slices(
    stack: PairedStack,
    there: Sequence[int],
    task: Application,
    run: FinishedRun,
    comm: Communicator,
) -> tuple[list[str], Looked]:
    """What is wrong with the slices, and what was seen of them (on rank 0); collective."""
    first = on_rank_0(comm, lambda: read_header(stack, there[0], OTHER))
    stamps: dict[int, str] = {}
    sizes: dict[int, Yx] = {}
    faults: dict[str, None] = {}
    for z in share_of(there, comm.size, comm.rank):
        stamps[z] = stamp_of(stack, z)
        fault, sizes[z] = slice_fault(stack, z, first, task, run)
        faults |= {fault: None} if fault else {}
    parts = comm.gather((stamps, sizes)) or []
    stamps = {z: stamp for part, _ in parts for z, stamp in part.items()}
    sizes = {z: yx for _, part in parts for z, yx in part.items() if yx != first.shape}
    found = dict.fromkeys(f for part in comm.allgather([*faults]) for f in part)
    return [*found], Looked({"raw": first}, {"raw": stamps}, sizes)


def _select(wanted: tuple[int | None, int | None], run: FinishedRun) -> range:
    """The slices to write, by their numbers in RAW."""
    whole = run.select
    start = whole.start if wanted[0] is None else wanted[0]
    stop = whole.stop if wanted[1] is None else wanted[1]
    if not whole.start <= start < stop <= whole.stop:
        raise InputError(
            f"--range {start}:{stop}: expected a part of {whole.start}:{whole.stop}, the slices of "
            f"{run.out}"
        )
    return range(start, stop)


def pair_slices(
    job: Job, other: Stack, run: FinishedRun, select: range, config: Config
) -> dict[int, int]:
    """The place in `other` of each slice of RAW that it has; for `select` at least one.

    Raises `InputError` where it is not known which belongs to which, and, unless asked not to, for
    slices that are missing.
    """
    count, numbers = len(other.names), run.numbers
    known = config.input.pair_by == "number" and numbers is not None and other.numbers is not None
    if count == run.depth or not known:
        if count != run.depth and not (
            config.input.pair_by == "position" and job.allow_count_mismatch
        ):
            raise InputError(
                f"{OTHER} {other.source} has {count} slices, RAW of {run.out} {run.depth}: "
                "expected the same number, or names whose numbers say which slice is which"
            )
        if known:
            _refuse_other_numbers(other, run)
        places = {z: z for z in run.select if z < count}
    else:
        places = _pair_by_number(other, run)
    missing = [z for z in select if z not in places]
    if len(missing) == len(select) or (missing and not job.allow_count_mismatch):
        names = {r.z: r.file for r in run.results}
        raise InputError(
            f"{OTHER} {other.source} lacks {len(missing)} of {len(select)} slices of {run.out} "
            f"({shorten([names[z] for z in missing])}); expected all (--range A:B writes a part, "
            "--allow-count-mismatch leaves them black)"
        )
    return places


def _refuse_other_numbers(other: Stack, run: FinishedRun) -> None:
    """As many slices as RAW has: their numbers may begin anew, but not leave out another one."""
    theirs = (other.numbers or [])[run.select.start : run.select.stop]
    fault = number_fault(run.numbers or [], theirs)
    anew = fault is not None and fault[1] == "another first number" and other.numbers
    if fault and not (anew and anew[0] in (0, 1)):
        z, why = run.select[fault[0]], fault[1]
        raise InputError(
            f"{OTHER} {other.source} and RAW of {run.out}: the numbers disagree ({why}): "
            f"{other.names[z]} beside {run.results[fault[0]].file}; expected those of the same "
            "slice (input.pair_by=position leaves the names alone)"
        )


def _pair_by_number(other: Stack, run: FinishedRun) -> dict[int, int]:
    """Each slice of `other` whose number RAW has. Raises `InputError` for one in between."""
    of_raw = dict(zip(run.numbers or [], run.select, strict=True))
    places = {of_raw[n]: i for i, n in enumerate(other.numbers or []) if n in of_raw}
    for i, n in enumerate(other.numbers or []):
        if n not in of_raw and min(of_raw) < n < max(of_raw):
            raise InputError(
                f"{OTHER} {other.source} slice {other.names[i]}: RAW of {run.out} has no slice of "
                f"this number; expected those of {run.results[0].file} to {run.results[-1].file}"
            )
    return places


def slice_fault(
    stack: PairedStack, z: int, first: Header, task: Application, run: FinishedRun
) -> tuple[str, Yx]:
    """What is wrong with a slice: unreadable, cut short, of another size or dtype (else empty); and
    its size.
    """
    try:
        header = read_header(stack, z, OTHER)
    except InputError as error:
        return str(error), first.shape
    name = f"{OTHER} {stack.source} slice {stack.names[z]}"
    if header.dtype != first.dtype:
        return (
            f"{name}: dtype {header.dtype}, expected {first.dtype} as in the first one",
            first.shape,
        )
    raw = run.raw_size(z)
    if not fits(header.shape, raw, task.scale):
        fitting = find_scale(header.shape, raw)
        told = f"--scale {fitting:g} would fit" if fitting else "no --scale would fit"
        fault = (
            f"{name}: size {header.shape} (y, x), RAW of {run.out} {raw}: expected --scale "
            f"{task.scale:g} times as large; {told}"
        )
        return fault, header.shape
    return "", header.shape


def fits(size: Yx, raw: Yx, scale: float) -> bool:
    """True if a slice has `scale` times the size of raw; binning may have left out a rest."""
    return all(abs(n - scale * r) < max(1, scale) for n, r in zip(size, raw, strict=True))


def find_scale(size: Yx, raw: Yx) -> float:
    """The scale that fits: a whole number, one over it, or quarters; 0: none does."""
    ratio = size[1] / raw[1]
    tries = [float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio), round(4 * ratio) / 4]
    return next((s for s in tries if 1 / 64 <= s <= 64 and fits(size, raw, s)), 0.0)


def scaled_shape(canvas: Yx, raw: Yx, size: Yx, scale: float) -> Yx:
    """The canvas at `scale`, and the rest that binning has left out of raw."""
    found = (
        round(scale * c) + n - round(scale * r) for c, r, n in zip(canvas, raw, size, strict=True)
    )
    y, x = (max(1, n) for n in found)
    return y, x


def _applied(result: SliceResult, stack: PairedStack, scale: float) -> SliceResult:
    """What becomes of a slice: the transform of the run, in pixels of the other stack."""
    found = SliceResult(result.z, stack.names[result.z], status=result.status, reason=result.reason)
    if result.transform is None:
        return replace(found, blank=True, status="blank")
    if result.z not in stack.places:
        return replace(found, blank=True, status=MISSING, reason=f"{OTHER} has no such slice")
    exact = result.transform if scale == 1 else scaled(result.transform, scale)
    return replace(found, transform=exact)


def find_late_changes(stack: Stack, before: Mapping[int, str], now: Mapping[int, str]) -> None:
    """Raises OSError where slices got other pixels while the job ran; stamps by number in RAW.

    What cannot be read any more has served its turn.
    """
    others = [stack.names[z] for z, stamp in before.items() if stamp != now[z] != ""]
    if others:
        reason = f"{OTHER} {shorten(others)}: got other pixels while the job ran"
        raise OSError(errno.EIO, f"{reason}; the same command writes them again")


def shorten(names: Sequence[str]) -> str:
    """A few of the names, and how many there are more."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def reasons(results: Sequence[SliceResult], unreadable: Mapping[int, str]) -> list[SliceResult]:
    """The results when it is known which slices could not be read; they are black."""
    return [
        replace(r, blank=True, status=UNREADABLE, reason=unreadable[r.z], transform=None)
        if r.z in unreadable
        else r
        for r in results
    ]
