"""A TIFF page as a slice, and slices of one TIFF file each."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import tifffile

from amst_hpc.content import Box
from amst_hpc.images.stack import (
    Header,
    SliceError,
    file_stamp,
    first_line,
    is_constant_sample,
    native_order,
)
from amst_hpc.images.tiff_tags import read_voxel_size
from amst_hpc.transform import Image

TIFF_SUFFIXES = (".tif", ".tiff")
GREY = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
PHOTOMETRIC_TAG, ORIENTATION_TAG = 262, 274
SHAPE = re.compile(r'.*?"?shape"?[=:] *[\[(]([0-9, ]+)[\])]', re.DOTALL)
"""In a description of tifffile's."""
FRAME_BYTES = 2**16
"""Around the pixels of a file, so many bytes at most are compared."""
LARGEST = 2**31
"""Pixels of a slice; a header that names more is damaged."""

# what it has to say of a damaged file is said by the one line of the refusal
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def check_page(page: tifffile.TiffPage, size: int, name: str) -> Header:
    """Header of a page; refuses what is not grey, not decodable or ends after `size` bytes."""
    if len(page.shape) != 2 or 0 in page.shape:
        raise SliceError(f"{name}: shape {page.shape}, expected one grey channel")
    if page.size > LARGEST:
        raise SliceError(f"{name}: size {page.shape} (y, x), expected at most {LARGEST} px")
    if page.dtype is None or page.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise SliceError(f"{name}: dtype {page.dtype}, expected uint8 or uint16")
    if PHOTOMETRIC_TAG in page.tags and page.photometric not in GREY:
        kind = getattr(page.photometric, "name", page.photometric)
        raise SliceError(f"{name}: colours {kind}, expected grey (MINISBLACK or MINISWHITE)")
    turned = page.tags.valueof(ORIENTATION_TAG, 1)
    if turned not in (0, 1):
        raise SliceError(f"{name}: orientation {turned}, expected 1 (rows from the top left)")
    if page.is_reduced or page.is_mask:
        raise SliceError(f"{name}: a thumbnail or a mask, expected a slice")
    if page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise SliceError(f"{name}: compression {page.compression}, which cannot be decoded")
    _check_extent(page, size, name)
    return Header((page.shape[0], page.shape[1]), page.dtype.newbyteorder("=").name)


def _check_extent(page: tifffile.TiffPage, size: int, name: str) -> None:
    """Every strip or tile is named, and lies in the file."""
    places, lengths = page.dataoffsets, page.databytecounts
    end = max((o + n for o, n in zip(places, lengths, strict=False)), default=0)
    if page.is_contiguous and places:
        end = max(end, places[0] + page.nbytes)
    if end > size or not places:
        raise SliceError(f"{name}: cut short, {size} bytes where {end} were expected")
    whole = len(places) == len(lengths) == math.prod(page.chunked)
    if not (page.is_contiguous or whole) or 0 in places or 0 in lengths:
        raise SliceError(f"{name}: damaged, not all of its strips are there")


def promised_pixels(tiff: tifffile.TiffFile, pages: Iterable[tifffile.TiffPage]) -> int:
    """Of all slices, by what ImageJ or tifffile wrote into the descriptions; 0 for nothing."""
    if tiff.is_imagej:
        return int((tiff.imagej_metadata or {}).get("images", 1)) * tiff.pages.first.size
    shapes = [SHAPE.match(str(page.shaped_description or "")) for page in pages]
    return sum(math.prod(map(int, re.findall("[0-9]+", found[1]))) for found in shapes if found)


def read_page(page: tifffile.TiffPage) -> Image:
    """The pixels, (y, x), black as zero."""
    return native_order(black_as_zero(page, page.asarray()))


def read_page_parts(
    page: tifffile.TiffPage, boxes: Sequence[Box], start: int | None = None
) -> list[Image] | None:
    """The pixels of parts of a page, and of the file little more is read; None where it is not
    stored in pieces.

    start : byte in the file; None: where the page is.
    """
    if start is None and page.is_contiguous:
        start = page.dataoffsets[0]
    found = _read_pieces(page, boxes) if start is None else _read_rows(page, boxes, start)
    return found and [native_order(black_as_zero(page, part)) for part in found]


def _read_rows(page: tifffile.TiffPage, boxes: Sequence[Box], start: int) -> list[Image]:
    """Of a page whose pixels follow each other in the file; whole rows, each once."""
    width, handle = page.shape[1], page.parent.filehandle
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    bands: dict[tuple[int, int], Image] = {}
    for y0, y1, _, _ in boxes:
        if (y0, y1) not in bands:
            handle.seek(start + y0 * width * dtype.itemsize)
            data = handle.read((y1 - y0) * width * dtype.itemsize)
            bands[y0, y1] = np.frombuffer(data, dtype).reshape(y1 - y0, width)
    return [bands[y0, y1][:, x0:x1] for y0, y1, x0, x1 in boxes]


