"""Where slices are made ready for their pairs, and the normal equations of a pair are computed.

`HostEquations` is numpy alone. On a processor OpenCL takes the steps, many times as fast; Fourier
transforms filter best there, by numpy. On a GPU everything stays on the device.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.averaging import average_down
from amst_hpc.content import Mask, box, content, margin_values, without_rim
from amst_hpc.opencl.devices import NoDeviceError, open_device
from amst_hpc.opencl.gauss_newton import (
    FEWEST,
    MARGIN,
    PIVOT,
    RESIDUALS,
    STEPS,
    TILE,
    DeviceSlices,
    DeviceSteps,
    Fit,
    Loaded,
    Tiles,
)
from amst_hpc.opencl.resampling import Resampler, make_resampler
from amst_hpc.registration.coherence import FREE, RINGS, RadialFilter, Spectrum
from amst_hpc.transform import (
    FloatImage,
    Image,
    compose,
    resample,
    small_affine,
    translation,
)

UPPER = np.triu_indices(8)
TOGETHER = 64  # tiles that numpy looks at together
log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Single = NDArray[np.float32]


class Equations(Protocol):
    """Where pairs are computed. every_tile : all of a slice is looked at, however large it is."""

    every_tile: bool
    resample: Resampler

    def load(self, image: Image, factor: int) -> Any: ...
    def content(self, slice_: Any) -> Mask | None: ...
    def smaller(self, slice_: Any, factor: int) -> Any: ...
    def filtered(self, slice_: Any, kernel: RadialFilter) -> Any: ...
    def fetch(self, slice_: Any) -> FloatImage: ...
    def descend(self, pair: tuple[Any, Any], fit: Fit, tiles: Tiles, enough: float) -> Fit: ...
    def tile_sums(self, pair: tuple[Any, Any], fit: Fit, tiles: Tiles) -> Single: ...


@dataclass(frozen=True, eq=False)
class HostSlice:
    """(y, x) pixels; seen : where it has content, None: everywhere."""

    pixels: Image | FloatImage
    seen: Mask | None

    @cached_property
    def spectrum(self) -> Spectrum:
        """One for all filters."""
        return Spectrum.of(self.pixels, self.seen)


class HostSlices:
    """Made ready by numpy."""

    every_tile = False
    resample: Resampler = staticmethod(resample)

    def load(self, image: Image, factor: int) -> HostSlice:
        """A (y, x) uint8 or uint16 slice, averaged down by a whole factor."""
        small = averaged(image, factor)
        return HostSlice(small, _unmixed(content(small), factor))

    def content(self, slice_: HostSlice) -> Mask | None:
        """Where it has content; None: everywhere."""
        return slice_.seen

    def smaller(self, slice_: HostSlice, factor: int) -> HostSlice:
        """Averaged down further; pixels count all of whose pixels did."""
        mask = slice_.seen
        if mask is not None and factor > 1:
            mask = average_down(mask.astype(np.float32), factor) > 1 - 1e-3
        return HostSlice(average_down(slice_.pixels, factor), mask)

    def filtered(self, slice_: HostSlice, kernel: RadialFilter) -> Any:
        """Its coefficients, NaN where a pixel does not count."""
        return slice_.spectrum.filtered(kernel)

    def fetch(self, slice_: HostSlice) -> FloatImage:
        """Its pixels, their mean where it has no content."""
        pixels, mask = average_down(slice_.pixels, 1), slice_.seen
        return pixels if mask is None else np.where(mask, pixels, pixels[mask].mean())


class HostEquations(HostSlices):
    """All by numpy."""

    def descend(self, pair: tuple[Any, Any], fit: Fit, tiles: Tiles, enough: float) -> Fit:
        """Gauss-Newton from `fit` until a step is below `enough` px.

        pair : coefficients of the fixed and the moving slice. tiles : numbers of the tiles of 32 x
        32 px, row by row, that are looked at.
        """
        shape = pair[0].shape
        share = across(shape[1]) * across(shape[0]) / len(tiles)
        for step in range(STEPS):
            total = self.tile_sums(pair, fit, tiles).sum(axis=0, dtype=np.float64)
            change = _solve(total)
            if change is None:
                return replace(fit, points=0.0)
            matrix = compose(fit.matrix, small_affine(change[:6], shape))
            gain, bias = fit.light[0] + change[6], fit.light[1] + change[7]
            scale = 1 / (RESIDUALS * max(np.sqrt(total[46] / total[45]), 1e-12))
            fixed = max(total[47] - total[48] / total[45] * total[48], 1e-30)
            fit = Fit(matrix, (gain, bias, scale), 1 - total[46] / fixed, total[45] * share)
            if step and np.abs(change[:6]).max() < enough:
                break
        return fit

    def tile_sums(self, pair: tuple[Any, Any], fit: Fit, tiles: Tiles) -> Single:
        """Sums of each tile, (n, 49); which ones, `opencl/gauss_newton.cl` says."""
        parts = np.array_split(tiles, -(-len(tiles) // TOGETHER))
        return np.concatenate([_tile_sums(pair, fit, part) for part in parts])


class ProcessorEquations(HostSlices):
    """The steps by OpenCL on a processor."""

    def __init__(self, context: Any) -> None:
        self.device = DeviceSteps(context)
        self.descend, self.tile_sums = self.device.descend, self.device.tile_sums

    def filtered(self, slice_: HostSlice, kernel: RadialFilter) -> Any:
        """See `HostSlices.filtered`."""
        return self.device.memory.upload(slice_.spectrum.filtered(kernel))


class GpuEquations(DeviceSlices):
    """All on a GPU."""

    every_tile = True
    resample: Resampler = staticmethod(resample)

    def load(self, image: Image, factor: int) -> Loaded:
        """See `HostSlices.load`; where the slice has margins, the host makes it ready."""
        if not margin_values(image):
            return super().load(image, factor)
        small = averaged(image, factor)
        mask = _unmixed(content(small), factor)
        if mask is None:
            return super().load(image, factor)
        finer = 1 if small.dtype == image.dtype else 255
        pixels = _mirrored(small.astype(np.float32) / np.float32(finer), mask)
        mean = float(pixels[mask].mean())
        y0, y1, x0, x1 = box(mask, mask.shape)
        spread = MARGIN - FREE  # by which the device takes more than it is to take at the box
        black = np.ones(mask.shape, np.uint8)
        black[max(0, y0 - spread) : y1 + spread, max(0, x0 - spread) : x1 + spread] = 0
        black[y0:y1, x0:x1] = ~mask[y0:y1, x0:x1]
        there = self.memory.upload(pixels - np.float32(mean))
        return Loaded(there, mean, self.memory.upload(black))

    def content(self, slice_: Loaded) -> Mask | None:
        """See `HostSlices.content`."""
        return None if slice_.black is None else np.asarray(slice_.black.get() == 0)

    def filtered(self, slice_: Loaded, kernel: RadialFilter) -> Any:
        """See `HostSlices.filtered`."""
        return self.convolved(slice_, kernel.terms())


def open_equations(wanted: str, local_rank: int) -> Equations:
    """On the rank's device; by numpy where no OpenCL device computes what it should.

    wanted : as `coarse.device`. Raises `InputError` for a device that does not exist.
    """
    try:
        context, device = open_device(wanted, local_rank)
    except (NoDeviceError, ImportError):
        return HostEquations()
    kind = GpuEquations if device.kind == "gpu" else ProcessorEquations
    try:
        equations = kind(context)
        _prove(equations)
    except Exception as error:  # pyopencl's errors have no common class
        log.warning("neighbours do not compute on %s (%s); on with the host", device, error)
        return HostEquations()
    equations.resample = make_resampler(wanted, local_rank)
    return equations


def _unmixed(mask: Mask | None, factor: int) -> Mask | None:
    """Without pixels that averaging by `factor` has mixed from content and none."""
    return mask if mask is None or factor == 1 else without_rim(mask)


def _mirrored(image: FloatImage, mask: Mask) -> FloatImage:
    """What goes on beyond the box that holds the content, so that no filter sees its edge; holes
    are filled with the mean.
    """
    y0, y1, x0, x1 = box(mask, image.shape)
    inner = mask[y0:y1, x0:x1]
    part = image[y0:y1, x0:x1]
    beyond = (y0, image.shape[0] - y1), (x0, image.shape[1] - x1)
    return np.pad(np.where(inner, part, part[inner].mean()), beyond, mode="symmetric")


def _prove(equations: Equations) -> None:
    """Raises where a pair that is known is not found."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(96, 97)), 2)
    image = np.rint(noise / noise.std() * 20 + 128).astype(np.uint8)
    both = tuple(
        equations.filtered(equations.load(part, 1), RadialFilter(np.ones(RINGS)))
        for part in (image[:, :-1], image[:, 1:])
    )
    tiles = np.arange(9, dtype=np.int32)
    found = equations.descend((both[0], both[1]), Fit(np.eye(2, 3)), tiles, 1e-3)
    if not np.abs(found.matrix - translation(-1, 0)).max() < 0.05:
        raise RuntimeError(f"a test pair gave {found.matrix.tolist()}")


