"""Means of blocks: floats that leave out a rest, integers that replicate the edge."""

import numpy as np
import pytest

from amst_hpc.averaging import (
    average_down,
    average_line,
    downsample,
    downsample_labels,
    shrink,
)

SHAPE = (13, 70, 75)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 6])
def test_averaging_down_is_the_block_mean(factor, dtype):
    image = (np.random.default_rng(0).random((31, 47)) * 255).astype(dtype)
    h, w = 31 // factor, 47 // factor
    expected = image[: h * factor, : w * factor].reshape(h, factor, w, factor).mean((1, 3))
    found = average_down(image, factor)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("factor", [1, 2, 5, 17])
def test_shrinking_rounds_half_up_and_leaves_out_a_rest(factor, dtype):
    image = np.full((140, 75), np.iinfo(dtype).max, dtype)
    image[:70] = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (70, 75))
    h, w = 140 // factor, 75 // factor
    blocks = image[: h * factor, : w * factor].reshape(h, factor, w, factor)
    found = shrink(image, factor)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.floor(blocks.mean((1, 3)) + 0.5))


def test_a_mean_that_ends_in_a_half_is_exact():
    image = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], np.uint8).repeat(2, 0).repeat(2, 1)
    assert average_down(image, 6).item() == np.float32(12) / np.float32(36)
    assert average_down(np.array([[1, 2], [2, 1]], np.uint16), 2).item() == 1.5


def test_a_line_is_averaged_in_runs():
    line = np.array([1.0, 2.0, 4.0, 8.0, 99.0])
    np.testing.assert_array_equal(average_line(line, 1), line)
    np.testing.assert_array_equal(average_line(line, 2), [1.5, 6.0])


def reference(block, factors):
    """Block mean in float64, round half up, edges replicated."""
    missing = [(0, -n % f) for n, f in zip(block.shape, factors, strict=True)]
    padded = np.pad(block, missing, mode="edge").astype(np.float64)
    (fz, fy, fx), (z, y, x) = factors, padded.shape
    mean = padded.reshape(z // fz, fz, y // fy, fy, x // fx, fx).mean(axis=(1, 3, 5))
    return np.floor(mean + 0.5).astype(block.dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "factors", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (4, 3, 2), (8, 8, 8), (1, 1, 3)]
)
@pytest.mark.parametrize("fill", ["noise", "largest"])
def test_downsampling_rounds_half_up_and_replicates_the_edge(dtype, factors, fill):
    largest = np.iinfo(dtype).max
    noise = np.random.default_rng(3).integers(0, largest + 1, SHAPE)
    block = (noise if fill == "noise" else np.full(SHAPE, largest)).astype(dtype)
    np.testing.assert_array_equal(downsample(block, factors), reference(block, factors))


def test_half_is_rounded_up():
    assert downsample(np.array([[[0, 1]]], np.uint8), (1, 1, 2)).item() == 1


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (4, 3, 2), (8, 8, 8)])
def test_the_most_frequent_label_stands_for_its_block(factors):
    """Against counting in plain Python; of several the first one met."""
    labels = np.array([0, 7, 300, 65535], np.uint16)
    block = np.random.default_rng(1).choice(labels, (5, 13, 11), p=[0.4, 0.3, 0.2, 0.1])
    found = downsample_labels(block, factors)
    missing = [(0, -n % f) for n, f in zip(block.shape, factors, strict=True)]
    padded = np.pad(block, missing, mode="edge")
    assert found.dtype == block.dtype
    for place in np.ndindex(*found.shape):
        part = tuple(slice(i * f, i * f + f) for i, f in zip(place, factors, strict=True))
        values = padded[part].ravel().tolist()
        assert found[place] == max(dict.fromkeys(values), key=values.count)
