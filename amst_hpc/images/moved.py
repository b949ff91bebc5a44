"""Raw slices moved onto each other on one canvas: they stand for PREALIGNED where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from amst_hpc.config import InputError, Prealign
from amst_hpc.images.stack import Header, Stack
from amst_hpc.placement import Placement
from amst_hpc.transform import (
    Image,
    Matrix,
    about,
    compose,
    corners,
    displacement,
    invert,
    resample,
    translation,
)


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
    moves = np.array([_simpler(m, shape, settings.transform) for m in placement.transforms])
    ends = np.concatenate([_ends(placement.transforms, shape), _ends(moves, shape)])
    first, last = _box(ends, shape, settings.canvas)
    if (last < first).any():
        over = " x ".join(f"{n + 1:.0f}" for n in np.ptp(ends, axis=(0, 1)))
        raise InputError(
            "prealign.canvas = 'crop': no pixel is in all slices, which lie over "
            f"{over} px; expected grow or raw"
        )
    width, height = (last - first + 1).astype(int).tolist()
    x, y = first.astype(int).tolist()
    placed, *moved = (compose(m, translation(x, y)) for m in (placement.transforms, *moves))
    return Canvas((height, width), (x, y), replace(placement, transforms=placed), moved)


def _ends(transforms: Matrix, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Where the corners of raw slices lie, (n, 4, 2) px: as in `corners`."""
    return displacement(invert(transforms), shape) + corners(shape)


def _box(
    ends: NDArray[np.float64], shape: tuple[int, int], canvas: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first and the last pixel of a canvas, (x, y)."""
    if canvas == "raw":
        return np.zeros(2), np.array([shape[1] - 1.0, shape[0] - 1.0])
    if canvas == "grow":
        return np.floor(ends.min(axis=(0, 1))), np.ceil(ends.max(axis=(0, 1)))
    # corners 0 (upper left), 1 (upper right), 2 (lower left), 3
    low = np.array([ends[:, [0, 2], 0].max(), ends[:, [0, 1], 1].max()])
    high = np.array([ends[:, [1, 3], 0].min(), ends[:, [2, 3], 1].min()])
    return np.ceil(low), np.floor(high)


def _simpler(m: Matrix, shape: tuple[int, int], transform: str) -> Matrix:
    """The transform of this kind that does the same in the middle of the raw slice."""
    if transform == "affine":
        return m
    back = invert(m)
    middle = back[:, :2] @ [(shape[1] - 1) / 2, (shape[0] - 1) / 2] + back[:, 2]
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