def averaged(image: Image, factor: int) -> Image:
    """Averaged down, in uint16 so that nothing is lost by rounding."""
    if factor == 1:
        return image
    finer = 255 if image.dtype == np.uint8 else 1
    return np.rint(average_down(image, factor) * finer).astype(np.uint16)


def _solve(total: Floats) -> Floats | None:
    """The step that the sums of all tiles ask for, and those of gain and bias; None: they tell
    nothing.
    """
    if total[45] < FEWEST or not np.isfinite(total).all():
        return None
    matrix = np.zeros((8, 8))
    matrix[UPPER] = total[:36]
    matrix += np.triu(matrix, 1).T
    size = np.sqrt(np.diag(matrix))
    if not (size > 0).all():
        return None
    matrix /= np.outer(size, size)
    try:
        if np.diag(np.linalg.cholesky(matrix)).min() < PIVOT:
            return None
    except np.linalg.LinAlgError:
        return None
    change: Floats = np.linalg.solve(matrix, total[36:44] / size) / size
    return change


def across(width: int) -> int:
    """How many tiles lie side by side."""
    return -(-width // TILE)


def _basis(u: Single) -> tuple[Single, Single]:
    """Weights and slopes of the four coefficients around a point, (4, ...) each."""
    v = 1 - u
    weights = [v**3, 4 - 3 * u * u * (2 - u), 4 - 3 * v * v * (2 - v), u**3]
    slopes = [-v * v, u * (3 * u - 4), -v * (3 * v - 4), u * u]
    six, two = np.float32(6), np.float32(2)
    return np.array(weights, np.float32) / six, np.array(slopes, np.float32) / two


def _sample(c: FloatImage, at: tuple[Any, Any], part: Any) -> tuple[Single, Single, Single]:
    """Value and slopes in x and y of a spline at pixels `at` (x, y) + part, inside by 2 px."""
    wx, dx = _basis(part[0])
    wy, dy = _basis(part[1])
    flat, first = c.ravel(), (at[1] - 1) * c.shape[1] + at[0] - 1
    value, gx, gy = (np.zeros(first.shape, np.float32) for _ in range(3))
    for j in range(4):
        row = [flat[first + j * c.shape[1] + i] for i in range(4)]
        along = sum(w * r for w, r in zip(wx, row, strict=True))
        value += wy[j] * along
        gy += dy[j] * along
        gx += wy[j] * sum(d * r for d, r in zip(dx, row, strict=True))
    return value, gx, gy


def _tile_sums(pair: tuple[Any, Any], fit: Fit, tiles: Tiles) -> Single:
    fixed, moving = pair
    m = fit.matrix
    height, width = fixed.shape
    gain, bias, scale = (np.float32(value) for value in fit.light)
    lane = np.arange(TILE)
    x = (tiles % across(width) * TILE)[:, None, None] + lane + 0 * lane[:, None]
    y = (tiles // across(width) * TILE)[:, None, None] + lane[:, None] + 0 * lane
    d = [row[0] * x + row[1] * y + row[2] for row in m - np.eye(2, 3)]
    whole = [np.floor(values).astype(np.int64) for values in d]
    part = [(values - n).astype(np.float32) for values, n in zip(d, whole, strict=True)]
    qx, qy = x + whole[0], y + whole[1]
    ok = (x >= MARGIN) & (y >= MARGIN) & (x < width - MARGIN) & (y < height - MARGIN)
    ok &= (qx >= MARGIN) & (qy >= MARGIN) & (qx < width - 1 - MARGIN) & (qy < height - 1 - MARGIN)
    qx, qy = np.clip(qx, 1, width - 3), np.clip(qy, 1, height - 3)
    here = np.clip(x, 1, width - 3), np.clip(y, 1, height - 3)
    f, fx, fy = _sample(fixed, here, np.zeros((2, *x.shape), np.float32))
    r, rx, ry = _sample(moving, (qx, qy), part)
    a = m.astype(np.float32)
    gx = (gain * (a[0, 0] * rx + a[1, 0] * ry) + fx) / 2
    gy = (gain * (a[0, 1] * rx + a[1, 1] * ry) + fy) / 2
    xi = ((x - (width - 1) / 2) / (width / 2)).astype(np.float32)
    eta = ((y - (height - 1) / 2) / (height / 2)).astype(np.float32)
    rest, one = f - gain * r - bias, np.ones(x.shape, np.float32)
    v = np.stack([gx, gx * xi, gx * eta, gy, gy * xi, gy * eta, r, one, rest, f], axis=-1)
    v = v.reshape(len(tiles), -1, 10)
    count = (ok.reshape(v.shape[:2]) & np.isfinite(v).all(axis=-1)).astype(np.float32)[..., None]
    v = np.where(count > 0, v, 0)
    weight = count / (1 + (v[..., 8:9] * scale) ** 2) ** 2
    weighted = np.swapaxes(v, 1, 2) @ (weight * v)
    rest, f = v[..., 8], v[..., 9]
    ends = [weighted[:, 8, 8], count.sum(axis=(1, 2)), (rest**2).sum(axis=1)]
    ends += [(f**2).sum(axis=1), f.sum(axis=1)]
    parts = [weighted[:, UPPER[0], UPPER[1]], weighted[:, :8, 8], np.stack(ends, axis=1)]
    out: Single = np.concatenate(parts, axis=1)
    return out
