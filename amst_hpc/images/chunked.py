"""A volume in chunks as a stack.

A library decodes whole chunks, whatever is asked of them: a chunk of 64 slices that are read one by
one is decoded 64 times. So all slices of a row of chunks are read together, and kept.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from amst_hpc.config import InputError
from amst_hpc.images.stack import (
    Header,
    SliceError,
    Stack,
    first_line,
    is_constant_sample,
    sample_rows,
)
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize
from amst_hpc.parallel.node import memory_per_rank
from amst_hpc.transform import Block, Image

BLOCK_BYTES = 2**30
"""Of the slices that a stack keeps decoded; less where a node has little memory per core."""


class Volume(Protocol):
    """A (z, y, x) array in chunks, as a library reads it."""

    shape: Any
    dtype: np.dtype[Any]
    chunk_depth: int

    def read_into(self, block: Block, start: int) -> None:
        """Fill `block` with the slices from `start` on. Raises OSError."""

    def unwritten_chunks(self) -> tuple[int, int]:
        """How many of its chunks were never written, and how many it has."""


class ChunkedStack:
    """The slices of a `Volume`; a subclass opens it, and has `stamp`."""

    numbers: list[int] | None = None
    files: list[Path]

    def __init__(self, volume: Volume, source: str, option: str) -> None:
        """option : RAW or PREALIGNED, for messages. Raises `InputError`."""
        self.volume, self.source = volume, source
        if 0 in volume.shape:
            raise InputError(f"{option} {source}: shape {volume.shape} (z, y, x) holds no pixels")
        self.dtype = self.volume.dtype.newbyteorder("=")
        self.names = [f"slice_{z:05d}.tif" for z in range(self.volume.shape[0])]
        self.block_depth = self._fit_block()
        self.block = np.empty(0, self.volume.dtype)  # slices from block_start on
        self.block_start = 0

    def _fit_block(self) -> int:
        """Slices that are read together: a chunk's depth, or equal parts of it that fit."""
        depth, height, width = self.volume.shape
        slice_bytes = height * width * self.dtype.itemsize
        room = min(BLOCK_BYTES, memory_per_rank(os.cpu_count() or 1) // 8)
        chunk = max(1, min(self.volume.chunk_depth, depth))
        fits = max(1, room // max(1, slice_bytes))
        return int(-(-chunk // -(-chunk // fits)))

    @property
    def block_bytes(self) -> int:
        """Memory of what is kept."""
        return int(self.block_depth * np.prod(self.volume.shape[1:]) * self.dtype.itemsize)

    def header(self, z: int) -> Header:
        """See `Stack`; the same for every slice."""
        del z
        if self.dtype not in (np.uint8, np.uint16):
            raise SliceError(f"{self.source}: dtype {self.dtype}, expected uint8 or uint16")
        _, height, width = self.volume.shape
        return Header((height, width), self.dtype.name, self.voxel_size)

    @cached_property
    def voxel_size(self) -> VoxelSize:
        """As the file says it; a subclass knows where it does."""
        return UNKNOWN

    def read(self, z: int) -> Image:
        """See `Stack`."""
        if not self.block_start <= z < self.block_start + len(self.block):
            self._read_block(z)
        return np.array(self.block[z - self.block_start], self.dtype)

    def _read_block(self, z: int) -> None:
        """Keep the part of a row of chunks that slice z is in."""
        depth, chunk = self.volume.shape[0], self.volume.chunk_depth
        top = z - z % chunk
        start = z - (z - top) % self.block_depth
        stop = min(start + self.block_depth, top + chunk, depth)
        block = self.block
        if len(block) != stop - start:
            block = np.empty((stop - start, *self.volume.shape[1:]), self.volume.dtype)
        self.block = block[:0]  # what is there counts for nothing until all is read
        try:
            self.volume.read_into(block, start)
        except OSError as error:
            raise SliceError(
                f"{self.source} slice {z}: cannot be read ({first_line(error)})"
            ) from None
        self.block, self.block_start = block, start

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return is_constant_sample(sample_rows(self.read(z)))


def describe_unwritten(stack: Stack) -> list[str]:
    """What is black in a stack because nobody wrote it."""
    if not isinstance(stack, ChunkedStack):
        return []
    missing, count = stack.volume.unwritten_chunks()
    told = f"{stack.source}: {missing} of {count} chunks were never written; they are black"
    return [told] if missing else []


def block_bytes(stack: Stack) -> int:
    """Memory of the slices that a stack keeps decoded."""
    return stack.block_bytes if isinstance(stack, ChunkedStack) else 0
