"""One TIFF file of many slices: a page each, or a volume that follows the one page of ImageJ.

`look_at_pages` finds where every page is, once; `TiffPages` then opens the file for each slice and
reads the tags of that page itself, so that no page is read by those of another.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile

from amst_hpc.config import InputError
from amst_hpc.content import Box
from amst_hpc.images.stack import (
    Header,
    file_stamp,
    first_line,
    is_constant_sample,
    native_order,
    sample_rows,
)
from amst_hpc.images.tiff import (
    black_as_zero,
    check_page,
    promised_pixels,
    read_page,
    read_page_parts,
    reading,
)
from amst_hpc.images.tiff_tags import read_voxel_size
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize
from amst_hpc.transform import Image

KINDS = ("shaped", "uniform", "generic", "imagej", "ome")
"""Of the series that tifffile tells apart: those whose pages are in the order of the file."""


@dataclass(frozen=True)
class Pages:
    """Where the slices of a file are.

    size : of the file, bytes. offsets : of the directory (IFD) of each page. depth : slices; more
    than pages where the file holds one page and the pixels of all slices from `volume` (byte) on.
    voxel_size : by the tags of the first page.
    """

    size: int
    offsets: tuple[int, ...]
    depth: int
    volume: int = 0
    voxel_size: VoxelSize = UNKNOWN


def look_at_pages(path: Path, option: str) -> Pages:
    """Raises `InputError` for a file that is cut, or whose pages are no series of grey slices."""
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as tiff:
            offsets = _walk(tiff, size)
            depth, voxel_size = _count_slices(tiff, offsets), read_voxel_size(tiff)
            first = tiff.series[0]
            volume = int(first.dataoffset or 0) if depth > len(offsets) == 1 else 0
            end = volume + int(np.prod(first.shape)) * np.dtype(first.dtype).itemsize
    except InputError as error:
        raise InputError(f"{option} {path}: {error}") from None
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise InputError(f"{option} {path}: not a readable TIFF ({first_line(error)})") from None
    if depth != len(offsets) and not (volume and end <= size):
        raise InputError(
            f"{option} {path}: cut short, or not in the order of its pages: {depth} slices, "
            f"{len(offsets)} pages in {size} bytes"
        )
    return Pages(size, offsets, depth, volume, voxel_size)


def _walk(tiff: tifffile.TiffFile, size: int) -> tuple[int, ...]:
    """Where each page begins. Raises `InputError` where one names a next that is not there."""
    form, file = tiff.tiff, tiff.filehandle
    place = tiff.pages.first.offset
    offsets: dict[int, None] = {}
    while place:
        offsets[place] = None
        file.seek(place)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(place + form.tagnosize + tags * form.tagsize)
        pointer = file.read(form.offsetsize)
        place = struct.unpack(form.offsetformat, pointer)[0] if pointer else size
        if place >= size or place in offsets:
            raise InputError(f"cut short, {size} bytes do not hold all its pages")
    return tuple(offsets)


def page_at(tiff: tifffile.TiffFile, z: int, offset: int) -> tifffile.TiffPage:
    """Page z, by its own tags, which stand at `offset`."""
    tiff.filehandle.seek(offset)
    return tifffile.TiffPage(tiff, z)


def _count_slices(tiff: tifffile.TiffFile, offsets: Sequence[int]) -> int:
    """Slices of all its series. Raises `InputError` for colours, channels and the like."""
    depth = 0
    for series in tiff.series:
        axes, shape = series.axes, series.shape
        if series.kind not in KINDS:
            raise InputError(f"a file of kind {series.kind}, expected a plain TIFF or ImageJ's")
        if not axes.endswith("YX") or len(axes) > 3 or axes[0] in "CS":
            raise InputError(
                f"shape {shape} (axes {axes}), expected slices (z, y, x) with one grey channel"
            )
        if series.kind == "ome":
            _check_order(series, tiff)
        depth += 1 if len(shape) == 2 else shape[0]
    # where tifffile could not follow its own descriptions, each of them is looked at
    followed = not tiff.is_shaped or all(s.kind == "shaped" for s in tiff.series)
    told = () if followed else enumerate(offsets)
    promised = promised_pixels(tiff, (page_at(tiff, *each) for each in told))
    if promised > sum(series.size for series in tiff.series):
        raise InputError("cut short, it does not hold all slices that its description names")
    return max(depth, len(offsets))


def _check_order(series: tifffile.TiffPageSeries, tiff: tifffile.TiffFile) -> None:
    """OME may name pages in any order, and of other files. Raises `InputError`."""
    places = [page.offset for page in series.pages if page and page.parent is tiff]
    if len(places) < len(series.pages) or places != sorted(places):
        raise InputError("OME names its pages in another order, or those of other files")


class TiffPages:
    """The slices of one TIFF file."""

    numbers: list[int] | None = None

    def __init__(self, path: Path, option: str, pages: Pages | None = None) -> None:
        """pages : as rank 0 found them; None: look. Raises `InputError`."""
        self.path = path
        self.files = [path]
        self.source = str(path)
        self.pages = pages or look_at_pages(path, option)
        if path.stat().st_size != self.pages.size:
            raise InputError(
                f"{option} {path}: the ranks do not see the same slices ({path.stat().st_size} "
                f"bytes, {self.pages.size}); expected one shared file system"
            )
        self.names = [f"slice_{z:05d}.tif" for z in range(self.pages.depth)]

    def _name(self, z: int) -> str:
        return f"{self.path} page {z}"

    def _page(self, tiff: tifffile.TiffFile, z: int) -> tifffile.TiffPage:
        """Of slice z, by its own tags."""
        if self.pages.volume:
            return tiff.pages.first
        return page_at(tiff, z, self.pages.offsets[z])

    def header(self, z: int) -> Header:
        """See `Stack`."""
        with reading(self._name(z), "cannot be read"), tifffile.TiffFile(self.path) as tiff:
            header = check_page(self._page(tiff, z), self.path.stat().st_size, self._name(z))
            return replace(header, voxel_size=self.pages.voxel_size)

    def read(self, z: int) -> Image:
        """See `Stack`."""
        with reading(self._name(z), "cannot be decoded"), tifffile.TiffFile(self.path) as tiff:
            page = self._page(tiff, z)
            if not self.pages.volume:
                return read_page(page)
            dtype = np.dtype(page.dtype).newbyteorder(tiff.byteorder)
            place = self.pages.volume + z * page.size * dtype.itemsize
            image = np.fromfile(self.path, dtype, page.size, offset=place)
            return native_order(black_as_zero(page, image.reshape(page.shape)))

    def read_parts(
        self, z: int, boxes: Sequence[Box], shape: tuple[int, int]
    ) -> list[Image] | None:
        """See `parts`."""
        with reading(self._name(z), "cannot be decoded"), tifffile.TiffFile(self.path) as tiff:
            page, volume = self._page(tiff, z), self.pages.volume
            if page.shape != shape:
                return None
            start = volume + z * page.size * np.dtype(page.dtype).itemsize if volume else None
            return read_page_parts(page, boxes, start)

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return is_constant_sample(sample_rows(self.read(z)))

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return f"{file_stamp(self.path)}#{z}"
