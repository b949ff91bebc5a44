"""Slice stacks: what every format offers. Slices are (y, x) uint8 or uint16.

`Stack.header` reads what stands before the pixels of one slice and finds a file that is cut short
without decoding it; `Stack.read` gives the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from isal import isal_zlib

from amst_hpc.averaging import average_down
from amst_hpc.config import InputError
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize
from amst_hpc.transform import Image, Matrix, translation


@dataclass(frozen=True)
class Header:
    """What a slice is, before its pixels are read."""

    shape: tuple[int, int]
    dtype: str
    voxel_size: VoxelSize = UNKNOWN


class SliceError(InputError):
    """A slice that cannot be read; the message names the file."""


class Stack(Protocol):
    """A series of slices, z = 0..depth-1."""

    source: str
    names: list[str]
    files: list[Path]
    """That are read."""
    numbers: list[int] | None
    """Of the slices, where they are files whose names count them."""

    def header(self, z: int) -> Header:
        """Shape and dtype of slice z, and its voxel size where the file says it.

        Raises `SliceError` if it is missing, cut short or of the wrong kind.
        """

    def read(self, z: int) -> Image:
        """The pixels of slice z, (y, x). Raises `SliceError`."""

    def is_constant(self, z: int) -> bool:
        """True if a sample of the slice holds one grey value only (a black slice)."""

    def stamp(self, z: int) -> str:
        """Name, size and modification time: changes when the slice does."""


def native_order(image: Image) -> Image:
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))


def sample_rows(image: Image) -> list[Image]:
    return [image[:: max(1, image.shape[0] // 32)]]


def is_constant_sample(samples: list[Image]) -> bool:
    values = {int(f(sample)) for sample in samples for f in (np.min, np.max)}
    return len(values) <= 1


def file_stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name}:{status.st_size}:{status.st_mtime_ns}"


def checksum(image: Image, offset: Matrix | None = None) -> int:
    """CRC-32 of the pixels, and of where they stood in the slice as read: see `fit_to`."""
    crc = isal_zlib.crc32(np.ascontiguousarray(image).data)
    return int(crc if offset is None else isal_zlib.crc32(offset.tobytes(), crc))


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


class Averaged:
    """A stack with every slice averaged down by `factor`; a rest at the edge is left out."""

    def __init__(self, stack: Stack, factor: int) -> None:
        self.stack, self.factor = stack, factor
        self.source, self.names = stack.source, stack.names
        self.files, self.numbers = stack.files, stack.numbers

    def header(self, z: int) -> Header:
        """See `Stack`."""
        header = self.stack.header(z)
        height, width = header.shape
        shape, size = (height // self.factor, width // self.factor), header.voxel_size
        return Header(shape, header.dtype, size.enlarge(self.factor))

    def read(self, z: int) -> Image:
        """See `Stack`."""
        image = self.stack.read(z)
        return np.asarray(np.rint(average_down(image, self.factor)), image.dtype)

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return self.stack.is_constant(z)

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{self.stack.stamp(z)}/{self.factor}"


def fit_to(image: Image, shape: tuple[int, int], name: str) -> tuple[Image, Matrix]:
    """A slice of another size brought to `shape` (the rule of the original program).

    Its zero border is cropped and the rest padded at the right and below. Returns it with the
    transform `fitted(p) = image(M p)`.
    Raises `SliceError` if what is inside the border is larger than `shape`.
    """
    if image.shape == shape:
        return image, translation(0, 0)
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    fitted = np.zeros(shape, image.dtype)
    if not len(rows):
        return fitted, translation(0, 0)
    y, x = int(rows[0]), int(columns[0])
    inner = image[y : rows[-1] + 1, x : columns[-1] + 1]
    if inner.shape[0] > shape[0] or inner.shape[1] > shape[1]:
        raise SliceError(
            f"{name}: size {image.shape} (y, x), {inner.shape} without its zero border, "
            f"expected at most {shape} as in the pre-aligned stack"
        )
    fitted[: inner.shape[0], : inner.shape[1]] = inner
    return fitted, translation(x, y)
