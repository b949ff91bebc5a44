"""The HDF5 file of BigDataViewer: its datasets, tables and attributes.

Level k is the dataset `cells(k)`, (z, y, x). Only the tables
resolutions and subdivisions are xyz (`_tables`). uint16 is stored as it is, with the attribute
dataType; `output.legacy` stores its bits as int16, as BigDataViewer before 10.4.6 expects them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from amst_hpc.bdv.metadata import SETUP, cells
from amst_hpc.config import PASSING_ERRORS, InputError, Output
from amst_hpc.geometry import Layout, Level, Zyx

LIBVER = ("earliest", "v110")  # BigDataViewer's HDF5 reads no later file format
FILE_ID = "amst_hpc"  # attribute of the root group, which viewers do not read
HDF5_ERRORS = (OSError, RuntimeError)  # h5py raises both, the latter where a close fails


@dataclass(frozen=True)
class Target:
    """The HDF5 file to write: where, how it is cut, the dtype of its blocks, how it is stored.

    append : it is there, was closed, and its datasets suit; else it is made anew. token : kept in
    the file, so that it is known again wherever it is moved. labels : its voxels are labels.
    """

    path: Path
    layout: Layout
    dtype: np.dtype[Any]
    output: Output
    append: bool = False
    token: str = ""
    labels: bool = False

    @property
    def legacy(self) -> bool:
        """uint16 stored as int16, without dataType."""
        return self.output.legacy and self.dtype == np.uint16

    @property
    def stored(self) -> np.dtype[Any]:
        """Of the datasets; the same bits."""
        return np.dtype(np.int16) if self.legacy else self.dtype

    @property
    def compression(self) -> int:
        """gzip level; 0: none."""
        return self.output.compression

    @property
    def shuffle(self) -> bool:
        """Bytes of the same significance side by side: uint16 compresses better."""
        return self.compression > 0 and self.stored.itemsize > 1


def make_target(
    path: Path,
    layout: Layout,
    dtype: np.dtype[Any] | type[np.generic] | str,
    output: Output,
    append: bool = False,
) -> Target:
    """The file that `output` asks for; dtype uint8 or uint16."""
    return Target(path, layout, np.dtype(dtype), output, append)


def open_target(target: Target, **driver: Any) -> h5py.File:
    """The file, with its datasets; `driver` as in h5py.File.

    Raises `InputError` if it cannot be opened, or is to be continued and does not suit.
    """
    mode = "r+" if target.append else "w"
    try:
        file = h5py.File(target.path, mode, libver=LIBVER, **driver)
    except OSError as error:
        raise_passing(error)
        raise InputError(f"{target.path}: cannot be opened for writing ({error})") from None
    if not target.append:
        create_tables(file, target)
        for k in range(len(target.layout.levels)):
            create_cells(file, k, target)
    elif fault := find_target_mismatch(file, target):
        file.close()
        raise InputError(f"{target.path}: cannot be continued: {fault}")
    return file


def _tables(layout: Layout) -> dict[str, NDArray[Any]]:
    """BigDataViewer's tables of the levels; the one place where zyx turns to xyz."""
    resolutions = np.array([level.factors[::-1] for level in layout.levels], np.float64)
    subdivisions = np.array([level.chunk[::-1] for level in layout.levels], np.int32)
    return {"resolutions": resolutions, "subdivisions": subdivisions}


def create_tables(file: h5py.File, target: Target) -> None:
    """The tables of the levels, the type of the voxels, the token."""
    if target.token:
        file.attrs[FILE_ID] = target.token
    setup = file.create_group(SETUP)
    for name, table in _tables(target.layout).items():
        setup.create_dataset(name, data=table)
    if not target.legacy:
        setup.attrs["dataType"] = np.bytes_(target.dtype.name)


def create_cells(file: h5py.File, k: int, target: Target, largest: Zyx | None = None) -> None:
    """The dataset of level k. Never filled: every chunk is written, and filling takes longer.

    largest : its largest shape; all chunks of that are allocated at once.
    """
    level = target.layout.levels[k]
    # the high-level call of h5py before 3.12 has no fill_time, and overwrites that of a dcpl
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(level.chunk)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    if largest:
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    if target.shuffle:
        plan.set_shuffle()
    if target.compression:
        plan.set_deflate(target.compression)
    path = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    path.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(level.shape, largest or whole_chunks(level))
    dtype = h5py.h5t.py_create(target.stored)
    h5py.h5d.create(file.id, cells(k).encode(), dtype, space, plan, path)


def whole_chunks(level: Level) -> Zyx:
    """The least largest shape: HDF5 has no chunks beyond it."""
    z, y, x = (max(n, chunk) for n, chunk in zip(level.shape, level.chunk, strict=True))
    return z, y, x


def read_token(path: Path) -> str:
    """The token of a file; empty where it has none, is damaged or not there.

    Raises OSError where the file system is away (`PASSING_ERRORS`).
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get(FILE_ID, ""))
    except HDF5_ERRORS as error:
        raise_passing(error)
        return ""


def find_target_mismatch(file: h5py.File, target: Target) -> str | None:
    """What keeps a file from being continued, None if nothing does."""
    for name, table in _tables(target.layout).items():
        key = f"{SETUP}/{name}"
        if key not in file or not np.array_equal(file[key], table):
            return f"its {name} are not those of this run"
    for k, level in enumerate(target.layout.levels):
        if cells(k) not in file:
            return f"it has no {cells(k)}"
        found, gzip = file[cells(k)], "gzip" if target.compression else None
        facts = (found.shape, found.chunks, str(found.dtype), found.compression, found.shuffle)
        wanted = (level.shape, level.chunk, str(target.stored), gzip, target.shuffle)
        if facts != wanted:
            return f"{cells(k)} has (shape, chunks, dtype, gzip, shuffle) {facts}, not {wanted}"
    return None


@contextlib.contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Errors of HDF5 as an OSError that names the file."""
    try:
        yield
    except HDF5_ERRORS as error:
        named = OSError(f"{path}: cannot be written ({error})")
        named.errno = getattr(error, "errno", None)
        raise named from error


def raise_passing(error: Exception) -> None:
    """Raise a fault of the file system that another start may not meet; else nothing happens."""
    if isinstance(error, OSError) and error.errno in PASSING_ERRORS:
        raise error


def sync(path: Path) -> None:
    """The file (or the names in a folder) is on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_parallel() -> bool:
    """True if h5py can write collectively."""
    return bool(h5py.get_config().mpi)


def hdf5_version() -> str:
    """Of the library that h5py uses."""
    return str(h5py.version.hdf5_version)
