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

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.adjacent import (
    Area,
    Float,
    Measure,
    NoMatchError,
    Pair,
    cross_correlation,
    jitter,
    low_pass,
    measure_pair,
)
from amst_hpc.coarse import CoarseError, Matcher
from amst_hpc.config import Coarse, InputError
from amst_hpc.geometry import split
from amst_hpc.opencl import prepare
from amst_hpc.parallel import cores_per_rank, local_place, scratch_folder, together
from amst_hpc.progress import Meter
from amst_hpc.stack import SliceError, Stack, open_stack

LARGEST_AREA = 512  # px
CENTRAL = 0.8  # of a slice: the grid leaves out the borders, which an alignment moves in and out
COLUMNS = (
    "stack", "z", "shift_y", "shift_x", "shift", "ncc", "ncc_best", "areas", "areas_failed",
    "drift_y", "drift_x", "reason",
)  # fmt: skip
DRIFT_SIGMA = 15.0  # slices: what is slower is drift


@dataclass(frozen=True)
class Question:
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
        if not self.sigma >= 0:
            raise InputError(f"--sigma {self.sigma}: expected a number >= 0")
        if len(self.voxel_size_nm) not in (0, 3) or not all(v > 0 for v in self.voxel_size_nm):
            raise InputError("--voxel-size-nm: expected three numbers > 0 (z, y, x)")


@dataclass(frozen=True)
class Evaluation:
    """The figures of one stack; `drift` (z, yx) px against the reference, nan if not measured."""

    source: str
    first: int
    pairs: list[Pair]
    drift: NDArray[np.float64] | None
    voxel_size_nm: tuple[float, ...]


def evaluate(question: Question, comm: Any) -> list[Evaluation]:
    """Measure every stack, the pairs shared out over the ranks;

    the same result on all. Raises `InputError`.
    """
    names = [*question.stacks, *([question.reference] if question.reference else [])]
    stacks = together(comm, lambda: [open_stack(name, "STACK") for name in names])
    reference = stacks[-1] if question.reference else None
    with _measurer(question, comm) as measure:
        return [
            _evaluate_one(question, stack, reference, measure, comm)
            for stack in stacks[: len(question.stacks)]
        ]


@contextmanager
def _measurer(question: Question, comm: Any) -> Iterator[Measure]:
    """The method of the question; SIFT has a folder for its kernels meanwhile."""
    if question.method == "phase":
        yield cross_correlation
        return
    rank, size = local_place(comm)
    with scratch_folder(rank) as scratch:
        prepare(scratch, cores_per_rank(size))
        yield together(comm, lambda: _sift(rank))


def _sift(local_rank: int) -> Measure:
    matcher = Matcher(Coarse(method="sift", downsample=1), local_rank)
    if matcher.method != "sift":
        raise InputError(f"--method sift: {matcher.note}")

    def sift(fixed: Float, moving: Float) -> tuple[float, float]:
        try:
            x, y = matcher.estimate(fixed, moving).shift
        except CoarseError as error:
            raise NoMatchError(str(error)) from None
        return y, x

    return sift


def _evaluate_one(
    question: Question, stack: Stack, reference: Stack | None, measure: Measure, comm: Any
) -> Evaluation:
    depth = len(stack.names)
    start, stop = (
        a if a is not None else b for a, b in zip(question.range, (0, depth), strict=True)
    )
    together(comm, lambda: _check(question, stack, reference, range(start, stop)))
    areas = grid_areas(stack.header(start).shape, question)
    share = split(stop - start, comm.size)[comm.rank]
    pairs, shifts = [], []
    before: Float | None = None
    with Meter(f"evaluate {stack.source}", len(share), 0, comm.rank == 0) as meter:
        for done, i in enumerate(share):
            z = start + i
            this = _smooth_slice(stack, z - 1, question) if before is None and i else before
            before = _smooth_slice(stack, z, question)
            if i:
                pairs.append(measure_pair(z - 1, this, before, areas, measure))
            if reference is not None and reference.source != stack.source:
                other = _smooth_slice(reference, z, question)
                whole = [_central(stack.header(start).shape)]
                shifts.append((z, measure_pair(z, other, before, whole, cross_correlation)))
            if meter.due():
                meter.tell(done)
    gathered = comm.allgather((pairs, shifts))
    pairs = [pair for part, _ in gathered for pair in part]
    to_reference = [pair for _, part in gathered for _, pair in part]
    offsets = np.array([(p.y, p.x) for p in to_reference])
    drift = low_pass(offsets, DRIFT_SIGMA) if to_reference else None
    voxel = question.voxel_size_nm or read_voxel_size_nm(stack.source)
    return Evaluation(stack.source, start, pairs, drift, voxel)


