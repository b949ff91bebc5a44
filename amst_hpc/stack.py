"""Slice stacks: TIFF slices, a multi-page TIFF, an HDF5 dataset or a BigDataViewer file.

TIFF slices are named by a folder or a glob. `open_stack` looks at names alone; `Stack.header` reads
what stands before the pixels of one slice and finds a file that is cut short without decoding it;
`Stack.read` gives the pixels. Slices are (y, x) uint8 or uint16.
"""

from __future__ import annotations

import glob
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, Protocol

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from amst_hpc.config import InputError
from amst_hpc.transform import Matrix, translation

Slice = NDArray[np.integer]
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Header:
    """What a slice is, before its pixels are read."""

    shape: tuple[int, int]
    dtype: str


class SliceError(InputError):
    """A slice that cannot be read; the message names the file."""


class Stack(Protocol):
    """A series of slices, z = 0..depth-1."""

    source: str
    names: list[str]

    def header(self, z: int) -> Header:
        """Shape and dtype of slice z.

        Raises `SliceError` if it is missing, cut short or of the wrong kind.
        """

    def read(self, z: int) -> Slice:
        """The pixels of slice z, (y, x). Raises `SliceError`."""

    def is_constant(self, z: int) -> bool:
        """True if a sample of the slice holds one grey value only (a black slice)."""

    def stamp(self, z: int) -> str:
        """File, size and modification time: changes when the slice does."""


def open_stack(source: str, option: str) -> Stack:
    """The stack at `source`, called `option` (RAW, PREALIGNED) in messages. Raises `InputError`."""
    path, _, inside = source.partition(":/")
    suffix = Path(path).suffix.lower()
    if suffix in HDF5_SUFFIXES or suffix == ".xml":
        return _open_hdf5(Path(path), inside, source, option)
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


def number_gaps(names: list[str]) -> list[str]:
    """The missing numbers of a series whose names differ in their last number only.

    Each as 'after NAME: n missing'.
    """
    found = [re.match(r"(.*?)(\d+)\D*$", Path(name).stem) for name in names]
    if len(names) < 3 or not all(found) or len({m[1] for m in found if m}) > 1:
        return []
    numbers = [int(m[2]) for m in found if m]
    step = min(b - a for a, b in pairwise(numbers))
    return [
        f"after {name}: {(b - a) // step - 1} missing"
        for name, a, b in zip(names, numbers, numbers[1:], strict=False)
        if step > 0 and b - a > step
    ]


def _check_page(page: tifffile.TiffPage | tifffile.TiffFrame, size: int, name: str) -> Header:
    """Header of a TIFF page; refuses RGB, floats and pixel data that ends after the file does."""
    if len(page.shape) != 2:
        raise SliceError(f"{name}: shape {page.shape}, expected one grey channel")
    if page.dtype is None or page.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise SliceError(f"{name}: dtype {page.dtype}, expected uint8 or uint16")
    end = max(
        (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
    )
    if end > size or not page.dataoffsets:
        raise SliceError(f"{name}: cut short, {size} bytes where {end} were expected")
    return Header((page.shape[0], page.shape[1]), page.dtype.newbyteorder("=").name)


def _native(image: Slice) -> Slice:
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))


def _sample_page(page: tifffile.TiffPage | tifffile.TiffFrame) -> list[Slice]:
    """Up to five decoded strips or tiles, evenly spread."""
    count = len(page.dataoffsets)
    picks = sorted({round(i * (count - 1) / 4) for i in range(5)})
    handle = page.parent.filehandle
    samples = []
    for index in picks:
        handle.seek(page.dataoffsets[index])
        data = page.decode(handle.read(page.databytecounts[index]), index)[0]
        if data is not None:
            samples.append(data)
    return samples


