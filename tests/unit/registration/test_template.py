"""Which slices make a template, in which groups, and which are left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst_hpc.registration.template import GROUP, groups, is_blank, of_content, window


def test_windows_end_with_the_stack():
    assert window(0, 20, 7) == range(8)
    assert window(10, 20, 7) == range(3, 18)
    assert window(19, 20, 7) == range(12, 20)
    assert window(1, 3, 7) == range(3)


@given(st.sets(st.integers(0, 40)).map(sorted))
def test_groups_are_runs_of_neighbours(slices):
    found = list(groups(slices))
    assert [z for group in found for z in group] == slices
    for group in found:
        assert 1 <= len(group) <= GROUP
        assert group == list(range(group[0], group[0] + len(group)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_black_and_constant_slices_are_blank(dtype):
    for value in (0, 7, np.iinfo(dtype).max):
        assert is_blank(np.full((50, 60), value, dtype))
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (500, 600)).astype(dtype)
    assert not is_blank(image)
    image[300:] = 0
    assert not is_blank(image)
    hot = np.zeros((500, 600), dtype)
    hot[3, 5] = 200
    assert is_blank(hot)
    for value, margin in ((0, 255), (128, 0), (7, 90)):
        image = np.full((500, 600), margin, dtype)
        image[40:-40, 50:-50] = value
        assert is_blank(image)
        image[60:-60, 70:-70] = rng.integers(90, 110, (380, 460))
        assert not is_blank(image)


def test_slices_enter_a_template_where_they_have_content():
    rng = np.random.default_rng(1)
    slices = list(rng.integers(1, 255, (7, 20, 30)).astype(np.uint8))
    median = np.median(slices, axis=0).astype(np.uint8)
    masks = [None, *(np.ones((20, 30), bool) for _ in range(5)), None]
    for n, mask in enumerate(masks[1:6]):
        mask[:n] = False  # row 0: four of them have none, row 4: all have some
    found = of_content(median, slices, masks)
    np.testing.assert_array_equal(found[4:], median[4:])
    assert not found[0].any()
    for row, without in ((1, [3, 4, 5]), (2, [4, 5]), (3, [5])):
        left = [image[row] for z, image in enumerate(slices) if z not in without]
        np.testing.assert_array_equal(found[row], np.median(left, axis=0).astype(np.uint8))
    assert of_content(median, slices, [None] * 7) is median