def _check(question: Question, stack: Stack, reference: Stack | None, select: range) -> None:
    depth = len(stack.names)
    if not 0 <= select.start < select.stop - 1 < depth:
        raise InputError(
            f"STACK {stack.source}: slices {select.start}:{select.stop} of {depth}; "
            "expected at least two"
        )
    height, width = stack.header(select.start).shape
    if question.area:
        y0, y1, x0, x1 = question.area
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise InputError(
                f"--area {y0}:{y1},{x0}:{x1}: expected a part of 0:{height},0:{width} (y, x)"
            )
    if reference is not None and len(reference.names) < select.stop:
        raise InputError(
            f"--reference {reference.source}: {len(reference.names)} slices, "
            f"expected {depth} as in {stack.source}"
        )


def _smooth_slice(stack: Stack, z: int, question: Question) -> Float | None:
    """A slice (y, x) as it is compared; None if it cannot be read."""
    try:
        image = stack.read(z).astype(np.float32)
    except SliceError:
        return None
    return np.asarray(ndimage.gaussian_filter(image, question.sigma), np.float32)


def grid_areas(shape: tuple[int, int], question: Question) -> list[Area]:
    """The areas of a (y, x) slice: a grid over its middle, none larger than `LARGEST_AREA`."""
    if question.area:
        return [question.area]
    spans = []
    for size in shape:
        edge = max(1, min(LARGEST_AREA, int(CENTRAL * size / question.grid)))
        middles = size * (
            (1 - CENTRAL) / 2 + CENTRAL * (np.arange(question.grid) + 0.5) / question.grid
        )
        spans.append([(int(m - edge / 2), int(m - edge / 2) + edge) for m in middles])
    return [(*y, *x) for y in spans[0] for x in spans[1]]


