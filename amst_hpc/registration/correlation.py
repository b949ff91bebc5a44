"""Correlation of two images: phase correlation, the nearest peak, quality of a transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from amst_hpc.content import filled
from amst_hpc.correlation import UNRELATED, pearson
from amst_hpc.slice_result import Estimate, RegistrationError
from amst_hpc.transform import FloatImage, Matrix

XCORR_SIGMA = 1.0
XCORR_UPSAMPLE = 100
NEWTON_STEPS = 4
EDGE = 7  # px: twice as far as an edge is seen, and one
PEAK_PIXELS = 1 << 18
PEAK_STEPS = 24
QUALITY_POINTS = 1 << 15
SMALLEST = 8


def phase_correlation(fixed: FloatImage, moving: FloatImage) -> Estimate:
    """XCORR of the original program: gaussian, sobel, phase correlation at 1/100 px.

    NaN has no content. A shift is known but for the size of the image, as its spectrum repeats
    itself: of the larger ones that is taken where both images correlate best.
    """
    from skimage.filters import sobel
    from skimage.registration import phase_cross_correlation

    edges = [sobel(ndimage.gaussian_filter(filled(a), XCORR_SIGMA)) for a in (fixed, moving)]
    levelled = [_level(*both) for both in zip(edges, (fixed, moving), strict=True)]
    if not all(a.size and np.ptp(a) > 0 for a in levelled):
        raise RegistrationError("an image without any edge")
    y, x = -phase_cross_correlation(*levelled, upsample_factor=XCORR_UPSAMPLE)[0]
    height, width = fixed.shape
    places = [(u, v) for u in _repeats(x, width) for v in _repeats(y, height)]
    if len(places) > 1:
        places.sort(key=lambda p: correlation(fixed, moving, round(p[0]), round(p[1])))
    return Estimate(places[-1], 0)


def _level(edges: FloatImage, image: FloatImage) -> FloatImage:
    """Without any step where the content of `image` ends: its mean edge stands for the others."""
    known = np.isfinite(image)
    if known.all():
        return edges
    inner = ndimage.minimum_filter(known, EDGE)
    return np.where(inner, edges, edges[inner].mean() if inner.any() else np.float32(0))


def _repeats(shift: float, size: int) -> list[float]:
    """The shifts along one axis that have the same spectrum."""
    other = shift - np.copysign(size, shift)
    return [float(shift)] if abs(shift) < size / 4 else [float(other), float(shift)]


def cross_correlation(fixed: FloatImage, moving: FloatImage) -> tuple[float, float]:
    """Shift (y, x) px of `moving` against `fixed`: the peak of the correlation of both, windowed.

    Not phase-normalised. Between pixels the correlation is the sum of its waves; Newton's method
    goes from the pixel of the largest to the top.
    """
    a, b = (fft.rfft2(_windowed(image)) for image in (fixed, moving))
    waves = a.conj() * b
    found = fft.irfft2(waves, s=fixed.shape)
    place = np.array(np.unravel_index(int(np.abs(found).argmax()), found.shape), np.float64)
    wide = fixed.shape[1]
    y, x = (2j * np.pi * f for f in (fft.fftfreq(fixed.shape[0]), fft.rfftfreq(wide)))
    twice = np.where((np.arange(len(x)) > 0) & (2 * np.arange(len(x)) < wide), 2, 1)
    for _ in range(NEWTON_STEPS):
        along_y, along_x = np.exp(y * place[0]), twice * np.exp(x * place[1])
        of_x = waves @ np.stack([along_x, along_x * x, along_x * x * x], 1).astype(waves.dtype)
        c = (np.stack([along_y, along_y * y, along_y * y * y]) @ of_x).real
        bend = np.array([[c[2, 0], c[1, 1]], [c[1, 1], c[0, 2]]])
        if c[2, 0] >= 0 or np.linalg.det(bend) <= 0:
            break  # no hill, as of a black image
        place += np.clip(np.linalg.solve(bend, [-c[1, 0], -c[0, 1]]), -0.5, 0.5)
    half = np.array(fixed.shape) // 2
    top = (place + half) % fixed.shape - half
    return float(top[0]), float(top[1])


def _windowed(image: FloatImage) -> FloatImage:
    return np.asarray((image - image.mean()) * _window(image.shape), np.float32)


@lru_cache(maxsize=4)
def _window(shape: tuple[int, int]) -> FloatImage:
    """Falls to zero at the borders."""
    return np.outer(*(np.hanning(size + 2)[1:-1] for size in shape)).astype(np.float32)


class Peak(NamedTuple):
    """A local maximum of the correlation: its whole pixel, and the top of the parabolas there."""

    x: int
    y: int
    top: tuple[float, float]


def nearest_peak(fixed: FloatImage, moving: FloatImage, x: int, y: int) -> Peak:
    """From (x, y) uphill to the nearest local maximum of the correlation."""
    return hill_climb(lambda positions: [correlation(fixed, moving, *p) for p in positions], (x, y))


def hill_climb(
    heights: Callable[[Sequence[tuple[int, int]]], list[float]], start: tuple[int, int]
) -> Peak:
    """The local maximum that `start` leads to; `heights` is asked for many positions at once."""
    seen: dict[tuple[int, int], float] = {}
    best = start
    for _ in range(PEAK_STEPS):
        here = best
        around = [(here[0] + dx, here[1] + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        new = [p for p in around if p not in seen]
        seen |= dict(zip(new, heights(new), strict=True)) if new else {}
        best = max(around, key=seen.__getitem__)
        if seen[best] <= seen[here]:
            break
    x, y = here
    columns, rows = ([seen[x + i, y] for i in (-1, 0, 1)], [seen[x, y + i] for i in (-1, 0, 1)])
    return Peak(x, y, (x + _top(columns), y + _top(rows)))


def _top(heights: Sequence[float]) -> float:
    """Where the parabola through heights at -1, 0, 1 is highest, -0.5 to 0.5."""
    left, middle, right = heights
    bend = left - 2 * middle + right
    return float(np.clip((left - right) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0


def correlation(fixed: FloatImage, moving: FloatImage, x: int, y: int) -> float:
    """Correlation of `fixed(p)` and `moving(p + (x, y))` where both exist and none is NaN.

    On at most some 10^5 pixels.
    """
    height, width = fixed.shape
    y0, y1, x0, x1 = max(0, -y), min(height, height - y), max(0, -x), min(width, width - x)
    if y1 - y0 < SMALLEST or x1 - x0 < SMALLEST:
        return UNRELATED
    step = max(1, (height * width) // PEAK_PIXELS)
    # the same rows of `fixed` whatever the shift, so that neighbouring shifts compare the same
    # pixels
    first = -(-y0 // step) * step
    a, b = fixed[first:y1:step, x0:x1], moving[first + y : y1 + y : step, x0 + x : x1 + x]
    found = pearson(a, b)
    if found == UNRELATED:  # as of arrays that hold NaN
        known = np.isfinite(a + b)
        found = pearson(a[known], b[known], SMALLEST**2)
    return found


def quality(fixed: FloatImage, moving: FloatImage, matrix: Matrix) -> float:
    """Correlation of `fixed(p)` and `moving(M p)`, both smoothed.

    On a grid of points where both have content: neither NaN nor zeros count. -1 where nothing is
    left to compare.
    """
    height, width = fixed.shape
    step = max(1, int(np.sqrt(height * width / QUALITY_POINTS)))
    y, x = np.mgrid[0:height:step, 0:width:step].reshape(2, -1)
    qx, qy = matrix[:, :2] @ np.stack([x, y]) + matrix[:, 2:]
    inside = (qx >= 0) & (qy >= 0) & (qx <= width - 1) & (qy <= height - 1)
    inside &= fixed[y, x] > 0
    inside[inside] = moving[np.rint(qy[inside]).astype(int), np.rint(qx[inside]).astype(int)] > 0
    if np.count_nonzero(inside) < SMALLEST**2:
        return UNRELATED
    values = ndimage.map_coordinates(moving, [qy[inside], qx[inside]], order=1)
    known = np.isfinite(values)  # beside NaN it is NaN, too
    return pearson(fixed[y[inside], x[inside]][known], values[known], SMALLEST**2)
