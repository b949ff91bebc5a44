"""Pairs of blobs and membranes with a known shift."""

import numpy as np
from scipy import ndimage


def texture(height, width, seed=0, dtype="uint8"):
    """Blobs and membranes of several sizes."""
    rng = np.random.default_rng(seed)
    image = sum(
        s * ndimage.gaussian_filter(rng.normal(size=(height, width)), s) for s in (1.5, 3, 6, 12)
    )
    image = np.clip(image / image.std() * 0.18 + 0.5, 0, 1)
    return (image * np.iinfo(dtype).max).astype(dtype)


SCENE = texture(420, 460)


def pair(x, y, noise=6, size=(300, 320), dtype="uint8"):
    """(fixed, moving) with `moving(p + (x, y))` on `fixed(p)`."""
    rng = np.random.default_rng(5)
    h, w = size
    fixed = SCENE[60 : 60 + h, 70 : 70 + w]
    moving = SCENE[60 - y : 60 - y + h, 70 - x : 70 - x + w]
    noisy = [np.clip(a + rng.normal(0, noise, a.shape), 0, 255) for a in (fixed, moving)]
    if dtype == "uint16":
        noisy = [a * 256 for a in noisy]
    return [a.astype(dtype) for a in noisy]
