"""The queue and the memory of one OpenCL device."""

from __future__ import annotations

import warnings
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.opencl.compiling import build

NAMES = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}


def read_source(name: str) -> str:
    """An OpenCL source of this folder, after the one that all of them need."""
    folder = files("amst_hpc.opencl")
    return "".join(folder.joinpath(part).read_text() for part in ("mirror.cl", name))


class DeviceMemory:
    """What is kept on a device; memory that was given back is used again."""

    def __init__(self, context: Any) -> None:
        import pyopencl as cl
        from pyopencl import array, tools

        self.cl, self.array = cl, array
        self.queue = cl.CommandQueue(context)
        self.pool = tools.MemoryPool(tools.ImmediateAllocator(self.queue))

    def build(self, source: str) -> dict[str, Any]:
        """The kernels of a source by name."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kernels = build(self.queue.context, source).all_kernels()
            return {kernel.function_name: kernel for kernel in kernels}

    def upload(self, image: NDArray[Any]) -> Any:
        """The image on the device."""
        return self.array.to_device(self.queue, np.ascontiguousarray(image), allocator=self.pool)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An image on the device that is still to be filled."""
        return self.array.empty(self.queue, shape, dtype, allocator=self.pool)

    def run(self, kernel: Any, shape: tuple[int, int], *arguments: Any) -> None:
        """One work item per pixel of a (y, x) image."""
        size = (-(-shape[1] // 32) * 32, -(-shape[0] // 4) * 4)
        kernel(self.queue, size, (32, 4), *arguments)
