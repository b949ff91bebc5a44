"""What of a voxel size is believed, and how two are compared."""

import math

import pytest

from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize, accept


def test_a_size_of_all_axes_is_known():
    size = accept((8, 5.0000001, 4.9), "tags")
    assert size.nm == (8, 5, 4.9)
    assert (str(size), size.source, size.missing) == ("z, y, x = 8, 5, 4.9 nm", "tags", "")


def test_a_size_without_z_is_told_and_is_no_voxel_size():
    size = accept((None, 5, 4), "tags")
    assert (size.nm, size.is_known, size.missing) == ((), True, "z")
    assert str(size) == "y, x = 5, 4 nm"


@pytest.mark.parametrize("dpi", [1, 72, 96, 300])
def test_numbers_of_a_screen_are_not_worth_a_word(dpi):
    assert accept((None, 25.4e6 / dpi, 25.4e6 / dpi), "resolution tags") == UNKNOWN


@pytest.mark.parametrize("size", [0.01, 20_000.0])
def test_what_no_electron_microscope_has_is_ignored_and_told(size):
    found = accept((8, size, 5), "OME-XML")
    assert found.zyx == (8, None, 5)
    assert found.ignored == f"y = {size:g} nm (OME-XML)"


@pytest.mark.parametrize("size", [0, -5, math.nan, math.inf, None])
def test_what_is_no_length_says_nothing(size):
    assert accept((size, size, size), "tags") == UNKNOWN


def test_rounded_sizes_are_the_same_and_unknown_axes_are_not_compared():
    size = VoxelSize((8, 5, 5))
    assert not size.differs(VoxelSize((8, 5.01, 4.99)))
    assert not size.differs(VoxelSize((None, 5, 5)))
    assert not UNKNOWN.differs(size)
    assert size.differs(VoxelSize((None, 5, 4)))


def test_pixels_that_are_averaged_are_larger():
    assert VoxelSize((8, 5, None)).enlarge(4).zyx == (8, 20, None)
