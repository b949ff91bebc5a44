"""Correlation of two images, and the nearest peak of it."""

import numpy as np
import pytest
from scenes import SCENE, pair
from scipy import ndimage

from amst_hpc.config import Coarse
from amst_hpc.registration.coarse import Matcher
from amst_hpc.registration.correlation import (
    PEAK_STEPS,
    correlation,
    hill_climb,
    nearest_peak,
    phase_correlation,
    quality,
)
from amst_hpc.slice_result import RegistrationError
from amst_hpc.transform import translation


def test_an_image_of_no_pixels_has_no_edge():
    """What is left of slices of one line that are averaged down."""
    nothing = np.zeros((0, 64), np.float32)
    with pytest.raises(RegistrationError, match="without any edge"):
        phase_correlation(nothing, nothing)


def test_settling_ends_at_the_same_pixel_from_every_start_nearby():
    matcher = Matcher(Coarse(method="xcorr"), 0)
    fixed, moving = (matcher.smooth(a) for a in pair(6, -9, noise=20))
    starts = [(6 + dx, -9 + dy) for dx in range(-3, 4) for dy in range(-3, 4)]
    assert {nearest_peak(fixed, moving, *start)[:2] for start in starts} == {(6, -9)}


def test_settling_is_deterministic_between_half_pixels():
    """The truth lies half-way between two pixels: every start takes the same one."""
    fine = ndimage.zoom(SCENE.astype(np.float32), 2, order=1)
    fixed, moving = fine[40:440:2, 40:440:2], fine[39:439:2, 40:440:2]
    starts = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3)]
    found = {nearest_peak(fixed, moving, *start) for start in starts}
    assert len(found) == 1
    assert found.pop().top == pytest.approx((0, 0.5), abs=0.1)


def test_settling_far_from_any_peak_ends_where_it_has_come_to():
    x, y, top = hill_climb(lambda positions: [float(x) for x, _ in positions], (0, 0))
    assert PEAK_STEPS - 1 <= x <= PEAK_STEPS
    assert top == (x, y)


def test_correlation_is_one_where_images_agree():
    fixed, moving = (a.astype(np.float32) for a in pair(11, -7, noise=0))
    assert correlation(fixed, moving, 11, -7) == pytest.approx(1)
    assert correlation(fixed, moving, 10, -7) < 0.999
    assert correlation(fixed, moving, 10_000, 0) == -1
    assert quality(fixed, moving, translation(11, -7)) == pytest.approx(1)


def test_quality_does_not_count_what_is_missing():
    fixed, moving = (a.astype(np.float32) for a in pair(0, 0, noise=0))
    moving[150:] = 0
    assert quality(fixed, moving, translation(0, 0)) == pytest.approx(1)
    assert quality(fixed, np.zeros_like(moving), translation(0, 0)) == -1


def test_correlation_is_of_what_both_show():
    fixed, moving = (a.astype(np.float32) for a in pair(11, -7, noise=0))
    fixed[:60], moving[:, 200:] = np.nan, np.nan
    assert correlation(fixed, moving, 11, -7) == pytest.approx(1)
    assert quality(fixed, moving, translation(11, -7)) == pytest.approx(1)
    assert nearest_peak(fixed, moving, 9, -5)[:2] == (11, -7)
    moving[:] = np.nan
    assert correlation(fixed, moving, 11, -7) == -1
    assert quality(fixed, moving, translation(11, -7)) == -1
