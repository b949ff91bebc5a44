"""The axis conventions, and one resampling that changes nothing it need not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matrices import invert
from scipy import ndimage

from amst_hpc.transform import (
    about,
    compose,
    corners,
    displacement,
    is_whole_shift,
    resample,
    resample_nearest,
    scaled,
    shift_whole,
    translation,
)

near = st.floats(-0.2, 0.2)
matrices = st.builds(
    lambda a, b, c, d, x, y: np.array([[1 + a, b, x], [c, 1 + d, y]]),
    *(near, near, near, near, st.floats(-50, 50), st.floats(-50, 50)),
)
IDENTITY = translation(0, 0)


@given(matrices)
def test_a_transform_and_its_inverse_are_the_identity(m):
    np.testing.assert_allclose(compose(m, invert(m)), IDENTITY, atol=1e-9)
    np.testing.assert_allclose(compose(invert(m), m), IDENTITY, atol=1e-9)


@given(matrices, matrices, matrices)
def test_composition_is_associative(a, b, c):
    np.testing.assert_allclose(
        compose(compose(a, b), c), compose(a, compose(b, c)), rtol=1e-9, atol=1e-9
    )


def test_composition_applies_the_second_first():
    scale = np.array([[2.0, 0, 0], [0, 2, 0]])
    np.testing.assert_array_equal(compose(scale, translation(3, 5))[:, 2], [6, 10])
    np.testing.assert_array_equal(compose(translation(3, 5), scale)[:, 2], [3, 5])


@given(matrices, st.sampled_from([2, 3, 7]))
def test_a_transform_of_averaged_images_scaled_is_that_of_the_full_ones(m, factor):
    """Pixel i of the small image is the mean of pixels factor * i on: its centre lies between."""
    point = np.array([3.0, 4.0])
    centre = factor * point + (factor - 1) / 2
    moved = m[:, :2] @ point + m[:, 2]
    full = scaled(m, factor)
    found = full[:, :2] @ centre + full[:, 2]
    np.testing.assert_allclose(found, factor * moved + (factor - 1) / 2, atol=1e-9)


def test_about_leaves_the_centre_but_for_the_translation():
    m = about(np.array([[0, -1.0], [1, 0]]), np.array([2.0, 3.0]), np.array([10.0, 20.0]))
    np.testing.assert_allclose(m[:, :2] @ [10, 20] + m[:, 2], [12, 23])


def test_corners_are_pixel_centres_in_xy():
    np.testing.assert_array_equal(corners((3, 5)), [[0, 0], [4, 0], [0, 2], [4, 2]])
    np.testing.assert_array_equal(displacement(translation(1, -2), (3, 5)), [[1, -2]] * 4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@given(x=st.integers(-30, 30), y=st.integers(-30, 30))
def test_whole_shifts_copy_pixels(dtype, x, y):
    image = np.random.default_rng(1).integers(1, np.iinfo(dtype).max, (17, 23)).astype(dtype)
    assert is_whole_shift(translation(x, y))
    out = resample(image, translation(x, y), (19, 20))
    assert out.dtype == image.dtype
    for row in range(19):
        for column in range(20):
            inside = 0 <= row + y < 17 and 0 <= column + x < 23
            assert out[row, column] == (image[row + y, column + x] if inside else 0)
    np.testing.assert_array_equal(out, shift_whole(image, x, y, (19, 20)))


def test_pull_back_reads_at_the_matrix():
    """A blob at (x, y) = (20, 12) of raw comes out where M p = (20, 12)."""
    image = np.zeros((40, 50), np.uint8)
    image[11:14, 19:22] = 200
    m = np.array([[1.0, 0, 4.5], [0, 1, -3.5]])
    out = resample(image, m, (40, 50))
    y, x = ndimage.center_of_mass(out)
    assert (x, y) == pytest.approx((15.5, 15.5), abs=0.05)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_resampling_equals_map_coordinates_and_clips(dtype):
    limit = np.iinfo(dtype).max
    image = (np.random.default_rng(2).integers(0, 2, (60, 70)) * limit).astype(dtype)
    m = np.array([[1.01, 0.02, 1.3], [-0.01, 0.99, 0.4]])
    y, x = np.mgrid[:60, :70]
    at = [m[1, 0] * x + m[1, 1] * y + m[1, 2], m[0, 0] * x + m[0, 1] * y + m[0, 2]]
    coefficients = ndimage.spline_filter(image.astype(float), 3, mode="mirror")
    exact = ndimage.map_coordinates(coefficients, at, order=3, cval=0.0, prefilter=False)
    assert exact.min() < 0
    assert exact.max() > limit
    out = resample(image, m, (60, 70)).astype(float)
    assert np.abs(out - np.clip(np.rint(exact), 0, limit)).max() <= (1 if limit < 256 else 3)


def test_outside_is_zero():
    image = np.full((30, 30), 100, np.uint8)
    out = resample(image, np.array([[1.0, 0, 5.5], [0, 1, 0.5]]), (30, 30))
    assert (out[:, 25:] == 0).all()
    assert (out[29:] == 0).all()
    assert (out[:29, :24] == 100).all()


@given(matrices)
def test_the_nearest_pixel_is_one_of_the_image(m):
    labels = np.array([1, 9, 200], np.uint8)
    image = np.random.default_rng(0).choice(labels, (40, 50))
    found = resample_nearest(image, m, (45, 44))
    assert found.dtype == np.uint8
    y, x = np.mgrid[:45, :44]
    column, row = (m[i, 0] * x + m[i, 1] * y + m[i, 2] for i in (0, 1))
    inside = (row >= 0) & (row <= 39) & (column >= 0) & (column <= 49)
    edge = 1e-6
    outside = (row < -edge) | (row > 39 + edge) | (column < -edge) | (column > 49 + edge)
    assert not found[outside].any()
    away = np.minimum(np.abs(row % 1 - 0.5), np.abs(column % 1 - 0.5)) > 1e-6  # of a tie
    sure = inside & away
    rows, columns = np.rint(row).astype(int), np.rint(column).astype(int)
    np.testing.assert_array_equal(found[sure], image[rows[sure], columns[sure]])


def test_labels_are_shifted_as_they_are():
    image = np.random.default_rng(0).integers(0, 65536, (30, 31), np.uint16)
    shift = translation(3, -2)
    np.testing.assert_array_equal(
        resample_nearest(image, shift, (33, 34)), shift_whole(image, 3, -2, (33, 34))
    )
