"""Resampling on a processor is that of the host."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from amst_hpc.opencl import devices as opencl
from amst_hpc.opencl.spline import LANES, ROWS, ProcessorSpline
from amst_hpc.transform import compose, resample, translation


@pytest.fixture(scope="module")
def spline(opencl_ready):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ProcessorSpline(opencl.open_device("cpu", 0)[0])


def turned(degrees, shape, scale=1.0):
    """About the middle of a (y, x) image."""
    a = scale * np.exp(1j * np.radians(degrees))
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    turn = np.array([[a.real, -a.imag, 0], [a.imag, a.real, 0]])
    return compose(translation(*middle), compose(turn, translation(-middle[0], -middle[1])))


def tissue(dtype, shape):
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), 1.5)
    smooth = (smooth - smooth.min()) / max(np.ptp(smooth), 1e-9)
    return (smooth * np.iinfo(dtype).max).astype(dtype)


def noise(dtype, shape):
    return np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("make", [tissue, noise])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(301, 422), (64, LANES), (1, 40), (2, 33), (ROWS - 4, 31)])
@pytest.mark.parametrize(
    "matrix",
    [
        [[1.002, 0.001, -4.7], [-0.002, 0.999, 3.1]],
        [[1, 0, 0.5], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0.25]],
        [[0.5, 0, 0], [0, 0.5, 0]],
        [[2.1, 0, -9.05], [0.3, 1.7, -7.017]],  # no pixel on a border: scipys round differently
        [[1, 0, 1e12], [0, 1, -1e300]],
    ],
)
def test_values_of_the_host(spline, make, dtype, shape, matrix):
    image, matrix = make(dtype, shape), np.array(matrix, float)
    out = (shape[0] + 9, max(1, shape[1] - 22))
    found, expected = spline.resample(image, matrix, out), resample(image, matrix, out)
    assert found.dtype == dtype
    away = np.abs(found.astype(int) - expected)
    assert away.max() <= 1
    assert away.mean() < 0.01


@pytest.mark.parametrize("degrees", [-2, 0.3, 17, 45, 90, 180, -123])
def test_any_angle(spline, degrees):
    image = noise(np.uint8, (120, 141))
    matrix = turned(degrees, image.shape)
    away = spline.resample(image, matrix, image.shape).astype(int) - resample(
        image, matrix, image.shape
    )
    assert np.abs(away).max() <= 1


def test_border_pixels_are_those_of_the_host(spline):
    """Positions that fall on the border to the last bit."""
    image = np.full((97, 131), 200, np.uint8)
    for scale in np.linspace(0.9, 1.1, 41):
        matrix = turned(0.0, image.shape, scale)
        found, expected = (f(image, matrix, image.shape) for f in (spline.resample, resample))
        np.testing.assert_array_equal(found, expected)


def test_whole_shifts_copy_and_narrow_slices_are_left_to_the_host(spline):
    image = noise(np.uint16, (40, 50))
    copied = spline.resample(image, translation(7, -3), (33, 61))
    np.testing.assert_array_equal(copied[3:, :43], image[:30, 7:])
    narrow = noise(np.uint8, (40, LANES - 1))
    matrix = translation(0.5, 0.25)
    np.testing.assert_array_equal(
        spline.resample(narrow, matrix, narrow.shape), resample(narrow, matrix, narrow.shape)
    )