class TiffSeries:
    """One TIFF file per slice, in the order of the names."""

    def __init__(self, files: list[Path], source: str) -> None:
        self.files = files
        self.source = source
        self.names = [p.name for p in files]

    def _open(self, z: int) -> tifffile.TiffFile:
        try:
            return tifffile.TiffFile(self.files[z])
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise SliceError(f"{self.files[z]}: not a readable TIFF ({_reason(error)})") from None

    def header(self, z: int) -> Header:
        """See `Stack`."""
        path = self.files[z]
        with self._open(z) as tiff:
            try:
                if len(tiff.pages) != 1:
                    raise SliceError(
                        f"{path}: {len(tiff.pages)} pages, expected one slice per file"
                    )
                return _check_page(tiff.pages[0], path.stat().st_size, str(path))
            except SliceError:
                raise
            except Exception as error:
                raise SliceError(f"{path}: not a readable TIFF ({_reason(error)})") from None

    def read(self, z: int) -> Slice:
        """See `Stack`."""
        with self._open(z) as tiff:
            try:
                return _native(tiff.pages[0].asarray())
            except Exception as error:
                raise SliceError(f"{self.files[z]}: cannot be decoded ({_reason(error)})") from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        with self._open(z) as tiff:
            try:
                return _is_constant(_sample_page(tiff.pages[0]))
            except Exception as error:
                raise SliceError(f"{self.files[z]}: cannot be decoded ({_reason(error)})") from None

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return _stamp(self.files[z])


Pages = Sequence[tifffile.TiffPage | tifffile.TiffFrame | None]


def _series_of_pages(tiff: tifffile.TiffFile) -> tuple[tuple[int, ...], Pages]:
    """Shape (z, y, x) of a multi-page TIFF and its pages.

    Pages that were written one by one count as one series each.
    """
    first = tiff.series[0]
    alike = {(series.shape, series.dtype, len(series.pages)) for series in tiff.series}
    if alike == {(first.shape, first.dtype, 1)} and len(first.shape) == 2:
        return (len(tiff.series), *first.shape), [series.pages[0] for series in tiff.series]
    return first.shape, first.pages


def _is_cut(tiff: tifffile.TiffFile, depth: int) -> bool:
    """True if the last page that is there names a next one, or ImageJ counts more than `depth`."""
    place = tiff.pages.next_page_offset
    if place is None or int((tiff.imagej_metadata or {}).get("images", 1)) > depth:
        return True
    tiff.filehandle.seek(place)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)
    return len(pointer) < tiff.tiff.offsetsize or any(pointer)


