"""What a job will need, from the size and the number of its slices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amst_hpc.config import Config, InputError, Registration, Template
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

    @property
    def memory_mb(self) -> int:
        """To ask for, of a rank: a fifth to spare, and its layers."""
        return math.ceil((1.2 * self.rank_bytes + self.layer_bytes) / 1e8) * 100


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


def lighter(config: Config, depth: int, shape: tuple[int, int]) -> Iterator[tuple[str, Config]]:
    """Settings with which a rank may need less memory, and what changes: one thing, then all."""
    layer = max(factor[0] for factor in level_factors((depth, *shape), config.output))
    work, template = Registration(), Template()
    changes: dict[str, dict[str, Any]] = {
        f"registration.working_size = {work.working_size}": {"registration": work},
        f"template.radius = {template.radius}": {"template": template},
        f"output.layer = {layer}": {"output": replace(config.output, layer=layer)},
    }
    together = {key: value for change in changes.values() for key, value in change.items()}
    for name, change in {**changes, " and ".join(changes): together}.items():
        yield name, replace(config, **change)


def refuse_large(need: JobEstimate, most_gb: float, less: Mapping[str, JobEstimate] = {}) -> None:
    """Raises `InputError` where a rank needs more memory than a node has; 0: nobody knows.

    less : what would be needed, by the settings that make it so.
    """
    if not most_gb or need.memory_mb <= 1000 * most_gb:
        return
    ways = [name for name, other in less.items() if other.memory_mb <= 1000 * most_gb]
    expected = f"{ways[0]}, or nodes with as much" if ways else "nodes with as much"
    raise InputError(
        f"memory_gb_per_node = {most_gb:g}: a rank needs {need.memory_mb / 1000:.1f} GB for slices "
        f"of {need.slice_bytes / 1e6:.0f} MB; expected {expected}"
    )


def with_prealignment(need: JobEstimate, shape: tuple[int, int]) -> JobEstimate:
    """The need where raw is alone: its slices of `shape` (y, x) are pre-aligned as well."""
    paired = shape[0] * shape[1] // working_factor(shape) ** 2
    seconds = need.slices * PREALIGN_PART * _seconds(PAIR_SECONDS, paired)
    return replace(need, seconds=need.seconds + seconds)


def _seconds(model: tuple[float, float], pixels: float) -> float:
    return model[0] + model[1] * pixels / 1e6
