"""The template of a slice: which pre-aligned slices enter its median along z."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from amst_hpc.content import Mask, margin_values
from amst_hpc.transform import Image

GROUP = 4
RUN = 2 * GROUP  # slices that a rank takes at a time


def window(z: int, depth: int, radius: int) -> range:
    """Slices z-radius..z+radius that exist."""
    return range(max(0, z - radius), min(depth, z + radius + 1))


def groups(slices: Sequence[int]) -> Iterator[list[int]]:
    """`slices` (ascending) in runs of up to GROUP neighbours: those whose windows overlap most."""
    run: list[int] = []
    for z in slices:
        if run and (len(run) == GROUP or z != run[-1] + 1):
            yield run
            run = []
        run.append(z)
    if run:
        yield run


def is_blank(image: Image) -> bool:
    """True for a black or constant slice.

    That is: all but a thousandth of its pixels within one grey level, those of its margins aside.
    """
    sample = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)]
    margins = margin_values(sample)
    if margins:
        inside = sample[~np.isin(sample, [0, *margins])]
        if inside.size <= sample.size / 1000:
            return True
        sample = inside
    low, high = np.percentile(sample, (0.05, 99.95), method="nearest")
    return bool(int(high) - int(low) <= 1)


def of_content(template: Image, slices: Sequence[Image], masks: Sequence[Mask | None]) -> Image:
    """The median of `slices` where some of them have no content: that of the others there.

    template : the median of all. masks : where each has content; None: everywhere. Zeros where
    fewer than half of them have.
    """
    if all(mask is None for mask in masks):
        return template
    whole = np.ones(template.shape, bool)
    known = np.array([whole if mask is None else mask for mask in masks])
    count = known.sum(axis=0)
    out = np.where(2 * count < len(masks), template.dtype.type(0), template)
    ragged = (2 * count >= len(masks)) & (count < len(masks))
    count = count[ragged]
    values = np.array([image[ragged] for image in slices])
    values[~known[:, ragged]] = np.iinfo(values.dtype).max
    values = np.sort(values.T)
    each = np.arange(len(count))
    low, high = values[each, (count - 1) // 2], values[each, count // 2]
    out[ragged] = (low & high) + ((low ^ high) >> 1)
    return out
