"""Each rung of the ladder, decided on the data of the whole stack and on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amst_hpc.registration.fallback import choose_transforms, from_neighbours
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import translation

SHAPE = (400, 500)


def good(z, seed=0):
    """A plausible slice: a coarse shift and an affine within a pixel of it."""
    rng = np.random.default_rng([seed, z])
    shift = translation(*rng.integers(-20, 20, 2))
    matrix = shift.copy()
    matrix[:, 2] += rng.normal(0, 0.5, 2)
    matrix[:, :2] += rng.normal(0, 1e-3, (2, 2))
    start = 0.9 + 0.02 * rng.random()
    return SliceResult(z, affine=matrix, shift=shift, start=start, metric=start + 0.03)


def stack(n=30, **changes):
    slices = [good(z) for z in range(n)]
    for z, change in changes.items():
        z = int(z[1:])
        slices[z] = replace(slices[z], **change)
    return slices


def statuses(slices):
    return [d.status for d in choose_transforms(slices, SHAPE)]


def only(slices, z):
    """The decision of slice z; all others are affine."""
    decisions = choose_transforms(slices, SHAPE)
    assert all(d.status == "affine" for i, d in enumerate(decisions) if i != z)
    return decisions[z]


def test_good_slices_keep_their_affine():
    slices = stack()
    for s, decision in zip(slices, choose_transforms(slices, SHAPE), strict=True):
        assert decision.status == "affine"
        assert decision.transform is s.affine
        assert decision.reason == ""


def test_elastix_failure_falls_to_the_translation():
    slices = stack(s7={"affine": None, "reason": "too many samples"})
    decision = only(slices, 7)
    assert decision.status == "translation"
    assert decision.reason == "too many samples"
    np.testing.assert_array_equal(decision.transform, slices[7].shift)


def test_a_result_worse_than_the_start_falls():
    decision = only(stack(s7={"start": 0.9, "metric": 0.8}), 7)
    assert decision.status == "translation"
    assert "worse" in decision.reason


def test_an_affine_far_from_the_usual_falls():
    matrix = good(7).affine.copy()
    matrix[0, 0] += 0.2
    decision = only(stack(s7={"affine": matrix}), 7)
    assert decision.status == "translation"
    assert "px from the usual" in decision.reason


def test_a_slice_that_was_stored_twice_is_named_and_stays_with_the_first():
    slices = stack(s6={"crc": 5}, s7={"crc": 5}, s8={"crc": 5, "affine": None}, s9={"crc": 6},
                   s12={"crc": 5}, s20={"crc": None}, s21={"crc": None})  # fmt: skip
    decisions = choose_transforms(slices, SHAPE)
    named = [d for d in decisions if d.status != "affine"]
    assert [(d.z, d.status) for d in named] == [(7, "repeated"), (8, "repeated")]
    assert [d.reason for d in named] == ["the same pixels as slice 6", "the same pixels as slice 7"]
    assert all(d.transform is decisions[6].transform for d in named)


def test_a_slice_is_compared_with_the_one_before_it_alone():
    slices = [replace(good(z), crc=5) for z in (3, 5, 9)]  # what is between is not there
    assert statuses(slices) == ["affine"] * 3


def test_a_low_correlation_with_its_own_prealignment_falls_to_that():
    own = translation(3, 4)
    decision = only(stack(s7={"start": 0.1, "metric": 0.2, "prealigned": own}), 7)
    assert decision.status == "prealigned"
    np.testing.assert_array_equal(decision.transform, own)


@pytest.mark.parametrize(
    ("prealigned", "status"), [(translation(3, 4), "prealigned"), (None, "interpolated")]
)
def test_a_shift_that_is_as_by_chance_falls(prealigned, status):
    found = {"affine": None, "over_chance": 0.9, "prealigned": prealigned}
    decision = only(stack(s7=found), 7)
    assert decision.status == status
    assert decision.reason == f"correlation {good(7).start:.3f}, as by chance"


def test_what_chance_does_not_reach_stays():
    assert statuses(stack(s7={"over_chance": 1.1})) == ["affine"] * 30
    assert only(stack(s7={"affine": None, "over_chance": 1.1}), 7).status == "translation"


def test_nothing_found_is_interpolated():
    nothing = {"affine": None, "shift": None, "start": float("nan"), "reason": "no match"}
    slices = stack(s7=nothing, s8=nothing)
    decisions = choose_transforms(slices, SHAPE)
    for z, part in ((7, 1 / 3), (8, 2 / 3)):
        assert decisions[z].status == "interpolated"
        expected = (1 - part) * slices[6].affine + part * slices[9].affine
        np.testing.assert_allclose(decisions[z].transform, expected)
        assert decisions[z].reason == "no match"


@pytest.mark.parametrize(("z", "neighbour"), [(0, 1), (29, 28)])
def test_the_ends_copy_their_neighbour(z, neighbour):
    slices = stack(**{f"s{z}": {"affine": None, "shift": None, "reason": "no match"}})
    decision = only(slices, z)
    assert decision.status == "copied"
    np.testing.assert_array_equal(decision.transform, slices[neighbour].affine)


def test_a_black_slice_has_no_transform():
    decision = only(stack(s7={"blank": True, "affine": None, "shift": None}), 7)
    assert decision.status == "blank"
    assert decision.transform is None
    assert decision.reason


def test_a_stack_of_nothing_is_copied_from_the_identity():
    decisions = choose_transforms([SliceResult(z, reason="noise") for z in range(3)], SHAPE)
    assert [d.status for d in decisions] == ["copied"] * 3
    np.testing.assert_array_equal(decisions[0].transform, translation(0, 0))


def test_a_black_stack_is_blank():
    assert statuses([SliceResult(z, blank=True) for z in range(3)]) == ["blank"] * 3


def test_an_empty_stack():
    assert choose_transforms([], SHAPE) == []


faults = st.sampled_from(
    [
        {},
        {"affine": None, "reason": "exception"},
        {"affine": None, "shift": None, "start": float("nan"), "reason": "no match"},
        {"blank": True, "affine": None, "shift": None},
        {"start": 0.1, "metric": 0.1},
        {"start": 0.1, "metric": 0.1, "prealigned": translation(1, 2)},
        {"metric": 0.5},
    ]
)


@settings(deadline=None)
@given(st.lists(faults, min_size=1, max_size=40))
def test_every_slice_gets_one_decision_and_a_reason(changes):
    slices = [replace(good(z), **change) for z, change in enumerate(changes)]
    decisions = choose_transforms(slices, SHAPE)
    assert len(decisions) == len(slices)
    for s, d in zip(slices, decisions, strict=True):
        assert (d.transform is None) == s.blank
        assert (d.status == "affine") == (d.reason == "")
        if d.transform is not None:
            assert np.isfinite(d.transform).all()


@settings(deadline=None)
@given(st.lists(faults, min_size=1, max_size=30), st.randoms())
def test_decisions_do_not_depend_on_the_order_of_arrival(changes, random):
    """Records come from any number of ranks in any order; sorted by z they decide the same."""
    slices = [replace(good(z), **change) for z, change in enumerate(changes)]
    shuffled = list(slices)
    random.shuffle(shuffled)
    first = choose_transforms(slices, SHAPE)
    second = choose_transforms(sorted(shuffled, key=lambda s: s.z), SHAPE)
    for a, b in zip(first, second, strict=True):
        assert (a.status, a.reason) == (b.status, b.reason)
        assert (a.transform is None and b.transform is None) or np.array_equal(
            a.transform, b.transform
        )


@settings(deadline=None)
@given(st.lists(faults, min_size=1, max_size=30))
def test_a_mirrored_stack_is_decided_alike(changes):
    """No pass over the stack favours a direction: the judgement is of all slices at once."""
    slices = [replace(good(z), **change) for z, change in enumerate(changes)]
    forward = choose_transforms(slices, SHAPE)
    backward = choose_transforms(slices[::-1], SHAPE)[::-1]
    assert [d.status for d in forward] == [d.status for d in backward]
    for a, b in zip(forward, backward, strict=True):
        if a.status not in ("blank", "copied"):
            np.testing.assert_allclose(a.transform, b.transform, atol=1e-9)


class Watched(list):
    """Counts what is looked at."""

    looks = 0

    def __getitem__(self, place):
        self.looks += 1
        return super().__getitem__(place)

    def __iter__(self):
        raise AssertionError("all were looked at")


def test_the_nearest_good_slices_are_found_without_looking_at_all():
    """Of 30,000 slices with 6,000 bad ones all looked at all: half of the time of the solve."""
    chosen = [replace(good(z), transform=translation(z, 0), status="affine") for z in range(9)]
    anchors = Watched([0, 1, 2, 3, 6, 7, 8])
    found = from_neighbours(good(4), chosen, anchors, 4)
    assert found.status == "interpolated"
    np.testing.assert_allclose(found.transform, translation(4, 0))
    assert anchors.looks < 9
    assert from_neighbours(good(9), chosen, Watched([3]), 9).transform[0, 2] == 3
    assert from_neighbours(good(0), chosen, Watched([3]), 0).transform[0, 2] == 3
    assert from_neighbours(good(3), chosen, Watched([2, 3, 4]), 3).transform[0, 2] == 3
