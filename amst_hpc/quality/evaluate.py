"""How well adjacent slices fit, in any stack, raw to aligned: shift, correlation and drift.

Each pair of adjacent slices is measured in a grid of areas (`adjacent`). `shift` and `ncc` are what
one sees, and they hold the tissue's own change from slice to slice: a stack aligned to its own
neighbours beats the truth in both. `jitter`, the shift without its slow part over z, and
`ncc_jump`, the correlation against that of the pairs before and after, do not hold it, and put
truth, aligned, pre-aligned and raw stacks in this order. A stack that was only interpolated gains
nothing in either. The loss of correlation, best minus actual, rises with the shift and hardly with
blur. Pairs that cannot be measured are counted and named, and enter no mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from amst_hpc.config import Coarse, InputError
from amst_hpc.geometry import split
from amst_hpc.images.opening import open_stacks
from amst_hpc.images.stack import SliceError, Stack
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.opencl.devices import prepare
from amst_hpc.parallel.communicator import on_all_ranks
from amst_hpc.parallel.node import cores_per_rank, local_place, scratch_folder
from amst_hpc.quality.adjacent import (
    Area,
    Measure,
    NoMatchError,
    low_pass,
    measure_pair,
)
from amst_hpc.quality.figures import Evaluation
from amst_hpc.quality.smoothed import SmoothedSlice
from amst_hpc.registration.coarse import Matcher
from amst_hpc.registration.correlation import cross_correlation
from amst_hpc.slice_result import RegistrationError
from amst_hpc.transform import FloatImage

LARGEST_AREA = 512  # px
CENTRAL = 0.8  # of a slice: the grid leaves out the borders, which an alignment moves in and out
DRIFT_SIGMA = 15.0  # slices: what is slower is drift


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate.

    reference : the stack that drift is measured against, usually the pre-alignment; empty: no
    drift. area : y0, y1, x0, x1 px instead of a grid of `grid` x `grid` areas. sigma : gaussian,
    px. method : phase (cross-correlation) or sift.
    """

    stacks: tuple[str, ...]
    reference: str = ""
    area: Area | None = None
    grid: int = 3
    sigma: float = 1.5
    method: str = "phase"
    range: tuple[int | None, int | None] = (None, None)
    voxel_size_nm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in ("phase", "sift"):
            raise InputError(f"--method {self.method}: expected phase or sift")
        if not 1 <= self.grid <= 16:
            raise InputError(f"--grid {self.grid}: expected 1 to 16")
        if not 0 <= self.sigma <= 100:
            raise InputError(f"--sigma {self.sigma}: expected a number from 0 to 100")
        sizes = self.voxel_size_nm
        if len(sizes) not in (0, 3) or not all(0 < v < math.inf for v in sizes):
            raise InputError("--voxel-size-nm: expected three numbers > 0 (z, y, x)")


def evaluate(options: EvaluationOptions, comm: Any) -> list[Evaluation]:
    """Measure every stack, the pairs shared out over the ranks;

    the same result on all. Raises `InputError`.
    """
    names = [*options.stacks, *([options.reference] if options.reference else [])]
    stacks = open_stacks([(name, "STACK") for name in names], comm)
    reference = stacks[-1] if options.reference else None
    with _ready_measure(options, comm) as measure:
        return [
            _evaluate_one(options, stack, reference, measure, comm)
            for stack in stacks[: len(options.stacks)]
        ]


@contextmanager
def _ready_measure(options: EvaluationOptions, comm: Any) -> Iterator[Measure]:
    """The method of the options; SIFT has a folder for its kernels meanwhile."""
    if options.method == "phase":
        yield cross_correlation
        return
    rank, _ = local_place(comm)
    with scratch_folder(rank) as scratch:
        prepare(scratch, cores_per_rank(comm))
        yield on_all_ranks(comm, lambda: _sift(rank))


def _sift(local_rank: int) -> Measure:
    matcher = Matcher(Coarse(method="sift", downsample=1), local_rank)
    if matcher.method != "sift":
        raise InputError(f"--method sift: {matcher.note}")

    def sift(fixed: FloatImage, moving: FloatImage) -> tuple[float, float]:
        try:
            x, y = matcher.estimate(fixed, moving).shift
        except RegistrationError as error:
            raise NoMatchError(str(error)) from None
        return y, x

    return sift


