"""Shifts between slices come back, and what cannot be measured is no 0."""

import numpy as np
import pytest
from scipy import ndimage
from shifted import moved, texture

from amst_hpc.quality.adjacent import (
    jitter,
    low_pass,
    measure_area,
    measure_pair,
)
from amst_hpc.registration.correlation import cross_correlation


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (0.3, -0.6), (5.0, -7.0), (-11.4, 8.2)])
def test_a_known_shift_comes_back(y, x):
    image = texture()
    found = measure_area(image, moved(image, y, x), (30, 130, 40, 140), cross_correlation)
    assert found[:2] == pytest.approx((y, x), abs=0.06)
    assert found[3] > 0.99
    assert found[2] <= found[3]


def test_noise_that_stays_in_the_frame_does_not_hold_the_peak_at_zero():
    frame = np.random.default_rng(1).normal(0, 12, (160, 180))
    image = texture()
    pair = [ndimage.gaussian_filter(a + frame, 1.5) for a in (image, moved(image, 3, 4))]
    found = measure_area(
        *(a.astype(np.float32) for a in pair), (30, 130, 40, 140), cross_correlation
    )
    assert found[:2] == pytest.approx((3, 4), abs=0.5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: image * 0, "black"),
        (lambda image: image * 0 + 7, "constant"),
        (lambda image: texture(seed=9), "no match"),
        (lambda image: image[:100], "sizes"),
        (lambda image: None, "cannot be read"),
    ],
)
def test_a_pair_that_cannot_be_measured_says_why_and_has_no_numbers(spoil, reason):
    image = texture()
    pair = measure_pair(4, image, spoil(image), [(40, 100, 40, 100)], cross_correlation)
    assert reason in pair.reason
    assert np.isnan([pair.y, pair.x, pair.length, pair.ncc, pair.ncc_best]).all()
    assert (pair.areas, pair.areas_failed) == (0, 1)


def test_jitter_leaves_out_what_changes_slowly():
    z = np.arange(200)
    slow = np.stack([0.5 + 0.3 * np.sin(z / 30), 0 * z], axis=1)
    fast = np.random.default_rng(4).normal(0, 0.5, slow.shape)
    assert np.abs(jitter(slow)).max() < 0.12
    assert jitter(slow + fast).std() == pytest.approx(0.5, rel=0.15)
    fast[::5] = np.nan
    assert np.isfinite(low_pass(slow + fast, 15)).all()
    assert np.isnan(jitter(fast * np.nan)).all()
