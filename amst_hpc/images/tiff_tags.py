"""The voxel size that stands in a TIFF: OME-XML, what ImageJ writes, the tags of FEI (Thermo
Fisher) and Zeiss, or else its resolution.

The tags of the microscopes know x and y alone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tifffile

from amst_hpc.bdv.metadata import NANOMETRES
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize, accept

Zyx = tuple[float | None, float | None, float | None]
NOTHING: Zyx = (None, None, None)
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
TIFF_UNITS = {2: 25.4e6, 3: 1e7, 4: 1e6, 5: 1e3}  # nm: inch, and tifffile's cm, mm, um


def read_voxel_size(tiff: tifffile.TiffFile) -> VoxelSize:
    """Of an open file; what says x or y first counts. Damaged tags say nothing."""
    for source, look in READERS.items():
        with suppress(Exception):  # whatever damaged tags make the reader raise
            found = look(tiff)
            if any(found[1:]):
                return accept(found, source)
    return UNKNOWN


def _nanometres(size: Any, unit: Any) -> float | None:
    """None for a unit that is none, such as pixel."""
    scale = NANOMETRES.get(str(unit).strip().replace("\\u00B5", "µ").lower())
    return None if size is None or scale is None else float(size) * scale


def _read_ome(tiff: tifffile.TiffFile) -> Zyx:
    """PhysicalSizeX, Y and Z of the first image; um where no unit is said."""
    pixels = ElementTree.fromstring(tiff.ome_metadata or "<OME/>").find(".//{*}Pixels")
    if pixels is None:
        return NOTHING
    z, y, x = (
        _nanometres(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "um"))
        for a in "ZYX"
    )
    return z, y, x


def _read_imagej(tiff: tifffile.TiffFile) -> Zyx:
    """The resolution in the unit that ImageJ names, and its spacing."""
    said = tiff.imagej_metadata or {}
    unit = said.get("unit")
    y, x = (_nanometres(size, unit) for size in _pixel(tiff))
    z = _nanometres(said.get("spacing"), said.get("zunit", unit))
    return abs(z) if z else None, y, x


def _read_fei(tiff: tifffile.TiffFile) -> Zyx:
    """m."""
    scan = (tiff.fei_metadata or {}).get("Scan", {})
    return None, scan["PixelHeight"] * 1e9, scan["PixelWidth"] * 1e9


def _read_zeiss(tiff: tifffile.TiffFile) -> Zyx:
    """Square pixels. Old files have them, in m, for a width of 1024 px alone."""
    said = tiff.sem_metadata or {}
    if "ap_image_pixel_size" in said:
        size = _nanometres(*said["ap_image_pixel_size"][1:3])
    else:
        size = said[""][3] * 1e9 * 1024 / tiff.pages.first.imagewidth
    return None, size, size


def _read_resolution(tiff: tifffile.TiffFile) -> Zyx:
    """Without a unit it is a proportion."""
    scale = TIFF_UNITS.get(tiff.pages.first.tags.valueof(RESOLUTION_UNIT, 2))
    y, x = (size * scale if size and scale else None for size in _pixel(tiff))
    return None, y, x


def _pixel(tiff: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Height and width of a pixel, in the unit of the resolution."""
    tags = tiff.pages.first.tags
    (y, per_y), (x, per_x) = (tags.valueof(c, (0, 1)) for c in (Y_RESOLUTION, X_RESOLUTION))
    return per_y / y if y else None, per_x / x if x else None


READERS: dict[str, Callable[[tifffile.TiffFile], Zyx]] = {
    "OME-XML": _read_ome,
    "ImageJ metadata": _read_imagej,
    "tags of FEI": _read_fei,
    "tags of Zeiss": _read_zeiss,
    "resolution tags": _read_resolution,
}
