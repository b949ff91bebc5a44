"""What a job will need, from the size and the number of its slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amst_hpc.config import Config
from amst_hpc.geometry import level_factors
from amst_hpc.images.ahead import slices_ahead
from amst_hpc.registration.template import GROUP, RUN

SECONDS_PER_MEGAPIXEL = 0.45
"""Registration on one core of 2.6 GHz with the default settings, at 2048 x 2048.

Small slices take at least 0.3 s.
"""

LEAST_SECONDS = 0.3
LIBRARIES_BYTES = int(1.1e9)
FLOAT_IMAGES = 20
"""float32 copies of a slice that elastix and SIFT hold at their peak."""


@dataclass(frozen=True)
class JobEstimate:
    """Seconds of one core for all slices; bytes of memory for a rank, of a slice, and of the
    output.
    """

    slices: int
    seconds: float
    rank_bytes: int
    slice_bytes: int
    output_bytes: int


def estimate(
    depth: int, shape: tuple[int, int], dtype: str, config: Config, held_bytes: int = 0
) -> JobEstimate:
    """The need of a stack of `depth` slices of `shape` (y, x).

    held_bytes : of the slices that reading keeps decoded, see `hdf5.block_bytes`.
    """
    pixels, item = shape[0] * shape[1], np.dtype(dtype).itemsize
    window = (2 * config.template.radius + GROUP) * pixels * item
    ahead = 2 * min(slices_ahead(pixels * item), RUN) * pixels * item
    levels = sum(1 / float(np.prod(f)) for f in level_factors((depth, *shape), config.output))
    return JobEstimate(
        slices=depth,
        seconds=depth * max(LEAST_SECONDS, SECONDS_PER_MEGAPIXEL * pixels / 1e6),
        rank_bytes=LIBRARIES_BYTES + held_bytes + window + ahead + FLOAT_IMAGES * 4 * pixels,
        slice_bytes=pixels * item,
        output_bytes=int(depth * pixels * item * levels),
    )
