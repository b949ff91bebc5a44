"""What runs on the device equals what runs on the host; here on the CPU's OpenCL."""

import numpy as np
import pytest
from scipy import ndimage

from amst_hpc.averaging import average_down
from amst_hpc.opencl.kernels import ComparedPoints, gaussian_taps
from amst_hpc.registration.correlation import correlation, quality
from amst_hpc.transform import resample, translation


def blobs(dtype, shape=(301, 422), seed=1):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    image = (image - image.min()) / np.ptp(image)
    return (image * np.iinfo(dtype).max).astype(dtype)


def smoothed(image):
    return ndimage.gaussian_filter(image.astype(np.float32), 1.6, truncate=3.0, mode="mirror")


TYPES = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])


@TYPES
@pytest.mark.parametrize("shape", [(301, 422), (3, 50), (40, 2)])
def test_smoothing_and_averaging(kernels, dtype, shape):
    image = blobs(dtype, shape)
    found = kernels.convolve(kernels.upload(image), gaussian_taps(1.6))
    scale = np.iinfo(dtype).max
    np.testing.assert_allclose(found.get() / scale, smoothed(image) / scale, atol=2e-6)
    small = kernels.average_down(found, 2).get()
    np.testing.assert_allclose(small / scale, average_down(smoothed(image), 2) / scale, atol=2e-6)


@TYPES
def test_correlations(kernels, dtype):
    first = blobs(dtype)
    second = np.roll(first, (3, -5), (0, 1))
    second[200:] = 0
    here = [smoothed(a) for a in (first, second)]
    there = [kernels.convolve(kernels.upload(a), gaussian_taps(1.6)) for a in (first, second)]
    usual = np.iinfo(dtype).max / 2
    shifts = [(-5, 3), (0, 0), (-4, 3), (10, -7)]
    all_of_them, content = (ComparedPoints((1, 1), masked, usual, 64) for masked in (False, True))
    found = kernels.correlations(*there, [translation(*s) for s in shifts], all_of_them)
    np.testing.assert_allclose(found, [correlation(*here, *s) for s in shifts], atol=2e-6)
    tilted = np.array([[1.002, 0.001, -4.7], [-0.002, 0.999, 3.1]])
    found = kernels.correlations(*there, [tilted], content)
    assert found[0] == pytest.approx(quality(*here, tilted), abs=1e-3)  # points on the rim
    assert kernels.correlations(*there, [translation(500, 0)], content) == [-1.0]


@TYPES
@pytest.mark.parametrize("count", [1, 2, 3, 8, 14, 15, 21])
def test_median_is_exact(kernels, dtype, count):
    rng = np.random.default_rng(count)
    window = [
        rng.integers(0, np.iinfo(dtype).max + 1, (33, 57)).astype(dtype) for _ in range(count)
    ]
    found = kernels.median([kernels.upload(a) for a in window])
    np.testing.assert_array_equal(found, np.median(window, axis=0).astype(dtype))


@TYPES
@pytest.mark.parametrize(
    "matrix",
    [
        [[1.002, 0.001, -4.7], [-0.002, 0.999, 3.1]],
        [[1, 0, 0.5], [0, 1, 0]],
        [[1, 0, 7], [0, 1, -3]],
    ],
)
def test_resampling(kernels, dtype, matrix):
    image, matrix = blobs(dtype), np.array(matrix, float)
    found = kernels.resample(image, matrix, (310, 400)).astype(int)
    away = np.abs(found - resample(image, matrix, (310, 400)))
    assert away.max() <= 1
    assert away.mean() < 0.01
