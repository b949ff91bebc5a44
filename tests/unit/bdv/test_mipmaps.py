"""Block means, rounded half up, or modes, each level from the one above."""

import numpy as np
from bdv_files import SHAPE, reference, small, stack

from amst_hpc.averaging import downsample_labels
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.geometry import make_layout


def test_each_level_comes_from_the_one_above():
    volume = stack("uint16")
    one, two, four = pyramid(volume, make_layout(SHAPE, 16, small()))
    np.testing.assert_array_equal(one, volume)
    np.testing.assert_array_equal(two, reference(volume, (2, 2, 2)))
    np.testing.assert_array_equal(four, reference(two, (2, 2, 2)))


def test_levels_of_labels_are_modes():
    labels = stack("uint16") // 9000
    one, two, four = pyramid(labels, make_layout(SHAPE, 16, small()), labels=True)
    np.testing.assert_array_equal(two, downsample_labels(one, (2, 2, 2)))
    np.testing.assert_array_equal(four, downsample_labels(two, (2, 2, 2)))
