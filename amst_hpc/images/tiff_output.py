"""TIFF slices as output: written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from amst_hpc.images.stack import checksum
from amst_hpc.transform import Image


def write_slice(path: Path, image: Image, compression: int) -> None:
    """One (y, x) slice; zlib at `compression` 1 to 9, 0 for none."""
    partial = path.with_name(f".{path.name}.partial")
    tifffile.imwrite(
        partial,
        image,
        photometric="minisblack",
        compression="zlib" if compression else None,
        compressionargs={"level": compression} if compression else None,
    )
    partial.replace(path)


def is_whole(path: Path, shape: tuple[int, int], dtype: np.dtype[np.generic], crc: int) -> bool:
    """True if `path` decodes to a slice of this shape, dtype and checksum."""
    try:
        image = tifffile.imread(path)
    except Exception:  # whatever a damaged file makes the reader raise, the slice is written again
        return False
    return image.shape == shape and image.dtype == dtype and checksum(image) == crc
