"""Registration of a raw slice with a neighbour: affine, gain and bias, by Gauss-Newton.

The residual `F(p) - (gain * R(M p) + bias)` over all pixels, with the mean of the gradients of both
images (ESM: Benhimane and Malis, IROS 2004) and weights that leave out what does not fit. First on
slices averaged down and smoothed by 1 px, then as they are (up to some 2000 px wide, larger ones
averaged down) with the filter of `coherence`. What is left between both slices is motion of the
tissue that no affine follows. Its size in the modes next to the affine ones (second order in x and
y) tells the error of the affine ones themselves: five times as much, on all stacks tried.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.averaging import average_down
from amst_hpc.content import Box, box
from amst_hpc.opencl.gauss_newton import TILE, Fit, Tiles
from amst_hpc.pair_result import PairResult
from amst_hpc.registration.coherence import RadialFilter, gaussian
from amst_hpc.registration.correlation import cross_correlation
from amst_hpc.registration.equations import Equations, HostEquations, across
from amst_hpc.transform import FloatImage, Image, Matrix, scaled, translation

log = logging.getLogger(__name__)
FINE_SIDE = 2048  # px of the shorter side: larger slices are averaged down by a whole factor
COARSE_SIDE = 256  # px of the shorter side of the slice averaged down
COARSER = 4  # and once more by this factor, where so much is left:
SMALLEST_SIDE = 64
SMOOTH = gaussian(1.0)
ENOUGH_COARSE_PX, ENOUGH_PX = 0.02, 1e-3
SAMPLE = 1 << 20  # px of a large slice that are looked at, but on a GPU
LEAST_OVERLAP = 0.2
CHANCE = 0.05
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prepared:
    """A slice ready for its pairs: `coarse` from the smallest scale on, (factor, image) each; the
    finest by the distance k it is for. small : averaged down by `factor`, for `first_shift`.
    scale : factor by which the slice was averaged down before all that. share, frame : how much of
    it has content, and the box that holds it, after `scale`.
    """

    coarse: Sequence[tuple[int, Any]]
    full: Mapping[int, Any]
    small: Any
    factor: int
    scale: int
    share: float
    frame: Box


class Neighbours:
    """Prepares slices and registers pairs of them on one device."""

    def __init__(
        self,
        equations: Equations,
        filters: Mapping[int, RadialFilter],
        coarse_side: int = COARSE_SIDE,
    ) -> None:
        """filters : at full size, by the distance k of the slices. coarse_side : px."""
        self.equations, self.filters, self.coarse_side = equations, filters, coarse_side

    def prepare(self, image: Image, coarse_alone: bool = False) -> Prepared:
        """Filter a slice, (y, x) uint8 or uint16, at all scales."""
        place, scale = self.equations, working_factor(image.shape)
        whole = place.load(image, scale)
        factor = max(1, round(min(image.shape) / scale / self.coarse_side))
        small = place.smaller(whole, factor) if factor > 1 else whole
        coarse = [(factor, place.filtered(small, SMOOTH))]
        if min(image.shape) // scale // factor // COARSER >= SMALLEST_SIDE:
            least = place.smaller(small, COARSER)
            coarse.insert(0, (factor * COARSER, place.filtered(least, SMOOTH)))
        filters = {} if coarse_alone else self.filters
        full = {k: place.filtered(whole, kernel) for k, kernel in filters.items()}
        mask = place.content(whole)
        share = 1.0 if mask is None else float(mask.mean())
        frame = box(mask, (image.shape[0] // scale, image.shape[1] // scale))
        return Prepared(coarse, full, small, factor, scale, share, frame)

    def register(
        self, fixed: Prepared, moving: Prepared, pair: PairResult, start: Matrix | None
    ) -> PairResult:
        """`pair` (z and k) with what was found; k = 0 looks at the coarse scales alone.

        start : `raw_z(p)` is about `raw_{z+k}(start p)`; None: nothing is known.
        """
        if start is not None:
            found = self._from(fixed, moving, pair, start)
            if found.matrix is not None:
                return found
        small = (self.equations.fetch(a.small) for a in (fixed, moving))
        shift = first_shift(*small) * [1, 1, fixed.factor * fixed.scale]
        return self._from(fixed, moving, pair, shift)

    def _from(
        self, fixed: Prepared, moving: Prepared, pair: PairResult, start: Matrix
    ) -> PairResult:
        more = max(fixed, moving, key=lambda a: a.share)
        fit = Fit(scaled(start, 1 / fixed.scale))
        for (factor, a), (_, b) in zip(fixed.coarse, moving.coarse, strict=True):
            both = (a, b)
            fit = Fit(scaled(fit.matrix, 1 / factor), (fit.light[0], 0.0, 0.0))
            fit = self._descend(both, fit, ENOUGH_COARSE_PX)
            if reason := _fault(fit, _overlap(fit, a.shape, more)):
                return replace(pair, reason=reason)
            fit.matrix = scaled(fit.matrix, factor)
        if pair.k in fixed.full:
            both, factor = (fixed.full[pair.k], moving.full[pair.k]), 1
            fit = self._descend(both, Fit(fit.matrix), ENOUGH_PX)
        shape = both[0].shape
        overlap = _overlap(fit, shape, more)
        if reason := _fault(fit, overlap):
            return replace(pair, reason=reason)
        tiles = self._tiles(shape)
        fit_here = replace(fit, matrix=scaled(fit.matrix, 1 / factor))
        sums = self.equations.tile_sums(both, fit_here, tiles)
        return replace(
            pair,
            matrix=scaled(fit.matrix, fixed.scale),
            tissue=_tissue(sums, tiles, shape, [n / factor for n in more.frame]) * fixed.scale,
            correlation=fit.correlation,
            overlap=overlap,
            frame=[fixed.scale * n for n in fixed.frame] if fixed.share < 1 else (),
        )

    def _descend(self, both: tuple[Any, Any], fit: Fit, enough: float) -> Fit:
        return self.equations.descend(both, fit, self._tiles(both[0].shape), enough)

    def _tiles(self, shape: tuple[int, int]) -> Tiles:
        """Tiles that are looked at: all of them, or an even sample of a large slice."""
        every = 1 if self.equations.every_tile else max(1, round(shape[0] * shape[1] / SAMPLE))
        return _every(shape, every)


def leave_device(neighbours: Neighbours, error: Exception) -> Neighbours:
    """The same by numpy, after its device has failed; raises `error` where that was numpy."""
    if isinstance(neighbours.equations, HostEquations):
        raise error
    log.warning("the OpenCL device failed (%s); on with the host", error)
    return Neighbours(HostEquations(), neighbours.filters, neighbours.coarse_side)


@lru_cache
def _every(shape: tuple[int, int], n: int) -> Tiles:
    """Each n-th tile, one row beside the next."""
    columns, rows = across(shape[1]), across(shape[0])
    y, x = np.divmod(np.arange(columns * rows, dtype=np.int32), columns)
    return np.flatnonzero((x + y) % n == 0).astype(np.int32)


def _overlap(fit: Fit, shape: tuple[int, int], more: Prepared) -> float:
    """Part of the content that was compared; more : the slice that has more of it."""
    return fit.points / (shape[0] * shape[1] * more.share)


def _fault(fit: Fit, overlap: float) -> str:
    """Why a fit cannot be believed; empty: it can."""
    if overlap < LEAST_OVERLAP:
        return f"overlap {overlap:.2f}, less than {LEAST_OVERLAP}"
    if fit.correlation < CHANCE:
        return f"correlation {fit.correlation:.3f}, as by chance"
    return ""


def _tissue(
    sums: NDArray[np.float32], tiles: Tiles, shape: tuple[int, int], frame: Sequence[float]
) -> float:
    """Size of the motion in the six modes of second order of `frame` (y0, y1, x0, x1), px; 0 where
    too few tiles tell.
    """
    y0, y1, x0, x1 = frame
    place = np.divmod(tiles, across(shape[1]))
    y, x = (
        np.clip(n * TILE + TILE // 2, first + TILE // 4, last - TILE // 4)
        for n, first, last in zip(place, (y0, x0), (y1, x1), strict=True)
    )
    xi, eta = ((2 * p - (a + b - 1)) / (b - a) for p, a, b in ((x, x0, x1), (y, y0, y1)))
    root = np.sqrt(3)
    modes = np.array([
        np.ones_like(xi), root * xi, root * eta,
        np.sqrt(5) * (1.5 * xi**2 - 0.5), 3 * xi * eta, np.sqrt(5) * (1.5 * eta**2 - 0.5),
    ])  # fmt: skip
    xx, xy, yy = (modes * sums[:, i] @ modes.T for i in (0, 3, 21))
    right = np.concatenate([modes @ sums[:, 36], modes @ sums[:, 39]])
    matrix = np.block([[xx, xy], [xy, yy]])
    if np.linalg.cond(matrix) > 1e8:
        return 0.0
    found = np.linalg.solve(matrix, right).reshape(2, 6)[:, 3:]
    return float(np.sqrt(np.mean(found**2)))


def first_shift(fixed: FloatImage, moving: FloatImage) -> Matrix:
    """Where two slices lie on each other, by the peak of their correlation."""
    more = max(1, min(fixed.shape) // 256)
    y, x = cross_correlation(average_down(fixed, more), average_down(moving, more))
    return translation(x * more, y * more)


def working_factor(shape: Sequence[int]) -> int:
    """By how much slices of this (y, x) size are averaged down before they are compared."""
    return max(1, min(shape) // FINE_SIDE)
