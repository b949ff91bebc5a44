"""What becomes of each slice: the one policy for slices that could not be registered well.

The rungs, best first: `affine` (elastix); `translation` (the coarse shift); `prealigned` (the shift
that its own pre-aligned slice shows); `interpolated` (between the nearest good neighbours);
`copied` (one good neighbour); `blank`, `unreadable` (a black slice, one that cannot be read: no
transform). A rung is left when its result is implausible against the slices around it, or no better
than chance gives (`chance`). Beside them stands `repeated`: the slice before was stored twice, and
both have its transform. The decision looks at the whole stack and at data alone, so it is the same
on every rank and for every number of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Matrix, displacement, translation

NEIGHBOURS = 40
SPREAD = 10.0
LEAST_DEVIATION_PX = 3.0
LEAST_DEVIATION = 0.01
WORSE = 0.02
LOW_SCORE = 0.5
ANCHORS = ("affine", "translation")  # what slices without a transform of their own follow


def choose_transforms(slices: Sequence[SliceResult], shape: tuple[int, int]) -> list[SliceResult]:
    """The slices with their status, transform and reason; `shape` (y, x) of the template."""
    good = [s.affine is not None and s.shift is not None for s in slices]
    faults = [""] * len(slices)
    for i, fault in _implausible(slices, good, shape):
        faults[i] = fault
    chosen = [
        _own(s, fault, _usual_start(slices, i))
        for i, (s, fault) in enumerate(zip(slices, faults, strict=True))
    ]
    anchors = [i for i, s in enumerate(chosen) if s is not None and s.status in ANCHORS]
    decided: list[SliceResult] = []
    for i, s in enumerate(chosen):
        first = decided[-1] if decided and _is_repeated(slices[i - 1], slices[i]) else None
        if first is not None:
            reason = f"the same pixels as slice {first.z}"
            decided.append(_chosen(slices[i], "repeated", first.transform, reason))
        else:
            decided.append(s if s is not None else from_neighbours(slices[i], chosen, anchors, i))
    return decided


def _is_repeated(before: SliceResult, s: SliceResult) -> bool:
    """True if the slice was stored twice. A second scan has noise of its own, and may as well be a
    slice that was cut thin: it is none.
    """
    return s.z == before.z + 1 and s.crc is not None and s.crc == before.crc


def _chosen(s: SliceResult, status: str, transform: Matrix | None, reason: str = "") -> SliceResult:
    return replace(s, status=status, transform=transform, reason=reason)


def _implausible(
    slices: Sequence[SliceResult], good: list[bool], shape: tuple[int, int]
) -> list[tuple[int, str]]:
    """The affine results that stand out, with the reason."""
    index = [i for i, ok in enumerate(good) if ok]
    if not index:
        return []
    moves = np.array([_move(slices[i], shape) for i in index])
    found = []
    for row, i in enumerate(index):
        s = slices[i]
        near = slice(max(0, row - NEIGHBOURS), row + NEIGHBOURS + 1)
        limit = max(LEAST_DEVIATION_PX, LEAST_DEVIATION * max(shape), SPREAD * _spread(moves[near]))
        away = float(np.abs(moves[row] - np.median(moves[near], axis=0)).max())
        if s.metric < s.start - WORSE:
            found.append((i, f"correlation {s.metric:.3f} worse than {s.start:.3f} before"))
        elif away > limit:
            found.append((i, f"corners {away:.1f} px from the usual, more than {limit:.1f}"))
    return found


def _move(s: SliceResult, shape: tuple[int, int]) -> NDArray[np.float64]:
    """What the affine adds to the coarse shift at the four corners, (8,) px."""
    if s.affine is None or s.shift is None:
        raise ValueError(f"slice {s.z}: needs both transforms")
    return (displacement(s.affine, shape) - displacement(s.shift, shape)).ravel()


def _spread(moves: NDArray[np.float64]) -> float:
    """Largest robust standard deviation (1.4826 MAD) of any corner coordinate, px."""
    middle = np.median(moves, axis=0)
    return float(1.4826 * np.median(np.abs(moves - middle), axis=0).max())


def _usual_start(slices: Sequence[SliceResult], i: int) -> float:
    """Median correlation at the coarse shift around slice i; 0 where nothing is known."""
    near = [
        s.start for s in slices[max(0, i - NEIGHBOURS) : i + NEIGHBOURS + 1] if s.shift is not None
    ]
    return float(np.median(near)) if near else 0.0


def _own(s: SliceResult, fault: str, usual: float) -> SliceResult | None:
    """The slice on the best rung that its own results reach."""
    if s.blank:
        status = "unreadable" if s.unreadable else "blank"
        return _chosen(s, status, None, s.reason or "black or constant slice")
    low = s.shift is not None and s.start < LOW_SCORE * usual and not s.metric >= LOW_SCORE * usual
    by_chance = _by_chance(s)
    reason = (
        s.reason
        or fault
        or by_chance
        or (f"correlation {s.start:.3f} where {usual:.3f} is usual" if low else "")
    )
    low = low or bool(by_chance)
    if s.affine is not None and not fault and not low:
        return _chosen(s, "affine", s.affine)
    if s.shift is not None and not low:
        return _chosen(s, "translation", s.shift, reason)
    if s.prealigned is not None:
        return _chosen(s, "prealigned", s.prealigned, reason)
    return None


def _by_chance(s: SliceResult) -> str:
    """That the slice is no more like its template than by chance; empty: it is, or nobody knows."""
    return f"correlation {s.start:.3f}, as by chance" if s.over_chance <= 1 else ""


def from_neighbours(
    s: SliceResult, chosen: Sequence[SliceResult | None], anchors: Sequence[int], i: int
) -> SliceResult:
    """Slice s, the i-th: linear in z between the nearest good slices, or the nearest one's.

    anchors : positions of the good ones in `chosen`, ascending.
    """
    reason = s.reason or _by_chance(s) or "no plausible registration"
    left, right = bisect_left(anchors, i), bisect_right(anchors, i)
    before = anchors[left - 1] if left else None
    after = anchors[right] if right < len(anchors) else None
    matrices = {
        a: near.transform
        for a in (before, after)
        if a is not None and (near := chosen[a]) is not None and near.transform is not None
    }
    if before is not None and after is not None:
        part = (i - before) / (after - before)
        between = (1 - part) * matrices[before] + part * matrices[after]
        return _chosen(s, "interpolated", between, reason)
    for matrix in matrices.values():
        return _chosen(s, "copied", matrix, reason)
    return _chosen(s, "copied", translation(0, 0), reason)