class TiffPages:
    """One multi-page TIFF, a page per slice.

    Or an ImageJ stack of one page and contiguous pixels.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self.source = str(path)
        try:
            self.tiff = tifffile.TiffFile(path)
            series = self.tiff.series[0]
            shape, self.pages = _series_of_pages(self.tiff)
            contiguous = len(self.pages) != shape[0] or self.tiff.is_imagej
            offset = series.dataoffset if contiguous else None
            cut = _is_cut(self.tiff, shape[0])
        except Exception as error:
            raise InputError(f"{option} {path}: not a readable TIFF ({_reason(error)})") from None
        if len(shape) != 3:
            self._refuse(
                f"{option} {path}: shape {shape}, expected (z, y, x) with one grey channel"
            )
        dtype, size = series.dtype.newbyteorder(self.tiff.byteorder), path.stat().st_size
        if offset is not None:
            cut |= offset + int(np.prod(shape)) * dtype.itemsize > size
        if cut:
            self._refuse(f"{option} {path}: cut short, {size} bytes do not hold all its pages")
        self.volume = np.memmap(path, dtype, "r", offset, shape) if offset is not None else None
        self.names = [f"slice_{z:05d}.tif" for z in range(shape[0])]

    def _refuse(self, message: str) -> NoReturn:
        self.tiff.close()
        raise InputError(message)

    def _name(self, z: int) -> str:
        return f"{self.path} page {z}"

    def _page(self, z: int) -> tifffile.TiffPage | tifffile.TiffFrame:
        page = self.pages[z]
        if page is None:
            raise ValueError("no such page")
        return page

    def header(self, z: int) -> Header:
        """See `Stack`."""
        if self.volume is not None:
            return _array_header(self.volume, self._name(z))
        try:
            return _check_page(self._page(z), self.path.stat().st_size, self._name(z))
        except SliceError:
            raise
        except Exception as error:
            raise SliceError(f"{self._name(z)}: cannot be read ({_reason(error)})") from None

    def read(self, z: int) -> Slice:
        """See `Stack`."""
        if self.volume is not None:
            return _native(np.asarray(self.volume[z]))
        try:
            return _native(self._page(z).asarray())
        except Exception as error:
            raise SliceError(f"{self._name(z)}: cannot be decoded ({_reason(error)})") from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return _is_constant(_rows(self.read(z)))

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{_stamp(self.path)}#{z}"


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
                f"{option} {path}: not a readable HDF5 file ({_reason(error)})"
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
            return _native(self.dataset[z].view(self.dtype))
        except OSError as error:
            raise SliceError(
                f"{self.source} slice {z}: cannot be read ({_reason(error)})"
            ) from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return _is_constant(_rows(self.read(z)))

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{_stamp(self.path)}#{z}"


class Averaged:
    """A stack with every slice averaged down by `factor`; a rest at the edge is left out."""

    def __init__(self, stack: Stack, factor: int) -> None:
        self.stack, self.factor = stack, factor
        self.source, self.names = stack.source, stack.names

    def header(self, z: int) -> Header:
        """See `Stack`."""
        header = self.stack.header(z)
        height, width = header.shape
        return Header((height // self.factor, width // self.factor), header.dtype)

    def read(self, z: int) -> Slice:
        """See `Stack`."""
        image, f = self.stack.read(z), self.factor
        height, width = (size // f for size in image.shape)
        blocks = image[: height * f, : width * f].reshape(height, f, width, f)
        return np.asarray(np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)), image.dtype)

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return self.stack.is_constant(z)

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{self.stack.stamp(z)}/{self.factor}"


def _open_hdf5(path: Path, dataset: str, source: str, option: str) -> Stack:
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


def _array_header(volume: Slice, name: str) -> Header:
    if volume.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise SliceError(f"{name}: dtype {volume.dtype}, expected uint8 or uint16")
    return Header((volume.shape[1], volume.shape[2]), volume.dtype.newbyteorder("=").name)


def _rows(image: Slice) -> list[Slice]:
    return [image[:: max(1, image.shape[0] // 32)]]


def _is_constant(samples: list[Slice]) -> bool:
    values = {int(f(sample)) for sample in samples for f in (np.min, np.max)}
    return len(values) <= 1


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name}:{status.st_size}:{status.st_mtime_ns}"


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def fit_to(image: Slice, shape: tuple[int, int], name: str) -> tuple[Slice, Matrix]:
    """A slice of another size brought to `shape` (the rule of the original program).

    Its zero border is cropped and the rest padded at the right and below. Returns it with the
    transform `fitted(p) = image(M p)`.
    Raises `SliceError` if what is inside the border is larger than `shape`.
    """
    if image.shape == shape:
        return image, translation(0, 0)
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    fitted = np.zeros(shape, image.dtype)
    if not len(rows):
        return fitted, translation(0, 0)
    y, x = int(rows[0]), int(columns[0])
    inner = image[y : rows[-1] + 1, x : columns[-1] + 1]
    if inner.shape[0] > shape[0] or inner.shape[1] > shape[1]:
        raise SliceError(
            f"{name}: size {image.shape} (y, x), {inner.shape} without its zero border, "
            f"expected at most {shape} as in the pre-aligned stack"
        )
    fitted[: inner.shape[0], : inner.shape[1]] = inner
    return fitted, translation(x, y)
