"""Parts of a slice, where a format lets them be read without the rest."""

from __future__ import annotations

from collections.abc import Sequence

from amst_hpc.content import Box
from amst_hpc.images.chunked import ChunkedStack
from amst_hpc.images.stack import Stack
from amst_hpc.images.tiff import TiffSeries
from amst_hpc.images.tiff_pages import TiffPages
from amst_hpc.transform import Image


def read_parts(
    stack: Stack, z: int, boxes: Sequence[Box], shape: tuple[int, int]
) -> list[Image] | None:
    """The pixels of `boxes` (y0, y1, x0, x1) of slice z, the same as `Stack.read` has there.

    None where the slice is not of this (y, x) shape or is stored in one piece. Raises `SliceError`.
    """
    if isinstance(stack, TiffSeries | TiffPages | ChunkedStack):
        return stack.read_parts(z, boxes, shape)
    return None
