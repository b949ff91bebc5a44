"""Which format a RAW or PREALIGNED is: folder, glob, multi-page TIFF, HDF5, BDV or OME-Zarr."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


def open_stacks(sources: Sequence[tuple[str, str]], comm: Communicator) -> list[Stack]:
    """The stacks of (source, option) on every rank; collective. Raises `InputError` on all.

    Rank 0 alone looks at all the pages of a TIFF.
    """
    pages = on_rank_0(comm, lambda: [_find_pages(*each) for each in sources])
    both = list(zip(sources, pages, strict=True))
    return on_all_ranks(comm, lambda: [open_stack(*each, found) for each, found in both])


def _find_pages(source: str, option: str) -> Pages | None:
    """None if it is no file of TIFF pages."""
    path = Path(source)
    with _reachable(source, option):
        is_file = path.suffix.lower() in TIFF_SUFFIXES and path.is_file()
        return look_at_pages(path, option) if is_file else None


@contextmanager
def _reachable(source: str, option: str) -> Iterator[None]:
    """A name that is too long, a folder that may not be read: `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in PASSING_ERRORS:
            raise
        raise InputError(f"{option} {source}: cannot be read ({error.strerror})") from None


def open_stack(source: str, option: str, pages: Pages | None = None) -> Stack:
    """The stack at `source`, called `option` (RAW, PREALIGNED) in messages.

    pages : of a TIFF file, where they are known. Raises `InputError`.
    """
    with _reachable(source, option):
        return _open(source, option, pages)


def _open(source: str, option: str, pages: Pages | None) -> Stack:
    inside = INSIDE.fullmatch(source)
    name = inside[1] if inside and not Path(source).exists() else source
    suffix = Path(name).suffix.lower()
    if suffix in (*HDF5_SUFFIXES, ".xml") and not Path(name).is_dir():
        return _open_hdf5(Path(name), source, option)
    if inside and suffix == ".zarr" and inside[2] and Path(name).is_dir():
        return ZarrStack(Path(name) / inside[3], option)
    if Path(source).is_dir():
        if is_zarr(Path(source)):
            return ZarrStack(Path(source), option)
        files = [
            p
            for p in Path(source).iterdir()
            if p.suffix.lower() in TIFF_SUFFIXES and p.name[0] != "."
        ]
        return _open_series(files, source, option)
    if Path(source).is_file():
        if suffix not in TIFF_SUFFIXES:
            raise InputError(f"{option} {source}: expected a folder, a TIFF or an HDF5 file")
        return TiffPages(Path(source), option, pages)
    is_pattern = glob.has_magic(source)
    names = glob.glob(source) if is_pattern else []  # noqa: PTH207 (Path.glob finds hidden files)
    files = [Path(name) for name in names]
    if not files and not is_pattern:
        raise InputError(f"{option} {source}: no such file or folder")
    return _open_series(files, source, option)


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


def _open_series(files: list[Path], source: str, option: str) -> Stack:
    if not files:
        raise InputError(f"{option} {source}: holds no .tif slices")
    if not all(p.suffix.lower() in TIFF_SUFFIXES for p in files):
        raise InputError(f"{option} {source}: expected .tif slices only")
    try:
        files, names = order_files(files)
    except InputError as error:
        raise InputError(f"{option} {source}: {error}") from None
    return TiffSeries(files, names, source)
