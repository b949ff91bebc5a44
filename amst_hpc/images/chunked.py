"""A volume in chunks as a stack.

A library decodes whole chunks, whatever is asked of them: a chunk of 64 slices that are read one by
one is decoded 64 times. So all slices of a row of chunks are read together, and kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from amst_hpc.config import InputError
from amst_hpc.content import Box
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

    def read_into(self, block: Block, start: int, corner: tuple[int, int] = (0, 0)) -> None:
        """Fill `block` with the slices from `start` on, of each what begins at `corner` (y, x).

        Raises OSError.
        """

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
        self.block_depth = self._fit_block(int(np.prod(volume.shape[1:])))
        self.block = np.empty(0, self.volume.dtype)  # slices from block_start on
        self.block_start = 0
        self.parts: dict[Box, tuple[int, Block]] = {}  # the same of parts of slices

    def _fit_block(self, pixels: int) -> int:
        """Slices that are read together: a chunk's depth, or equal parts of it that fit.

        pixels : that are read of each.
        """
        depth, slice_bytes = self.volume.shape[0], pixels * self.dtype.itemsize
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
        span, block = self._span(z, self.block_depth), self.block
        if len(block) != len(span):
            block = np.empty((len(span), *self.volume.shape[1:]), self.volume.dtype)
        self.block = block[:0]  # what is there counts for nothing until all is read
        self._fill(block, span.start, z)
        self.block, self.block_start = block, span.start

    def _span(self, z: int, block_depth: int) -> range:
        """The slices that are read together with slice z, of one row of chunks."""
        depth, chunk = self.volume.shape[0], self.volume.chunk_depth
        top = z - z % chunk
        start = z - (z - top) % block_depth
        return range(start, min(start + block_depth, top + chunk, depth))

    def _fill(self, block: Block, start: int, z: int, *corner: tuple[int, int]) -> None:
        try:
            self.volume.read_into(block, start, *corner)
        except OSError as error:
            raise SliceError(
                f"{self.source} slice {z}: cannot be read ({first_line(error)})"
            ) from None

    def read_parts(self, z: int, boxes: Sequence[Box], shape: tuple[int, int]) -> list[Image]:
        """See `parts`. Those of a row of chunks are kept, like whole slices."""
        del shape  # all slices have the same
        self.parts = {b: (s, p) for b, (s, p) in self.parts.items() if s <= z < s + len(p)}
        sizes = {(y0, y1, x0, x1): (y1 - y0, x1 - x0) for y0, y1, x0, x1 in boxes}
        span = self._span(
            z, self._fit_block(sum(height * width for height, width in sizes.values()))
        )
        for box, size in sizes.items():
            if box not in self.parts:
                block = np.empty((len(span), *size), self.volume.dtype)
                self._fill(block, span.start, z, (box[0], box[2]))
                self.parts[box] = span.start, block
        kept = [self.parts[box] for box in boxes]
        return [np.array(block[z - start], self.dtype) for start, block in kept]

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
