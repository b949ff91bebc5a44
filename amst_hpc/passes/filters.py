"""The filters that raw slices are compared with, measured on the stack itself.

At the same places of the whole stack whatever the ranks, blocks and range, so that every job on it
has the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from amst_hpc.content import content, largest_square
from amst_hpc.geometry import share_of
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, Stack
from amst_hpc.opencl.resampling import Resampler
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.signals import LeaveOff, StopRequest
from amst_hpc.registration.coherence import (
    LARGEST,
    PLACES,
    RadialFilter,
    gaussian,
    matched_filter,
    spectra,
)
from amst_hpc.registration.equations import Equations, averaged
from amst_hpc.registration.gauss_newton import COARSE_ALONE
from amst_hpc.registration.neighbours import COARSE_SIDE, Neighbours, Prepared, working_factor
from amst_hpc.registration.template import is_blank
from amst_hpc.transform import FloatImage, Image, Matrix

LEAST = 64  # px: smaller squares tell nothing
LARGE = 0.7  # of what the largest of them are: the squares that both slices show
FINEST = 48_000  # grey values that a resampled slice may have, and some above
MARGIN = 64  # px of the middle of a slice on each side, for its shift


@dataclass(frozen=True)
class Sampling:
    """What filters are measured on: slices up to `reach` from each other.

    crcs : of slices when they were registered.
    """

    inputs: Inputs
    reach: int
    crcs: Mapping[int, int | None] = field(default_factory=dict)


def measure_filters(
    of: Sampling, comm: Communicator, equations: Equations, stop: StopRequest
) -> dict[int, RadialFilter]:
    """The filter for each distance of two slices, 1 to `of.reach`; collective.

    Raises OSError: see `Inputs.read_again`, and `Stopped`.
    """
    inputs, reach = of.inputs, of.reach
    wanted = sorted((z, k) for k in range(1, reach + 1) for z in _places(inputs.depth, k))
    share = share_of(wanted, comm.size, comm.rank)
    mine: dict[tuple[int, int], Any] = {}
    with suppress(LeaveOff):
        mine = _measure(of, share, equations, stop)
    stop.raise_together(comm, "the measurement of the filters")
    found = {place: pair for part in comm.allgather(mine) for place, pair in part.items()}
    side = max((side for side, _ in found.values()), default=0)
    large = {place: pair for place, (n, pair) in found.items() if n >= LARGE * side}
    averaged_down = working_factor(inputs.shape) > 1
    filters = {}
    for k in range(1, reach + 1):
        pairs = [large[place] for place in wanted if place[1] == k and place in large]
        filters[k] = matched_filter(pairs, side, averaged_down) if pairs else gaussian(1.0)
    return filters


def lacking(inputs: Inputs, reach: int) -> list[str]:
    """The slices that the filters would be measured on, but that cannot be read now."""
    wanted = sampled(inputs.depth, reach)
    return [inputs.raw.names[z] for z in sorted(wanted) if not _is_there(inputs.raw, z)]


def sampled(depth: int, reach: int) -> set[int]:
    """The slices that the filters are measured on."""
    return {i for k in range(1, reach + 1) for z in _places(depth, k) for i in (z, z + k)}


def _places(depth: int, k: int) -> list[int]:
    """Where slices z and z + k are compared."""
    last = depth - 1 - k
    return [
        int(z) for z in np.unique(np.linspace(0, max(last, 0), PLACES).astype(int)) if z <= last
    ]


def _is_there(raw: Stack, z: int) -> bool:
    try:
        raw.header(z)
    except SliceError:
        return False
    return True


def _measure(
    of: Sampling, places: Sequence[tuple[int, int]], equations: Equations, stop: StopRequest
) -> dict[tuple[int, int], Any]:
    """Side px of the square that both show, and its spectra; see `coherence.spectra`.

    Slices z and z + k, ascending; without those that tell nothing.

    They are aligned averaged down by at most 2: that is close enough for the finest detail.
    """
    half = min(of.inputs.shape) // working_factor(of.inputs.shape) // 2
    smooth = Neighbours(equations, {}, max(half, COARSE_SIDE))
    hand: dict[int, tuple[Image, Prepared] | None] = {}
    found = {}
    for z, k in places:
        hand = {i: ready for i, ready in hand.items() if i >= z}
        for i in (z, z + k):
            if i not in hand:
                stop.look()
                image = _whole(of.inputs, i, of.crcs.get(i))
                hand[i] = None if image is None else (image, smooth.prepare(image))
        first, second = hand[z], hand[z + k]
        if first is None or second is None:
            continue
        matrix = smooth.register(first[1], second[1], PairResult(z, COARSE_ALONE), None).matrix
        if matrix is not None:
            fixed, moved = _aligned(first[0], second[0], matrix, equations.resample)
            side = min(*fixed.shape, LARGEST)
            if side >= min(LEAST, *first[0].shape):
                found[z, k] = side, spectra(fixed, moved)
    return found


def _whole(inputs: Inputs, z: int, crc: int | None) -> Image | None:
    """The middle of a slice; None if it is unreadable or black."""
    try:
        fitted = inputs.read_fitted(z)[0] if crc is None else inputs.read_again(z, crc)[1]
    except SliceError:
        return None
    image = _middle(fitted, working_factor(inputs.shape))
    return None if is_blank(image) else image


def _aligned(
    fixed: Image, moving: Image, matrix: Matrix, resample: Resampler
) -> tuple[FloatImage, FloatImage]:
    """Both slices where both have content."""
    yx, shift = matrix[::-1, 1::-1], matrix[::-1, 2]
    finer = max(1, FINEST // max(1, int(moving.max())))  # so that rounding costs nothing
    there = resample(moving.astype(np.uint16) * np.uint16(finer), matrix, fixed.shape)
    moved = there.astype(np.float32) / np.float32(finer)
    y, x = np.ogrid[: fixed.shape[0], : fixed.shape[1]]
    for (a, b, c), size in zip(matrix, moving.shape[::-1], strict=True):
        at = a * x + b * y + c
        moved[(at < 0) | (at > size - 1)] = np.nan
    floats = fixed.astype(np.float32)
    here, other = content(fixed), content(moving)
    if here is not None or other is not None:
        both = np.ones(fixed.shape, bool) if here is None else here
        if other is not None:
            both = both & ndimage.affine_transform(other, yx, shift, order=0)
        square = largest_square(both & np.isfinite(moved))
        return floats[square], moved[square]
    return floats, np.where(np.isfinite(moved), moved, floats.mean())


def _middle(image: Image, factor: int) -> Image:
    """As `Neighbours.prepare` makes it small, but no more of it than the spectra need."""
    y, x = (max(0, (n - LARGEST * factor) // 2 - MARGIN * factor) for n in image.shape)
    return averaged(image[y : image.shape[0] - y, x : image.shape[1] - x], factor)
