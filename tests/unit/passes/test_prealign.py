"""Raw slices are compared, whatever runs they come in, placed, and placed alone if that is all."""

from dataclasses import replace

import numpy as np
import pytest
from mpi4py import MPI
from shifted import save, texture

from amst_hpc.config import Config, Prealign
from amst_hpc.images.moved import lay_canvas
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.images.stack import checksum
from amst_hpc.job.run_folder import PLACED, Attempt
from amst_hpc.overrides import Override
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.passes import prealign
from amst_hpc.passes.prealign import (
    Comparison,
    Seen,
    compare_raw,
    compare_whole,
    keep_placed,
    place_raw,
    placed_results,
    read_placed,
)
from amst_hpc.placement import Placement
from amst_hpc.settings import load_config
from amst_hpc.transform import compose, invert, translation

COMM = MPI.COMM_SELF
SHAPE = (80, 90)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """20 slices of noise; for what does not look at them."""
    images = np.random.default_rng(0).integers(1, 255, (20, *SHAPE))
    return save(tmp_path_factory.mktemp("noise") / "raw", images)


@pytest.fixture
def inputs(raw, tmp_path):
    return open_inputs(Job(raw, "", tmp_path / "out.h5"), Config(), COMM)


@pytest.fixture
def attempt(tmp_path):
    return start(tmp_path / "out.h5")


def start(out, number=1):
    attempt = Attempt(out, number=number)
    attempt.journal.mkdir(parents=True, exist_ok=True)
    return attempt


def run(work, attempt):
    with StopRequest(attempt.stop_flag) as stop:
        return compare_raw(work, attempt, COMM, stop)


def write(attempt, work, seen, places):
    """As `compare_raw` does, of pairs without a matrix."""
    with attempt.open_journal(0, "prealign") as journal:
        for s in seen.values():
            journal.write({"kind": "seen", **vars(s)})
        for z, k in places:
            journal.write(PairResult(z, k).to_record() | {"key": work.key(seen[z], seen[z + k])})


def seen_of(*zs):
    return {z: Seen(z, crc=100 + z) for z in zs}


def test_pairs_are_of_slices_that_count(inputs):
    work = Comparison(inputs, Config(), range(8, 11), range(5, 16))
    assert work.places({}) == [
        (8, 1), (8, 2), (8, 4), (9, 1), (9, 2), (9, 4), (10, 1), (10, 2), (10, 4)
    ]  # fmt: skip
    black = {9: Seen(9, 1, blank=True), 14: Seen(14, 1, blank=True)}
    left = replace(inputs, overrides=[Override(12, "exclude")])
    assert replace(work, inputs=left).places(black) == [(8, 2), (10, 1)]


def test_a_slice_that_has_no_other_is_looked_at_once(inputs):
    """Whoever writes it must know what was seen of it."""
    work = Comparison(inputs, Config(), range(3, 4), range(3, 4))
    assert work.places({}) == [(3, 0)]
    assert work.places(seen_of(3)) == []
    black = {z: Seen(z, 1, blank=True) for z in range(20) if z != 7}
    work = Comparison(inputs, Config(), range(20), range(20))
    assert work.places(black) == [(7, 0)]
    assert work.places(black | seen_of(7)) == []


def test_full_detail_reaches_as_far_as_neighbours_do(inputs):
    work = Comparison(inputs, Config(), range(20), range(20))
    assert (list(work.near), work.steps) == ([1, 2], [1, 2, 4, 8])
    far = replace(work, config=load_config(None, ["neighbours.reach=5"]))
    assert (list(far.near), far.steps) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 8])
    settings = ["neighbours.reach=5", "neighbours.enabled=false"]
    assert replace(work, config=load_config(None, settings)).steps == work.steps


def test_a_template_beyond_the_range_is_compared_too(raw, tmp_path):
    part = open_inputs(Job(raw, "", tmp_path / "o.h5", range=(2, 10)), Config(), COMM)
    work = compare_whole(part, Config())
    assert (work.first, work.around) == (range(17), range(17))


