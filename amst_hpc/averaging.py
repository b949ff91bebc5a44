"""Arrays averaged down in blocks.

`average_down`, `shrink` and `average_line` leave out a rest at the end: what is measured and shown.
`downsample` and `downsample_labels` replicate the edge: what mipmap levels are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.transform import Block, FloatImage, Image

ROWS = 64
"""Rows of the result that are made together, so that what is added up stays in the cache."""


def go_on() -> None:
    """Between two steps, where nobody asks to stop."""


def average_down(image: Image | FloatImage, factor: int) -> FloatImage:
    """Mean of factor x factor blocks of a (y, x) image; a rest at the right and below is left out.

    Returns (y // factor, x // factor) float32.
    """
    if factor == 1:
        return np.ascontiguousarray(image, np.float32)
    return np.asarray(_block_sums(image, factor) / np.float32(factor**2), np.float32)


def shrink(image: Image, factor: int) -> Image:
    """As `average_down`, rounded half up, in the image's own dtype."""
    if factor == 1:
        return image
    sums = _block_sums(image, factor).astype(np.uint32)
    return ((sums + np.uint32(factor**2 // 2)) // np.uint32(factor**2)).astype(image.dtype)


def _block_sums(image: Image | FloatImage, factor: int) -> NDArray[Any]:
    y, x = image.shape[0] // factor, image.shape[1] // factor
    wide = np.dtype(np.float32) if image.dtype.kind == "f" else _wide(image.dtype, factor**2)
    sums = np.empty((y, x), wide)
    for first in range(0, y, ROWS):
        part = sums[first : first + ROWS]
        rows = image[first * factor : (first + len(part)) * factor, : x * factor]
        total = rows[::factor].astype(wide)
        for i in range(1, factor):
            total += rows[i::factor]
        part[:] = total[:, ::factor]
        for i in range(1, factor):
            part += total[:, i::factor]
    return sums


def _wide(dtype: np.dtype[Any], count: int) -> np.dtype[Any]:
    """Holds the sum of `count` values."""
    return np.dtype(np.uint16 if dtype == np.uint8 and count <= 256 else np.uint32)


def average_line(line: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Mean of runs of `factor` values; a rest at the end is left out."""
    runs = line[: len(line) // factor * factor].reshape(-1, factor)
    return np.asarray(runs.mean(axis=1))


def downsample(
    block: Block, factors: tuple[int, int, int], between: Callable[[], None] = go_on
) -> Block:
    """Block mean, rounded half up; the edge is replicated where a block sticks out.

    block : (z, y, x) uint8 or uint16. between : called before each slice of the result, which it
    may keep from being made by what it raises. Returns ceil(dim / factor) in each axis, same dtype.
    """
    fz, fy, fx = factors
    if factors == (1, 1, 1):
        return block
    count = fz * fy * fx
    wide = _wide(block.dtype, count)
    depth, height, width = (-(-n // f) for n, f in zip(block.shape, factors, strict=True))
    out = np.empty((depth, height, width), block.dtype)
    for z in range(depth):
        between()
        total = _sum_slices(block[z * fz : (z + 1) * fz], fz, wide)
        total = _sum_neighbours(total, fy)
        total = _sum_neighbours(total.T, fx).T
        total += wide.type(count // 2)
        total //= wide.type(count)
        out[z] = total
    return out


def downsample_labels(
    block: Block, factors: tuple[int, int, int], between: Callable[[], None] = go_on
) -> Block:
    """The most frequent value of each block (its mode), of several the first one met.

    As `downsample`, but every value is one of `block`: a mean of labels is another label.
    """
    fz, fy, fx = factors
    if factors == (1, 1, 1):
        return block
    padded = np.pad(block, [(0, -n % f) for n, f in zip(block.shape, factors, strict=True)], "edge")
    out = np.empty([n // f for n, f in zip(padded.shape, factors, strict=True)], block.dtype)
    for z in range(len(out)):
        between()
        slices = padded[z * fz : (z + 1) * fz]
        votes = [s[y::fy, x::fx] for s in slices for y in range(fy) for x in range(fx)]
        out[z] = _most_frequent([np.ascontiguousarray(vote) for vote in votes])
    return out


def _most_frequent(planes: list[Image]) -> Image:
    """At each place, of planes of one shape."""
    best, most = planes[0].copy(), np.zeros(planes[0].shape, np.uint16)
    for i, plane in enumerate(planes):
        count = np.zeros(plane.shape, np.uint16)
        for other in planes[i:]:  # what stands before was counted with its first one
            count += plane == other
        better = count > most
        best[better], most[better] = plane[better], count[better]
    return best


def _sum_slices(slices: Block, count: int, wide: np.dtype[Any]) -> NDArray[Any]:
    """Sum along z of `count` slices, the last one repeated where there are fewer."""
    total: NDArray[Any] = slices[0].astype(wide)
    for i in range(1, count):
        total += slices[min(i, len(slices) - 1)]
    return total


def _sum_neighbours(plane: NDArray[Any], count: int) -> NDArray[Any]:
    """Sums of `count` rows each, the last row repeated to a multiple of `count`."""
    if missing := -len(plane) % count:
        plane = np.concatenate([plane, np.repeat(plane[-1:], missing, axis=0)])
    total = plane[::count].copy(order="K")
    for i in range(1, count):
        total += plane[i::count]
    return total
