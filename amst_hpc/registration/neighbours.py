"""Registration of a raw slice with a neighbour: affine, gain and bias, by Gauss-Newton.

The residual `F(p) - (gain * R(M p) + bias)` over all pixels, with the mean of the gradients of both
images (ESM: Benhimane and Malis, IROS 2004) and weights that leave out what does not fit. First on
slices averaged down and smoothed by 1 px, then as they are (up to some 2000 px wide, larger ones
averaged down) with the filter of `coherence`. What is left between both slices is motion of the
tissue that no affine follows. Its size in the modes next to the affine ones (second order in x and
y) tells the error of the affine ones themselves: five times as much, on all stacks tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.averaging import average_down
from amst_hpc.opencl.gauss_newton import TILE, Photometry, Tiles
from amst_hpc.pair_result import PairResult
from amst_hpc.registration.coherence import RadialFilter, gaussian, prepare
from amst_hpc.registration.correlation import cross_correlation
from amst_hpc.registration.normal_equations import UPPER, across
from amst_hpc.transform import FloatImage, Image, Matrix, compose, translation

FINE_SIDE = 2048  # px of the shorter side: larger slices are averaged down by a whole factor
COARSE_SIDE = 512  # px of the shorter side of the slice averaged down
SMALLEST_SIDE = 64
STEPS, FINE_STEPS = 8, 12
ENOUGH_PX = 1e-3
RESIDUALS = 2.0  # a residual of so many standard deviations counts a quarter
SAMPLE = 1 << 21  # px that a CPU looks at, at full size
LEAST_OVERLAP = 0.2
CHANCE = 0.05
BLACK = 5  # px: a black area is at least so wide
Floats = NDArray[np.float64]


class Equations(Protocol):
    """The device or the host: see `normal_equations.HostEquations`."""

    def keep(self, coefficients: FloatImage) -> Any: ...
    def average_down(self, image: Image, factor: int) -> FloatImage: ...
    def sums(self, pair: tuple[Any, Any], m: Matrix, light: Photometry, tiles: Tiles) -> Floats: ...


@dataclass(frozen=True)
class Prepared:
    """A slice ready for its pairs: `coarse` from the smallest scale on, (factor, image) each; the
    finest by the distance k it is for. small : averaged down by `factor`, for `first_shift`.
    scale : factor by which the slice was averaged down before all that.
    """

    coarse: Sequence[tuple[int, Any]]
    full: Mapping[int, Any]
    small: FloatImage
    factor: int
    scale: int


@dataclass
class Fit:
    """Where Gauss-Newton stands. sums : of each tile at the last step."""

    matrix: Matrix
    gain: float = 1.0
    bias: float = 0.0
    correlation: float = 0.0
    points: float = 0.0
    sums: Floats | None = None


class Neighbours:
    """Prepares slices and registers pairs of them on one device."""

    def __init__(
        self, equations: Equations, on_gpu: bool, filters: Mapping[int, RadialFilter]
    ) -> None:
        """filters : at full size, by the distance k of the slices."""
        self.equations, self.on_gpu, self.filters = equations, on_gpu, filters

    def prepare(self, image: Image, coarse_alone: bool = False) -> Prepared:
        """Filter a slice, (y, x) uint8 or uint16, at all scales."""
        scale = working_factor(image.shape)
        image = averaged(image, scale, self.equations.average_down)
        mask = seen(image)
        factor = max(1, round(min(image.shape) / COARSE_SIDE))
        coarse = []
        small: Image | FloatImage = image
        small_mask = mask
        if factor > 1:
            small = self.equations.average_down(image, factor)
            small_mask = _averaged_mask(mask, factor)
        for more in (4, 1):
            if more == 1 or min(small.shape) // more >= SMALLEST_SIDE:
                least = average_down(small, more)
                coefficients = prepare(least, _averaged_mask(small_mask, more), gaussian(1.0))
                coarse.append((factor * more, self.equations.keep(coefficients)))
        filters = {} if coarse_alone else self.filters
        full = {k: self._full(image, mask, kernel) for k, kernel in filters.items()}
        return Prepared(coarse, full, average_down(small, 1), factor, scale)

    def _full(self, image: Image, mask: NDArray[np.bool_] | None, kernel: RadialFilter) -> Any:
        if self.on_gpu and mask is None:
            return self.equations.filter(image, kernel.terms())  # type: ignore[attr-defined]
        return self.equations.keep(prepare(image, mask, kernel))

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
        return self._from(fixed, moving, pair, first_shift(fixed, moving))

    def _from(
        self, fixed: Prepared, moving: Prepared, pair: PairResult, start: Matrix
    ) -> PairResult:
        fit = Fit(_scaled(start, 1 / fixed.scale))
        shape = (1, 1)
        for (factor, a), (_, b) in zip(fixed.coarse, moving.coarse, strict=True):
            shape = a.shape
            fit = Fit(_scaled(fit.matrix, 1 / factor), fit.gain)
            fit = self._descend(fit, (a, b), STEPS)
            if reason := _fault(fit, shape):
                return replace(pair, reason=reason)
            fit.matrix = _scaled(fit.matrix, factor)
        if pair.k in fixed.full:
            both = (fixed.full[pair.k], moving.full[pair.k])
            shape = both[0].shape
            fit = self._descend(Fit(fit.matrix), both, FINE_STEPS)
        reason = _fault(fit, shape)
        if reason or fit.sums is None:
            return replace(pair, reason=reason)
        return replace(
            pair,
            matrix=_scaled(fit.matrix, fixed.scale),
            tissue=_tissue(fit.sums, self._tiles(shape), shape) * fixed.scale,
            correlation=fit.correlation,
            overlap=fit.points / (shape[0] * shape[1]),
        )

    def _tiles(self, shape: tuple[int, int]) -> Tiles:
        """Tiles that are looked at: all on a GPU, an even sample of a large slice on a CPU."""
        count = across(shape[1]) * across(shape[0])
        every = 1.0 if self.on_gpu else max(1.0, shape[0] * shape[1] / SAMPLE)
        return np.unique((np.arange(0, count, every) + every / 2).astype(np.int32) % count)

    def _descend(self, fit: Fit, both: tuple[Any, Any], steps: int) -> Fit:
        """Gauss-Newton until a step is below `ENOUGH_PX`."""
        shape = both[0].shape
        tiles, scale = self._tiles(shape), 0.0
        for step in range(steps):
            photometry = (fit.gain, fit.bias, scale)
            sums = self.equations.sums(both, fit.matrix, photometry, tiles)
            total = sums.sum(axis=0)
            fit.points, fit.sums = total[45] * _part(tiles, shape), sums
            matrix = np.zeros((8, 8))
            matrix[UPPER] = total[:36]
            matrix += np.triu(matrix, 1).T
            if total[45] < 100 or not np.isfinite(total).all() or np.linalg.cond(matrix) > 1e12:
                fit.points = 0
                return fit
            change = np.linalg.solve(matrix, total[36:44])
            fit.correlation = 1 - total[46] / max(total[47], 1e-30)
            fit.matrix = compose(fit.matrix, small_affine(change[:6], shape))
            fit.gain, fit.bias = fit.gain + change[6], fit.bias + change[7]
            scale = 1 / (RESIDUALS * max(np.sqrt(total[46] / total[45]), 1e-12))
            if step and np.abs(change[:6]).max() < ENOUGH_PX:
                break
        return fit


def _part(tiles: Tiles, shape: tuple[int, int]) -> float:
    return across(shape[1]) * across(shape[0]) / len(tiles)


def _fault(fit: Fit, shape: tuple[int, int]) -> str:
    """Why a fit cannot be believed; empty: it can."""
    overlap = fit.points / (shape[0] * shape[1])
    if overlap < LEAST_OVERLAP:
        return f"overlap {overlap:.2f}, less than {LEAST_OVERLAP}"
    if fit.correlation < CHANCE:
        return f"correlation {fit.correlation:.3f}, as by chance"
    return ""


def _tissue(sums: Floats, tiles: Tiles, shape: tuple[int, int]) -> float:
    """Size of the motion in the six modes of second order, px; 0 where too few tiles tell."""
    height, width = shape
    x = np.minimum(tiles % across(width) * TILE + TILE // 2, width - TILE // 4)
    y = np.minimum(tiles // across(width) * TILE + TILE // 2, height - TILE // 4)
    xi, eta = (x - 0.5 * (width - 1)) / (0.5 * width), (y - 0.5 * (height - 1)) / (0.5 * height)
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


def small_affine(theta: Floats, shape: Sequence[int]) -> Matrix:
    """Displacement at the centre (x: 0, y: 3) and its change over half a width (1, 4) and half a
    height (2, 5), px, as a transform of a (y, x) image.
    """
    height, width = shape
    a = np.array([[theta[1], theta[2]], [theta[4], theta[5]]]) / [width / 2, height / 2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = np.array([theta[0], theta[3]]) - a @ centre
    return np.hstack([np.eye(2) + a, shift[:, None]])


def _scaled(m: Matrix, factor: float) -> Matrix:
    """The transform between images that are `factor` times as large; pixel centres at integers."""
    rest = (factor - 1) / 2
    up = np.array([[factor, 0, rest], [0, factor, rest]])
    down = np.array([[1 / factor, 0, -rest / factor], [0, 1 / factor, -rest / factor]])
    return compose(up, compose(m, down))


def first_shift(fixed: Prepared, moving: Prepared) -> Matrix:
    """Where two slices lie on each other, by the peak of their correlation."""
    small = min(fixed.small.shape)
    more = max(1, small // 256)
    y, x = cross_correlation(average_down(fixed.small, more), average_down(moving.small, more))
    px = more * fixed.factor * fixed.scale
    return translation(x * px, y * px)


def working_factor(shape: Sequence[int]) -> int:
    """By how much slices of this (y, x) size are averaged down before they are compared."""
    return max(1, min(shape) // FINE_SIDE)


def averaged(image: Image, factor: int, average: Callable[[Image, int], FloatImage]) -> Image:
    """Averaged down by `average`, in uint16 so that nothing is lost by rounding."""
    if factor == 1:
        return image
    finer = 255 if image.dtype == np.uint8 else 1
    return np.rint(average(image, factor) * finer).astype(np.uint16)


def seen(image: Image) -> NDArray[np.bool_] | None:
    """False in black areas (a part that was not scanned, a margin); None where there is none."""
    black = image == 0
    if not black.any():
        return None
    black = ndimage.binary_opening(black, np.ones((BLACK, BLACK), bool))
    return ~black if black.any() else None


def _averaged_mask(mask: NDArray[np.bool_] | None, factor: int) -> NDArray[np.bool_] | None:
    """Averaged pixels all of whose pixels count."""
    if mask is None or factor == 1:
        return mask
    return average_down(mask.astype(np.float32), factor) > 1 - 1e-3
