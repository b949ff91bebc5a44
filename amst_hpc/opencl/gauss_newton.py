"""Gauss-Newton between two filtered slices on an OpenCL device.

The normal equations on any device; and on a GPU, what slices need before: averaged down, black
areas found, filtered. The twin on the host is `registration.equations`, with the same numbers to
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.opencl.memory import NAMES, DeviceMemory, read_source
from amst_hpc.transform import FloatImage, Image, Matrix

TILE = 32  # px: sums are those of tiles of so many px in x and y
SUMS = 49
MARGIN = 4  # px at the border, and around black areas, that do not count
BLACK = 5  # px: a black area is at least so wide
PARTS = 64
SAMPLED_ROWS = 64  # for the mean grey value
Photometry = tuple[float, float, float]
Tiles = NDArray[np.int32]
Floats = NDArray[np.float64]
Terms = Sequence[tuple[float, NDArray[np.float32]]]


@dataclass(frozen=True)
class Loaded:
    """A slice on the device, (y, x) float32 counted from `mean`; black : uint8, where it is so."""

    pixels: Any
    mean: float
    black: Any | None


class DeviceSums:
    """The normal equations of pairs of slices in the memory of a device."""

    def __init__(self, context: Any) -> None:
        self.memory = DeviceMemory(context)
        source = f"#define TILE {TILE}\n#define SUMS {SUMS}\n" + read_source("gauss_newton.cl")
        self.kernels = self.memory.build(source)
        self.constants: dict[bytes, Any] = {}
        self.buffers: dict[int, Any] = {}

    def tile_sums(
        self, pair: tuple[Any, Any], m: Matrix, light: Photometry, tiles: Tiles
    ) -> Floats:
        """See `registration.equations.HostEquations.tile_sums`."""
        return self._fetch(self._sums(pair, m, light, tiles)).astype(np.float64)

    def sums(self, pair: tuple[Any, Any], m: Matrix, light: Photometry, tiles: Tiles) -> Floats:
        """Of all tiles together, (49,)."""
        found = self._sums(pair, m, light, tiles)
        if len(tiles) > PARTS:
            parts = self._buffer(PARTS)
            count = np.int32(len(tiles))
            self.kernels["total"](
                self.memory.queue, (PARTS * 64,), (64,), found.data, parts.data, count
            )
            found = parts
        total: Floats = self._fetch(found).sum(axis=0, dtype=np.float64)
        return total

    def _buffer(self, count: int) -> Any:
        """Of so many tiles' sums; the same one each time, as nothing runs beside it."""
        if count not in self.buffers:
            self.buffers[count] = self.memory.empty((count, SUMS), np.float32)
        return self.buffers[count]

    def _fetch(self, sums: Any) -> NDArray[np.float32]:
        out = np.empty(sums.shape, np.float32)
        self.memory.cl.enqueue_copy(self.memory.queue, out, sums.data)
        return out

    def constant(self, values: NDArray[Any]) -> Any:
        """Uploaded once."""
        key = values.tobytes()
        if key not in self.constants:
            self.constants[key] = self.memory.upload(values)
        return self.constants[key]

    def _sums(self, pair: tuple[Any, Any], m: Matrix, light: Photometry, tiles: Tiles) -> Any:
        fixed, moving = pair
        height, width = fixed.shape
        out = self._buffer(len(tiles))
        moves = np.array([*(m - np.eye(2, 3)).ravel(), 0, 0], np.float32)
        self.kernels["normal_equations"](
            self.memory.queue, (len(tiles) * TILE,), (TILE,),
            fixed.data, moving.data, np.int32(width), np.int32(height), np.int32(MARGIN),
            self.constant(tiles).data, moves, np.array([*light, 0], np.float32), out.data,
        )  # fmt: skip
        return out


class DeviceSlices(DeviceSums):
    """What slices need before they are compared, for a device where transfer costs most."""

    def load(self, image: Image, factor: int) -> Loaded:
        """A (y, x) uint8 or uint16 slice, averaged down by a whole factor."""
        rows = image[:: max(1, image.shape[0] // SAMPLED_ROWS)]
        mean = float(rows.sum(dtype=np.float64) / max(1, np.count_nonzero(rows)))
        pixels = self._average(self.memory.upload(image), factor, mean)
        if image.min() > 0:
            return Loaded(pixels, mean, None)
        shape, radius = pixels.shape, BLACK // 2
        light = self.memory.empty(shape, np.uint8)
        self._run("light", shape, pixels, light, np.float32(0 - np.float32(mean)))
        core = self._spread(self._spread(light, radius, 0), radius, 1, turn=1)
        black = self._spread(self._spread(core, radius, 0), radius, 1)
        self._run("put", shape, pixels, black, np.float32(0))
        return Loaded(pixels, mean, black)

    def smaller(self, slice_: Loaded, factor: int) -> Loaded:
        """Averaged down further; black where any pixel was."""
        black = slice_.black
        pixels = self._average(slice_.pixels, factor, 0)
        if black is not None:
            small = self.memory.empty(pixels.shape, np.uint8)
            sizes = [np.int32(n) for n in (factor, black.shape[1])]
            self._run("any_of", pixels.shape, black, small, *sizes)
            black = small
        return Loaded(pixels, slice_.mean, black)

    def convolved(self, slice_: Loaded, terms: Terms) -> Any:
        """Its coefficients. terms : of separable windows, (factor, half window of both axes)."""
        image = slice_.pixels
        shape = image.shape
        between, out = (self.memory.empty(shape, np.float32) for _ in range(2))
        for i, (factor, half) in enumerate(terms):
            taps, radius = self.constant(half).data, np.int32(len(half) - 1)
            self._run("rows", shape, image, between, taps, radius)
            add = (np.float32(factor), np.int32(i > 0))
            self._run("columns", shape, between, out, taps, radius, *add)
        if slice_.black is not None:
            near = self._spread(self._spread(slice_.black, MARGIN, 0), MARGIN, 1)
            self._run("put", shape, out, near, np.float32(np.nan))
        return out

    def fetch(self, slice_: Loaded) -> FloatImage:
        """Its pixels, counted from their mean."""
        pixels: FloatImage = slice_.pixels.get()
        return pixels

    def _average(self, image: Any, factor: int, mean: float) -> Any:
        out = self.memory.empty((image.shape[0] // factor, image.shape[1] // factor), np.float32)
        sizes = [np.int32(n) for n in (factor, image.shape[1], *out.shape[::-1])]
        kernel = self.kernels[f"load_{NAMES[image.dtype.name]}"]
        self.memory.run(kernel, out.shape, image.data, out.data, *sizes, np.float32(mean))
        return out

    def _spread(self, mask: Any, radius: int, along_y: int, turn: int = 0) -> Any:
        out = self.memory.empty(mask.shape, np.uint8)
        self._run("spread", mask.shape, mask, out, *(np.int32(n) for n in (radius, along_y, turn)))
        return out

    def _run(self, name: str, shape: tuple[int, int], *arguments: Any) -> None:
        """On each pixel; the kernel's last arguments are width and height."""
        sizes = [np.int32(n) for n in shape[::-1]]
        given = [a.data if isinstance(a, self.memory.array.Array) else a for a in arguments]
        self.memory.run(self.kernels[name], shape, *given, *sizes)
