"""The transforms of the whole stack, from those of each slice and those between slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from amst_hpc.config import Drift
from amst_hpc.pair_result import PairResult
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Matrix, compose, displacement

ANCHOR = 0.1  # weight of a slice's own transform beside that of a pair
ROUNDS = 2


def solve(
    results: Sequence[SliceResult],
    pairs: Sequence[PairResult],
    shape: tuple[int, int],
    drift: Drift,  # noqa: ARG001
) -> list[SliceResult]:
    """The slices with corrected transforms: least squares over all pairs, held by their own.

    results : as `choose_transforms` gives them, ascending. shape : (y, x) of the canvas.
    """
    start = {r.z: r.transform for r in results if r.transform is not None}
    used = [p for p in pairs if p.k and p.matrix is not None and {p.z, p.z + p.k} <= start.keys()]
    held = sorted({z for p in used for z in (p.z, p.z + p.k)})
    row = {z: i for i, z in enumerate(held)}
    fell_back = {r.z for r in results if r.status != "affine"}
    now = {z: start[z] for z in held}
    for _ in range(ROUNDS if held else 0):
        normal, right = np.zeros((len(held), len(held))), np.zeros((len(held), 6))
        for z in held:
            weight = ANCHOR**2 * (1e-3 if z in fell_back else 1.0)
            normal[row[z], row[z]] += weight
            right[row[z]] += weight * start[z].ravel()
        for p in used:
            i, j = row[p.z], row[p.z + p.k]
            step = (compose(cast(Matrix, p.matrix), now[p.z]) - now[p.z]).ravel()
            normal[[i, j], [i, j]] += 1
            normal[[i, j], [j, i]] -= 1
            right[i] -= step
            right[j] += step
        found = np.linalg.solve(normal, right)
        now = {z: found[row[z]].reshape(2, 3) for z in held}
    return [_solved(r, now.get(r.z), used, shape) for r in results]


def _solved(
    result: SliceResult, found: Matrix | None, used: Sequence[PairResult], shape: tuple[int, int]
) -> SliceResult:
    if found is None or result.transform is None:
        return result
    mine = [p.residual for p in used if result.z in (p.z, p.z + p.k)]
    moved = displacement(found, shape) - displacement(result.transform, shape)
    return replace(
        result,
        transform=found,
        status="affine" if result.status == "affine" else "neighbours",
        pairs=len(mine),
        pair_residual=float(np.median(mine)),
        correction=float(np.hypot(*moved.T).mean()),
    )
