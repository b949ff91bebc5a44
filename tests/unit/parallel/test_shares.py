"""The table of what is left, and the runs that are taken from it."""

from types import SimpleNamespace

import pytest

from amst_hpc.parallel.shares import Regions, Shares

ALONE = SimpleNamespace(rank=0, size=1)


def taken(regions, ranks, most=4):
    """The runs that these ranks take, one after the other."""
    return [regions.take(rank, most) for rank in ranks]


def test_a_rank_takes_its_own_region_from_the_front():
    regions = Regions(90, 3)
    runs = taken(regions, [1] * 5)
    assert [len(run) for run in runs] == [1, 2, 4, 4, 4], "little at first"
    assert [z for run in runs for z in run] == list(range(30, 45))
    assert regions.take(0, 4) == range(1)


def test_a_rank_without_any_left_takes_the_later_half_of_the_longest_region():
    regions = Regions(60, 3)
    taken(regions, [0, 1, 1])
    while regions.of_rank[2]:
        regions.take(2, 4)
    assert regions.of_rank == [range(1, 20), range(23, 40), range(60, 60)]
    assert regions.take(2, 4) == range(10, 14)
    assert regions.of_rank == [range(1, 10), range(23, 40), range(14, 20)]


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 61])
def test_each_place_once_whoever_asks(ranks, count):
    regions = Regions(count, ranks)
    runs = taken(regions, [(turn * turn) % 7 % ranks for turn in range(500)])
    assert sorted(z for run in runs for z in run) == list(range(count))
    assert max(map(len, runs)) <= 4


def test_runs_get_short_towards_the_end():
    lengths = [len(run) for run in taken(Regions(60, 2), [0, 1] * 40)]
    middle = lengths.index(4)
    assert lengths[:middle] == sorted(lengths[:middle])
    assert lengths[-1] == 0
    assert lengths[lengths.index(0) - 3 : lengths.index(0)] == [1, 1, 1]


def test_a_slow_rank_gets_none_that_the_others_do_sooner():
    regions = Regions(100, 2)
    taken(regions, [1, *[0] * 26, 1])
    left = sum(map(len, regions.of_rank))
    assert left > 2
    assert regions.take(1, 4) == range(0), "twice as slow at the least"
    while regions.take(0, 4):
        pass
    assert not any(regions.of_rank)


def test_one_process_takes_all_in_order_and_knows_the_next_run():
    shares, found = Shares(ALONE, [*"abcdefghijklm"], 2), []
    with shares:
        for run in shares:
            assert shares.coming() == shares.coming()
            found.append((run, shares.coming()))
    assert [*map("".join, (run for run, _ in found))] == ["ab", "cd", "ef", "gh", "ij", "kl", "m"]
    assert [ahead for _, ahead in found] == [run for run, _ in found[1:]] + [[]]


def test_a_large_item_is_not_taken_ahead():
    with Shares(ALONE, [5, 6]) as shares:
        for run in shares:
            assert len(run) == 1
            assert not shares.coming()
