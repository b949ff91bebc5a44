"""Images of the same tissue are told from others, whatever was done to them; others never are."""

import numpy as np
import pytest
from scenes import SCENE, pair, texture
from scipy import ndimage

from amst_hpc.registration.chance import likeness as likeness_of_reduced
from amst_hpc.registration.chance import over_chance, reduced
from amst_hpc.transform import resample, translation

FIXED, MOVING = pair(13, -9)


def likeness(fixed, moving):
    return likeness_of_reduced(reduced(fixed), reduced(moving))


RIGHT = translation(13, -9)
TURNED = np.array([[0.9994, -0.0349, 8.0], [0.0349, 0.9994, -5.0]])  # by 2 degrees
OTHERS = [texture(300, 320, seed) for seed in range(1, 9)]


def noisy(image, sd, seed=3):
    noise = np.random.default_rng(seed).normal(0, sd, image.shape)
    return np.clip(np.rint(image + noise), 1, 255).astype(np.uint8)


def hot(image):
    bright = image.astype(np.uint16)
    bright[50, 60] = 65535
    return bright


def without(image, part):
    """30 % of it are missing."""
    left = image.copy()
    left[part] = 0
    return left


SAME = {
    "as it is": (FIXED, MOVING),
    "much noise": (noisy(FIXED, 60, 1), noisy(MOVING, 60, 2)),
    "low contrast and noise": (FIXED, noisy(100 + 0.1 * MOVING, 8)),
    "another gain": (FIXED, (60 + 0.3 * MOVING).astype(np.uint8)),
    "uint16": (FIXED, MOVING.astype(np.uint16) * 200),
    "rows missing": (FIXED, without(MOVING, np.s_[210:])),
    "columns missing": (without(FIXED, np.s_[:, :96]), MOVING),
    "a canvas that is three times as large": [
        np.pad(a, [(310, 310), (330, 330)]) for a in (FIXED, MOVING)
    ],
    "a hot pixel": (hot(FIXED), hot(MOVING)),
    "shaded": (FIXED, (MOVING * np.linspace(0.2, 1, 320)).astype(np.uint8)),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_tissue_is_seen(kind):
    fixed, moving = SAME[kind]
    assert likeness(fixed, moving).same > 1.3
    assert over_chance(fixed, moving, RIGHT) > 1.3


def test_also_turned_stretched_and_far_away():
    large, there = SCENE[:, :400], resample(SCENE, TURNED, SCENE.shape)[:, :400]
    assert likeness(large, there).same > 1.2
    assert likeness(large, resample(SCENE, np.eye(2, 3) * 1.03, large.shape)).same > 1.2
    apart = [texture(700, 700)[a] for a in (np.s_[:400, :400], np.s_[180:580, 220:620])]
    assert likeness(*apart).same > 1.2  # a quarter of the image in common


def test_an_affine_is_judged_where_it_leads():
    moving = resample(SCENE, TURNED, (300, 320))
    assert over_chance(moving, SCENE[:300, :320], TURNED) > 1.3
    assert over_chance(FIXED, MOVING, translation(-40, 30)) < 0.6


def test_fine_structures_tell_where_a_field_has_few_coarse_ones():
    small = np.s_[100:180, 100:180]
    assert over_chance(FIXED[small], MOVING[small], RIGHT) > 1
    assert over_chance(OTHERS[0][small], MOVING[small], RIGHT) < 0.8


def test_other_tissue_is_no_more_alike_than_by_chance():
    """28 pairs: the limit is met once in a thousand. Two of them share a bright spot."""
    found = [likeness(a, b) for i, a in enumerate(OTHERS) for b in OTHERS[:i]]
    assert max(max(pair) for pair in found) < 1.05
    assert np.median([pair.same for pair in found]) > 0.5  # the limit is no higher than need be


def test_what_no_tissue_is_does_not_look_alike():
    noise = np.random.default_rng(4).integers(1, 255, FIXED.shape).astype(np.uint8)
    assert likeness(FIXED, noise).same < 1
    spots = [a.copy() for a in OTHERS[:2]]
    for spot in spots:
        spot[100:106, 100:106] = 255
    assert likeness(*(np.uint16(40) * a for a in spots)).same < 1
    assert likeness(*(hot(a) for a in OTHERS[:2])).same < 1
    border = [np.pad(a[50:250, 50:250], 50) for a in OTHERS[:2]]  # the same black margin
    assert likeness(border[0], border[1]).same < 1
    canvas = [np.pad(a, [(310,), (330,)]) for a in OTHERS[:2]]
    assert likeness(canvas[0], canvas[1]).same < 1
    assert likeness(FIXED, np.zeros_like(FIXED)) == (0, 0)
    assert over_chance(FIXED, np.full_like(FIXED, 7), RIGHT) < 0.5


def test_inverted_contrast_is_named():
    found = likeness(FIXED, 255 - MOVING)
    assert found.inverted > 1.3
    assert found.inverted > found.same


def test_correlated_by_shading_alone_is_by_chance():
    light = 0.3 + 0.7 * ndimage.gaussian_filter(np.random.default_rng(8).random((300, 320)), 60)
    light /= light.max()
    assert likeness(*((a * light).astype(np.uint8) for a in OTHERS[:2])).same < 1
