"""Mipmap levels of one layer, each made from the one above it: block means, of labels modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amst_hpc.averaging import downsample, downsample_labels, go_on
from amst_hpc.geometry import Layout
from amst_hpc.transform import Block


def pyramid(
    block: Block, layout: Layout, labels: bool = False, between: Callable[[], None] = go_on
) -> list[Block]:
    """One layer on every level, each made from the one above it. between : as in `downsample`."""
    reduce = downsample_labels if labels else downsample
    levels = [np.ascontiguousarray(block)]
    for above, level in zip(layout.levels, layout.levels[1:], strict=False):
        fz, fy, fx = (b // a for a, b in zip(above.factors, level.factors, strict=True))
        levels.append(reduce(levels[-1], (fz, fy, fx), between))
    return levels
