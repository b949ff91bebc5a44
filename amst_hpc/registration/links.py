"""Pairs of slices as the rows of least squares: which count, in what modes, with what trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from amst_hpc.pair_result import PairResult
from amst_hpc.transform import Matrix

ERROR = 5.0  # of a pair, in units of its tissue
SMALLEST_ERROR = 0.1  # px, of where slices are held
REPEATS = 12
COUNTS = 0.5  # trust in a pair: less, and it is said not to count
UNKNOWN_TISSUE = 0.024  # px: slices too small to tell
LOW_CORRELATION = 0.4  # of what is usual: the pair does not count
AROUND = 40  # pairs on each side that tell what all of their distance are off
FEWEST = 5  # pairs that tell it
OUTLIER = 3.0
MODES = np.array([1, 3**0.5, 3**0.5] * 2)
SHIFTS, SLOPES = [0, 3], [1, 2, 4, 5]
Floats = NDArray[np.float64]


def usual_of(pairs: Sequence[PairResult]) -> dict[int, tuple[float, float]]:
    """Median tissue and correlation for each k."""
    found = {}
    for k in sorted({p.k for p in pairs}):
        there = [p for p in pairs if p.k == k and p.matrix is not None]
        tissue = [p.tissue for p in there if p.tissue > 0]
        median = float(np.median(tissue)) if tissue else UNKNOWN_TISSUE
        correlation = float(np.median([p.correlation for p in there])) if there else 0.0
        found[k] = (median, correlation)
    return found


def counts(pair: PairResult, usual: Mapping[int, tuple[float, float]]) -> bool:
    """The pair has a matrix and is not much worse than is usual."""
    return pair.matrix is not None and pair.correlation >= LOW_CORRELATION * usual[pair.k][1]


def differences(a: NDArray[np.intp], b: NDArray[np.intp], n: int) -> sparse.csr_matrix:
    """What turns positions of n slices into the steps from a to b, (m,) each: (m, n)."""
    m = len(a)
    values, rows = np.repeat([1.0, -1.0], m), np.tile(np.arange(m), 2)
    return sparse.csr_matrix((values, (rows, np.concatenate([a, b]))), (m, n))


def modes_of(m: Matrix, shape: tuple[int, int]) -> Floats:
    """The displacement of transforms (..., 2, 3) in the orthonormal modes, (..., 6) px."""
    height, width = shape
    a = m[..., :2] - np.eye(2)
    shift = a @ [(width - 1) / 2, (height - 1) / 2] + m[..., 2]
    slopes = a * [width / 2, height / 2]
    theta = np.concatenate([shift[..., None], slopes], axis=-1)
    return np.asarray(theta.reshape(*theta.shape[:-2], 6) / MODES)


def find_chains(links: Sequence[PairResult]) -> dict[int, list[int]]:
    """For pairs at k > 1 the nearest ones that lead from slice to slice between theirs, by row.

    A pair that has none bridges a gap.
    """
    rows = {(p.z, p.k): i for i, p in enumerate(links)}
    steps = {i: [(p.z + j, 1) for j in range(p.k)] for i, p in enumerate(links) if p.k > 1}
    return {i: [rows[s] for s in chain] for i, chain in steps.items() if rows.keys() >= {*chain}}


def levelled(
    links: Sequence[PairResult], modes: Floats, chains: Mapping[int, Sequence[int]]
) -> Floats:
    """The modes without what pairs at k > 1 show otherwise than their chains, all of them alike.

    What seems to move with z depends on the detail that is compared, and the filters of each
    distance differ; the nearest pairs show the least of it.
    """
    levelled = modes.copy()
    for k in sorted({links[i].k for i in chains}):
        rows = [i for i in chains if links[i].k == k]
        more = np.array([modes[i] - modes[chains[i]].sum(axis=0) for i in rows])
        if len(rows) < FEWEST:
            continue
        alike = ndimage.median_filter(more, size=(2 * AROUND + 1, 1), mode="nearest")
        z = [links[i].z for i in rows]
        mine = [i for i, p in enumerate(links) if p.k == k]
        for mode in range(6):
            levelled[mine, mode] -= np.interp([links[i].z for i in mine], z, alike[:, mode])
    return levelled


def trust_in(rest: Floats, counts: NDArray[np.bool_]) -> Floats:
    """Weights of Cauchy: residuals beyond three usual ones count less and less."""
    if not counts.any():
        return np.ones(len(rest))
    usual = max(1.4826 * float(np.median(rest[counts])), 1e-9)
    return 1 / (1 + (rest / (OUTLIER * usual)) ** 2)
