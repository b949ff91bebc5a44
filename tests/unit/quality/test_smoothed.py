"""Parts of a slice, smoothed without the rest of it, are the same to the last bit."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from amst_hpc.content import blackened
from amst_hpc.images.stack import SliceError
from amst_hpc.images.tiff import TiffSeries
from amst_hpc.quality.smoothed import SmoothedSlice

SHAPE = (700, 640)
AREAS = [(120, 220, 100, 230), (300, 400, 330, 460)]


class Counting(TiffSeries):
    """How many slices were read as a whole."""

    whole = 0

    def read(self, z):
        self.whole += 1
        return super().read(z)


def tissue(seed=0):
    grey = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    return np.clip(128 + 250 * grey, 1, 254).astype(np.uint8)


def wedge(value, depth=0.6):
    """A slice that was turned: a corner of it, on both areas, has one grey value."""
    y, x = np.indices(SHAPE)
    return np.where(x + depth * y < 240, value, tissue()).astype(np.uint8)


def patched(value, box):
    image = tissue()
    image[box] = value
    return image


SCENES = {
    "tissue": (tissue(), 0),
    "black wedge": (wedge(0), 0),
    "white wedge": (wedge(255), 1),
    "a saturated blob": (patched(255, np.s_[150:170, 150:180]), 0),
    "saturated across": (patched(255, np.s_[150:170, :]), 1),
    "a hole": (patched(0, np.s_[150:190, 150:190]), 0),
    "a small hole": (patched(0, np.s_[153:159, 153:159]), 1),
    "a hole and a small one": (patched(0, np.s_[153:159, 153:190]), 1),
    "zeros here and there": (np.where(tissue() > 190, 0, tissue()).astype(np.uint8), 1),
    "black": (patched(0, np.s_[60:300, 40:300]), 0),
    "quantised": (tissue() // 32 * 32, 1),
    "many values": (np.repeat(np.repeat(tissue(3)[::8, ::8], 8, 0), 8, 1)[:700, :640], 1),
}


def smoothed(folder: Path, image, sigma=1.5, areas=AREAS):
    tifffile.imwrite(folder / "s.tif", image)
    stack = Counting([folder / "s.tif"], ["s.tif"], "s")
    return stack, SmoothedSlice((stack, 0), image.shape, sigma, areas)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_a_part_is_that_of_the_whole(tmp_path, name, sigma):
    image, whole = SCENES[name]
    stack, found = smoothed(tmp_path, image, sigma)
    expected = ndimage.gaussian_filter(blackened(image).astype(np.float32), sigma)
    for y0, y1, x0, x1 in AREAS:
        for y, x in ((0, 0), (-20, 31), (8, -32)):
            place = np.s_[y0 + y : y1 + y, x0 + x : x1 + x]
            np.testing.assert_array_equal(found[place], expected[place])
    assert found.shape == SHAPE
    assert stack.whole <= whole


def test_what_is_looked_at_far_off_is_read_then(tmp_path):
    image = tissue()
    stack, found = smoothed(tmp_path, image)
    expected = ndimage.gaussian_filter(image.astype(np.float32), 1.5)
    for place, whole in ((np.s_[180:280, 160:290], 0), (np.s_[0:100, 500:640], 1)):
        np.testing.assert_array_equal(found[place], expected[place])
        assert stack.whole == whole


def test_small_slices_and_those_of_another_size_are_read_as_a_whole(tmp_path):
    stack, found = smoothed(tmp_path, tissue(), areas=[(60, 600, 60, 600)])
    assert (stack.whole, found.shape) == (1, SHAPE)
    other = SmoothedSlice((stack, 0), (900, 900), 1.5, AREAS)
    assert (stack.whole, other.shape) == (2, SHAPE)


def test_a_slice_that_cannot_be_read_is_named(tmp_path):
    stack = Counting([tmp_path / "none.tif"], ["none.tif"], "s")
    with pytest.raises(SliceError, match=r"none\.tif"):
        SmoothedSlice((stack, 0), SHAPE, 1.5, AREAS)
