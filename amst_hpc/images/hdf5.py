"""A dataset of an HDF5 file, or a view of a BigDataViewer file, as a stack.

HDF5 decodes whole chunks, whatever is asked of them: a chunk of 64 slices that are read one by one
is decoded 64 times. So all slices of a row of chunks are read together, and kept.
"""

from __future__ import annotations

import os
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from amst_hpc.bdv.metadata import read_voxel_size_nm
from amst_hpc.bdv.reading import VolumeReader
from amst_hpc.config import InputError
from amst_hpc.images.stack import (
    Header,
    SliceError,
    Stack,
    file_stamp,
    first_line,
    is_constant_sample,
    sample_rows,
)
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize, accept
from amst_hpc.parallel.node import memory_per_rank
from amst_hpc.transform import Image

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
BLOCK_BYTES = 2**30
"""Of the slices that a stack keeps decoded; less where a node has little memory per core."""


class Hdf5Stack:
    """A (z, y, x) dataset of an HDF5 file."""

    numbers: list[int] | None = None

    def __init__(self, path: Path, dataset: str, option: str, view: Path | None = None) -> None:
        """dataset : empty: BigDataViewer's first setup. view : BigDataViewer's XML; None: that of
        the same name. Raises `InputError`.
        """
        self.path, self.view = path, view or path.with_suffix(".xml")
        try:
            self.volume = VolumeReader(path, dataset)
        except OSError as error:
            raise InputError(
                f"{option} {path}: not a readable HDF5 file ({first_line(error)})"
            ) from None
        except LookupError as error:
            raise InputError(f"{option} {path}: {error}") from None
        self.files = list(dict.fromkeys([path, *self.volume.files]))
        self.source = f"{path}:/{self.volume.name}"
        if len(self.volume.shape) != 3:
            found = self.volume.shape
            raise InputError(f"{option} {self.source}: shape {found}, expected (z, y, x)")
        if self.volume.axes not in ("", "zyx"):
            raise InputError(f"{option} {self.source}: axes {self.volume.axes}, expected zyx")
        if 0 in self.volume.shape:
            found = self.volume.shape
            raise InputError(f"{option} {self.source}: shape {found} (z, y, x) holds no pixels")
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
        return -(-chunk // -(-chunk // fits))

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
        return Header((height, width), self.dtype.name, self._voxel_size)

    @cached_property
    def _voxel_size(self) -> VoxelSize:
        """By the attribute of ilastik and Fiji, or else by the XML."""
        if size := self.volume.element_size_nm:
            return accept(size, "element_size_um")
        if size := read_voxel_size_nm(self.view, self.path, self.volume.name):
            return accept(size, "BigDataViewer XML")
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

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{file_stamp(self.path)}{self._sources}:/{self.volume.name}#{z}"

    @cached_property
    def _sources(self) -> str:
        """Of the other files that hold its voxels, as they were when it was opened."""
        stamps = " ".join(map(file_stamp, self.files[1:]))
        return f"+{zlib.crc32(stamps.encode()):08x}" if stamps else ""


def describe_unwritten(stack: Stack) -> list[str]:
    """What is black in a stack because nobody wrote it."""
    if not isinstance(stack, Hdf5Stack):
        return []
    missing, count = stack.volume.unwritten_chunks()
    told = f"{stack.source}: {missing} of {count} chunks were never written; they are black"
    return [told] if missing else []


def block_bytes(stack: Stack) -> int:
    """Memory of the slices that a stack keeps decoded."""
    return stack.block_bytes if isinstance(stack, Hdf5Stack) else 0
