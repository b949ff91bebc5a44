"""Pearson's coefficient: of arrays and of sums it is the same, and it has one value for nothing."""

import numpy as np
import pytest

from amst_hpc.correlation import UNRELATED, pearson, pearson_of_sums

RNG = np.random.default_rng(4)
FIRST = RNG.normal(100, 9, (30, 40)).astype(np.float32)
SECOND = (0.6 * FIRST + RNG.normal(0, 5, FIRST.shape)).astype(np.float32)


def sums(a, b):
    a, b = a.astype(float), b.astype(float)
    return [a.size, a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()]


def test_both_are_numpys():
    expected = np.corrcoef(FIRST.ravel(), SECOND.ravel())[0, 1]
    assert pearson(FIRST, SECOND) == pytest.approx(expected, abs=1e-6)
    assert pearson_of_sums(sums(FIRST, SECOND)) == pytest.approx(expected, abs=1e-9)


def test_linear_arrays_correlate_in_full():
    for sign in (1, -1):
        assert pearson(FIRST, sign * 2 * FIRST + 1) == pytest.approx(sign)
        assert pearson_of_sums(sums(FIRST, sign * 2 * FIRST + 1)) == pytest.approx(sign)


def test_a_constant_array_correlates_with_nothing():
    flat = np.full_like(FIRST, 7)
    for pair in ((FIRST, flat), (flat, FIRST), (flat, flat)):
        assert pearson(*pair) == UNRELATED == -1.0
        assert pearson_of_sums(sums(*pair)) == UNRELATED


def test_too_few_values_correlate_with_nothing():
    few = FIRST[0, :5], SECOND[0, :5]
    assert pearson(*few, least=5) == pytest.approx(pearson_of_sums(sums(*few), least=5), abs=1e-5)
    assert pearson(*few, least=6) == UNRELATED
    assert pearson_of_sums(sums(*few), least=6) == UNRELATED
    assert pearson(few[0][:0], few[1][:0]) == UNRELATED
    assert pearson_of_sums([0] * 6) == UNRELATED
