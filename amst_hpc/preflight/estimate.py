"""What a job will need, from the size and the number of its slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amst_hpc.config import Config
from amst_hpc.geometry import layers_in_hand, level_factors, usual_layout
from amst_hpc.images.ahead import slices_ahead
from amst_hpc.ome_zarr.metadata import SHARD_BYTES
from amst_hpc.registration.coherence import LARGEST, PLACES
from amst_hpc.registration.neighbours import working_factor
from amst_hpc.registration.template import GROUP, RUN

REGISTER_SECONDS = (0.15, 0.55)
"""Coarse step and elastix of a slice, and more per megapixel that they see, on one core without a
GPU; as all here measured on stacks of 0.25 to 4 megapixels, one rank (benchmarks/RESULTS.md)."""
PAIR_SECONDS = (0.08, 0.09)
"""Both pairs of a slice, and more per megapixel that they see."""
FILTER_SECONDS = (0.06, 0.25)
"""Each pair that the filters are measured on, and more per megapixel of its middle; once a job."""
PREALIGN_PART = 1 / 3
"""Pairs of raw slices that are not aligned yet, of the time of pairs of a slice."""
SECONDS = 0.035
"""Reading twice, averaging, resampling and writing, per megapixel."""

LIBRARIES_BYTES = int(0.8e9)
REGISTRATION_FLOATS, PAIR_FLOATS, RESAMPLING_FLOATS = 20, 12, 2
"""float32 images at the peak: of the size that elastix and SIFT see, that pairs see, and full."""
SLICES_IN_HAND = 4


@dataclass(frozen=True)
class JobEstimate:
    """Seconds of one core for all slices; bytes of memory for a rank, of the layers that it holds
    besides, of a slice, and of the output.
    """

    slices: int
    seconds: float
    rank_bytes: int
    layer_bytes: int
    slice_bytes: int
    output_bytes: int


def estimate(
    depth: int, shape: tuple[int, int], dtype: str, config: Config, held_bytes: int = 0
) -> JobEstimate:
    """The need of a stack of `depth` slices of `shape` (y, x).

    held_bytes : of the slices that reading keeps decoded, see `chunked.block_bytes`.
    """
    pixels, item = shape[0] * shape[1], np.dtype(dtype).itemsize
    seen = pixels // config.registration.factor(shape) ** 2
    paired = pixels // working_factor(shape) ** 2 if config.neighbours.enabled else 0
    window = (2 * config.template.radius + GROUP) * seen * item
    read = (2 * min(slices_ahead(pixels * item), RUN) + SLICES_IN_HAND) * pixels * item
    filters = config.neighbours.reach * min(PLACES, depth) if paired else 0
    middle = min(paired, LARGEST**2)
    floats = REGISTRATION_FLOATS * seen + max(PAIR_FLOATS * paired, RESAMPLING_FLOATS * pixels)
    layer = usual_layout((depth, *shape), pixels * item, config.output).layer * pixels * item
    levels = sum(1 / float(np.prod(f)) for f in level_factors((depth, *shape), config.output))
    encoded = 2 * min(layer, SHARD_BYTES) if config.output.format == "ome-zarr" else 0
    return JobEstimate(
        slices=depth,
        seconds=depth * (_seconds(REGISTER_SECONDS, seen) + SECONDS * pixels / 1e6)
        + (depth * _seconds(PAIR_SECONDS, paired) if paired else 0)
        + filters * _seconds(FILTER_SECONDS, middle),
        rank_bytes=LIBRARIES_BYTES + held_bytes + window + read + 4 * floats,
        layer_bytes=int(layer * layers_in_hand(layer) * levels) + encoded,
        slice_bytes=pixels * item,
        output_bytes=int(depth * pixels * item * levels),
    )


def with_prealignment(need: JobEstimate, shape: tuple[int, int]) -> JobEstimate:
    """The need where raw is alone: its slices of `shape` (y, x) are pre-aligned as well."""
    paired = shape[0] * shape[1] // working_factor(shape) ** 2
    seconds = need.slices * PREALIGN_PART * _seconds(PAIR_SECONDS, paired)
    return replace(need, seconds=need.seconds + seconds)


def _seconds(model: tuple[float, float], pixels: float) -> float:
    return model[0] + model[1] * pixels / 1e6
