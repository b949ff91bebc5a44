"""The median is exactly np.median's, for any count, dtype and sharing of slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amst_hpc import median
from amst_hpc.median import median_templates
from amst_hpc.registration.template import groups, window

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
