"""Block means, rounded half up, each level from the one above."""

import numpy as np
import pytest
from bdv_files import SHAPE, reference, small, stack

from amst_hpc.bdv.mipmaps import downsample, pyramid
from amst_hpc.geometry import make_layout


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "factors", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (4, 3, 2), (8, 8, 8), (1, 1, 3)]
)
@pytest.mark.parametrize("fill", ["noise", "largest"])
def test_block_mean(dtype, factors, fill):
    block = stack(dtype) if fill == "noise" else np.full(SHAPE, np.iinfo(dtype).max, dtype)
    np.testing.assert_array_equal(downsample(block, factors), reference(block, factors))


def test_half_is_rounded_up():
    assert downsample(np.array([[[0, 1]]], np.uint8), (1, 1, 2)).item() == 1


def test_each_level_comes_from_the_one_above():
    volume = stack("uint16")
    one, two, four = pyramid(volume, make_layout(SHAPE, 16, small()))
    np.testing.assert_array_equal(one, volume)
    np.testing.assert_array_equal(two, reference(volume, (2, 2, 2)))
    np.testing.assert_array_equal(four, reference(two, (2, 2, 2)))
