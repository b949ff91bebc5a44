"""Raw slices moved onto each other on one canvas: they stand for PREALIGNED where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from amst_hpc.config import InputError, Prealign
from amst_hpc.images.stack import Header, Stack
from amst_hpc.placement import Placement
from amst_hpc.transform import Image, Matrix, about, compose, corners, invert, resample, translation


@dataclass(frozen=True, eq=False)
class Canvas:
    """shape : (y, x). offset : (x, y) of its first pixel in the frame of raw, px. placement : where
    the slices lie on it. moves : the same, simpler (`prealign.transform`), by slice.
    """

    shape: tuple[int, int]
    offset: tuple[int, int]
    placement: Placement
    moves: Sequence[Matrix]


def lay_canvas(placement: Placement, shape: tuple[int, int], settings: Prealign) -> Canvas:
    """The canvas for raw slices of `shape` (y, x).

    Raises `InputError` where `prealign.canvas` is crop and they have nothing in common.
    """
    ends = corners(shape)[None] @ np.swapaxes(back := invert(placement.transforms), 1, 2)[:, :2]
    ends = ends + back[:, None, :, 2]
    low, high = over = ends.min(axis=(0, 1)), ends.max(axis=(0, 1))
    if settings.canvas == "crop":
        # corners 0 (upper left), 1 (upper right), 2 (lower left), 3
        low = np.array([ends[:, [0, 2], 0].max(), ends[:, [0, 1], 1].max()])
        high = np.array([ends[:, [1, 3], 0].min(), ends[:, [2, 3], 1].min()])
        first, last = np.ceil(low), np.floor(high)
    else:
        first, last = np.floor(low), np.ceil(high)
    if settings.canvas == "raw":
        first, last = np.zeros(2), np.array([shape[1] - 1, shape[0] - 1])
    if (last < first).any():
        raise InputError(
            "prealign.canvas = 'crop': no pixel is in all slices, which lie over "
            f"{' x '.join(f'{n + 1:.0f}' for n in over[1] - over[0])} px; expected grow or raw"
        )
    width, height = (last - first + 1).astype(int).tolist()
    x, y = first.astype(int).tolist()
    placed = replace(placement, transforms=compose(placement.transforms, translation(x, y)))
    moves = [_simpler(m, (height, width), settings.transform) for m in placed.transforms]
    return Canvas((height, width), (x, y), placed, moves)


def _simpler(m: Matrix, shape: tuple[int, int], transform: str) -> Matrix:
    """The transform of this kind that does the same in the middle of the canvas."""
    if transform == "affine":
        return m
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    shift = m[:, :2] @ middle + m[:, 2] - middle
    if transform == "translation":
        return translation(*np.rint(shift))
    u, _, v = np.linalg.svd(m[:, :2])
    return about(u @ v, shift, middle)


class MovedStack:
    """A stack with every slice moved."""

    def __init__(self, stack: Stack, canvas: Canvas) -> None:
        """stack : as many slices as the canvas has moves."""
        self.stack, self.canvas = stack, canvas
        self.source, self.names = stack.source, stack.names
        self.files, self.numbers = stack.files, stack.numbers

    def header(self, z: int) -> Header:
        """See `Stack`."""
        return Header(self.canvas.shape, self.stack.header(z).dtype)

    def read(self, z: int) -> Image:
        """See `Stack`."""
        return resample(self.stack.read(z), self.canvas.moves[z], self.canvas.shape)

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return self.stack.is_constant(z)

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return self.stack.stamp(z)
