"""Whether two images show the same tissue, or are no more alike than others by chance.

Both are averaged down to some 192 px and freed of brightness that changes slowly. Then

    t(d) = sum a(p) b(p + d) / sqrt(sum a(p)^2 b(p + d)^2)

over all pixels p, for every offset d (round the border; 0 where there is no content). At all
offsets but one, tissue lies on other tissue: these values are what chance gives on just these
images: normal values with a standard deviation s of 1 or, with structures of several pixels, more,
whatever few bright spots an image holds; s is measured. The number of peaks above z that such a
field has by chance (its expected Euler characteristic: Adler, The geometry of random fields, 1981;
Worsley et al., J Cereb Blood Flow Metab 12, 900, 1992) is

    n l_x l_y (2 pi)^-1.5 z exp(-z^2 / 2)

for n offsets and the standard deviations l of the slopes of t / s. The limit is the z with one such
peak in a thousand pairs of images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from amst_hpc.averaging import average_down
from amst_hpc.transform import FloatImage, Image, Matrix, scaled

SIDE = 192  # px that are looked at
SLOW = 33  # px of these over which brightness is levelled
FINE = 9  # the same, for what fine structures alone tell: small images, or little overlap
BRIGHT = 5  # standard deviations: brighter spots are cut to that
LEAST_OVERLAP = 0.02  # of the image: offsets with less in common tell nothing
FALSE_ALARM = 1e-3  # of a pair of images that have nothing in common
AFFINE_TRIES = 2
"""The shift of an affine is searched among all offsets, its other numbers near it: as many tries
again for each of them at the most.
"""


class Likeness(NamedTuple):
    """The highest correlation over the limit of chance, and the lowest one, its sign turned.

    More than 1: it is there. The second is of images with inverted contrast.
    """

    same: float
    inverted: float


def reduced(image: Image) -> FloatImage:
    """As it is compared, (y, x)."""
    return average_down(image, _factor(image))


def likeness(fixed: FloatImage, moving: FloatImage) -> Likeness:
    """Of two images of one shape (y, x), both `reduced`, at whatever offset they are most alike."""
    levelled = [[_levelled(a, size) for a in (fixed, moving)] for size in (SLOW, FINE)]
    found = [_correlations(a, b, 1) for a, b in levelled]
    most = max(float(values.max()) / limit for values, limit in found)
    return Likeness(most, max(float(-values.min()) / limit for values, limit in found))


def over_chance(fixed: Image, moving: Image, matrix: Matrix) -> float:
    """How much `fixed(p)` and `moving(M p)` are alike, over what an affine reaches by chance.

    1 or less: not to be told from images that have nothing in common.
    """
    small, other = reduced(fixed), reduced(moving)
    m = scaled(matrix, 1 / _factor(fixed))
    other = ndimage.affine_transform(other, m[::-1, 1::-1], m[::-1, 2], small.shape, order=1)
    most = -np.inf
    for size in (SLOW, FINE):
        values, limit = _correlations(_levelled(small, size), _levelled(other, size), AFFINE_TRIES)
        most = max(most, float(values[0, 0]) / limit)
        if most > 1:
            break
    return most


def _factor(image: Image) -> int:
    return max(1, round(float(np.sqrt(image.size)) / SIDE))


def _levelled(image: FloatImage, size: int) -> FloatImage:
    """Without the mean of `size` x `size` px around each pixel; 0 where there is no content."""
    content = image > 0
    mean = ndimage.uniform_filter(image, size)
    if not content.all():
        mean /= np.maximum(ndimage.uniform_filter(content.astype(np.float32), size), 1e-3)
    levelled = (image - mean) * content
    most = BRIGHT * float(levelled.std())
    return np.asarray(np.clip(levelled, -most, most), np.float32)


def _correlations(a: FloatImage, b: FloatImage, tries: int) -> tuple[NDArray[np.floating], float]:
    """t(d) / s at all offsets, and its limit where the best of `tries` offsets was taken."""
    products = _at_all_offsets(a, b)
    spread = _at_all_offsets(a * a, b * b)
    there = [(image != 0).astype(np.float32) for image in (a, b)]
    tell = np.ones(a.shape, np.bool_)
    if not all(content.all() for content in there):
        tell = _at_all_offsets(there[0], there[1]) > LEAST_OVERLAP * a.size
    t = tell * products / np.sqrt(np.maximum(spread, 1e-6 * spread.max() + np.float32(1e-12)))
    s = _deviation(t[tell])
    if not s > 0:
        return np.zeros_like(t), 1.0
    down, across = (np.diff(t, axis=0)[tell[1:]], np.diff(t, axis=1)[tell[:, 1:]])
    slopes = _deviation(down) * _deviation(across) / s**2
    return t / s, _limit(np.count_nonzero(tell) * slopes * (2 * np.pi) ** -1.5, tries)


def _deviation(values: NDArray[np.floating]) -> float:
    """Standard deviation about 0 of normal values, whatever a few of them are; of a sample.

    Odd and even offsets alike, which differ for slices that were magnified by whole pixels.
    """
    return 1.4826 * float(np.median(np.abs(values[::7]))) if values.size else 0.0


def _limit(cells: float, tries: int) -> float:
    """Where `cells ** tries * z * exp(-z * z / 2)` is the rate of false alarms."""
    z = 5.0
    for _ in range(8):
        z = np.sqrt(2 * np.log(max(cells, 2.0) ** tries * z / FALSE_ALARM))
    return float(z)


def _at_all_offsets(a: FloatImage, b: FloatImage) -> FloatImage:
    """`sum over p of a(p) b(p + d)`, [dy, dx], round the border."""
    spectra = np.conj(fft.rfft2(a)) * fft.rfft2(b)
    return np.asarray(fft.irfft2(spectra, a.shape), np.float32)
