"""Where a slice has content: margins of any constant, holes; and what is not taken for one."""

import numpy as np
import pytest
from scenes import texture
from scipy import ndimage

from amst_hpc.averaging import shrink
from amst_hpc.content import (
    RIM,
    blackened,
    box,
    content,
    filled,
    largest_square,
    margin_values,
)

TISSUE = np.clip(texture(120, 140), 1, 254)


def on_canvas(value, dtype="uint8", y=30, x=41):
    canvas = np.full((190, 220), value, dtype)
    canvas[y : y + 120, x : x + 140] = TISSUE
    return canvas


@pytest.mark.parametrize(
    ("value", "dtype"), [(0, "uint8"), (128, "uint8"), (255, "uint8"), (65535, "uint16")]
)
def test_margins_of_any_constant_have_no_content(value, dtype):
    image = on_canvas(value, dtype)
    mask = content(image)
    wrong = np.argwhere(mask != (np.pad(np.ones((120, 140)), ((30, 40), (41, 39))) > 0))
    assert len(wrong) < 20  # tissue of the same grey beside it
    assert margin_values(image) == [value]
    assert np.abs(np.subtract(box(mask, image.shape), (30, 150, 41, 181))).max() <= 1
    black = blackened(image)
    inner = np.s_[30 + RIM : 150 - RIM, 41 + RIM : 181 - RIM]
    assert (black[inner] == image[inner]).mean() > 0.99
    assert not black[: 30 + RIM].any()
    assert not black[:, 181 - RIM :].any()


def test_a_slice_without_margin_is_left_alone():
    for image in (TISSUE, texture(120, 140), TISSUE.astype(np.uint16) * 200):
        assert content(image) is None
        assert blackened(image) is image
    flat = TISSUE.copy()
    flat[40:70, 50:90] = 128  # constant, but no margin
    assert content(flat) is None
    speckled = TISSUE.copy()
    speckled[::3, ::3] = 0
    assert content(speckled) is None


@pytest.mark.parametrize("value", [0, 255])
def test_saturated_tissue_at_the_border_is_no_margin(value):
    """Inside a real margin as well as without any."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(160, 180)), 6)
    tissue = np.clip(smooth / smooth.std() * 90 + 190, 1, 255).astype(np.uint8)
    assert (tissue == 255).mean() > 0.15
    assert 255 in margin_values(tissue)
    mask = content(tissue)
    assert mask is None or mask.mean() > 0.98
    canvas = np.pad(tissue, 30, constant_values=value)
    mask = content(canvas)
    assert not mask[:30].any()
    assert mask[30:-30, 30:-30].mean() > 0.97


def test_what_was_not_scanned_has_no_content():
    image = TISSUE.copy()
    image[100:] = 0
    image[40:60, 30:50] = 0
    mask = content(image)
    assert not mask[100:].any()
    assert not mask[40:60, 30:50].any()
    assert mask.sum() == 100 * 140 - 20 * 20
    assert content(np.zeros((64, 71), np.uint8)) is None


def test_narrow_and_slanted_margins_are_found():
    image = TISSUE.copy()
    image[:, :1] = 200
    assert not content(image)[:, 0].any()
    turned = ndimage.rotate(TISSUE, 5, order=1, cval=90, reshape=False)
    mask = content(turned)
    assert not mask[[0, 0, -1, -1], [-1, -1, 0, 0]].any()
    assert 0.8 < mask.mean() < 0.97


@pytest.mark.parametrize("value", [0, 255])
def test_averaging_down_mixes_the_edge_which_is_left_out(value):
    small = blackened(shrink(on_canvas(value), 3))
    inner = shrink(TISSUE, 3)[3:-3, 3:-3]
    known = small[small > 0]
    assert abs(float(known.mean()) - inner.mean()) < 3
    assert known.max() <= shrink(TISSUE, 3).max()


def test_gaps_are_filled_smoothly():
    image = np.full((190, 220), np.nan, np.float32)
    image[30:150, 41:181] = ndimage.gaussian_filter(TISSUE.astype(np.float32), 1.6)
    whole = filled(image)
    assert np.isfinite(whole).all()
    known = np.isfinite(image)
    np.testing.assert_array_equal(whole[known], image[known])
    step = np.abs(np.diff(whole, axis=0))
    edge = known[1:] != known[:-1]
    assert step[edge].mean() < 2 * step[known[1:] & known[:-1]].mean()
    np.testing.assert_array_equal(filled(whole), whole)


def test_the_largest_square_is_inside():
    mask = np.zeros((60, 80), bool)
    mask[10:50, 5:60] = True
    mask[12, 55:] = False
    y, x = largest_square(mask)
    assert mask[y, x].all()
    assert y.stop - y.start == x.stop - x.start
    assert y.stop - y.start >= 37
    assert not mask[largest_square(np.zeros((9, 9), bool))].size
