"""Which format a RAW or PREALIGNED is: folder, glob, multi-page TIFF, HDF5 or BDV."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from amst_hpc.config import InputError
from amst_hpc.images.hdf5 import HDF5_SUFFIXES, open_hdf5
from amst_hpc.images.stack import Stack
from amst_hpc.images.tiff import TIFF_SUFFIXES, TiffPages, TiffSeries


def open_stack(source: str, option: str) -> Stack:
    """The stack at `source`, called `option` (RAW, PREALIGNED) in messages. Raises `InputError`."""
    path, _, inside = source.partition(":/")
    suffix = Path(path).suffix.lower()
    if suffix in HDF5_SUFFIXES or suffix == ".xml":
        return open_hdf5(Path(path), inside, source, option)
    if Path(source).is_dir():
        files = [
            p
            for p in Path(source).iterdir()
            if p.suffix.lower() in TIFF_SUFFIXES and p.name[0] != "."
        ]
        return _open_series(files, source, option)
    if Path(source).is_file():
        if suffix not in TIFF_SUFFIXES:
            raise InputError(f"{option} {source}: expected a folder, a TIFF or an HDF5 file")
        return TiffPages(Path(source), option)
    is_pattern = glob.has_magic(source)
    names = glob.glob(source) if is_pattern else []  # noqa: PTH207 (Path.glob finds hidden files)
    files = [Path(name) for name in names]
    if not files and not is_pattern:
        raise InputError(f"{option} {source}: no such file or folder")
    return _open_series(files, source, option)


def _open_series(files: list[Path], source: str, option: str) -> Stack:
    files = sorted(files, key=lambda p: p.name)
    if not files:
        raise InputError(f"{option} {source}: holds no .tif slices")
    if not all(p.suffix.lower() in TIFF_SUFFIXES for p in files):
        raise InputError(f"{option} {source}: expected .tif slices only")
    numbers = [[int(n) for n in re.findall(r"\d+", p.stem)] for p in files]
    skeletons = {re.sub(r"\d+", "#", p.stem) for p in files}
    if len(skeletons) == 1:
        for a, b, first, second in zip(numbers, numbers[1:], files, files[1:], strict=False):
            if a > b:
                raise InputError(
                    f"{option} {source}: by name {first.name} stands before {second.name}; "
                    "expected numbers with leading zeros"
                )
    return TiffSeries(files, source)
