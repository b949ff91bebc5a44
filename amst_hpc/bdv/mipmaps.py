"""Mipmap levels of one layer: block means, each level made from the one above it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.geometry import Layout, Zyx

Block = NDArray[Any]  # (z, y, x), uint8 or uint16


def downsample(block: Block, factors: Zyx) -> Block:
    """Block mean, rounded half up; the edge is replicated where a block sticks out.

    block : (z, y, x) uint8 or uint16. Returns ceil(dim / factor) in each axis, same dtype.
    """
    fz, fy, fx = factors
    if factors == (1, 1, 1):
        return block
    count = fz * fy * fx
    wide = np.uint16 if block.dtype == np.uint8 and count <= 256 else np.uint32
    depth, height, width = (-(-n // f) for n, f in zip(block.shape, factors, strict=True))
    out = np.empty((depth, height, width), block.dtype)
    for z in range(depth):
        total = _sum_slices(block[z * fz : (z + 1) * fz], fz, wide)
        total = _sum_neighbours(total, fy)
        total = _sum_neighbours(total.T, fx).T
        total += wide(count // 2)
        total //= wide(count)
        out[z] = total
    return out


def _sum_slices(slices: Block, count: int, wide: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
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


def pyramid(block: Block, layout: Layout) -> list[Block]:
    """One layer on every level, each made from the one above it."""
    levels = [np.ascontiguousarray(block)]
    for above, level in zip(layout.levels, layout.levels[1:], strict=False):
        fz, fy, fx = (b // a for a, b in zip(above.factors, level.factors, strict=True))
        levels.append(downsample(levels[-1], (fz, fy, fx)))
    return levels