def test_a_key_is_of_what_a_pair_was_found_with(inputs):
    work = Comparison(inputs, Config(), range(20), range(20))
    one, other = Seen(0, 1), Seen(1, 2)
    key = work.key(one, other)
    assert key == work.key(one, Seen(1, 2, reason="any"))
    assert len({key, work.key(other, one), work.key(one, Seen(1, 3))}) == 3
    more = replace(work, config=load_config(None, ["neighbours.reach=4"]))
    assert more.key(one, other) != key  # slices z and z + 4 are compared at full detail then


def test_the_journal_is_believed_as_far_as_it_fits(inputs, attempt):
    work = Comparison(inputs, Config(), range(4), range(4))
    seen = seen_of(0, 1, 2, 3)
    assert work.split(attempt) == ({}, {}, [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)])
    write(attempt, work, seen, [(0, 1), (1, 1), (2, 1)])
    found, done, missing = work.split(attempt)
    assert found == seen
    assert (list(done), missing) == ([(0, 1), (1, 1), (2, 1)], [(0, 2), (1, 2)])
    write(start(attempt.out, 2), work, {1: Seen(1, crc=7)}, [])
    assert work.split(attempt)[2] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_what_could_not_be_read_is_tried_again_unless_all_is_settled(inputs, attempt):
    work = Comparison(inputs, Config(), range(3), range(3))
    gone = Seen(1, blank=True, unreadable=True, reason="gone")
    write(attempt, work, seen_of(0, 2) | {1: gone}, [])
    seen, _, missing = work.split(attempt)
    assert (sorted(seen), missing) == ([0, 2], [(0, 1), (0, 2), (1, 1)])
    seen, _, missing = work.split(attempt, provisional=True)
    assert (seen[1], missing) == (gone, [(0, 2)])


def few(tissue, folder, count=11):
    folder.mkdir()
    for path in sorted((tissue / "raw").iterdir())[:count]:
        (folder / path.name).symlink_to(path)
    return open_inputs(Job(str(folder), "", folder / "out.h5"), Config(), COMM)


def test_pairs_are_the_same_whatever_runs_they_come_in(tissue, tmp_path, monkeypatch):
    """Those of near slices have all their detail, also at the border of two runs."""
    inputs, found = few(tissue, tmp_path / "raw"), []
    for most in (32, 4, 1):
        monkeypatch.setattr(prealign, "RUN", most)
        out = start(tmp_path / f"{most}.h5")
        seen, pairs = run(compare_whole(inputs, Config()), out)
        found.append([p.to_record() for p in pairs])
        assert [s.crc for _, s in sorted(seen.items())] == [
            checksum(inputs.raw.read(z)) for z in range(11)
        ]
    assert found[0] == found[1] == found[2]
    assert all(p["matrix"] for p in found[0] if p["k"] <= 2)
    steps = [(z, k) for z in range(11) for k in (1, 2, 4, 8) if z + k < 11]
    assert [(p["z"], p["k"]) for p in found[0]] == steps
    again, none = run(compare_whole(inputs, Config()), start(tmp_path / "32.h5", 2))
    assert again.keys() == seen.keys()
    assert [(p.z, p.k) for p in none] == steps
    logs = list((tmp_path / "32.amst" / "journal").glob("0002-*"))
    assert not logs  # all of it is in the journal


def test_black_and_lost_slices_are_seen_and_have_no_pairs(tmp_path):
    images = [texture(SHAPE)] * 5
    images[1] = np.zeros(SHAPE)
    folder = save(tmp_path / "raw", images)
    inputs = open_inputs(Job(folder, "", tmp_path / "out.h5"), Config(), COMM)
    (tmp_path / "raw" / "slice_003.tif").write_bytes(b"")
    seen, pairs = run(compare_whole(inputs, Config()), start(tmp_path / "out.h5"))
    assert [(s.blank, s.unreadable, s.crc is None) for _, s in sorted(seen.items())] == [
        (False, False, False), (True, False, False), (False, False, False),
        (True, True, True), (False, False, False),
    ]  # fmt: skip
    assert [(p.z, p.k) for p in pairs] == [(0, 2), (0, 4), (2, 2)]


def test_one_slice_is_placed(tmp_path):
    folder = save(tmp_path / "raw", [texture(SHAPE)])
    inputs = open_inputs(Job(folder, "", tmp_path / "out.h5"), Config(), COMM)
    seen, pairs = run(compare_whole(inputs, Config()), start(tmp_path / "out.h5"))
    placement = place_raw(seen, pairs, inputs, Config())
    inputs = inputs.on(lay_canvas(placement, SHAPE, Prealign()))
    (only,) = placed_results(inputs, seen)
    assert only.status == "interpolated"
    np.testing.assert_array_equal(only.transform, translation(0, 0))