def _read_pieces(page: tifffile.TiffPage, boxes: Sequence[Box]) -> list[Image] | None:
    """Of a page in strips or tiles: those that the boxes touch are decoded."""
    if len(page.dataoffsets) < 2 or page.jpegtables is not None:
        return None
    (height, width), columns = page.chunks, page.chunked[1]
    found = [np.zeros((y1 - y0, x1 - x0), page.dtype) for y0, y1, x0, x1 in boxes]
    for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        y, x = index // columns * height, index % columns * width
        touched = [
            (part, box) for part, box in zip(found, boxes, strict=True)
            if box[0] < y + height and y < box[1] and box[2] < x + width and x < box[3]
        ]  # fmt: skip
        if touched and size:
            page.parent.filehandle.seek(offset)
            data = page.parent.filehandle.read(size)
            piece = np.asarray(page.decode(data, index)[0])[0, ..., 0]
            for part, (y0, y1, x0, x1) in touched:
                rows = slice(max(y0, y), min(y1, y + piece.shape[0]))
                across = slice(max(x0, x), min(x1, x + piece.shape[1]))
                part[rows.start - y0 : rows.stop - y0, across.start - x0 : across.stop - x0] = (
                    piece[rows.start - y : rows.stop - y, across.start - x : across.stop - x]
                )
    return found


def black_as_zero(page: tifffile.TiffPage, image: Image) -> Image:
    """The grey values of a page of which white is zero, turned round."""
    white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if PHOTOMETRIC_TAG not in page.tags or not white_is_zero:
        return image
    white = image.dtype.type((1 << page.bitspersample) - 1)
    return np.asarray(white - image, image.dtype)


def _sample_page(page: tifffile.TiffPage) -> list[Image]:
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


@contextmanager
def reading(name: str, fault: str) -> Iterator[None]:
    """Whatever a file makes the reader raise is a `SliceError` that names it."""
    try:
        yield
    except SliceError:
        raise
    except Exception as error:
        raise SliceError(f"{name}: {fault} ({first_line(error)})") from None


@dataclass(frozen=True)
class Frame:
    """A checked file: its size, bytes, and all that stands before and after its pixels.

    Another one that has the same has the same header.
    """

    size: int
    around: Sequence[tuple[int, bytes]]
    header: Header

    def fits(self, file: IO[bytes], size: int) -> bool:
        """True if an open file of this size has the same around its pixels."""
        there = file.fileno()
        return size == self.size and all(
            os.pread(there, len(part), start) == part for start, part in self.around
        )


def frame(file: IO[bytes], size: int, page: tifffile.TiffPage, header: Header) -> Frame | None:
    """None where pixels and what describes them may be mixed, as where they are compressed."""
    start, length = page.dataoffsets[0], sum(page.databytecounts)
    stop = start + length
    if not page.is_contiguous or length != page.nbytes or size - length > FRAME_BYTES:
        return None
    parts = [(0, start), (stop, size - stop)]
    return Frame(size, [(at, os.pread(file.fileno(), n, at)) for at, n in parts], header)


class TiffSeries:
    """One TIFF file per slice."""

    def __init__(
        self, files: list[Path], names: list[str], source: str, numbers: list[int] | None = None
    ) -> None:
        """files : in the order of z; names : of the slices, all different; numbers : in these."""
        self.files = files
        self.source = source
        self.names = names
        self.numbers = numbers
        self._frame: Frame | None = None  # of the file that was checked last

    def header(self, z: int) -> Header:
        """See `Stack`. Most files of a series differ in their pixels alone: those are not parsed
        one by one.
        """
        path = self.files[z]
        with reading(str(path), "not a readable TIFF"), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if self._frame and self._frame.fits(file, size):
                return self._frame.header
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages.first
                count = max(len(tiff.pages), promised_pixels(tiff, [page]) // max(1, page.size))
                if count != 1:
                    raise SliceError(f"{path}: {count} pages, expected one slice per file")
                header = check_page(page, size, str(path))
                header = replace(header, voxel_size=read_voxel_size(tiff))
                self._frame = frame(file, size, page, header)
        return header

    def read(self, z: int) -> Image:
        """See `Stack`."""
        with self._page(z) as page:
            return read_page(page)

    def read_parts(
        self, z: int, boxes: Sequence[Box], shape: tuple[int, int]
    ) -> list[Image] | None:
        """See `parts`."""
        with self._page(z) as page:
            return read_page_parts(page, boxes) if page.shape == shape else None

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        with self._page(z) as page:
            return is_constant_sample(_sample_page(page))

    @contextmanager
    def _page(self, z: int) -> Iterator[tifffile.TiffPage]:
        name = str(self.files[z])
        with (
            reading(name, "not a readable TIFF"),
            tifffile.TiffFile(name) as tiff,
            reading(name, "cannot be decoded"),
        ):
            yield tiff.pages.first

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return file_stamp(self.files[z])
