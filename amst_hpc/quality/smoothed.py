"""A slice as `evaluate` compares it, of which no more is read than the areas that are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from amst_hpc.content import BLOCK, HALO, Box, blackened, blackened_part
from amst_hpc.images.parts import read_parts
from amst_hpc.images.stack import Stack
from amst_hpc.transform import FloatImage, Image

REACH = 32  # px around an area that are read with it: it is also looked at shifted
TRUNCATE = 4.0  # sigmas that the gaussian reaches
MOST = 0.5  # of a slice: where the parts are more, it is read as a whole


class SmoothedSlice:
    """Slice z without its margins, smoothed: `slice[y0:y1, x0:x1]` is the same as of the whole.

    A part that cannot be had by itself is cut from the whole, which is then kept.
    """

    def __init__(
        self, place: tuple[Stack, int], shape: tuple[int, int], sigma: float, areas: Sequence[Box]
    ) -> None:
        """place : the stack and z. shape : (y, x) as other slices have it; `shape` of the slice is
        its own. areas : y0, y1, x0, x1 px, that will be asked for. Raises `SliceError`.
        """
        (self._stack, self._z), self._sigma = place, sigma
        self._edge = HALO + int(TRUNCATE * sigma + 0.5)  # of a part, that is not told by it
        self._parts: dict[Box, FloatImage] = {}
        self._whole: FloatImage | None = None
        self.shape = shape
        self._read(areas)

    def __getitem__(self, place: tuple[slice, slice]) -> FloatImage:
        """Raises `SliceError`."""
        box = (place[0].start, place[0].stop, place[1].start, place[1].stop)
        if self._whole is None and self._find(box) is None:
            self._read([box])
        if self._whole is not None:
            return self._whole[place]
        found = self._find(box)
        if found is None:
            raise RuntimeError(f"{box} was read")
        return found

    def _find(self, box: Box) -> FloatImage | None:
        """What was read of it already."""
        y0, y1, x0, x1 = box
        for (top, bottom, left, right), part in self._parts.items():
            if top <= y0 and y1 <= bottom and left <= x0 and x1 <= right:
                y, x = y0 - top + self._edge - HALO, x0 - left + self._edge - HALO
                return part[y : y + y1 - y0, x : x + x1 - x0]
        return None

    def _read(self, areas: Sequence[Box]) -> None:
        """The parts that hold these areas; or the whole slice."""
        boxes = [self._around(area) for area in areas]
        parts = None
        if all(self._is_inside(box) for box in boxes) and self._is_little(boxes):
            parts = read_parts(self._stack, self._z, boxes, self.shape)
        for (y0, y1, x0, x1), part in zip(boxes, parts or (), strict=False):
            image = blackened_part(part)
            if image is None:
                parts = None
                break
            edge = self._edge
            self._parts[y0 + edge, y1 - edge, x0 + edge, x1 - edge] = self._smooth(image)
        if parts is None:
            image = self._stack.read(self._z)
            self._whole, self.shape = self._smooth(blackened(image)), image.shape

    def _around(self, area: Box) -> Box:
        """With all that its pixels depend on, from a multiple of `BLOCK` on."""
        y0, y1, x0, x1 = area
        margin = REACH + self._edge
        top, left = (start - margin - (start - margin) % BLOCK for start in (y0, x0))
        return top, y1 + margin, left, x1 + margin

    def _is_inside(self, box: Box) -> bool:
        y0, y1, x0, x1 = box
        return y0 > 0 and x0 > 0 and y1 < self.shape[0] and x1 < self.shape[1]

    def _is_little(self, boxes: Sequence[Box]) -> bool:
        pixels = sum((y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in boxes)
        return pixels < MOST * self.shape[0] * self.shape[1]

    def _smooth(self, image: Image) -> FloatImage:
        smooth = ndimage.gaussian_filter(image.astype(np.float32), self._sigma, truncate=TRUNCATE)
        return np.asarray(smooth, np.float32)
