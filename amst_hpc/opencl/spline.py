"""Resampling by OpenCL on a processor: `transform.resample`, many times as fast as scipy.

Sixteen pixels at once (`spline.cl`). The prefilter is that of `kernels`, rows and columns in one
pass; beside the image and the result a float32 image is in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amst_hpc.opencl.kernels import SPLINE_RADIUS, spline_taps
from amst_hpc.opencl.memory import NAMES, DeviceMemory, read_source
from amst_hpc.transform import Image, Matrix, is_whole_shift, resample, shift_whole

LANES = 16  # px that are computed at once
ROWS = 32  # of one work item


class ProcessorSpline(DeviceMemory):
    """The programs of a processor."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        numbers = {"LANES": LANES, "ROWS": ROWS, "RADIUS": SPLINE_RADIUS}
        defined = "".join(f"#define {name} {value}\n" for name, value in numbers.items())
        self.kernels = self.build(defined + read_source("spline.cl"))
        self.taps = self.upload(spline_taps())

    def resample(self, image: Image, m: Matrix, shape: tuple[int, int]) -> Image:
        """`out(p) = image(M p)` by cubic B-spline; see `transform.resample`."""
        if is_whole_shift(m):
            return shift_whole(image, int(m[0, 2]), int(m[1, 2]), shape)
        if image.shape[1] < LANES:
            return resample(image, m, shape)
        spline = self._coefficients(image)
        out = self.empty(shape, image.dtype)
        numbers = [np.float64(value) for value in m.ravel()]
        self._rows(
            f"resample_{NAMES[image.dtype.name]}", shape[0],
            spline.data, out.data, *numbers, *_sizes(image.shape), *_sizes(shape),
        )  # fmt: skip
        found: Image = out.get()
        return found

    def _coefficients(self, image: Image) -> Any:
        """Of a cubic B-spline, mirrored around the image by 2 rows and LANES columns."""
        height, width = image.shape
        rows = height + 4
        out = self.empty((rows + 1, width + 2 * LANES), np.float32)  # lanes may read on by a pixel
        items = -(-rows // ROWS)
        scratch = self.empty((items, width + 2 * (LANES + SPLINE_RADIUS)), np.float32)
        self._rows(
            f"coefficients_{NAMES[image.dtype.name]}", rows,
            self.upload(image).data, out.data, scratch.data, self.taps.data, *_sizes(image.shape),
        )  # fmt: skip
        return out

    def _rows(self, kernel: str, rows: int, *arguments: Any) -> None:
        """One work item for each ROWS rows."""
        self.kernels[kernel](self.queue, (-(-rows // ROWS),), (1,), *arguments)


def _sizes(shape: tuple[int, ...]) -> list[np.int32]:
    """Width and height of a (y, x) image, for a kernel."""
    return [np.int32(n) for n in shape[::-1]]
