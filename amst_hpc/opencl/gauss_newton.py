"""The normal equations of Gauss-Newton between two filtered slices, on an OpenCL device.

The twin on the host is `registration.normal_equations`; both give the same sums, to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.opencl.devices import NoDeviceError, open_device
from amst_hpc.opencl.kernels import Floats, Kernels
from amst_hpc.transform import FloatImage, Image, Matrix

TILE = 64
SUMS = 48
MARGIN = 4  # px at the border that do not count
Photometry = tuple[float, float, float]
Tiles = NDArray[np.int32]


class DeviceEquations:
    """Filtered slices in the memory of a device, and the sums of their pairs."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        source = files("amst_hpc.opencl").joinpath("gauss_newton.cl").read_text()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            programs = self.kernels.build(source)
        self.programs = {kernel.function_name: kernel for kernel in programs}
        self.tiles: dict[bytes, Any] = {}

    def keep(self, coefficients: FloatImage) -> Any:
        """The coefficients on the device."""
        return self.kernels.upload(coefficients)

    def filter(self, image: Image, terms: Sequence[tuple[float, Floats]]) -> Any:
        """Sum of separable filters of a slice: (factor, half window of both axes) each."""
        uploaded = self.kernels.upload(image)
        total = self.kernels.empty(image.shape, np.float32)
        size = np.uint32(image.size)
        for i, (factor, taps) in enumerate(terms):
            part = self.kernels.convolve(uploaded, taps)
            self.programs["add_scaled"](
                self.kernels.queue, (-(-image.size // 64) * 64,), (64,),
                total.data, part.data, np.float32(factor), np.int32(i == 0), size,
            )  # fmt: skip
        return total

    def average_down(self, image: Image, factor: int) -> FloatImage:
        """See `averaging.average_down`."""
        floats = self.kernels.convolve(self.kernels.upload(image), np.ones(1, np.float32))
        small: FloatImage = self.kernels.average_down(floats, factor).get()
        return small

    def sums(
        self, pair: tuple[Any, Any], m: Matrix, light: Photometry, tiles: Tiles
    ) -> NDArray[np.float64]:
        """See `registration.normal_equations.sums`."""
        fixed, moving = pair
        height, width = fixed.shape
        key = tiles.tobytes()
        if key not in self.tiles:
            self.tiles[key] = self.kernels.upload(tiles)
        out = self.kernels.empty((len(tiles), SUMS), np.float32)
        numbers = np.array([*m.ravel(), 0, 0], np.float32)
        p = np.array([*light, 0], np.float32)
        self.programs["normal_equations"](
            self.kernels.queue, (len(tiles) * TILE,), (TILE,),
            fixed.data, moving.data, np.int32(width), np.int32(height), np.int32(MARGIN),
            self.tiles[key].data, numbers, p, out.data,
        )  # fmt: skip
        found: NDArray[np.float32] = out.get()
        return found.astype(np.float64)


def open_equations(wanted: str, local_rank: int) -> tuple[DeviceEquations, bool] | None:
    """On the rank's device, and whether it is a GPU; None where no OpenCL device computes.

    wanted : as `coarse.device`. Raises `InputError` for a device that does not exist.
    """
    try:
        context, device = open_device(wanted, local_rank)
        return DeviceEquations(Kernels(context)), device.kind == "gpu"
    except (NoDeviceError, ImportError):
        return None
