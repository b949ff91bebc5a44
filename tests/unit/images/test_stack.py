"""What all stacks share: slices of another size."""

import numpy as np
import pytest

from amst_hpc.images.stack import SliceError, fit_to


def test_a_slice_of_another_size_is_cropped_and_padded():
    image = np.zeros((30, 40), np.uint8)
    image[5:15, 8:28] = np.random.default_rng(0).integers(1, 255, (10, 20))
    fitted, m = fit_to(image, (20, 25), "s.tif")
    np.testing.assert_array_equal(fitted[:10, :20], image[5:15, 8:28])
    assert not fitted[10:].any()
    assert not fitted[:, 20:].any()
    np.testing.assert_array_equal(m[:, 2], [8, 5])
    with pytest.raises(SliceError, match=r"s\.tif: size \(30, 40\) .*\(10, 20\) without its zero"):
        fit_to(image, (9, 25), "s.tif")
    same, m = fit_to(image, image.shape, "s.tif")
    assert same is image
    black, _ = fit_to(np.zeros((30, 40), np.uint8), (9, 9), "s.tif")
    assert black.shape == (9, 9)
