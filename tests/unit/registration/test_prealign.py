"""Raw slices are placed by their pairs; what raw does slowly is kept or not, as was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from amst_hpc.pair_result import PairResult
from amst_hpc.placement import Placement
from amst_hpc.registration.prealign import APART, PERIODS, UNLIKE, hold, place
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import compose, displacement, invert, small_affine, translation

SHAPE = (300, 400)
DRIFTS = ("keep", "smooth", "remove")


def jitter(n, size=3.0, slopes=0.0, seed=1):
    """True transforms of a stack that is steady but for what each slice does by itself."""
    theta = np.random.default_rng(seed).normal(size=(n, 6))
    return small_affine(theta * [size, slopes, slopes, size, slopes, slopes], SHAPE)


def pairs_of(true, steps=(1, 2, 4, 8), without=()):
    """Exact pairs; without : slices that have none."""
    return [
        PairResult(z, k, compose(true[z + k], invert(true[z])), 0.01, 0.6, 0.95)
        for k in steps
        for z in range(len(true) - k)
        if not {z, z + k} & set(without)
    ]


def moved(true, xy):
    """The stack with every slice moved by (x, y)."""
    return np.array([compose(translation(*m), t) for m, t in zip(xy, true, strict=True)])


def errors(true, found):
    """Of the corners, but for one shift of the whole: (n, 4, 2) px."""
    off = displacement(compose(invert(true), found), SHAPE)
    return off - np.median(off, axis=(0, 1))


def rough(true, found):
    """Largest change of an error from one slice to the next, px."""
    return float(np.abs(np.diff(errors(true, found), axis=0)).max())


def test_exact_pairs_give_the_truth():
    true = jitter(60)
    for drift, most in zip(DRIFTS, (1.0, 0.1, 0.001), strict=True):
        found = place(pairs_of(true), 60, SHAPE, drift)
        assert np.abs(errors(true, found.transforms)).max() < most
        assert rough(true, found.transforms) < 0.1
        assert list(found.parts) == [0]
        assert found.pairs[1:3].tolist() == [3, 4]  # at 1 and 2 alone
        np.testing.assert_allclose(found.residual, 0.4)
        middle = np.median(displacement(found.transforms, SHAPE), axis=(0, 1))
        assert np.abs(middle).max() < 0.2  # most slices stay about where they are in raw


def test_slopes_follow_the_pairs():
    true = jitter(60, slopes=0.5)
    found = place(pairs_of(true), 60, SHAPE).transforms
    assert rough(true, found) < 0.1 < rough(true, np.tile(translation(0, 0), (60, 1, 1)))


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_jump_that_stays_is_undone(drift):
    true = moved(jitter(120, 1.0), [(60 * (z >= 50), -25 * (z >= 50)) for z in range(120)])
    found = place(pairs_of(true), 120, SHAPE, drift).transforms
    assert rough(true, found) < 0.1
    assert np.abs(errors(true, found)).max() < 1.0


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_wrong_pair_does_not_count(drift):
    true = jitter(60)
    wrong = [
        replace(p, matrix=compose(translation(30, 0), p.matrix)) if (p.z, p.k) == (20, 1) else p
        for p in pairs_of(true)
    ]
    found = place(wrong, 60, SHAPE, drift)
    assert rough(true, found.transforms) < 0.1
    assert found.pairs[20:22].tolist() == [3, 3]
    worse = [replace(p, correlation=0.1) if p.z == 20 else p for p in pairs_of(true)]
    assert place(worse, 60, SHAPE, drift).pairs[20] == 2


def test_pairs_farther_apart_lead_over_a_gap():
    true, black = jitter(60), [20, 21, 22]
    found = place(pairs_of(true, without=black), 60, SHAPE, "remove")
    there = [z for z in range(60) if z not in black]
    assert np.abs(errors(true[there], found.transforms[there])).max() < 0.05
    assert list(found.parts) == [0]
    assert found.pairs[black].tolist() == [0] * 3
    assert np.isnan(found.residual[black]).all()
    between = (found.transforms[19] + found.transforms[23]) / 2
    np.testing.assert_allclose(found.transforms[21], between, atol=1e-9)
    assert found.pairs[19] == 2 + 1  # what leads over the gap is one more


def test_a_gap_that_nothing_leads_over_makes_parts():
    """The later part begins where the slice before the gap lies in raw."""
    true = moved(jitter(80, 0.0), [(10, 4)] * 80)
    black = range(30, 42)
    found = place(pairs_of(true, without=black), 80, SHAPE, "remove")
    assert list(found.parts) == [0, 42]
    np.testing.assert_allclose(found.transforms[42], found.transforms[29], atol=1e-6)
    jumps = moved(jitter(80), [(40 * (z > 35), 0) for z in range(80)])
    found = place(pairs_of(jumps, without=black), 80, SHAPE)
    for part in (slice(0, 30), slice(42, 80)):
        assert rough(jumps[part], found.transforms[part]) < 0.1


def test_a_few_slices_that_lie_on_each_other_alone_are_no_part():
    true = jitter(60)
    other = set(range(20, 27))
    pairs = [p for p in pairs_of(true) if len({p.z, p.z + p.k} & other) in (0, 2)]
    found = place(pairs, 60, SHAPE)
    assert list(found.parts) == [0]
    assert found.pairs[20:27].tolist() == [0] * 7
    short = place(pairs_of(true[:7]), 7, SHAPE)  # where there are no more they are the stack
    assert short.pairs.tolist() == [2, 3, 4, 4, 4, 3, 2]


@pytest.mark.parametrize("pairs", [[], [PairResult(z, 1, reason="overlap 0.1") for z in range(8)]])
@pytest.mark.parametrize("drift", DRIFTS)
def test_without_pairs_all_stay_where_they_are(pairs, drift):
    found = place(pairs, 9, SHAPE, drift)
    np.testing.assert_array_equal(found.transforms, np.tile(translation(0, 0), (9, 1, 1)))
    assert found.pairs.tolist() == [0] * 9
    assert np.isnan(found.residual).all()
    assert list(found.parts) == [0]


def followed(n, wave, drift, period=0):
    """How much of a slow motion of raw, a wave of this many slices, is undone."""
    slow = np.sin(2 * np.pi * np.arange(n) / wave)
    true = moved(jitter(n, 1.0), [(20 * s, 0) for s in slow])
    found = place(pairs_of(true), n, SHAPE, drift, period).transforms
    assert rough(true, found) < 0.5
    shift = displacement(found, SHAPE)[:, :, 0].mean(axis=1)
    return float(np.polyfit(slow, shift, 1)[0] / 20)


@pytest.mark.parametrize("drift", DRIFTS)
def test_slow_motion_is_kept_beyond_the_period(drift):
    part = 1 / (1 + (250 / PERIODS[drift]) ** 2) if drift in PERIODS else 1.0
    assert followed(1000, 250, drift) == pytest.approx(part, abs=0.06)


def test_the_period_that_is_given_counts():
    """And nothing else, be it keep or smooth."""
    keep, smooth = (followed(1000, 250, drift, 250) for drift in ("keep", "smooth"))
    assert keep == smooth == pytest.approx(0.5, abs=0.06)


def held(status, pairs, parts=(0,), transform=(5, 5)):
    """Slice 1 of 3, which pairs have placed at (2, 2), as `hold` has it."""
    where = None if transform is None else translation(*transform)
    chosen = [
        SliceResult(0, status="affine", transform=translation(0, 0)),
        SliceResult(1, status=status, transform=where, reason="why"),
        SliceResult(2, status="affine", transform=translation(0, 0)),
    ]
    placed = np.array([translation(0, 0), translation(2, 2), translation(0, 0)])
    number = np.array([2, pairs, 2])
    found = hold(chosen, Placement(placed, number, np.array([0.1, 0.2, 0.3]), parts), SHAPE, 7)
    assert [s.z for s in found] == [0, 1, 2]
    return found[1]


def test_slices_are_where_pairs_have_them():
    for before, pairs, status in [
        ("affine", 1, "affine"),
        ("translation", 2, "neighbours"),
        ("interpolated", 4, "neighbours"),
    ]:
        found = held(before, pairs)
        assert (found.status, found.pairs, found.pair_residual) == (status, pairs, 0.2)
        np.testing.assert_array_equal(found.transform, translation(2, 2))
        assert found.correction == pytest.approx(np.hypot(3, 3))
        assert found.reason == "why"


@pytest.mark.parametrize(
    ("status", "pairs", "where"),
    [
        ("affine", 0, 5),
        ("translation", 1, 5),
        ("prealigned", 1, 2),
        ("interpolated", 0, 2),
        ("copied", 1, 2),
        ("repeated", 0, 0),
    ],
)
def test_slices_without_pairs_are_where_their_template_has_them(status, pairs, where):
    """Or else between those beside them; one that was stored twice is where the first one is."""
    found = held(status, pairs)
    assert (found.status, found.pairs, found.reason) == (status, 0, "why")
    np.testing.assert_array_equal(found.transform, translation(where, where))


@pytest.mark.parametrize(
    ("depth", "radius", "status"),
    [(12, 7, "interpolated"), (12, 8, "affine"), (1, 7, "affine")],
)
def test_a_template_of_the_slice_alone_is_no_evidence(depth, radius, status):
    """Of the last slice, when pairs hold but slice 3; of a stack of one slice there is no doubt."""
    number = np.zeros(depth, int)
    number[3:4] = 2
    placed = np.tile(translation(2, 2), (depth, 1, 1))
    chosen = [SliceResult(z, status="affine", transform=translation(5, 5)) for z in range(depth)]
    found = hold(chosen, Placement(placed, number, np.zeros(depth), [0]), SHAPE, radius)[-1]
    assert found.status == status
    assert found.reason == (UNLIKE if status == "interpolated" else "")


def test_the_first_slice_of_a_later_part_says_so():
    found = held("translation", 3, parts=(0, 1))
    assert (found.status, found.pairs, found.reason) == ("apart", 3, APART)
    np.testing.assert_array_equal(found.transform, translation(2, 2))


def test_black_slices_stay_black():
    found = held("blank", 0, transform=None)
    assert (found.status, found.transform) == ("blank", None)