def exact(true, without=()):
    return [
        PairResult(z, k, compose(true[z + k], invert(true[z])), 0.01, 0.6, 0.95)
        for k in (1, 2, 4, 8)
        for z in range(len(true) - k)
        if not {z, z + k} & set(without)
    ]


def test_a_slice_that_was_stored_twice_lies_on_the_first(inputs):
    """Its pair with the first says that nothing moved, and those after it are by one step off."""
    rng = np.random.default_rng(1)
    true = [translation(*xy) for xy in rng.normal(size=(20, 2)) * 5]
    true[10] = true[9]
    seen = seen_of(*range(20)) | {10: Seen(10, crc=109)}
    found = place_raw(seen, exact(true), inputs, load_config(None, ["prealign.drift=remove"]))
    np.testing.assert_array_equal(found.transforms[10], found.transforms[9])
    assert found.pairs[10] == 0
    np.testing.assert_allclose(
        [found.transforms[z][:, 2] - found.transforms[0][:, 2] for z in range(20)],
        [true[z][:, 2] - true[0][:, 2] for z in range(20)],
        atol=0.01,
    )


def test_gaps_that_nothing_leads_over_are_told(inputs, caplog):
    true, inputs = [translation(z % 3, 0) for z in range(60)], replace(inputs, depth=60)
    black = [z for z in range(60) if z % 30 > 18]
    found = place_raw(seen_of(*range(60)), exact(true, black), inputs, Config())
    assert found.parts == [0, 30]
    assert "no slices lead over the gap before slice 30: see status apart" in caplog.text


def test_what_is_placed_is_kept_with_its_overrides(attempt):
    placement = Placement(
        np.array([translation(0, 0), translation(1.5, 1 / 3)]),
        np.array([1, 0]),
        np.array([0.5, np.nan]),
        [0],
    )
    decided = [Override(1, "exclude")]
    assert read_placed(attempt, ()) is None
    assert keep_placed(attempt, placement, decided)
    assert not keep_placed(attempt, placement, decided)
    found = read_placed(attempt, decided)
    np.testing.assert_array_equal(found.transforms, placement.transforms)
    np.testing.assert_array_equal(found.residual, placement.residual)
    assert read_placed(attempt, ()) is None
    assert keep_placed(attempt, placement, ())


@pytest.mark.parametrize("text", ["", "[", "{}", "[]", '{"overrides": []}'])
def test_a_damaged_placement_does_not_count(attempt, text):
    (attempt.folder / PLACED).write_text(text)
    assert read_placed(attempt, ()) is None


def test_what_became_of_each_slice_is_told(inputs):
    number = np.full(20, 3)
    number[[4, 6, 8, 9]] = 0
    placement = Placement(
        np.tile(translation(1, 0), (20, 1, 1)), number, np.full(20, 0.25), [0, 12]
    )
    seen = seen_of(*range(20)) | {
        4: Seen(4, 5, blank=True, reason="black or constant slice"),
        6: Seen(6, blank=True, unreadable=True, reason="gone"),
        9: Seen(9, crc=108),
    }
    placed = inputs.on(lay_canvas(placement, SHAPE, Prealign()))
    found = placed_results(placed, seen)
    told = {s.z: (s.status, s.reason) for s in found if s.status != "placed"}
    assert told == {
        4: ("blank", "black or constant slice"),
        6: ("unreadable", "gone"),
        8: ("interpolated", "unlike the slices around it"),
        9: ("repeated", "the same pixels as slice 8"),
        12: ("apart", prealign.APART),
    }
    assert [s.z for s in found if s.transform is None] == [4, 6]
    assert (found[5].crc, found[5].pairs, found[5].pair_residual) == (105, 3, 0.25)
    assert [s.z for s in found if s.fell_back] == [*told]
    later = placed_results(replace(placed, select=range(9, 20)), seen)  # the first is out of range
    assert (later[0].status, later[0].reason) == told[9]
    with pytest.raises(ValueError, match="no canvas"):
        placed_results(inputs, seen)
