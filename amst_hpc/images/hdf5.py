"""A dataset of an HDF5 file, or the first setup of a BigDataViewer file, as a stack."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from amst_hpc.config import InputError
from amst_hpc.images.stack import (
    Header,
    SliceError,
    Stack,
    file_stamp,
    first_line,
    is_constant_sample,
    native_order,
    sample_rows,
)

Slice = NDArray[np.integer]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


class Hdf5Stack:
    """A (z, y, x) dataset of an HDF5 file."""

    def __init__(self, path: Path, dataset: str, option: str) -> None:
        self.path = path
        self.source = f"{path}:/{dataset}"
        try:
            self.file = h5py.File(path, "r")
            found = self.file.get(dataset)
        except OSError as error:
            raise InputError(
                f"{option} {path}: not a readable HDF5 file ({first_line(error)})"
            ) from None
        if not isinstance(found, h5py.Dataset):
            names: list[str] = []
            self.file.visititems(
                lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None
            )
            raise InputError(
                f"{option} {path}: no dataset /{dataset}; it holds {', '.join(names[:6]) or 'none'}"
            )
        if found.ndim != 3:
            raise InputError(f"{option} {self.source}: shape {found.shape}, expected (z, y, x)")
        self.dataset = found
        self.dtype = np.dtype(np.uint16) if found.dtype == np.int16 else found.dtype
        self.names = [f"slice_{z:05d}.tif" for z in range(found.shape[0])]

    def header(self, z: int) -> Header:
        """See `Stack`; the same for every slice."""
        del z
        if self.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            raise SliceError(f"{self.source}: dtype {self.dtype}, expected uint8 or uint16")
        return Header(self.dataset.shape[1:], self.dtype.newbyteorder("=").name)

    def read(self, z: int) -> Slice:
        """See `Stack`."""
        try:
            return native_order(self.dataset[z].view(self.dtype))
        except OSError as error:
            raise SliceError(
                f"{self.source} slice {z}: cannot be read ({first_line(error)})"
            ) from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return is_constant_sample(sample_rows(self.read(z)))

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{file_stamp(self.path)}#{z}"


def open_hdf5(path: Path, dataset: str, source: str, option: str) -> Stack:
    """BDV `.xml`, BDV `.h5` (its first setup, full size) or `file.h5:/dataset`."""
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file")
    if path.suffix.lower() == ".xml":
        try:
            node = ElementTree.parse(path).find("./SequenceDescription/ImageLoader/hdf5")
        except ElementTree.ParseError as error:
            raise InputError(f"{option} {path}: not valid XML ({error})") from None
        if node is None or not node.text:
            raise InputError(f"{option} {path}: names no HDF5 file, expected a BigDataViewer XML")
        path = path.parent / node.text
        if not path.is_file():
            raise InputError(f"{option} {source}: {path} does not exist")
    return Hdf5Stack(path, dataset or "t00000/s00/0/cells", option)
