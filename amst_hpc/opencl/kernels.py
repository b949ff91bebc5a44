"""What a rank computes on its OpenCL device besides SIFT.

Smoothing, averaging, correlation, median, resampling: each does what its twin on the host does
(`coarse`, `median`, `transform`), to rounding; the median exactly. Images are uploaded once and
stay on the device between the steps. The prefilter of the cubic B-spline is the impulse response of
its recursion, sqrt(3) (sqrt(3) - 2)^|k| (Unser, IEEE Signal Process Mag 16, 22 (1999)), cut where
float32 ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.correlation import pearson_of_sums
from amst_hpc.median import network
from amst_hpc.opencl.memory import NAMES, DeviceMemory, read_source
from amst_hpc.transform import Image, Matrix, is_whole_shift, shift_whole

GROUPS, LANES = 64, 128
Floats = NDArray[np.float32]
SPLINE_RADIUS = 15
POLE = np.sqrt(3.0) - 2.0


def gaussian_taps(sigma: float) -> Floats:
    """Half of a gaussian window of 3 sigma, from its middle; the window's sum is 1."""
    weights = np.exp(-0.5 * (np.arange(int(3 * sigma + 0.5) + 1) / sigma) ** 2)
    taps: Floats = (weights / (2 * weights.sum() - weights[0])).astype(np.float32)
    return taps


def spline_taps() -> Floats:
    """Half of the window that turns grey values into cubic B-spline coefficients."""
    taps: Floats = (np.sqrt(3.0) * POLE ** np.arange(SPLINE_RADIUS + 1)).astype(np.float32)
    return taps


@dataclass(frozen=True)
class ComparedPoints:
    """Which points of two images are compared: every step-th (y, x), at least `least` of them.

    masked : zeros do not count; NaN never does. usual : a usual grey value, which the sums are
    counted from.
    """

    step: tuple[int, int]
    masked: bool
    usual: float
    least: int


class Kernels(DeviceMemory):
    """The programs of one device."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.kernels = self.build(read_source("kernels.cl"))
        self.medians: dict[tuple[int, str], Any] = {}
        self.taps: dict[bytes, Any] = {}

    def convolve(self, image: Any, taps: Floats) -> Any:
        """Both axes of an uploaded (y, x) image with a symmetric window, mirrored at the border."""
        height, width = image.shape
        window = self.taps.setdefault(taps.tobytes(), self.upload(taps))
        sizes = [np.int32(n) for n in (len(taps) - 1, width, height)]
        rows, out = self.empty(image.shape, np.float32), self.empty(image.shape, np.float32)
        name = f"convolve_rows_{NAMES[image.dtype.name]}"
        self.run(self.kernels[name], image.shape, image.data, rows.data, window.data, *sizes)
        self.run(
            self.kernels["convolve_columns"], image.shape, rows.data, out.data, window.data, *sizes
        )
        return out

    def share(self, image: Any, weight: Any, mask: Any) -> Any:
        """`image / weight` where the uint8 `mask` says so, NaN elsewhere; all uploaded (y, x)."""
        out, (height, width) = self.empty(image.shape, np.float32), image.shape
        buffers = [a.data for a in (image, weight, mask, out)]
        self.run(self.kernels["share"], image.shape, *buffers, np.int32(width), np.int32(height))
        return out

    def average_down(self, image: Any, factor: int) -> Any:
        """Mean of factor x factor blocks; a rest at the right and below is left out."""
        shape = (image.shape[0] // factor, image.shape[1] // factor)
        # not from the pool, whose pieces are larger: silx copies the whole buffer
        out = self.array.empty(self.queue, shape, np.float32)
        sizes = [np.int32(n) for n in (factor, image.shape[1], shape[1], shape[0])]
        self.run(self.kernels["average_down"], shape, image.data, out.data, *sizes)
        return out

    def correlations(
        self, fixed: Any, moving: Any, matrices: Sequence[Matrix], points: ComparedPoints
    ) -> list[float]:
        """Pearson's coefficient of `fixed(p)` and `moving(M p)` for each M; see `correlation`."""
        height, width = fixed.shape
        table = self.upload(np.array(matrices, np.float32))
        out = self.empty((len(matrices), GROUPS, 6), np.float32)
        sizes = [np.int32(n) for n in (width, height, *points.step[::-1], points.masked)]
        self.kernels["compare"](
            self.queue, (GROUPS * LANES, len(matrices)), (LANES, 1),
            fixed.data, moving.data, table.data, *sizes, np.float32(points.usual), out.data,
            self.cl.LocalMemory(4 * LANES),
        )  # fmt: skip
        sums = out.get().astype(np.float64).sum(axis=1)
        return [pearson_of_sums(row, points.least) for row in sums]

    def median(self, window: Sequence[Any]) -> Image:
        """Median along z of uploaded slices, exactly `np.median(window, axis=0).astype(dtype)`."""
        first = window[0]
        key = (len(window), NAMES[first.dtype.name])
        if key not in self.medians:
            self.medians[key] = self.build(median_source(*key))["middle"]
        out = self.empty(first.shape, first.dtype)
        size = (-(-first.size // LANES) * LANES,)
        buffers = [a.data for a in window]
        self.medians[key](self.queue, size, (LANES,), np.uint32(first.size), out.data, *buffers)
        found: Image = out.get()
        return found

    def resample(self, image: Image, m: Matrix, shape: tuple[int, int]) -> Image:
        """`out(p) = image(M p)` by cubic B-spline; see `transform.resample`."""
        if is_whole_shift(m):
            return shift_whole(image, int(m[0, 2]), int(m[1, 2]), shape)
        spline = self.convolve(self.upload(image), spline_taps())
        out = self.empty(shape, image.dtype)
        sizes = [np.int32(n) for n in (image.shape[1], image.shape[0], shape[1], shape[0])]
        numbers = [np.float64(value) for value in m.ravel()]
        name = f"resample_{NAMES[image.dtype.name]}"
        self.run(self.kernels[name], shape, spline.data, out.data, *numbers, *sizes)
        found: Image = out.get()
        return found


def median_source(count: int, pixel: str) -> str:
    """OpenCL source of the median of `count` slices: `median`'s sorting network, unrolled."""
    low, high = (count - 1) // 2, count // 2
    lines = [f"{pixel} v{i} = s{i}[p];" for i in range(count)]
    for i, j, keep_low, keep_high in network(count, frozenset((low, high))):
        swap = [f"{{ {pixel} t = v{i};"]
        swap += [f"v{i} = min(t, v{j});"] if keep_low else []
        swap += [f"v{j} = max(t, v{j});"] if keep_high else []
        lines.append(" ".join([*swap, "}"]))
    body = "\n    ".join(lines)
    middle = f"v{low}" if low == high else f"(v{low} & v{high}) + ((v{low} ^ v{high}) >> 1)"
    slices = ", ".join(f"global const {pixel} *s{i}" for i in range(count))
    return (
        f"kernel void middle(uint size, global {pixel} *out, {slices}) {{\n"
        f"    size_t p = get_global_id(0);\n    if (p >= size) return;\n    {body}\n"
        f"    out[p] = {middle};\n}}\n"
    )
