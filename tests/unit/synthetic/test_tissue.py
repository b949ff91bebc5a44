"""Tissue: cells with dark membranes, the same for the same seed, no frame and no seam."""

import numpy as np
import pytest

from amst_hpc.synthetic.tissue import MEAN_GREY, smooth_field, tissue_grey

SHAPE = (9, 101, 118)


@pytest.fixture(scope="module")
def grey():
    return tissue_grey(SHAPE, 3)


def test_shape_mean_and_contrast(grey):
    assert (grey.shape, grey.dtype) == (SHAPE, np.float32)
    assert grey.mean() == pytest.approx(MEAN_GREY, abs=0.01)
    assert 20 < grey.std() < 60
    assert np.isfinite(grey).all()


def test_the_seed_decides(grey):
    np.testing.assert_array_equal(tissue_grey(SHAPE, 3), grey)
    assert np.corrcoef(tissue_grey(SHAPE, 4).ravel(), grey.ravel())[0, 1] < 0.3


def test_neighbouring_slices_are_alike_and_distant_ones_are_not(grey):
    def alike(step):
        return np.corrcoef(grey[0].ravel(), grey[step].ravel())[0, 1]

    assert alike(1) > 0.8
    assert alike(1) > alike(2) > alike(4) > alike(8)


def test_smooth_fields_have_unit_variance_and_their_length():
    field = smooth_field((40, 200, 210), 5.0, np.random.default_rng(0))
    assert field.shape == (40, 200, 210)
    assert field.mean() == pytest.approx(0, abs=0.2)
    assert field.std() == pytest.approx(1, abs=0.1)
    near, far = (
        np.corrcoef(field[..., :-n].ravel(), field[..., n:].ravel())[0, 1] for n in (1, 30)
    )
    assert near > 0.95
    assert abs(far) < 0.15
