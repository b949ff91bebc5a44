"""Which pairs count, in what modes and with what trust."""

import numpy as np
import pytest

from amst_hpc.pair_result import PairResult
from amst_hpc.registration.links import (
    FEWEST,
    UNKNOWN_TISSUE,
    counts,
    find_chains,
    levelled,
    modes_of,
    trust_in,
    usual_of,
)
from amst_hpc.transform import displacement, small_affine, translation

HERE = translation(0, 0)


def test_what_is_usual_is_told_for_each_distance():
    pairs = [
        *(PairResult(z, 1, HERE, t, c) for z, t, c in [(0, 0.1, 0.5), (1, 0.3, 0.7), (2, 0, 0.9)]),
        PairResult(3, 1, None, 9.0, 0.01),
        PairResult(0, 2, HERE, 0.0, 0.4),
        PairResult(0, 4, None),
    ]
    found = usual_of(pairs)
    assert found[1] == pytest.approx((0.2, 0.7))
    assert found[2] == (UNKNOWN_TISSUE, 0.4)
    assert found[4] == (UNKNOWN_TISSUE, 0.0)
    assert usual_of([]) == {}


def test_a_pair_counts_if_it_has_a_matrix_and_is_not_much_worse_than_usual():
    usual = {1: (0.1, 0.5)}
    assert counts(PairResult(0, 1, HERE, correlation=0.2), usual)
    assert not counts(PairResult(0, 1, HERE, correlation=0.19), usual)
    assert not counts(PairResult(0, 1, None, correlation=0.9), usual)


def test_modes_are_orthonormal_displacements():
    """Their squares add up to the mean square of the displacement over the slice."""
    shape, theta = (60, 90), np.array([1.0, 0.5, -0.3, -2.0, 0.2, 0.7])
    m = small_affine(theta, shape)
    modes = modes_of(m, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    off = (m[:, :2] - np.eye(2)) @ [x.ravel(), y.ravel()] + m[:, 2:]
    assert (modes**2).sum() == pytest.approx((off**2).sum(axis=0).mean(), rel=1e-3)
    many = np.array([m, HERE])
    np.testing.assert_allclose(modes_of(many, shape), [modes, np.zeros(6)], atol=1e-12)
    assert np.abs(displacement(HERE, shape)).max() == 0


def test_chains_lead_from_slice_to_slice_without_a_gap():
    links = [PairResult(z, 1) for z in (0, 1, 3)] + [PairResult(z, 2) for z in (0, 1, 2)]
    assert find_chains(links) == {3: [0, 1]}  # 1 to 3 and 2 to 4 lack the pair of 2 and 3
    assert find_chains([]) == {}


@pytest.mark.parametrize("fewer", [0, 1])
def test_what_all_pairs_of_a_distance_are_off_alike_is_taken_off(fewer):
    """Of too few of them nobody knows."""
    n = FEWEST - fewer
    links = [PairResult(z, 1) for z in range(n + 1)] + [PairResult(z, 2) for z in range(n)]
    links.append(PairResult(n + 4, 2))  # over a gap: off as those beside it
    modes = np.zeros((len(links), 6))
    modes[: n + 1] = 1.0
    modes[n + 1 :] = 2.0
    modes[n + 1 :, 3] += 0.5
    found = levelled(links, modes, find_chains(links))
    expected = modes.copy()
    expected[n + 1 :, 3] -= 0.0 if fewer else 0.5
    np.testing.assert_allclose(found, expected)
    assert modes[-1, 3] == 2.5  # what was given stays


def test_trust_falls_beyond_what_is_usual():
    rest, every = np.array([1.0, 1.0, 1.0, 1.0, 30.0]), np.ones(5, bool)
    trust = trust_in(rest, every)
    assert trust[:4] == pytest.approx(1 / (1 + (1 / (3 * 1.4826)) ** 2))
    assert trust[4] < 0.03
    few = np.array([False] * 4 + [True])  # what is usual is that of those that count
    assert trust_in(rest, few)[4] == pytest.approx(trust[0])
    assert trust_in(rest, ~every).tolist() == [1.0] * 5
    assert trust_in(np.zeros(3), np.ones(3, bool)).tolist() == [1.0] * 3
