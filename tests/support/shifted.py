"""Textures with known shifts, as slices."""

import numpy as np
import tifffile
from scipy import ndimage


class Alone:
    """A communicator of one rank."""

    rank, size = 0, 1

    def allgather(self, value):
        return [value]

    def bcast(self, value, root=0):
        return value


def texture(shape=(160, 180), seed=0):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return (128 + 300 * field).astype(np.float32)


def moved(image, y, x):
    """`moved(p + (y, x)) = image(p)`."""
    return ndimage.shift(image, (y, x), order=3, mode="reflect").astype(np.float32)


def save(folder, images):
    folder.mkdir()
    for z, image in enumerate(images):
        tifffile.imwrite(folder / f"slice_{z:03d}.tif", np.clip(image, 0, 255).astype(np.uint8))
    return str(folder)
