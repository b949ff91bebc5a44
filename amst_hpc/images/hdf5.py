"""A dataset of an HDF5 file, or a view of a BigDataViewer file, as a stack."""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path

from amst_hpc.bdv.metadata import read_voxel_size_nm
from amst_hpc.bdv.reading import VolumeReader
from amst_hpc.config import InputError
from amst_hpc.images.chunked import ChunkedStack
from amst_hpc.images.stack import file_stamp, first_line
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize, accept

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


class Hdf5Stack(ChunkedStack):
    """A (z, y, x) dataset of an HDF5 file."""

    def __init__(self, path: Path, dataset: str, option: str, view: Path | None = None) -> None:
        """dataset : empty: BigDataViewer's first setup. view : BigDataViewer's XML; None: that of
        the same name. Raises `InputError`.
        """
        self.path, self.view = path, view or path.with_suffix(".xml")
        try:
            volume = VolumeReader(path, dataset)
        except OSError as error:
            raise InputError(
                f"{option} {path}: not a readable HDF5 file ({first_line(error)})"
            ) from None
        except LookupError as error:
            raise InputError(f"{option} {path}: {error}") from None
        source = f"{path}:/{volume.name}"
        if len(volume.shape) != 3:
            raise InputError(f"{option} {source}: shape {volume.shape}, expected (z, y, x)")
        if volume.axes not in ("", "zyx"):
            raise InputError(f"{option} {source}: axes {volume.axes}, expected zyx")
        super().__init__(volume, source, option)
        self.name, self.element_size_nm = volume.name, volume.element_size_nm
        self.files = list(dict.fromkeys([path, *volume.files]))

    @cached_property
    def voxel_size(self) -> VoxelSize:
        """By the attribute of ilastik and Fiji, or else by the XML."""
        if size := self.element_size_nm:
            return accept(size, "element_size_um")
        if size := read_voxel_size_nm(self.view, self.path, self.name):
            return accept(size, "BigDataViewer XML")
        return UNKNOWN

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{file_stamp(self.path)}{self._sources}:/{self.name}#{z}"

    @cached_property
    def _sources(self) -> str:
        """Of the other files that hold its voxels, as they were when it was opened."""
        stamps = " ".join(map(file_stamp, self.files[1:]))
        return f"+{zlib.crc32(stamps.encode()):08x}" if stamps else ""
