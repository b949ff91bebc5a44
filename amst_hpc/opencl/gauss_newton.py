"""Gauss-Newton between two filtered slices on an OpenCL device.

The steps on any device; and on a GPU, what slices need before: averaged down, black areas found,
filtered. The twin on the host is `registration.equations`, with the same numbers to
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
RESIDUALS = 2.0  # a residual of so many standard deviations counts a quarter
FEWEST, PIVOT = 100, 1e-4  # fewer points, or less told of a motion, and nothing is known
STEPS, AT_ONCE = 12, 4
PARTS = 64
SAMPLED_ROWS = 64  # for the mean grey value
STATE = ("GAIN", "BIAS", "SCALE", "CORRELATION", "POINTS", "STEP", "DONE")
FIRST = 8  # numbers of the state before these: the transform less identity
Photometry = tuple[float, float, float]
Tiles = NDArray[np.int32]
Floats = NDArray[np.float64]
Terms = Sequence[tuple[float, NDArray[np.float32]]]


@dataclass
class Fit:
    """Where Gauss-Newton stands. light : gain, bias and 1 / (residual that counts a quarter), 0:
    all count alike. points : pixels that are compared; 0: the slices tell nothing.
    """

    matrix: Matrix
    light: Photometry = (1.0, 0.0, 0.0)
    correlation: float = 0.0
    points: float = 0.0


@dataclass(frozen=True)
class Loaded:
    """A slice on the device, (y, x) float32 counted from `mean`; black : uint8, where it is so."""

    pixels: Any
    mean: float
    black: Any | None


class DeviceSteps:
    """Gauss-Newton between slices in the memory of a device, step after step without the host."""

    def __init__(self, context: Any) -> None:
        self.memory = DeviceMemory(context)
        numbers = {"TILE": TILE, "SUMS": SUMS, "MARGIN": MARGIN, "FEWEST": FEWEST, "PIVOT": PIVOT}
        numbers |= {"RESIDUALS": RESIDUALS} | {n: i for i, n in enumerate(STATE, FIRST)}
        defined = "".join(f"#define {name} {value}\n" for name, value in numbers.items())
        self.kernels = self.memory.build(defined + read_source("gauss_newton.cl"))
        self.constants: dict[bytes, Any] = {}
        self.buffers: dict[int, Any] = {}
        self.state = self.memory.empty((FIRST + len(STATE),), np.float64)

    def descend(self, pair: tuple[Any, Any], fit: Fit, tiles: Tiles, enough: float) -> Fit:
        """See `registration.equations.HostEquations.descend`."""
        height, width = (np.int32(n) for n in pair[0].shape)
        count, parts = len(tiles), self._buffer(PARTS)
        share = np.float64(-(-width // TILE) * -(-height // TILE) / count)
        queue, state = self.memory.queue, self.state.data
        self._set(fit)
        for _ in range(STEPS // AT_ONCE):
            for _ in range(AT_ONCE):
                sums, left = self._sums(pair, tiles), count
                if count > PARTS:
                    self.kernels["total"](
                        queue, (PARTS * 64,), (64,), sums.data, parts.data, np.int32(count), state
                    )
                    sums, left = parts, PARTS
                self.kernels["advance"](
                    queue, (64,), (64,),
                    sums.data, np.int32(left), state, width, height, share, np.float64(enough),
                )  # fmt: skip
            found = self._fetch(self.state)
            if found[FIRST + STATE.index("DONE")]:
                break
        gain, bias, scale, correlation, points, _, _ = found[FIRST:].tolist()
        matrix = np.eye(2, 3) + found[:6].reshape(2, 3)
        return Fit(matrix, (gain, bias, scale), correlation, points)

    def tile_sums(self, pair: tuple[Any, Any], fit: Fit, tiles: Tiles) -> NDArray[np.float32]:
        """See `registration.equations.HostEquations.tile_sums`."""
        self._set(fit)
        return self._fetch(self._sums(pair, tiles))

    def constant(self, values: NDArray[Any]) -> Any:
        """Uploaded once."""
        key = values.tobytes()
        if key not in self.constants:
            self.constants[key] = self.memory.upload(values)
        return self.constants[key]

    def _set(self, fit: Fit) -> None:
        moves = (fit.matrix - np.eye(2, 3)).ravel()
        state = np.array([*moves, 0, 0, *fit.light, 0, 0, 0, 0], np.float64)
        self.memory.cl.enqueue_copy(self.memory.queue, self.state.data, state)

    def _sums(self, pair: tuple[Any, Any], tiles: Tiles) -> Any:
        fixed, moving = pair
        height, width = fixed.shape
        out = self._buffer(len(tiles))
        self.kernels["normal_equations"](
            self.memory.queue, (len(tiles) * TILE,), (TILE,),
            fixed.data, moving.data, np.int32(width), np.int32(height),
            self.constant(tiles).data, self.state.data, out.data,
        )  # fmt: skip
        return out

    def _buffer(self, count: int) -> Any:
        """Of so many tiles' sums; the same one each time, as nothing runs beside it."""
        if count not in self.buffers:
            self.buffers[count] = self.memory.empty((count, SUMS), np.float32)
        return self.buffers[count]

    def _fetch(self, numbers: Any) -> NDArray[Any]:
        out = np.empty(numbers.shape, numbers.dtype)
        self.memory.cl.enqueue_copy(self.memory.queue, out, numbers.data)
        return out


class DeviceSlices(DeviceSteps):
    """And what slices need before, for a device where transfer costs most."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.kernels |= self.memory.build(read_source("slices.cl"))

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
