"""The whole stack at once: steadier than its templates, held by the pre-alignment, robust."""

import time
from dataclasses import replace

import numpy as np
import pytest

from amst_hpc.pair_result import PairResult
from amst_hpc.registration.solve import fit_pairs, solve
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import compose, displacement, invert, small_affine, translation

SHAPE = (600, 800)


def stack(n, pair_error=0.01, reach=2, seed=1):
    """True transforms, and what templates, pairs and a pre-alignment say of them."""
    rng = np.random.default_rng(seed)
    true = [small_affine(rng.normal(size=6) * [3, 0.5, 0.5, 3, 0.5, 0.5], SHAPE) for _ in range(n)]

    def off(m, size):
        return compose(m, small_affine(rng.normal(size=6) * size, SHAPE))

    results = [SliceResult(z, status="affine", transform=off(m, 0.3)) for z, m in enumerate(true)]
    pairs = [
        PairResult(z, k, off(compose(true[z + k], invert(true[z])), k * pair_error),
                   k * pair_error / 5, 0.6, 0.95)
        for k in range(1, reach + 1) for z in range(n - k)
    ]  # fmt: skip
    pairs += [
        PairResult(z, 0, compose(m, translation(*rng.normal(size=2))), 0.0, 1.0, 0.9)
        for z, m in enumerate(true)
    ]
    return true, results, pairs


def wobble(true, results):
    """Mean change of the corner error from slice to slice, px."""
    errors = [
        displacement(compose(invert(m), r.transform), SHAPE)
        for m, r in zip(true, results, strict=True)
    ]
    return float(np.hypot(*np.moveaxis(np.diff(errors, axis=0), -1, 0)).mean())


def test_pairs_take_the_wobble_out():
    true, results, pairs = stack(60)
    solved = solve(results, pairs, SHAPE)
    assert wobble(true, solved) < 0.25 * wobble(true, results)
    assert all(s.pairs >= 2 and s.correction > 0 for s in solved)
    assert [s.status for s in solved] == ["affine"] * 60


def test_the_stack_does_not_drift():
    true, results, pairs = stack(200)
    solved = solve(results, pairs, SHAPE)
    errors = [
        np.abs(displacement(compose(invert(m), s.transform), SHAPE)).max()
        for m, s in zip(true, solved, strict=True)
    ]
    assert max(errors) < 1.0


def test_a_pre_alignment_that_drifts_is_followed_no_farther_than_it_goes():
    """10 px over 100 slices; templates drift as their pre-alignment does."""
    true, results, pairs = stack(100)
    away = [translation(z / 10, 0) for z in range(100)]
    results = [
        replace(s, transform=compose(s.transform, m)) for s, m in zip(results, away, strict=True)
    ]
    pairs = [p if p.k else replace(p, matrix=compose(p.matrix, away[p.z])) for p in pairs]

    def const(transforms):
        """Mean corner error but for one shift of the whole."""
        off = [compose(invert(m), t) for m, t in zip(true, transforms, strict=True)]
        errors = np.array([displacement(m, SHAPE) for m in off])
        return float(np.hypot(*np.moveaxis(errors - np.median(errors, axis=0), -1, 0)).mean())

    solved = solve(results, pairs, SHAPE)
    given = const([p.matrix for p in pairs if p.k == 0])
    assert const([s.transform for s in solved]) < given
    assert wobble(true, solved) < 0.25 * wobble(true, results)


def test_without_pairs_nothing_changes():
    _, results, _ = stack(5)
    assert solve(results, [], SHAPE) == results


def test_wrong_pairs_do_not_count():
    true, results, pairs = stack(60)
    wrong = [replace(p, matrix=compose(p.matrix, translation(7, -9))) if p.k and p.z in (20, 41)
             else p for p in pairs]  # fmt: skip
    assert wobble(true, solve(results, wrong, SHAPE)) < 1.5 * wobble(
        true, solve(results, pairs, SHAPE)
    )


def test_a_wrong_template_is_corrected_by_its_neighbours():
    true, results, pairs = stack(40)
    results[17] = replace(results[17], transform=compose(results[17].transform, translation(6, 4)))
    results[30] = replace(results[30], status="interpolated", transform=translation(0, 0))
    solved = solve(results, pairs, SHAPE)
    for z in (17, 30):
        rest = displacement(compose(invert(true[z]), solved[z].transform), SHAPE)
        usual = displacement(compose(invert(true[z - 1]), solved[z - 1].transform), SHAPE)
        assert np.abs(rest - usual).max() < 0.3
    assert (solved[17].status, solved[30].status) == ("affine", "neighbours")


def test_black_slices_stay_black_and_their_neighbours_are_bridged():
    true, results, pairs = stack(40)
    results[12] = replace(results[12], status="blank", transform=None, blank=True)
    pairs = [p for p in pairs if 12 not in (p.z, p.z + p.k)]
    solved = solve(results, pairs, SHAPE)
    assert solved[12] is results[12]
    rest = [displacement(compose(invert(true[z]), solved[z].transform), SHAPE) for z in (11, 13)]
    assert np.abs(rest[1] - rest[0]).max() < 0.3


