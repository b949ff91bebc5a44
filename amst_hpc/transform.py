"""Affine transforms of a slice, and the one resampling.

A transform is a 2x3 matrix `[A | t]` in xy order, pixel centres at integers, and pulls back:
`aligned(p) = raw(M p)`. `compose(m, n)` applies n first. Arrays are (y, x); this file turns one
into the other. The types of arrays that all modules share stand here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Matrix = NDArray[np.float64]  # (2, 3)
Image = NDArray[np.integer]  # (y, x) uint8 or uint16
FloatImage = NDArray[np.float32]  # (y, x)
Block = NDArray[Any]  # (z, y, x) uint8 or uint16


def translation(x: float, y: float) -> Matrix:
    """`M p = p + (x, y)`, px."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def compose(m: Matrix, n: Matrix) -> Matrix:
    """`p -> m(n(p))`; of one or of many, (..., 2, 3)."""
    a = m[..., :2]
    return np.concatenate([a @ n[..., :2], a @ n[..., 2:] + m[..., 2:]], axis=-1)


def invert(m: Matrix) -> Matrix:
    """The transform that undoes m; of one or of many, (..., 2, 3)."""
    a = np.linalg.inv(m[..., :2])
    return np.concatenate([a, -a @ m[..., 2:]], axis=-1)


def scaled(m: Matrix, factor: float) -> Matrix:
    """The transform between images that are `factor` times as large."""
    rest = (factor - 1) / 2
    up = np.array([[factor, 0, rest], [0, factor, rest]])
    down = np.array([[1 / factor, 0, -rest / factor], [0, 1 / factor, -rest / factor]])
    return compose(up, compose(m, down))


def about(a: NDArray[np.float64], t: NDArray[np.float64], centre: NDArray[np.float64]) -> Matrix:
    """`A (p - c) + c + t` as a 2x3 matrix: the form of elastix' AffineTransform."""
    return np.hstack([a, (centre + t - a @ centre)[:, None]])


def corners(shape: tuple[int, int]) -> NDArray[np.float64]:
    """The four corner pixels of a (y, x) image as (4, 2) points xy."""
    y, x = shape[0] - 1, shape[1] - 1
    return np.array([[0, 0], [x, 0], [0, y], [x, y]], dtype=np.float64)


def displacement(m: Matrix, shape: tuple[int, int]) -> NDArray[np.float64]:
    """(..., 4, 2) displacement `M p - p` of the image corners, px, of one or many (..., 2, 3)."""
    points = corners(shape)
    return points @ np.swapaxes(m[..., :2], -1, -2) + m[..., None, :, 2] - points


def is_whole_shift(m: Matrix) -> bool:
    """True for a translation by whole pixels, which needs no interpolation."""
    return bool(np.array_equal(m[:, :2], np.eye(2)) and np.array_equal(m[:, 2], np.rint(m[:, 2])))


def shift_whole(image: Image, x: int, y: int, shape: tuple[int, int]) -> Image:
    """`out(p) = image(p + (x, y))` on a grid of `shape`; 0 where that lies outside the image."""
    out = np.zeros(shape, image.dtype)
    y0, y1 = max(0, -y), min(shape[0], image.shape[0] - y)
    x0, x1 = max(0, -x), min(shape[1], image.shape[1] - x)
    if y0 < y1 and x0 < x1:
        out[y0:y1, x0:x1] = image[y0 + y : y1 + y, x0 + x : x1 + x]
    return out


def resample(image: Image, m: Matrix, shape: tuple[int, int]) -> Image:
    """`out(p) = image(M p)` by cubic B-spline; 0 outside.

    Rounded and clipped to the image's own dtype.
    image : (y, x) uint8 or uint16. Returns `shape`, same dtype. A whole-pixel shift copies exactly.
    """
    if is_whole_shift(m):
        return shift_whole(image, int(m[0, 2]), int(m[1, 2]), shape)
    spline = ndimage.spline_filter(image, order=3, output=np.float32, mode="mirror")
    yx = m[::-1, 1::-1]
    out: NDArray[np.float32] = ndimage.affine_transform(
        spline,
        yx,
        m[::-1, 2],
        shape,
        np.float32,
        order=3,
        mode="constant",
        cval=0.0,
        prefilter=False,
    )
    np.rint(out, out=out)
    limits = np.iinfo(image.dtype)
    return np.clip(out, limits.min, limits.max, out=out).astype(image.dtype)


def resample_nearest(image: Image, m: Matrix, shape: tuple[int, int]) -> Image:
    """`out(p) = image(M p)`, the value of the nearest pixel; 0 outside. For labels.

    image : (y, x) uint8 or uint16. Returns `shape`, same dtype; no value that `image` has not.
    """
    if is_whole_shift(m):
        return shift_whole(image, int(m[0, 2]), int(m[1, 2]), shape)
    yx, start = m[::-1, 1::-1], m[::-1, 2]
    out: Image = ndimage.affine_transform(image, yx, start, shape, image.dtype, 0, "constant", 0)
    return out


def small_affine(theta: NDArray[np.float64], shape: Sequence[int]) -> Matrix:
    """Displacement at the centre (x: 0, y: 3) and its change over half a width (1, 4) and half a
    height (2, 5), px, as a transform of a (y, x) image; of one or of many, (..., 6).
    """
    height, width = shape
    a = theta[..., [[1, 2], [4, 5]]] / [width / 2, height / 2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = theta[..., [0, 3]] - a @ centre
    return np.concatenate([np.eye(2) + a, shift[..., None]], axis=-1)
