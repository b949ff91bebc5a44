"""One transform for every slice of the stack, from all that was measured.

Unknown is for each slice a small affine correction x(z) of the transform that the template gave it.
Known are the pairs of neighbours, `x(z + k) - x(z)`, exact from slice to slice but drifting over
many, and two absolute ones: the template (x = 0), whose errors are smooth, and the slice's own
pre-alignment, whose errors are larger but change from slice to slice. One robust sparse least
squares over the stack joins them.

All numbers are px in orthonormal modes of the slice (1, sqrt(3) xi, sqrt(3) eta, for x and y). The
weight of a pair is 1 / (5 tissue)^2, tissue of `PairResult`, the median of its distance k, and less
beside nearer pairs; one that bridges a gap weighs as much as the nearest elsewhere. The weight of
the pre-alignment follows from how much its errors change from slice to slice, beyond what the pairs
show. The factors are the same for all stacks (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from amst_hpc.pair_result import PairResult
from amst_hpc.registration.links import (
    COUNTS,
    ERROR,
    MODES,
    REPEATS,
    SHIFTS,
    SLOPES,
    SMALLEST_ERROR,
    Floats,
    counts,
    differences,
    find_chains,
    levelled,
    modes_of,
    trust_in,
    usual_of,
)
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Matrix, compose, displacement, invert, small_affine, translation

FARTHER = 0.5  # weight of pairs at k + 1 beside those at k: they share their errors
ABSOLUTE = 40.0  # weight of the shifts of the pre-alignment: tissue moves more slowly than noise
AFFINE = 1.0  # of its affine part
TEMPLATE = 20.0  # weight of the template, by the same errors of the pre-alignment
FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Measured:
    """Pairs as rows. a, b : slices, by position. modes : (n, 6) px, what the transforms of now
    lack. weight : (n,).
    """

    a: NDArray[np.intp]
    b: NDArray[np.intp]
    modes: Floats
    weight: Floats
    pairs: Sequence[PairResult]


def solve(
    results: Sequence[SliceResult],
    pairs: Sequence[PairResult],
    shape: tuple[int, int],
    period: int = 0,
) -> list[SliceResult]:
    """The slices with corrected transforms, status and what became of their pairs.

    results : in their order, decided by `fallback.choose_transforms`. shape : (y, x) of the
    template. period : see `drift.period`. Slices without any pair stay as they are.
    """
    x, y, inner = _frame(pairs, shape)
    if not (x or y):
        return _solve(results, pairs, inner, period)
    seen = _placed(results, x, y)
    solved = _solve(seen, _placed_pairs(pairs, x, y), inner, period)
    back = _placed(solved, -x, -y)
    return [  # what was not touched stays as it is, to the bit
        own if s is v else b for own, v, s, b in zip(results, seen, solved, back, strict=True)
    ]


def _solve(
    results: Sequence[SliceResult],
    pairs: Sequence[PairResult],
    shape: tuple[int, int],
    period: int,
) -> list[SliceResult]:
    place, usual, good = _select(results, pairs)
    own = {place[p.z]: p for p in good if p.k == 0}
    links = [p for p in good if p.k]
    if not links:
        return list(results)
    now = _transforms(results)
    for _ in range(2):  # what is not linear in the corrections is gone then
        table = _measure(links, place, now, usual, shape)
        x, trust = _least_squares(results, table, _anchors(own, now, shape), period)
        now = compose(now, small_affine(x * MODES, shape))
    return _decide(results, now, table, trust, shape)


def _frame(pairs: Sequence[PairResult], shape: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
    """x, y and shape of the part of the template where most pre-aligned slices have content.

    There errors are counted, in its px: beyond it nobody sees them.
    """
    whole = (0, shape[0], 0, shape[1])
    boxes = [p.frame or whole for p in pairs if p.k == 0 and p.matrix is not None]
    y0, y1, x0, x1 = (int(n) for n in np.median(boxes or [whole], axis=0))
    return x0, y0, (y1 - y0, x1 - x0)


def _placed(results: Sequence[SliceResult], x: int, y: int) -> list[SliceResult]:
    """The same where (x, y) is the first pixel."""
    there = translation(x, y)
    return [
        s if s.transform is None else replace(s, transform=compose(s.transform, there))
        for s in results
    ]


def _placed_pairs(pairs: Sequence[PairResult], x: int, y: int) -> list[PairResult]:
    there = translation(x, y)
    return [
        p if p.k or p.matrix is None else replace(p, matrix=compose(p.matrix, there)) for p in pairs
    ]


@dataclass(frozen=True)
class PairFit:
    """Slices z and z + k beside what was solved: residual px, nan where the pair has no matrix or
    does not count from the start; fault : why it does not count, empty if it does.
    """

    z: int
    k: int
    residual: float
    fault: str


def fit_pairs(
    results: Sequence[SliceResult], pairs: Sequence[PairResult], shape: tuple[int, int]
) -> list[PairFit]:
    """How each pair fits the transforms of `results`, those that `solve` has made of it."""
    x, y, shape = _frame(pairs, shape)
    if x or y:
        results, pairs = _placed(results, x, y), _placed_pairs(pairs, x, y)
    place, usual, good = _select(results, pairs)
    links = [p for p in good if p.k]
    found: dict[tuple[int, int], tuple[float, str]] = {}
    if links:
        table = _measure(links, place, _transforms(results), usual, shape)
        size = np.sqrt((table.modes**2).sum(axis=1))
        trust = trust_in(size * np.sqrt(table.weight), np.ones(len(size), bool))
        typical = np.median(size)
        far = [f"{px:.2f} px off, {typical:.2f} is usual" for px in size]
        found = {
            (p.z, p.k): (float(px), "" if t > COUNTS else text)
            for p, px, t, text in zip(links, size, trust, far, strict=True)
        }
    fits = []
    for p in pairs:
        low = p.matrix is not None and not counts(p, usual)
        text = f"correlation {p.correlation:.3f} where {usual[p.k][1]:.3f} is usual"
        residual, fault = found.get((p.z, p.k), (float("nan"), text if low else p.reason))
        fits.append(PairFit(p.z, p.k, residual, fault))
    return fits


def _select(
    results: Sequence[SliceResult], pairs: Sequence[PairResult]
) -> tuple[dict[int, int], dict[int, tuple[float, float]], list[PairResult]]:
    """The positions of slices that pairs hold, what is `_usual`, and the pairs to use.

    A repeated slice seems not to have moved since the first, which is true of no tissue.
    """
    place = {
        s.z: i for i, s in enumerate(results) if s.transform is not None and s.status != "repeated"
    }
    usual = usual_of(pairs)
    good = [p for p in pairs if counts(p, usual) and p.z in place and p.z + p.k in place]
    return place, usual, good


def _transforms(results: Sequence[SliceResult]) -> Matrix:
    """Of all slices, (n, 2, 3); the identity where there is none."""
    none = translation(0, 0)
    return np.array([s.transform if s.transform is not None else none for s in results])


def _measure(
    links: Sequence[PairResult],
    place: Mapping[int, int],
    now: Matrix,
    usual: Mapping[int, tuple[float, float]],
    shape: tuple[int, int],
) -> Measured:
    a = np.array([place[p.z] for p in links])
    b = np.array([place[p.z + p.k] for p in links])
    links_as = np.array([p.matrix for p in links])
    modes = modes_of(compose(invert(now[b]), compose(links_as, now[a])), shape)
    chains = find_chains(links)
    weight = [
        p.overlap * FARTHER ** (p.k - 1) / (ERROR * usual[p.k][0]) ** 2
        if p.k == 1 or i in chains
        else p.overlap / (ERROR * usual.get(1, usual[p.k])[0]) ** 2
        for i, p in enumerate(links)
    ]
    return Measured(a, b, levelled(links, modes, chains), np.array(weight), links)


def _anchors(own: Mapping[int, PairResult], now: Matrix, shape: tuple[int, int]) -> Floats:
    """Where the pre-alignment wants each slice, (n, 6) px from now; NaN where it says nothing."""
    anchors = np.full((len(now), 6), np.nan)
    if own:
        wanted = np.array([pair.matrix for pair in own.values()])
        anchors[[*own]] = modes_of(compose(invert(now[[*own]]), wanted), shape)
    return anchors


def _least_squares(
    results: Sequence[SliceResult], table: Measured, anchors: Floats, period: int
) -> tuple[Floats, Floats]:
    """The corrections (n, 6) px, and how much each pair counted in the end, 0 to 1."""
    n, m = len(results), len(table.a)
    links = differences(table.a, table.b, n)
    known = np.asarray(np.isfinite(anchors).all(axis=1), bool)
    anchors = np.where(known[:, None], anchors, 0)
    held = np.array([[s.status == "affine"] * 6 for s in results], float)
    shifted = np.array([s.status in ("translation", "prealigned") for s in results])
    for j in SHIFTS:
        held[shifted, j] = 1
    to_own_mode, to_template_mode = _anchor_weights(table, anchors, known, period)
    x, trust = np.zeros((n, 6)), np.ones(m)
    near, own = np.ones(n), np.ones(n)
    for _ in range(REPEATS):
        graph = links.T @ sparse.diags(table.weight * trust) @ links
        for alike in (SHIFTS, SLOPES):  # one matrix for their modes
            to_own = known * own * to_own_mode[alike[0]]
            to_template = held[:, alike[0]] * near * to_template_mode
            wanted = links.T @ ((table.weight * trust)[:, None] * table.modes[:, alike])
            matrix = graph + sparse.diags(to_own + to_template + FLOOR)
            right = to_own[:, None] * anchors[:, alike] - wanted
            x[:, alike] = splu(sparse.csc_matrix(matrix)).solve(right)
        rest = np.sqrt(((table.modes + links @ x) ** 2).sum(axis=1) * table.weight)
        trust = trust_in(rest, np.ones(m, bool))
        own = trust_in(np.sqrt(((anchors - x) ** 2 * to_own_mode).sum(axis=1)), known)
        near = trust_in(np.sqrt((x**2 * held).sum(axis=1)), held.sum(axis=1) > 0)
    return x, trust


def _anchor_weights(
    table: Measured, anchors: Floats, known: NDArray[np.bool_], period: int
) -> tuple[Floats, float]:
    """Weights of the pre-alignment for each mode, (6,), and of the template.

    By how much the errors of the pre-alignment change from slice to slice.
    """
    next_ones = (table.b - table.a == 1) & known[table.a] & known[table.b]
    if next_ones.sum() < 4:
        own, template = np.full(6, ABSOLUTE), TEMPLATE
    else:
        a, b = table.a[next_ones], table.b[next_ones]
        change = table.modes[next_ones] + anchors[a] - anchors[b]
        error = (1.4826 * np.median(np.abs(change - np.median(change, axis=0)), axis=0)) ** 2 / 2
        shift = max(float(error[SHIFTS].mean()), SMALLEST_ERROR**2)
        affine = max(float(error[SLOPES].mean()), SMALLEST_ERROR**2)
        own = np.array([ABSOLUTE / shift, AFFINE / affine, AFFINE / affine] * 2)
        template = TEMPLATE / shift
    if period:
        factor = (2 * np.pi / period) ** 2 * float(np.median(table.weight)) / (own[0] + template)
        own, template = own * factor, template * factor
    return own, template


def _decide(
    results: Sequence[SliceResult],
    now: Matrix,
    table: Measured,
    trust: Floats,
    shape: tuple[int, int],
) -> list[SliceResult]:
    """Transforms, status, and what the tables say of the pairs."""
    of_slice: dict[int, list[int]] = {}
    for row, (a, b) in enumerate(zip(table.a, table.b, strict=True)):
        if trust[row] > COUNTS:
            of_slice.setdefault(int(a), []).append(row)
            of_slice.setdefault(int(b), []).append(row)
    moved = displacement(now, shape) - displacement(_transforms(results), shape)
    correction = np.hypot(moved[..., 0], moved[..., 1]).mean(axis=-1)
    decided: list[SliceResult] = []
    for i, (s, matrix) in enumerate(zip(results, now, strict=True)):
        if s.status == "repeated":
            decided.append(replace(s, transform=decided[-1].transform))
            continue
        rows = of_slice.get(i, [])
        if s.transform is None or not rows:
            decided.append(s)
            continue
        residual = 1 - float(np.median([table.pairs[row].correlation for row in rows]))
        decided.append(
            replace(
                s,
                transform=matrix,
                status=s.status if s.status == "affine" else "neighbours",
                pairs=len(rows),
                pair_residual=residual,
                correction=float(correction[i]),
            )
        )
    return decided
