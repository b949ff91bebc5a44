"""A dataset of an HDF5 file, or a view of a BigDataViewer file, as a stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amst_hpc.bdv.reading import VolumeReader
from amst_hpc.config import InputError
from amst_hpc.images.stack import (
    Header,
    SliceError,
    file_stamp,
    first_line,
    is_constant_sample,
    native_order,
    sample_rows,
)
from amst_hpc.transform import Image

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


class Hdf5Stack:
    """A (z, y, x) dataset of an HDF5 file."""

    numbers: list[int] | None = None

    def __init__(self, path: Path, dataset: str, option: str) -> None:
        """dataset : empty: BigDataViewer's first setup. Raises `InputError`."""
        self.path = path
        self.files = [path]
        try:
            self.volume = VolumeReader(path, dataset)
        except OSError as error:
            raise InputError(
                f"{option} {path}: not a readable HDF5 file ({first_line(error)})"
            ) from None
        except LookupError as error:
            raise InputError(f"{option} {path}: {error}") from None
        self.source = f"{path}:/{self.volume.name}"
        if len(self.volume.shape) != 3:
            found = self.volume.shape
            raise InputError(f"{option} {self.source}: shape {found}, expected (z, y, x)")
        if 0 in self.volume.shape:
            found = self.volume.shape
            raise InputError(f"{option} {self.source}: shape {found} (z, y, x) holds no pixels")
        self.dtype = self.volume.dtype.newbyteorder("=")
        self.names = [f"slice_{z:05d}.tif" for z in range(self.volume.shape[0])]

    def header(self, z: int) -> Header:
        """See `Stack`; the same for every slice."""
        del z
        if self.dtype not in (np.uint8, np.uint16):
            raise SliceError(f"{self.source}: dtype {self.dtype}, expected uint8 or uint16")
        _, height, width = self.volume.shape
        return Header((height, width), self.dtype.name)

    def read(self, z: int) -> Image:
        """See `Stack`."""
        try:
            return native_order(self.volume.read(z))
        except OSError as error:
            raise SliceError(
                f"{self.source} slice {z}: cannot be read ({first_line(error)})"
            ) from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return is_constant_sample(sample_rows(self.read(z)))

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{file_stamp(self.path)}:/{self.volume.name}#{z}"