def step_across(true, solved, z):
    """How far slices z - 1 and z + 1 are off each other, px."""
    rest = [
        displacement(compose(invert(true[i]), solved[i].transform), SHAPE) for i in (z - 1, z + 1)
    ]
    return float(np.abs(rest[1] - rest[0]).max())


def without(results, pairs, *black):
    """Black slices, and the pairs without them."""
    spoilt = [
        replace(r, status="blank", transform=None, blank=True) if r.z in black else r
        for r in results
    ]
    return spoilt, [p for p in pairs if not {p.z, p.z + p.k} & set(black)]


def test_gaps_are_bridged_as_firmly_as_other_slices_are_joined():
    steps = []
    for seed in range(4):
        true, results, pairs = stack(60, 0.04, seed=seed)
        solved = solve(*without(results, pairs, 20, 27, 41), SHAPE)
        steps += [step_across(true, solved, z) for z in (20, 27, 41)]
    assert np.mean(steps) < 0.33


def test_pairs_farther_apart_that_are_all_off_alike_make_no_step_at_a_gap():
    true, results, pairs = stack(60)
    off = [
        replace(p, matrix=compose(translation(0.5, 0), p.matrix)) if p.k == 2 else p for p in pairs
    ]
    solved = solve(*without(results, off, 20, 41), SHAPE)
    assert max(step_across(true, solved, z) for z in (20, 41)) < 0.12


def test_a_repeated_slice_holds_nothing_and_goes_with_the_first():
    true, results, pairs = stack(60)
    results[30] = replace(results[30], status="repeated", transform=results[29].transform)
    still = [
        replace(p, matrix=translation(0, 0), correlation=1.0) if (p.z, p.k) == (29, 1) else p
        for p in pairs
    ]
    solved = solve(results, still, SHAPE)
    assert step_across(true, solved, 30) < 0.1
    assert solved[30].status == "repeated"
    assert solved[30].transform is solved[29].transform
    assert solved[30].pairs == 0
    assert all(not f.fault for f in fit_pairs(solved, still, SHAPE))


def test_how_pairs_fit_is_told():
    _, results, pairs = stack(30)
    spoilt = [replace(p, matrix=compose(translation(4, 0), p.matrix)) if (p.z, p.k) == (9, 1)
              else replace(p, matrix=None, reason="overlap 0.10") if (p.z, p.k) == (20, 2)
              else replace(p, correlation=0.1) if (p.z, p.k) == (24, 1) else p
              for p in pairs]  # fmt: skip
    fits = fit_pairs(solve(results, spoilt, SHAPE), spoilt, SHAPE)
    told = {(f.z, f.k): f for f in fits if f.fault}
    assert {(9, 1), (20, 2), (24, 1)} <= set(told) <= {(8, 2), (9, 1), (9, 2), (20, 2), (24, 1)}
    assert told[9, 1].residual == pytest.approx(4, abs=0.5)
    assert told[9, 1].fault.startswith(f"{told[9, 1].residual:.2f} px off, 0.")
    assert told[20, 2].fault == "overlap 0.10"
    assert told[24, 1].fault == "correlation 0.100 where 0.600 is usual"
    assert max(f.residual for f in fits if f.k and not f.fault) < 0.3


def test_a_short_period_follows_the_pre_alignment():
    true, results, pairs = stack(60)
    free, held = (solve(results, pairs, SHAPE, period) for period in (200, 4))
    assert wobble(true, held) > 2 * wobble(true, free)


@pytest.mark.slow
def test_what_lies_beyond_the_content_has_no_say():
    """The same stack on a larger canvas is solved alike; what was not touched stays to the bit."""
    _, results, pairs = stack(40)
    results = [replace(s, transform=None) if s.z == 9 else s for s in results]
    there = translation(-120, -70)
    on_canvas = [
        s if s.transform is None else replace(s, transform=compose(s.transform, there))
        for s in results
    ]
    wide = [
        p if p.k else replace(p, matrix=compose(p.matrix, there), frame=(70, 670, 120, 920))
        for p in pairs
    ]
    solved, found = solve(results, pairs, SHAPE), solve(on_canvas, wide, (700, 1300))
    for a, b in zip(solved, found, strict=True):
        assert (a.transform is None) == (b.transform is None)
        if a.transform is not None:
            np.testing.assert_allclose(compose(a.transform, there), b.transform, atol=1e-6)
            assert a.correction == pytest.approx(b.correction, abs=1e-6)
    fits = zip(fit_pairs(solved, pairs, SHAPE), fit_pairs(found, wide, (700, 1300)), strict=True)
    assert all(a.fault == b.fault for a, b in fits)
    alone = [p for p in wide if 39 not in (p.z, p.z + p.k)]
    assert solve(on_canvas, alone, (700, 1300))[39].transform is on_canvas[39].transform


def test_30000_slices_take_seconds():
    _, results, pairs = stack(200)
    many = [replace(results[z % 200], z=z) for z in range(30000)]
    found = [replace(p, z=p.z + 200 * i) for i in range(150) for p in pairs]
    began = time.process_time()
    solve(many, found, SHAPE)
    assert time.process_time() - began < 20
