"""What each override does to its slice, and that the others do not feel it."""

from dataclasses import replace

import numpy as np
import pytest

from amst_hpc.overrides import Override
from amst_hpc.registration.fallback import choose_transforms
from amst_hpc.registration.mending import apply_overrides, hide
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import compose, displacement, translation

SHAPE = (60, 80)


def found(z, x=0.0):
    shift = translation(x, 2 * z)
    return SliceResult(z, f"s{z}.tif", affine=shift, shift=shift, start=0.9, metric=0.9)


def settle(slices, *overrides, move=None):
    """move : what the neighbours correct a slice by, of its position."""
    own, chosen = (choose_transforms(s, SHAPE) for s in (slices, hide(slices, overrides)))
    solved = [
        replace(s, transform=compose(s.transform, move(s.z)), pairs=4)
        if move and s.status == "affine" else s for s in chosen
    ]  # fmt: skip
    return apply_overrides(overrides, own, chosen, solved)


def test_without_overrides_for_it_a_slice_is_what_it_was():
    now = settle([found(z) for z in range(5)], Override(2, "blank"))
    assert [s.status for s in now] == ["affine", "affine", "blank", "affine", "affine"]
    assert [s.fell_back for s in now] == [False] * 5
    assert [s.overridden for s in now] == [False, False, True, False, False]
    assert now[2].transform is None
    assert now[2].reason == "override: blank"


def test_a_shift_moves_the_picture_right_and_down():
    """aligned(p) before is aligned(p + shift) now: the raw point shows x further right."""
    before = found(2)
    now = settle([found(1), before, found(3)], Override(2, "shift", 3, -2))[1]
    then, later = np.array([10, 20, 1]), np.array([13, 18, 1])
    np.testing.assert_allclose(now.transform @ later, before.affine @ then)
    assert (now.status, now.reason) == ("shifted", "override: shift 3 -2")


def test_interpolate_takes_the_mended_neighbours_and_not_each_other():
    overrides = [
        Override(1, "shift", -4, 0),
        Override(2, "interpolate"),
        Override(3, "interpolate"),
    ]
    now = settle([found(z, 100.0 * (z in (2, 3))) for z in range(6)], *overrides)
    assert [s.status for s in now[1:4]] == ["shifted", "interpolated", "interpolated"]
    np.testing.assert_allclose(now[2].transform, translation(4 * 2 / 3, 4))
    np.testing.assert_allclose(now[3].transform, translation(4 / 3, 6))


def test_interpolate_at_an_end_copies():
    now = settle([found(z) for z in range(3)], Override(0, "interpolate"))
    assert now[0].status == "copied"
    np.testing.assert_array_equal(now[0].transform, found(1).affine)


def test_an_excluded_slice_keeps_its_own_registration_and_follows_its_neighbours():
    slices = [found(z, 30.0 * (z == 2)) for z in range(5)]
    alone = settle(slices, Override(2, "exclude"))[2]
    assert (alone.status, alone.reason) == ("excluded", "override: exclude")
    np.testing.assert_array_equal(alone.transform, slices[2].affine)
    led = settle(slices, Override(2, "exclude"), move=lambda z: translation(0.25 * z, 1))[2]
    np.testing.assert_allclose(led.transform, compose(slices[2].affine, translation(0.5, 1)))


def test_an_excluded_slice_that_has_no_registration_is_between_its_neighbours():
    slices = [found(0), replace(found(1), affine=None, shift=None, reason="noise"), found(2)]
    now = settle(slices, Override(1, "exclude"), move=lambda _: translation(1, 0))[1]
    assert (now.status, now.reason) == ("excluded", "override: exclude (noise)")
    np.testing.assert_allclose(now.transform, translation(1, 2))


def test_the_others_do_not_see_an_excluded_slice():
    """Not as an anchor of one that failed, and not in what is usual."""
    slices = [found(z) for z in range(7)]
    slices[4] = SliceResult(4, reason="noise")
    wild = translation(500, 500)
    one, other = (
        settle([*slices[:3], replace(slices[3], affine=wild, shift=shift, start=0.1), *slices[4:]],
               Override(3, "exclude"))
        for shift in (wild, translation(0, 0))
    )  # fmt: skip
    np.testing.assert_allclose(one[4].transform, translation(0, 8))
    for a, b in zip(one, other, strict=True):
        if a.z != 3:
            assert a.status == b.status
            np.testing.assert_array_equal(a.transform, b.transform)


def test_nothing_is_said_of_pairs_that_do_not_hold_a_slice_any_more():
    actions = ("exclude", "shift", "interpolate", "blank")
    slices = [replace(found(z), device="CPU", rank=1) for z in range(6)]
    overrides = [Override(z, action, 1, 1) for z, action in enumerate(actions, 1)]
    now = settle(slices, *overrides, move=lambda _: translation(1, 0))
    assert [s.pairs for s in now] == [4, 0, 0, 0, 0, 4]
    assert {s.device for s in now} == {"CPU"}


@pytest.mark.parametrize("action", ["exclude", "shift", "interpolate"])
def test_a_black_slice_stays_black_and_is_not_taken_for_mended(action):
    slices = [found(0), SliceResult(1, blank=True, rank=2), found(2)]
    now = settle(slices, Override(1, action, 3, 3))[1]
    assert (now.status, now.transform, now.overridden, now.rank) == ("blank", None, False, 2)


def test_slices_outside_the_range_do_not_matter():
    now = settle([found(z) for z in range(4, 7)], Override(1, "shift", 1, 1), Override(9, "blank"))
    assert [s.status for s in now] == ["affine"] * 3
    assert np.abs(displacement(now[0].transform, SHAPE) - [0, 8]).max() == 0
