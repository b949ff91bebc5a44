"""The filters that raw slices are compared with, measured on the stack itself.

At the same places of the whole stack whatever the ranks, blocks and range, so that every job on it
has the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, Stack
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.registration.coherence import (
    LARGEST,
    RadialFilter,
    gaussian,
    matched_filter,
    spectra,
)
from amst_hpc.registration.equations import Equations, averaged, seen
from amst_hpc.registration.neighbours import Neighbours, working_factor
from amst_hpc.registration.template import is_blank
from amst_hpc.transform import Image

PLACES = 16
MARGIN = 64  # px of the middle of a slice on each side, for its shift


def measure_filters(
    inputs: Inputs, reach: int, comm: Communicator, equations: Equations
) -> dict[int, RadialFilter]:
    """The filter for each distance of two slices, 1 to `reach`; collective."""
    factor = working_factor(inputs.shape)
    side = min(*(n // factor for n in inputs.shape), LARGEST)
    filters = {}
    for k in range(1, reach + 1):
        places = _places(inputs.depth, k)[comm.rank :: comm.size]
        mine = {z: _spectra_at(inputs, z, k, equations) for z in places}
        found = {z: pair for part in comm.allgather(mine) for z, pair in part.items() if pair}
        pairs = [found[z] for z in sorted(found)]
        filters[k] = matched_filter(pairs, side, factor > 1) if pairs else gaussian(1.0)
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


def _spectra_at(inputs: Inputs, z: int, k: int, equations: Equations) -> Any:
    """See `coherence.spectra`; None where two slices tell nothing."""
    try:
        fixed, moving = (
            _middle(inputs.read_fitted(i)[0], working_factor(inputs.shape)) for i in (z, z + k)
        )
    except SliceError:
        return None
    partial = any(is_blank(image) or seen(image) is not None for image in (fixed, moving))
    if partial:
        return None
    smooth = Neighbours(equations, {k: gaussian(1.0)})
    found = smooth.register(smooth.prepare(fixed), smooth.prepare(moving), PairResult(z, k), None)
    if found.matrix is None:
        return None
    yx, shift = found.matrix[::-1, 1::-1], found.matrix[::-1, 2]
    moved = ndimage.affine_transform(
        moving.astype(np.float32), yx, shift, order=3, cval=np.nan, output=np.float32
    )
    floats = fixed.astype(np.float32)
    return spectra(floats, np.where(np.isfinite(moved), moved, floats.mean()))


def _middle(image: Image, factor: int) -> Image:
    """As `Neighbours.prepare` makes it small, but no more of it than the spectra need."""
    y, x = (max(0, (n - LARGEST * factor) // 2 - MARGIN * factor) for n in image.shape)
    return averaged(image[y : image.shape[0] - y, x : image.shape[1] - x], factor)