def _evaluate_one(
    options: EvaluationOptions, stack: Stack, reference: Stack | None, measure: Measure, comm: Any
) -> Evaluation:
    depth = len(stack.names)
    start, stop = (
        a if a is not None else b for a, b in zip(options.range, (0, depth), strict=True)
    )
    on_all_ranks(comm, lambda: _check(options, stack, reference, range(start, stop)))
    shape = stack.header(start).shape
    areas, whole = grid_areas(shape, options), _central(shape)
    compared = reference if reference is not None and reference.source != stack.source else None
    looked_at = [*areas, whole] if compared else areas
    share = split(stop - start, comm.size)[comm.rank]
    pairs, shifts = [], []
    before: SmoothedSlice | None = None
    with ProgressMeter(f"evaluate {stack.source}", len(share), 0, comm.rank == 0) as meter:
        for done, i in enumerate(share):
            z = start + i
            unread = before is None and i > 0
            this = _smooth((stack, z - 1), shape, options.sigma, areas) if unread else before
            before = _smooth((stack, z), shape, options.sigma, looked_at)
            if i:
                pairs.append(measure_pair(z - 1, this, before, areas, measure))
            if compared is not None:
                other = _smooth((compared, z), shape, options.sigma, [whole])
                shifts.append((z, measure_pair(z, other, before, [whole], cross_correlation)))
            if meter.due():
                meter.update(done)
    gathered = comm.allgather((pairs, shifts))
    pairs = [pair for part, _ in gathered for pair in part]
    to_reference = [pair for _, part in gathered for _, pair in part]
    offsets = np.array([(p.y, p.x) for p in to_reference])
    drift = low_pass(offsets, DRIFT_SIGMA) if to_reference else None
    voxel = options.voxel_size_nm or stack.header(start).voxel_size.nm
    return Evaluation(stack.source, start, pairs, drift, voxel)


def _check(
    options: EvaluationOptions, stack: Stack, reference: Stack | None, select: range
) -> None:
    depth = len(stack.names)
    if not 0 <= select.start < select.stop - 1 < depth:
        raise InputError(
            f"STACK {stack.source}: slices {select.start}:{select.stop} of {depth}; "
            "expected at least two"
        )
    height, width = stack.header(select.start).shape
    if options.area:
        y0, y1, x0, x1 = options.area
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise InputError(
                f"--area {y0}:{y1},{x0}:{x1}: expected a part of 0:{height},0:{width} (y, x)"
            )
    if reference is not None and len(reference.names) < select.stop:
        raise InputError(
            f"--reference {reference.source}: {len(reference.names)} slices, "
            f"expected {depth} as in {stack.source}"
        )
    other = (height, width) if reference is None else reference.header(select.start).shape
    if other != (height, width):
        raise InputError(
            f"--reference: size {other} (y, x), expected {height, width} as in {stack.source}"
        )


def _smooth(
    place: tuple[Stack, int], shape: tuple[int, int], sigma: float, areas: Sequence[Area]
) -> SmoothedSlice | None:
    """A slice as it is compared; None if it cannot be read."""
    try:
        return SmoothedSlice(place, shape, sigma, areas)
    except SliceError:
        return None


def grid_areas(shape: tuple[int, int], options: EvaluationOptions) -> list[Area]:
    """The areas of a (y, x) slice: a grid over its middle, none larger than `LARGEST_AREA`."""
    if options.area:
        return [options.area]
    spans = []
    for size in shape:
        edge = max(1, min(LARGEST_AREA, int(CENTRAL * size / options.grid)))
        middles = size * (
            (1 - CENTRAL) / 2 + CENTRAL * (np.arange(options.grid) + 0.5) / options.grid
        )
        spans.append([(int(m - edge / 2), int(m - edge / 2) + edge) for m in middles])
    return [(*y, *x) for y in spans[0] for x in spans[1]]


def _central(shape: tuple[int, int]) -> Area:
    edges = [min(2 * LARGEST_AREA, int(CENTRAL * size)) for size in shape]
    (y0, x0) = ((size - edge) // 2 for size, edge in zip(shape, edges, strict=True))
    return (y0, y0 + edges[0], x0, x0 + edges[1])
