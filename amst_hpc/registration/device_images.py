"""The images of the coarse step in the memory of an OpenCL device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amst_hpc.config import Coarse
from amst_hpc.content import content
from amst_hpc.opencl.kernels import ComparedPoints, Kernels, gaussian_taps
from amst_hpc.opencl.sift import Sift
from amst_hpc.registration.correlation import (
    PEAK_PIXELS,
    QUALITY_POINTS,
    SMALLEST,
    Peak,
    hill_climb,
)
from amst_hpc.transform import Image, Matrix, translation


@dataclass(frozen=True)
class DeviceImage:
    """A smoothed image in the memory of a device, and what it was made from.

    whole : it has content everywhere; else NaN stands where it has none.
    """

    source: Image
    pixels: Any
    place: OnDevice
    whole: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x)."""
        return self.source.shape


class OnDevice:
    """Smoothing and correlation on the OpenCL device: nothing but numbers comes back."""

    def __init__(self, context: Any, sigma: float, memory: int) -> None:
        """memory : bytes of the device, shared by all ranks on it."""
        self.kernels, self.memory = Kernels(context), memory
        self.taps = gaussian_taps(sigma) if sigma else np.ones(1, np.float32)
        self.uploaded: dict[int, tuple[Image, Any]] = {}

    def templates(self, windows: Sequence[Sequence[Image]]) -> list[Image]:
        """See `median.median_templates`; slices of the windows before stay on the device."""
        slices = {id(a): a for window in windows for a in window}
        for key in set(self.uploaded) - set(slices):
            del self.uploaded[key]
        for key, image in slices.items():
            if key not in self.uploaded or self.uploaded[key][0] is not image:
                self.uploaded[key] = (image, self.kernels.upload(image))
        return [self.kernels.median([self.uploaded[id(a)][1] for a in w]) for w in windows]

    def smooth(self, image: Image) -> DeviceImage:
        """The image uploaded and smoothed; what has no content takes no part."""
        mask, kernels = content(image), self.kernels
        if mask is None:
            return DeviceImage(image, kernels.convolve(kernels.upload(image), self.taps), self)
        there = kernels.upload(mask.astype(np.uint8))
        inside = kernels.upload(np.where(mask, image, image.dtype.type(0)))
        weight, total = kernels.convolve(there, self.taps), kernels.convolve(inside, self.taps)
        pixels = kernels.share(total, weight, there)
        return DeviceImage(image, pixels, self, whole=False)

    def average_down(self, image: DeviceImage, factor: int) -> Any:
        """See `average_down`; silx takes the result as it is."""
        small = self.kernels.average_down(image.pixels, factor)
        self.kernels.queue.finish()
        return small

    def nearest_peak(self, fixed: DeviceImage, moving: DeviceImage, x: int, y: int) -> Peak:
        """See `nearest_peak`."""
        height, width = fixed.shape
        step = (max(1, (height * width) // PEAK_PIXELS), 1)

        def heights(positions: Sequence[tuple[int, int]]) -> list[float]:
            shifts = [translation(*p) for p in positions]
            return self._correlations(fixed, moving, shifts, step, False)

        return hill_climb(heights, (x, y))

    def quality(self, fixed: DeviceImage, moving: DeviceImage, matrix: Matrix) -> float:
        """See `quality`."""
        step = max(1, int(np.sqrt(fixed.source.size / QUALITY_POINTS)))
        return self._correlations(fixed, moving, [matrix], (step, step), True)[0]

    def _correlations(
        self,
        fixed: DeviceImage,
        moving: DeviceImage,
        matrices: list[Matrix],
        step: tuple[int, int],
        masked: bool,
    ) -> list[float]:
        usual = float(fixed.source[:: max(1, fixed.shape[0] // 32)].mean())
        points = ComparedPoints(step, masked, usual, SMALLEST**2)
        return self.kernels.correlations(fixed.pixels, moving.pixels, matrices, points)


def make_device_images(sift: Sift, config: Coarse) -> OnDevice | None:
    """What else runs on the device of SIFT; None on a CPU, where scipy is as fast."""
    if sift.opened.kind == "cpu":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OnDevice(sift.context, config.sigma, sift.opened.memory)
