"""TIFF slices: one file per slice, or the pages of one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import tifffile

from amst_hpc.config import InputError
from amst_hpc.images.stack import (
    Header,
    SliceError,
    array_header,
    file_stamp,
    first_line,
    is_constant_sample,
    native_order,
    sample_rows,
)
from amst_hpc.transform import Image

TIFF_SUFFIXES = (".tif", ".tiff")


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


def _sample_page(page: tifffile.TiffPage | tifffile.TiffFrame) -> list[Image]:
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
            raise SliceError(
                f"{self.files[z]}: not a readable TIFF ({first_line(error)})"
            ) from None

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
                raise SliceError(f"{path}: not a readable TIFF ({first_line(error)})") from None

    def read(self, z: int) -> Image:
        """See `Stack`."""
        with self._open(z) as tiff:
            try:
                return native_order(tiff.pages[0].asarray())
            except Exception as error:
                raise SliceError(
                    f"{self.files[z]}: cannot be decoded ({first_line(error)})"
                ) from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        with self._open(z) as tiff:
            try:
                return is_constant_sample(_sample_page(tiff.pages[0]))
            except Exception as error:
                raise SliceError(
                    f"{self.files[z]}: cannot be decoded ({first_line(error)})"
                ) from None

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return file_stamp(self.files[z])


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
            raise InputError(
                f"{option} {path}: not a readable TIFF ({first_line(error)})"
            ) from None
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
            return array_header(self.volume, self._name(z))
        try:
            return _check_page(self._page(z), self.path.stat().st_size, self._name(z))
        except SliceError:
            raise
        except Exception as error:
            raise SliceError(f"{self._name(z)}: cannot be read ({first_line(error)})") from None

    def read(self, z: int) -> Image:
        """See `Stack`."""
        if self.volume is not None:
            return native_order(np.asarray(self.volume[z]))
        try:
            return native_order(self._page(z).asarray())
        except Exception as error:
            raise SliceError(f"{self._name(z)}: cannot be decoded ({first_line(error)})") from None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return is_constant_sample(sample_rows(self.read(z)))

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{file_stamp(self.path)}#{z}"
