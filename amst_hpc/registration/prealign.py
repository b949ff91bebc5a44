"""Where raw slices lie on each other, from pairs of them alone.

Pairs of near slices (`neighbours`) are exact from one to the next; pairs of slices farther apart
tell which of them are wrong, and lead over gaps. What the stack does slowly is in no pair: there
tissue that runs obliquely looks like a drifting stage. So the shifts are held, softly, to where
they are in raw (`Drift`), and the slopes of the affine as strongly as those of raw are steady.
Where raw jumps and stays, by a move of the stage or of the scan, what holds it jumps as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import splu

from amst_hpc.pair_result import PairResult
from amst_hpc.placement import Placement
from amst_hpc.registration.fallback import ANCHORS
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
from amst_hpc.transform import (
    Matrix,
    compose,
    displacement,
    invert,
    small_affine,
    translation,
)

PERIODS = {"keep": 100, "smooth": 700}  # slices; see `drift.period`
NEAR = 2  # pairs at larger distances lead over gaps alone
FARTHER = 0.1  # weight of pairs at k > 1 beside those at 1, where these lead as far
AFFINE = 1.0  # weight of the slopes of raw, by how much they change from slice to slice
FLOOR = 1e-9
APART = "no slices lead over the gap before it: it lies as the last one before that"
UNLIKE = "unlike the slices around it"
WRONG = 8.0  # px that a pair may be off the others
LEAST = 8  # slices of a part of the stack that stands by itself
SIDE = 8  # slices on each side of a jump that tell its size
JUMP = 8.0  # times what is usual, and
SMALLEST_JUMP, SMALLEST_TURN = 3.0, 0.5  # px, of the shift and of the slopes


def place(
    pairs: Sequence[PairResult],
    depth: int,
    shape: tuple[int, int],
    drift: str = "smooth",
    period: int = 0,
) -> Placement:
    """Place the slices so that the pairs fit.

    depth : how many slices there are. shape : (y, x) of raw. drift, period : as
    `prealign.drift` and `drift.period`.
    """
    links = _Links(pairs, depth, shape)
    if not links.pairs:
        return _nowhere(depth)
    now, first = _chain(links)
    now, _ = _fit(links, now, _Held(np.zeros((depth, 6)), np.zeros(6)))
    held = _hold_slopes(links, now)
    now, trust = _fit(links, now, held)
    if drift in PERIODS:
        held.weight[SHIFTS] = links.usual * (2 * np.pi / (period or PERIODS[drift])) ** 2
        held.level[:, SHIFTS] = _levels(links, now, SHIFTS)
        now, _ = _fit(links, now, held, trust)
    middle = np.median(modes_of(now[links.used], shape)[:, SHIFTS], axis=0)
    now = _between(compose(now, translation(*-middle)), links.used)
    rows = trust > COUNTS
    held_by = np.concatenate([links.a[rows], links.b[rows]])
    number = np.bincount(held_by, minlength=depth)
    likeness = np.array([p.correlation for p in links.pairs])
    residual = [
        1 - float(np.median(likeness[rows & ((links.a == i) | (links.b == i))])) if n else np.nan
        for i, n in enumerate(number)
    ]
    return Placement(now, number, np.array(residual), first)


def hold(
    chosen: Sequence[SliceResult], placement: Placement, shape: tuple[int, int], radius: int
) -> list[SliceResult]:
    """The slices where pairs have placed them; those that none holds where the template has them.

    chosen : by `fallback.choose_transforms`, of shape (y, x), with templates of `radius`. One
    without any slice that pairs hold shows the slice itself, and says nothing. The pairs are better
    than the median of slices that were placed by them, which says whether a slice belongs where it
    lies.
    """
    held: list[SliceResult] = []
    for s in chosen:
        number, placed = int(placement.pairs[s.z]), placement.transforms[s.z]
        if s.transform is None:
            held.append(s)
        elif s.status == "repeated":
            held.append(replace(s, transform=held[-1].transform))
        elif s.z in placement.parts[1:]:
            held.append(replace(s, transform=placed, status="apart", pairs=number, reason=APART))
        elif number and (s.status == "affine" or number > 1):
            off = displacement(placed, shape) - displacement(s.transform, shape)
            held.append(
                replace(
                    s,
                    transform=placed,
                    status="affine" if s.status == "affine" else "neighbours",
                    pairs=number,
                    pair_residual=float(placement.residual[s.z]),
                    correction=float(np.hypot(off[:, 0], off[:, 1]).mean()),
                )
            )
        elif s.status in ANCHORS and _is_alone(s.z, placement, radius):
            held.append(replace(s, transform=placed, status="interpolated", reason=UNLIKE))
        else:
            held.append(s if s.status in ANCHORS else replace(s, transform=placed))
    return held


def _is_alone(z: int, placement: Placement, radius: int) -> bool:
    """True if pairs hold none of the slices around z, of which there are some."""
    around = placement.pairs[max(0, z - radius) : z + radius + 1]
    return len(placement.pairs) > 1 and not around.any()


def _nowhere(depth: int) -> Placement:
    """All stay where they are in raw."""
    now = np.tile(translation(0, 0), (depth, 1, 1))
    return Placement(now, np.zeros(depth, int), np.full(depth, np.nan), [0])


def _between(now: Matrix, used: NDArray[np.bool_]) -> Matrix:
    """Slices that no pair holds between those beside them."""
    known, flat = np.flatnonzero(used), now.reshape(len(now), 6)
    each = [np.interp(np.arange(len(now)), known, flat[known, i]) for i in range(6)]
    return np.array(each).T.reshape(-1, 2, 3)


class _Links:
    """The pairs that count: between positions a and b of the slices, (m,). weight : (m,)."""

    def __init__(self, pairs: Sequence[PairResult], depth: int, shape: tuple[int, int]) -> None:
        usual = usual_of(pairs)
        good = [p for p in pairs if counts(p, usual)]
        good = _of_large_parts(_joining(_consistent(good, depth, shape), depth), depth)
        self.shape, self.pairs = shape, good
        self.a = np.array([p.z for p in good], int)
        self.b = np.array([p.z + p.k for p in good], int)
        self.matrices = np.array([p.matrix for p in good]).reshape(-1, 2, 3)
        self.chains = find_chains(good)
        nearest = usual[min(usual)][0] if usual else 1.0
        self.weight = np.array([
            p.overlap * FARTHER / (ERROR * usual[p.k][0]) ** 2
            if i in self.chains
            else p.overlap / (ERROR * nearest) ** 2
            for i, p in enumerate(good)
        ])  # fmt: skip
        self.usual = float(np.median(self.weight)) if good else 0.0
        self.used = np.zeros(depth, bool)
        self.used[self.a] = self.used[self.b] = True

    def differences(self) -> sparse.csr_matrix:
        """What turns positions into steps, (m, n)."""
        return differences(self.a, self.b, len(self.used))


def _consistent(
    pairs: Sequence[PairResult], depth: int, shape: tuple[int, int]
) -> list[PairResult]:
    """Those whose shift at the middle of the slice fits what the others make of it.

    All weigh the same: each step is in one pair of next slices and in many that are farther apart.
    """
    if not pairs:
        return []
    a = np.array([p.z for p in pairs])
    b = np.array([p.z + p.k for p in pairs])
    shifts = modes_of(np.array([p.matrix for p in pairs]), shape)[:, SHIFTS]
    steps, trust = differences(a, b, depth), np.ones(len(pairs))
    off = np.zeros(len(pairs))
    for _ in range(REPEATS):
        weighed = steps.T @ sparse.diags(trust)
        matrix = sparse.csc_matrix(weighed @ steps + FLOOR * sparse.identity(depth))
        off = np.hypot(*(shifts + steps @ splu(matrix).solve(-weighed @ shifts)).T)
        trust = 1 / (1 + (off / WRONG) ** 2)
    return [p for p, px in zip(pairs, off, strict=True) if px <= WRONG]


def _joining(pairs: Sequence[PairResult], depth: int) -> list[PairResult]:
    """The near pairs, and of those farther apart the ones that lead over gaps of these."""
    kept: list[PairResult] = []
    for k in sorted({p.k for p in pairs}):
        part = _parts(kept, depth)
        kept += [p for p in pairs if p.k == k and (k <= NEAR or part[p.z] != part[p.z + k])]
    return sorted(kept, key=lambda p: (p.z, p.k))


def _of_large_parts(pairs: Sequence[PairResult], depth: int) -> list[PairResult]:
    """Without those of few slices that lie on each other and on none of the stack: other tissue."""
    part = _parts(pairs, depth)
    size = np.bincount(part, minlength=1)[part]
    if size.max(initial=0) < LEAST:
        return list(pairs)
    return [p for p in pairs if size[p.z] >= LEAST]


def _parts(pairs: Sequence[PairResult], depth: int) -> NDArray[np.intp]:
    """Numbers of the parts of the stack that the pairs join, (n,)."""
    ends = [(p.z, p.z + p.k) for p in pairs]
    return np.asarray(connected_components(_graph(ends, depth), directed=False)[1])


def _graph(ends: Sequence[tuple[int, int]], n: int) -> sparse.csr_matrix:
    rows, columns = np.array(ends, int).reshape(-1, 2).T
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (n, n))


def _chain(links: _Links) -> tuple[Matrix, list[int]]:
    """Transforms along the shortest chains of pairs from the first slice of each part of the stack,
    and these slices. A part begins where the slice before it lies in raw.
    """
    ends = list(zip(links.a.tolist(), links.b.tolist(), strict=True))
    row = {both: i for i, both in enumerate(ends)}
    graph = _graph(ends, len(links.used))
    now = np.tile(translation(0, 0), (len(links.used), 1, 1))
    done, first = np.zeros(len(now), bool), []
    for root in np.flatnonzero(links.used).tolist():
        if done[root]:
            continue
        if done[:root].any():
            now[root] = now[np.flatnonzero(done[:root])[-1]]
        first.append(root)
        order, parent = breadth_first_order(graph, root, directed=False)
        done[order] = True
        for i, j in zip(order[1:].tolist(), parent[order[1:]].tolist(), strict=True):
            step = links.matrices[row[min(i, j), max(i, j)]]
            now[i] = compose(step if j < i else invert(step), now[j])
    return now, first


@dataclass(frozen=True, eq=False)
class _Held:
    """Where slices are held softly: level (n, 6) px, weight (6,) of each mode."""

    level: Floats
    weight: Floats


def _fit(
    links: _Links, now: Matrix, held: _Held, trust: Floats | None = None
) -> tuple[Matrix, Floats]:
    """The transforms, corrected by robust least squares; trust (m,), found where it is not given.

    It is not found anew beside what holds the shifts: pairs are worth more than that.
    """
    steps, n = links.differences(), len(now)
    measured = compose(invert(now[links.b]), compose(links.matrices, now[links.a]))
    modes = levelled(links.pairs, modes_of(measured, links.shape), links.chains)
    wanted = held.level - modes_of(now, links.shape)
    repeats, trust = (REPEATS, np.ones(len(modes))) if trust is None else (1, trust)
    x = np.zeros((n, 6))
    for _ in range(repeats):
        weighed = steps.T @ sparse.diags(links.weight * trust)
        graph = weighed @ steps
        for alike in (SHIFTS, SLOPES):
            hold = held.weight[alike[0]] * links.used
            matrix = sparse.csc_matrix(graph + sparse.diags(hold + FLOOR))
            right = hold[:, None] * wanted[:, alike] - weighed @ modes[:, alike]
            x[:, alike] = splu(matrix).solve(right)
        if repeats > 1:
            rest = np.sqrt(((modes + steps @ x) ** 2).sum(axis=1) * links.weight)
            trust = trust_in(rest, np.ones(len(rest), bool))
    return compose(now, small_affine(x * MODES, links.shape)), trust


def _hold_slopes(links: _Links, now: Matrix) -> _Held:
    """The slopes of raw: held as strongly as they change little from slice to slice."""
    held = _Held(np.zeros((len(now), 6)), np.zeros(6))
    held.level[:, SLOPES] = _levels(links, now, SLOPES)
    modes = (modes_of(now, links.shape) - held.level)[links.used]
    change = np.diff(modes[:, SLOPES], axis=0)
    spread = 1.4826 * np.median(np.abs(change - np.median(change, axis=0)), axis=0)
    held.weight[SLOPES] = AFFINE / max(float((spread**2).mean() / 2), SMALLEST_ERROR**2)
    return held


def _levels(links: _Links, now: Matrix, group: Sequence[int]) -> Floats:
    """Where raw stands between its jumps, in these modes: (n, modes) px, from 0 at the start."""
    known = np.flatnonzero(links.used)
    modes = modes_of(now[known], links.shape)[:, group]
    level, n = np.zeros((len(now), len(group))), len(known)
    places = np.arange(2, n - 1)
    change = np.zeros((n, len(group)))
    for i in places:
        before, after = modes[max(0, i - SIDE) : i], modes[i : i + SIDE]
        change[i] = np.median(after, axis=0) - np.median(before, axis=0)
    size = np.sqrt((change**2).sum(axis=1))
    smallest = SMALLEST_JUMP if group is SHIFTS else SMALLEST_TURN
    least = max(smallest, JUMP * float(np.median(size[places]))) if len(places) else np.inf
    step = np.r_[0, np.sqrt((np.diff(modes, axis=0) ** 2).sum(axis=1))]
    while size.max(initial=0) > least:
        top = int(size.argmax())
        near = np.arange(max(1, top - SIDE // 2), min(n, top + SIDE // 2 + 1))
        place = int(near[step[near].argmax()])
        level[known[place] :] += change[top]
        size[max(0, top - SIDE) : top + SIDE + 1] = 0
    return level
