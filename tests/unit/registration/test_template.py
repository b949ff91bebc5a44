"""The template is exactly np.median's, for any count, dtype and sharing of slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amst_hpc import median
from amst_hpc.median import median_templates
from amst_hpc.registration.template import GROUP, groups, is_blank, window

SHAPE = (9, 11)


def make_slices(count, dtype, seed=0):
    """Values over the whole range of the dtype, the extremes among them."""
    rng = np.random.default_rng(seed)
    limit = np.iinfo(dtype).max
    values = rng.integers(0, limit, (count, *SHAPE), dtype=dtype, endpoint=True)
    values[rng.random(values.shape) < 0.2] = limit
    values[rng.random(values.shape) < 0.1] = 0
    return list(values)


def check(windows):
    for found, w in zip(median_templates(windows), windows, strict=True):
        expected = np.median(np.stack(w), axis=0).astype(w[0].dtype)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("count", range(1, 22))
def test_one_window_of_any_count(count, dtype):
    check([make_slices(count, dtype, count)])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("radius", [1, 2, 7, 9])
def test_windows_of_a_group_share_their_slices(radius, dtype):
    slices = make_slices(2 * radius + 8, dtype, radius)
    for group in groups(range(len(slices))):
        check([[slices[i] for i in window(z, len(slices), radius)] for z in group])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=5),
    st.sampled_from(["uint8", "uint16"]),
)
def test_any_sets_of_slices(picks, dtype):
    slices = make_slices(12, dtype)
    check([[slices[i] for i in sorted(pick)] for pick in picks])


def test_blocks_join_without_a_seam(monkeypatch):
    monkeypatch.setattr(median, "BLOCK_BYTES", 7)
    check([make_slices(6, "uint16"), make_slices(5, "uint16", 3)])


def test_every_value_of_an_even_count_is_rounded_down_without_overflow():
    low, high = np.mgrid[:256, :256].astype(np.uint8)
    check([[low, high]])


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="at least one slice"):
        median_templates([[]])


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
