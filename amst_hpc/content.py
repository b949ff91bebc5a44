"""Where a slice has content: not in its margins, and not in parts that were not scanned.

A margin is a constant area, of any grey value, that reaches the border of the image and lies beyond
the convex hull of the rest: of a larger canvas, of a slice that was turned. Saturated tissue at the
border has tissue around it, and is none. Zeros are no content inside the image either: the missing
part of a slice, a hole. Registration marks all of them by zeros at its working size (`blackened`),
and in smoothed images by NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from amst_hpc.transform import FloatImage, Image

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # y0, y1, x0, x1
RUN = 16  # px of one value along the border: a margin begins there
WIDTH = 5  # px: an area without content is at least so wide, beyond the border as well
BLOCK = 8  # px: and inside the image it holds such a block of zeros
RIM = 1  # px beside a margin, which averaging and interpolation have mixed with it
HALO = WIDTH - 1 + RIM  # px around a part of a slice that its content depends on
MOST_FLAT = 16  # grey values of constant areas that are looked at in a part


def margin_values(image: Image) -> list[int]:
    """The grey values of the margins of a (y, x) slice, looked for along its border alone."""
    found: set[int] = set()
    for line in (image[0], image[-1], image[:, 0], image[:, -1]):
        ends = np.append(np.flatnonzero(line[1:] != line[:-1]), len(line) - 1)
        found.update(line[ends[np.diff(ends, prepend=-1) >= RUN]].tolist())
    return sorted(found)


def content(image: Image) -> Mask | None:
    """True where a (y, x) uint8 or uint16 slice has content; None: everywhere, or nowhere."""
    values = margin_values(image)
    empty = np.zeros(image.shape, bool)
    if 0 in values or _has_black_block(image):
        empty |= _wide_enough(image == 0)
    beyond = np.zeros(image.shape, bool)
    for value in values:
        if value:
            beyond |= _at_border(_wide_enough(image == value))
    if beyond.any():
        empty |= beyond & ~_hull(_wide_enough(~(beyond | empty)))
    return ~empty if empty.any() and not empty.all() else None


def blackened(image: Image) -> Image:
    """The slice with zeros where it has no content, and on the rim; itself if it has."""
    mask = content(image)
    if mask is None:
        return image
    inner = without_rim(mask)
    return np.where(inner, image, image.dtype.type(0)) if inner.any() else image


def blackened_part(part: Image) -> Image | None:
    """What `blackened` makes of a part of a slice, but for `HALO` px on each side of the part; None
    where that depends on the rest of the slice: a constant area that goes on there may be a margin.

    part : away from the border of the slice; its corner is at multiples of `BLOCK`.
    """
    known, inside = slice(WIDTH - 1, 1 - WIDTH), slice(HALO, -HALO)
    flat = ndimage.minimum_filter(part, WIDTH) == ndimage.maximum_filter(part, WIDTH)
    values = np.unique(part[flat])
    if len(values) > MOST_FLAT:
        return None
    for value in values[values > 0]:
        if _at_border(_wide_enough(part == value)[known, known]).any():
            return None
    found, black = part[inside, inside], _wide_enough(part == 0)[known, known]
    if not black.any() or not found.any():
        return found
    inner = without_rim(~black)[RIM:-RIM, RIM:-RIM]
    if not inner.any() or not _has_black_block(part):
        return None
    return np.where(inner, found, part.dtype.type(0))


def without_rim(mask: Mask) -> Mask:
    """Without what lies beside no content."""
    return np.asarray(ndimage.minimum_filter(mask, 2 * RIM + 1), bool)


def filled(image: FloatImage) -> FloatImage:
    """A smoothed image with its NaN filled by what goes on smoothly from beside them.

    From ever coarser averages of what is known (Gortler et al., SIGGRAPH 1996: pull and push).
    """
    known = np.isfinite(image)
    return image if known.all() or not known.any() else _filled(image, known)


def _filled(image: FloatImage, known: Mask) -> FloatImage:
    height, width = image.shape
    ends = ((0, height % 2), (0, width % 2))
    weight = np.pad(known.astype(np.float32), ends)
    inside = np.pad(np.where(known, image, np.float32(0)), ends)
    total, count = (
        a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2] for a in (inside, weight)
    )
    small, there = np.asarray(total / np.maximum(count, 1), np.float32), count > 0
    if not there.all():
        small = _filled(small, there)
    beyond = ndimage.uniform_filter(small.repeat(2, axis=0).repeat(2, axis=1), 3)
    return np.where(known, image, beyond[:height, :width])


def box(mask: Mask | None, shape: tuple[int, int]) -> Box:
    """The smallest that holds all content."""
    if mask is None or not mask.any():
        return 0, shape[0], 0, shape[1]
    (y0, y1), (x0, x1) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0))
    return int(y0), int(y1) + 1, int(x0), int(x1) + 1


def largest_square(mask: Mask) -> tuple[slice, slice]:
    """The largest square (y, x) where all has content, of odd sides; empty where nothing has."""
    inside = np.pad(mask, 1)
    distance: NDArray[Any] = ndimage.distance_transform_cdt(inside, "chessboard")
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    reach = int(distance[y, x])
    if not reach:
        return slice(0), slice(0)
    return slice(int(y) - reach, int(y) + reach - 1), slice(int(x) - reach, int(x) + reach - 1)


def _has_black_block(image: Image) -> bool:
    step = BLOCK // 2
    if image[::step, ::step].all():
        return False
    y, x = (n // BLOCK for n in image.shape)
    blocks = image[: y * BLOCK, : x * BLOCK].reshape(y, BLOCK, x, BLOCK)
    return bool((blocks.max(axis=3).max(axis=1) == 0).any())


def _wide_enough(empty: Mask) -> Mask:
    """Areas at least `WIDTH` wide; what reaches the border goes on beyond it."""
    wide = np.pad(empty, WIDTH - 1, mode="edge")
    wide = ndimage.minimum_filter(wide, WIDTH, mode="nearest")
    wide = ndimage.maximum_filter(wide, WIDTH, mode="nearest")
    inner = slice(WIDTH - 1, 1 - WIDTH)
    return np.asarray(wide[inner, inner], bool)


def _at_border(empty: Mask) -> Mask:
    """The areas that reach the border of the image."""
    parts, _ = ndimage.label(empty)
    lines = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
    at = np.unique(np.concatenate(lines))
    return np.asarray(np.isin(parts, at[at > 0]), bool)


def _hull(mask: Mask) -> Mask:
    """All within the convex hull of what is True."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask.argmax(axis=1)[rows], mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)[rows]
    if len(rows) < 2 or not (last > first).any():
        return mask
    points = np.concatenate([np.stack([first, rows], 1), np.stack([last, rows], 1)])
    y, x = np.arange(mask.shape[0]), np.arange(mask.shape[1])
    low, high = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    for a, b, c in spatial.ConvexHull(points).equations:  # a x + b y + c <= 0 inside
        if abs(a) < 1e-9:
            high[b * y + c > 1e-6] = -np.inf
        elif a < 0:
            low = np.maximum(low, -(b * y + c) / a)
        else:
            high = np.minimum(high, -(b * y + c) / a)
    return np.asarray((x >= low[:, None] - 1e-6) & (x <= high[:, None] + 1e-6), bool)