def _central(shape: tuple[int, int]) -> Area:
    edges = [min(2 * LARGEST_AREA, int(CENTRAL * size)) for size in shape]
    (y0, x0) = ((size - edge) // 2 for size, edge in zip(shape, edges, strict=True))
    return (y0, y0 + edges[0], x0, x0 + edges[1])


def _shifts(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return np.array([(p.y, p.x) for p in pairs])


def ncc_jumps(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """|correlation - mean of the pairs before and after|; nan where one of the three is missing."""
    ncc = np.array([p.ncc for p in pairs])
    return np.asarray(np.abs(ncc[1:-1] - (ncc[:-2] + ncc[2:]) / 2))


def read_voxel_size_nm(source: str) -> tuple[float, ...]:
    """z, y, x in nm from the BigDataViewer XML at, or beside, the stack;

    empty where it is not known.
    """
    path = Path(source.partition(":/")[0]).with_suffix(".xml")
    if not path.is_file():
        return ()
    try:
        root = ElementTree.parse(path)
    except ElementTree.ParseError:
        return ()
    unit = root.findtext(".//voxelSize/unit", "")
    size = root.findtext(".//voxelSize/size", "").split()
    scale = {"nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "micrometer": 1e3}.get(unit.strip())
    if scale is None or len(size) != 3:
        return ()
    return tuple(float(v) * scale for v in reversed(size))


def statistics(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float | None]:
    """Mean, median, std, max and 95 % of the finite values; None where there are none."""
    finite = np.array(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    names: dict[str, Callable[[NDArray[np.float64]], Any]] = {
        "mean": np.mean,
        "median": np.median,
        "std": np.std,
        "max": np.max,
        "p95": lambda v: np.percentile(v, 95),
    }
    return {n: round(float(f(finite)), 5) if len(finite) else None for n, f in names.items()}


def summarise(found: Evaluation) -> dict[str, Any]:
    """The figures of a stack: statistics over the measured pairs, and what failed."""
    failed = [p for p in found.pairs if p.reason]
    ncc = np.array([p.ncc for p in found.pairs])
    loss = np.array([p.ncc_best for p in found.pairs]) - ncc
    figures: dict[str, Any] = {
        "stack": found.source,
        "pairs": len(found.pairs),
        "pairs_failed": len(failed),
        "failed": [{"z": p.z, "reason": p.reason} for p in failed],
        "areas_failed": sum(p.areas_failed for p in found.pairs),
        "jitter_px": statistics(np.hypot(*jitter(_shifts(found.pairs)).T)),
        "shift_px": statistics([p.length for p in found.pairs]),
        "ncc": statistics(ncc) | {"min": _least(ncc)},
        "ncc_jump": statistics(ncc_jumps(found.pairs)),
        "ncc_loss": statistics(loss),
    }
    if found.drift is not None:
        figures["drift_px"] = statistics(np.hypot(*found.drift.T))
    if found.voxel_size_nm:
        figures["voxel_size_nm"] = list(found.voxel_size_nm)
        _, y, x = found.voxel_size_nm
        figures["jitter_nm"] = statistics(np.hypot(*(jitter(_shifts(found.pairs)) * (y, x)).T))
        figures["shift_nm"] = statistics(np.hypot(*(_shifts(found.pairs) * (y, x)).T))
        if found.drift is not None:
            figures["drift_nm"] = statistics(np.hypot(*(found.drift * (y, x)).T))
    return figures


def _least(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return round(float(finite.min()), 5) if len(finite) else None


def parse_area(text: str | None) -> Area | None:
    """`Y0:Y1,X0:X1` in px. Raises `InputError`."""
    if text is None:
        return None
    numbers = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if numbers is None:
        raise InputError(f"--area {text}: expected Y0:Y1,X0:X1, four pixel numbers")
    y0, y1, x0, x1 = (int(n) for n in numbers.groups())
    return y0, y1, x0, x1


def parse_voxel_size(text: str) -> tuple[float, ...]:
    """`Z,Y,X` in nm; empty for none. Raises `InputError`."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--voxel-size-nm {text}: expected three numbers, Z,Y,X") from None


def write_files(evaluations: Sequence[Evaluation], name: Path) -> None:
    """NAME.csv and NAME.json. Raises `InputError` where they cannot be written."""
    for suffix, text in ((".csv", to_csv(evaluations)), (".json", to_json(evaluations))):
        path = name.with_name(name.name + suffix)
        try:
            path.write_text(text)
        except OSError as error:
            raise InputError(f"--out {path}: cannot be written ({error.strerror})") from None


def to_json(evaluations: Sequence[Evaluation]) -> str:
    """All figures."""
    return json.dumps([summarise(found) for found in evaluations], indent=1)


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """One line per stack and pair; empty cells where a pair failed."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for found in evaluations:
        for p in found.pairs:
            drift = (float("nan"),) * 2 if found.drift is None else found.drift[p.z - found.first]
            values = [_cell(v) for v in (p.y, p.x, p.length, p.ncc, p.ncc_best)]
            row = [found.source, p.z, *values, p.areas, p.areas_failed]
            writer.writerow([*row, *(_cell(float(v)) for v in drift), p.reason])
    return table.getvalue()


def _cell(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def to_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """A table for the terminal: what fails and jitters, first."""
    columns = ("failed", "jitter", "median", "95 %", "max", "shift", "ncc", "jump", "drift")
    lines = [f"{'between adjacent slices, px':<32}" + "".join(f"{name:>9}" for name in columns)]
    for found in evaluations:
        figures = summarise(found)
        cells = [f"{figures['pairs_failed']}/{figures['pairs']}"]
        values = [figures["jitter_px"][key] for key in ("mean", "median", "p95", "max")]
        values += [figures[key]["mean"] for key in ("shift_px", "ncc", "ncc_jump")]
        values.append(figures["drift_px"]["mean"] if "drift_px" in figures else None)
        cells += ["-" if v is None else f"{v:.3f}" for v in values]
        lines.append(f"{found.source[-31:]:<32}" + "".join(f"{cell:>9}" for cell in cells))
    for found in evaluations:
        if found.voxel_size_nm:
            nm = summarise(found)["jitter_nm"]
            lines.append(f"{found.source}: jitter {nm['mean']} nm, 95 % {nm['p95']} nm")
    return lines
