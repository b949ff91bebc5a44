"""Which format a RAW or PREALIGNED is: folder, glob, multi-page TIFF, HDF5, BDV or OME-Zarr."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amst_hpc.config import PASSING_ERRORS, InputError
from amst_hpc.images.bdv_view import find_view
from amst_hpc.images.hdf5 import HDF5_SUFFIXES, Hdf5Stack
from amst_hpc.images.names import order_files
from amst_hpc.images.stack import Stack, first_line
from amst_hpc.images.tiff import TIFF_SUFFIXES, TiffSeries
from amst_hpc.images.tiff_pages import Pages, TiffPages, look_at_pages
from amst_hpc.images.zarr import ZarrStack
from amst_hpc.ome_zarr.reading import is_zarr
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0

INSIDE = re.compile(
    rf"(.*(?:{'|'.join(HDF5_SUFFIXES)}|\.xml|\.zarr)):(/?)(.*)", re.IGNORECASE | re.DOTALL
)
"""A file (or Zarr), what follows it, after a slash (a dataset) or without one (a view)."""


@dataclass(frozen=True)
class Series:
    """The slices of a folder or a glob, in their order; sizes : of the first and last file."""

    files: Sequence[str]
    names: list[str]
    numbers: list[int] | None
    sizes: tuple[int, int]


Found = Pages | Series | None


def open_stacks(sources: Sequence[tuple[str, str]], comm: Communicator) -> list[Stack]:
    """The stacks of (source, option) on every rank; collective. Raises `InputError` on all.

    Rank 0 alone lists and sorts the files, and looks at all the pages of a TIFF.
    """
    found = on_rank_0(comm, lambda: {each: find(*each) for each in dict.fromkeys(sources)})
    return on_all_ranks(comm, lambda: [open_stack(*each, found[each]) for each in sources])


def find(source: str, option: str) -> Found:
    """Where the slices are; None: that is known when the file is open. Raises `InputError`."""
    path = Path(source)
    with _reachable(source, option):
        if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
            return look_at_pages(path, option)
        return _list_series(source, option)


@contextmanager
def _reachable(source: str, option: str) -> Iterator[None]:
    """A name that is too long, a folder that may not be read: `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in PASSING_ERRORS:
            raise
        raise InputError(f"{option} {source}: cannot be read ({error.strerror})") from None


def open_stack(source: str, option: str, found: Found = None) -> Stack:
    """The stack at `source`, called `option` (RAW, PREALIGNED) in messages.

    found : by rank 0. Raises `InputError`.
    """
    found = found or find(source, option)
    with _reachable(source, option):
        if isinstance(found, Series):
            return _open_series(found, source, option)
        if isinstance(found, Pages):
            return TiffPages(Path(source), option, found)
        if zarr := _zarr(source):
            return ZarrStack(zarr, option)
        return _open_hdf5(_file(source), source, option)


def _file(source: str) -> Path:
    """The file or Zarr that is named, whatever is named in it."""
    inside = INSIDE.fullmatch(source)
    return Path(inside[1] if inside and not Path(source).exists() else source)


def _zarr(source: str) -> Path | None:
    """The folder of an OME-Zarr or of a Zarr array in it."""
    path, inside = _file(source), INSIDE.fullmatch(source)
    if inside and path != Path(source) and path.suffix.lower() == ".zarr":
        return path / inside[3] if inside[2] and path.is_dir() else None
    return path if path.is_dir() and is_zarr(path) else None


def _list_series(source: str, option: str) -> Series | None:
    """None where the slices are no files of their own. Raises `InputError`."""
    path = _file(source)
    if path.suffix.lower() in (*HDF5_SUFFIXES, ".xml") and not path.is_dir():
        return None
    if _zarr(source):
        return None
    if Path(source).is_dir():
        with os.scandir(source) as entries:
            names = [entry.path for entry in entries if entry.name[0] != "."]
        files = [name for name in names if name.lower().endswith(TIFF_SUFFIXES)]
    elif Path(source).is_file():
        raise InputError(f"{option} {source}: expected a folder, a TIFF or an HDF5 file")
    elif glob.has_magic(source):
        files = glob.glob(source)  # noqa: PTH207 (Path.glob finds hidden files)
    else:
        raise InputError(f"{option} {source}: no such file or folder")
    if not files:
        raise InputError(f"{option} {source}: holds no .tif slices")
    if not all(name.lower().endswith(TIFF_SUFFIXES) for name in files):
        raise InputError(f"{option} {source}: expected .tif slices only")
    try:
        files, names, numbers = order_files(files)
    except InputError as error:
        raise InputError(f"{option} {source}: {error}") from None
    return Series(files, names, numbers, _sizes(files))


def _sizes(files: Sequence[str]) -> tuple[int, int]:
    """Of the first and the last, bytes; 0 for one that is gone."""
    first, last = (Path(files[i]) for i in (0, -1))
    a, b = (path.stat().st_size if path.is_file() else 0 for path in (first, last))
    return a, b


def _open_series(found: Series, source: str, option: str) -> Stack:
    """Raises `InputError` where the files are not those that rank 0 sees."""
    here = _sizes(found.files)
    if here != found.sizes:
        raise InputError(
            f"{option} {source}: the ranks do not see the same slices ({found.names[0]} and "
            f"{found.names[-1]} of {here}, {found.sizes} bytes); expected one shared file system"
        )
    return TiffSeries([Path(name) for name in found.files], found.names, source, found.numbers)


def _open_hdf5(path: Path, source: str, option: str) -> Stack:
    """BDV `.xml` or `.h5`, a view of it (`:setup=1`), or `file.h5:/dataset`."""
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file")
    inside = INSIDE.fullmatch(source) if source != str(path) else None
    if inside and inside[2]:
        return Hdf5Stack(path, inside[3], option)
    try:
        file, dataset = find_view(path, inside[3] if inside else "")
    except InputError as error:
        raise InputError(f"{option} {source}: {error}") from None
    except OSError as error:
        what = "HDF5 file" if path.suffix.lower() in HDF5_SUFFIXES else "XML"
        raise InputError(f"{option} {path}: not a readable {what} ({first_line(error)})") from None
    if not file.is_file():
        raise InputError(f"{option} {source}: {file} does not exist")
    view = path if path.suffix.lower() == ".xml" else None
    return Hdf5Stack(file, dataset, option, view)
