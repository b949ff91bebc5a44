"""How a stack is cut: slabs, layers, mipmap levels and chunks. All tuples are (z, y, x).

A layer is a run of slices. Level k has z factor f(k) and chunks of layer / f(k) slices, so the
chunks of one layer cover the same slices on every level and belong to one rank. z factors are
powers of two up to 8 unless the user sets them, so a layer of 8 slices always suffices and the
levels never depend on the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from amst_hpc.config import InputError, Output

T = TypeVar("T")
Zyx = tuple[int, int, int]
LAYER_DEPTHS = (64, 32, 16, 8)  # slices; large chunks compress and read better
SMALLEST_LEVEL = 256  # px: the last level has no more in y and x
LARGEST_Z_FACTOR = 8  # chosen by itself
LARGEST_SET_Z_FACTOR = 64  # set by the user
PAGE = 4096  # bytes; no two layers share one
IMBALANCE = 1.1  # slices of the busiest rank over the mean
LAYER_BYTES = 2 << 30
"""Memory that the buffers of a layer may take, on whatever node: the cut must not depend on it."""
PYRAMID = 8 / 7  # voxels of all levels over those of level 0, for 2x2x2
LARGE_LAYER = 2**30  # bytes
USUAL_RANKS = 64  # that layers are made for


def split(n: int, parts: int) -> list[range]:
    """0..n-1 cut into `parts` contiguous ranges, equal to within one; empty ones if parts > n."""
    edges = [n * part // parts for part in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def share_of(items: Sequence[T], parts: int, part: int) -> list[T]:
    """The contiguous part of `items` that is the share of one rank of `parts`."""
    return [items[i] for i in split(len(items), parts)[part]]


def level_factors(shape_zyx: Zyx, output: Output) -> tuple[Zyx, ...]:
    """Factors of each mipmap level against the full size; level 0 is (1, 1, 1).

    Each level halves y and x, and z unless its voxel is coarser than that, until y and x are at
    most `SMALLEST_LEVEL` px or there are `output.levels` levels. `output.factors` goes first.
    Raises `InputError` if its z factors give no power of two up to `LARGEST_SET_Z_FACTOR`.
    """
    factors: list[Zyx] = [(1, 1, 1)]
    for z, y, x in output.factors:
        factors.append(_times(factors[-1], (z, y, x)))
    if output.factors:
        _check_z_factor(factors[-1][0], output)
        return tuple(factors)
    while _more_levels(shape_zyx, factors, output.levels):
        step_z = 2 if _halve_z(factors[-1], output.voxel_size_nm) else 1
        factors.append(_times(factors[-1], (step_z, 2, 2)))
    return tuple(factors)


def _times(a: Zyx, b: Zyx) -> Zyx:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


def _check_z_factor(factor: int, output: Output) -> None:
    if factor > LARGEST_SET_Z_FACTOR or factor & (factor - 1):
        raise InputError(
            f"output.factors = {[list(f) for f in output.factors]}: the z factors multiply to "
            f"{factor}; expected a power of two up to {LARGEST_SET_Z_FACTOR}"
        )


def _more_levels(shape: Zyx, factors: list[Zyx], levels: int) -> bool:
    if levels:
        return len(factors) < levels
    _, y, x = _divide(shape, factors[-1])
    return max(y, x) > SMALLEST_LEVEL


def _halve_z(factor: Zyx, voxel_size_nm: tuple[float, ...]) -> bool:
    """False while halving y and x alone brings the voxel nearer to a cube (z over xy > sqrt 2)."""
    if factor[0] >= LARGEST_Z_FACTOR:
        return False
    z, y, x = voxel_size_nm or (1.0, 1.0, 1.0)
    return (z * factor[0]) ** 2 <= 2 * (y * factor[1]) * (x * factor[2])


def layer_depth(
    shape: Zyx, slice_bytes: int, ranks: int, output: Output, memory_bytes: float = LAYER_BYTES
) -> int:
    """Slices in a layer: `output.layer` if it is set, else the best of `LAYER_DEPTHS`.

    The best is the deepest that keeps the ranks balanced within `IMBALANCE`, or else balances them
    best, among those whose buffers fit in `memory_bytes` (of one rank); the shallowest if none do.
    Raises `InputError` if `output.layer` is no multiple of the largest z factor.
    """
    z_factor = max(factor[0] for factor in level_factors(shape, output))
    if output.layer:
        if output.layer % z_factor:
            raise InputError(
                f"output.layer = {output.layer}: expected a multiple of {z_factor}, "
                "the largest z factor"
            )
        return output.layer
    depths = [layer for layer in LAYER_DEPTHS if layer % z_factor == 0]
    fitting = [d for d in depths if d * slice_bytes * PYRAMID * 2 <= memory_bytes] or depths[-1:]
    busiest = {layer: _busiest(shape[0], ranks, layer) for layer in fitting}
    balanced = [layer for layer in fitting if busiest[layer] <= IMBALANCE * shape[0] / ranks]
    return max(balanced) if balanced else min(fitting, key=lambda layer: (busiest[layer], -layer))


def _busiest(depth: int, ranks: int, layer: int) -> int:
    """Slices of the rank that has most of them."""
    shares = split(math.ceil(depth / layer), ranks)
    return max(min(depth, share.stop * layer) - share.start * layer for share in shares if share)


@dataclass(frozen=True)
class Level:
    """A mipmap level: its factors against the full size, its shape and the shape of its chunks."""

    factors: Zyx
    shape: Zyx
    chunk: Zyx


@dataclass(frozen=True)
class Layout:
    """How the output is stored: full shape, slices in a layer, mipmap levels (0 is full size)."""

    shape: Zyx
    layer: int
    levels: tuple[Level, ...]

    @property
    def layers(self) -> list[range]:
        """The slices of each layer; the last may be shorter."""
        depth = self.shape[0]
        return [range(z, min(z + self.layer, depth)) for z in range(0, depth, self.layer)]


def make_layout(shape: Zyx, layer: int, output: Output) -> Layout:
    """The layout of a stack of this shape; `layer` as `layer_depth` gives it."""
    levels = (
        _level(shape, factors, layer, output.chunk) for factors in level_factors(shape, output)
    )
    return Layout(shape, layer, tuple(levels))


def usual_layout(shape: Zyx, slice_bytes: int, output: Output) -> Layout:
    """The layout of a stack, the same for every number of ranks."""
    return make_layout(shape, layer_depth(shape, slice_bytes, USUAL_RANKS, output), output)


def layers_in_hand(layer_bytes: int) -> int:
    """How many layers a rank holds: one is made while another is stored, unless they are large."""
    return 2 if layer_bytes <= LARGE_LAYER else 1


def _level(full: Zyx, factors: Zyx, layer: int, edge: int) -> Level:
    """A chunk of a level that is smaller than `edge` is only as large as whole pages make it."""
    shape = _divide(full, factors)
    depth = min(layer // factors[0], shape[0])
    height, width = min(edge, shape[1]), min(edge, shape[2])
    if depth < shape[0]:
        height = _lengthen(height, edge, depth * width if width == edge else depth * 32)
        width = _lengthen(width, edge, depth * height)
    return Level(factors, shape, (depth, height, width))


def _lengthen(length: int, edge: int, pixels: int) -> int:
    """The least one up to `edge` that makes `pixels` times it whole pages."""
    step = PAGE // math.gcd(PAGE, pixels)
    return min(edge, -(-length // step) * step)


def _divide(shape: Zyx, factors: Zyx) -> Zyx:
    z, y, x = (-(-size // factor) for size, factor in zip(shape, factors, strict=True))
    return (z, y, x)
