"""The ranks get each item once, and all are done at the same time, however slow one of them is."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from launch import mpirun

JOB = Path(__file__).with_name("shares_job.py")


@dataclass
class Share:
    """What a rank did: its items, s until it had no more, s of them busy, items known ahead."""

    items: list[int]
    took: float
    busy: float
    ahead: int


def share_out(count, most, sleeps, **env):
    """What each rank did; `sleeps` in ms for an item."""
    done = mpirun(len(sleeps), [JOB, count, most, *sleeps], env)
    assert done.returncode == 0, done.stderr
    return [Share(*share) for share in json.loads(done.stdout)]


def all_items(shares):
    return sorted(item for share in shares for item in share.items)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("count", "most"), [(13, 4), (1, 4), (0, 1), (7, 1)])
def test_each_item_once(ranks, count, most):
    assert all_items(share_out(count, most, [1] * ranks)) == list(range(count))


@pytest.mark.parametrize("slow", [0, 1, 3])
def test_a_rank_four_times_slower_holds_nobody_up(slow):
    sleeps, count = [30] * 4, 400
    sleeps[slow] *= 4
    shares = share_out(count, 8, sleeps)
    assert all_items(shares) == list(range(count))
    ideal = count / sum(len(share.items) / share.busy for share in shares)
    assert max(share.took for share in shares) < 1.15 * ideal
    others = [len(share.items) for rank, share in enumerate(shares) if rank != slow]
    assert len(shares[slow].items) < min(others) / 2
    assert all(share.ahead > 1 for share in shares)


@pytest.mark.parametrize("slow", [0, 2])
def test_a_slow_rank_holds_no_large_item_that_it_has_not_begun(slow):
    sleeps = [50] * 3
    sleeps[slow] *= 20
    shares = share_out(24, 1, sleeps)
    assert all_items(shares) == list(range(24))
    assert len(shares[slow].items) == 1
    assert [share.ahead for share in shares] == [0] * 3


def test_a_rank_mostly_goes_on_where_it_was():
    shares = share_out(400, 4, [20, 20, 80, 20])
    jumps = [sum(b != a + 1 for a, b in pairwise(share.items)) for share in shares]
    assert sum(jumps) <= 24
    assert jumps[2] <= 2


@pytest.mark.parametrize("leaves", [0, 2])
def test_a_rank_that_leaves_early_leaves_the_rest_to_the_others(leaves):
    shares = share_out(60, 4, [5, 5, 5], STOP=f"{leaves} 8")
    found = all_items(shares)
    assert len(set(found)) == len(found) >= 60 - 2 * 4, "all but what it had been given"
    assert 8 <= len(shares[leaves].items) < 12


def test_without_threads_the_shares_are_equal():
    shares = share_out(13, 4, [1, 1, 1], MPI4PY_RC_THREAD_LEVEL="single")
    assert [share.items for share in shares] == [[*range(4)], [*range(4, 8)], [*range(8, 13)]]
