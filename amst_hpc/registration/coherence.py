"""The filter that neighbouring slices are compared with.

What is coherent from slice to slice is weighed up, the rest down: the weight of Hannan and Thomson
for the estimation of time delays (Knapp and Carter, IEEE Trans ASSP 24, 320 (1976)), times the
frequency squared, because what moves with the tissue is coarse. Spectrum and coherence are those of
the run itself, a filter for each distance k of the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from amst_hpc.content import Box, Mask, box
from amst_hpc.opencl.gauss_newton import MARGIN
from amst_hpc.transform import FloatImage, Image

RINGS = 64
LARGEST = 1024  # px
PLACES = 16  # of the stack, for each distance
RADIUS = 20
ALIASED = 0.25  # cycles per px
FREE = MARGIN - 2  # px at the border of the box: with what a spline needs, as at that of an image
SMALL_TERM = 1e-2
PAD = 32  # px
CHANCE = 2.25  # a Hann window leaves so much fewer independent values
Floats = NDArray[np.float64]
FREQUENCIES = (np.arange(RINGS) + 0.5) / (2 * RINGS)


@dataclass(frozen=True, eq=False)
class RadialFilter:
    """A filter that knows no direction: `gain` at `FREQUENCIES` (cycles per px), 0 above 0.5."""

    gain: Floats
    made: dict[Any, Any] = field(default_factory=dict)  # what was worked out once

    def transfer(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Its values, with those of the cubic B-spline's prefilter, for `scipy.fft.rfft2`."""
        if shape not in self.made:
            self.made[shape] = self._transfer(shape)
        values: NDArray[np.float32] = self.made[shape]
        return values

    def _transfer(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
        spline = ((2 + np.cos(2 * np.pi * fy)) / 3) * ((2 + np.cos(2 * np.pi * fx)) / 3)
        gain = np.interp(np.hypot(fy, fx), FREQUENCIES, self.gain, left=self.gain[0], right=0.0)
        values: NDArray[np.float32] = (gain / spline).astype(np.float32)
        return values

    def terms(self) -> list[tuple[float, NDArray[np.float32]]]:
        """The same as a sum of separable windows: (factor, half window from its middle) each."""
        if "terms" not in self.made:
            self.made["terms"] = self._terms()
        terms: list[tuple[float, NDArray[np.float32]]] = self.made["terms"]
        return terms

    def _terms(self) -> list[tuple[float, NDArray[np.float32]]]:
        size = 128
        window = np.fft.fftshift(fft.irfft2(self.transfer((size, size)), (size, size)))
        middle = slice(size // 2 - RADIUS, size // 2 + RADIUS + 1)
        values, vectors = np.linalg.eigh(window[middle, middle])
        large = np.abs(values) > SMALL_TERM * np.abs(values).max()
        halves = vectors[RADIUS:, large].T.astype(np.float32)
        return list(zip(values[large].tolist(), halves, strict=True))


def gaussian(sigma: float) -> RadialFilter:
    """Smoothing by `sigma` px."""
    return RadialFilter(np.exp(-2 * (np.pi * sigma * FREQUENCIES) ** 2))


def spectra(fixed: FloatImage, moving: FloatImage) -> tuple[Floats, Floats]:
    """Power and coherence (squared, less what chance gives) of two aligned images, on the rings.

    Power is that of a pixel, whatever the size of the images.
    """
    side = min(*fixed.shape, LARGEST)
    y, x = ((n - side) // 2 for n in fixed.shape)
    hann = np.hanning(side)
    window = np.outer(hann, hann).astype(np.float32)
    a, b = (image[y : y + side, x : x + side] for image in (fixed, moving))
    a, b = (fft.rfft2((image - image.mean()) * window) for image in (a, b))
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    ring = np.minimum((radius * 2 * RINGS).astype(int), RINGS).ravel()

    def total(values: NDArray[Any]) -> Floats:
        return np.bincount(ring, values.ravel(), RINGS + 1)[:RINGS].astype(np.float64)

    count = np.maximum(total(np.ones(radius.shape)), 1)
    aa, bb, ab = total(np.abs(a) ** 2), total(np.abs(b) ** 2), total((a * b.conj()).real)
    coherence = np.clip(ab, 0, None) ** 2 / np.maximum(aa * bb, 1e-30)
    return (aa + bb) / 2 / count / side**2, coherence - CHANCE / count


def matched_filter(
    pairs: Sequence[tuple[Floats, Floats]], side: int, averaged: bool = False
) -> RadialFilter:
    """The filter for pairs of slices whose `spectra` are given; `side` : px of their windows.

    averaged : the slices were averaged down; what is finer than 4 px may be aliased then.
    Smoothing by 1 px where they have nothing in common.
    """
    power = np.median([p for p, _ in pairs], axis=0)
    coherence = ndimage.gaussian_filter1d(np.median([c for _, c in pairs], axis=0), 1.0)
    count = np.maximum(np.pi * (2 * FREQUENCIES * side / 2) * side / (2 * RINGS), 1)
    known = coherence > 2 * CHANCE / count
    if averaged:
        known &= FREQUENCIES < ALIASED
    if not known.any():
        return gaussian(1.0)
    shared = np.where(known, np.clip(coherence, 0, 0.999), 0)
    gain = np.sqrt(shared / (1 - shared) / np.maximum(power, 1e-30)) * FREQUENCIES**2
    return RadialFilter(gain / gain.max())


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of the `box` of an image that holds all that counts; it goes on mirrored at the border.

    size : of the transform. shape : (y, x) of the image. mask : of the box, True where a pixel
    counts; None: all do.
    """

    values: NDArray[np.complex64]
    size: tuple[int, int]
    shape: tuple[int, int]
    box: Box
    mask: Mask | None

    @classmethod
    def of(cls, image: Image | FloatImage, mask: Mask | None) -> Spectrum:
        """Pixels of `image` (y, x) that do not count are taken for the mean of the others."""
        shape = (image.shape[0], image.shape[1])
        y0, y1, x0, x1 = edges = (0, shape[0], 0, shape[1]) if mask is None else box(mask, shape)
        floats = image[y0:y1, x0:x1].astype(np.float32)
        if mask is not None:
            mask = mask[y0:y1, x0:x1]
            floats = np.where(mask, floats, floats[mask].mean())
        wide = np.pad(floats - floats.mean(), PAD, mode="symmetric")
        y, x = (fft.next_fast_len(n, real=True) for n in wide.shape)
        return cls(fft.rfft2(wide, (y, x)), (y, x), shape, edges, mask)

    def filtered(self, kernel: RadialFilter) -> FloatImage:
        """Cubic B-spline coefficients of the filtered image, of standard deviation 1.

        What does not count becomes NaN, and what is near it, as the steps reach.
        """
        y0, y1, x0, x1 = self.box
        wide = fft.irfft2(self.values * kernel.transfer(self.size), self.size, overwrite_x=True)
        part: FloatImage = np.ascontiguousarray(
            wide[PAD : PAD + y1 - y0, PAD : PAD + x1 - x0], np.float32
        )
        mask = self.mask
        part /= max(float(part.std() if mask is None else part[mask].std()), 1e-12)
        if mask is None:
            return part
        part[~ndimage.minimum_filter(mask, 2 * MARGIN + 1, mode="nearest")] = np.nan
        out = np.full(self.shape, np.nan, np.float32)
        out[y0 + FREE : y1 - FREE, x0 + FREE : x1 - FREE] = part[FREE:-FREE, FREE:-FREE]
        return out
