"""Raw alone: what has other pixels than when it was compared is compared and registered again."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from mpi4py import MPI
from shifted import save, texture

from amst_hpc.config import Config, InputError
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.images.stack import checksum
from amst_hpc.job.changes import find_changes, find_late_changes, read_stamps
from amst_hpc.job.journal import compared, registered
from amst_hpc.job.run_folder import Attempt
from amst_hpc.overrides import Override
from amst_hpc.pair_result import PairResult
from amst_hpc.passes.filters import sampled
from amst_hpc.passes.prealign import Seen, compare_whole
from amst_hpc.slice_result import SliceResult

DEPTH, RADIUS, COMM = 60, 2, MPI.COMM_SELF


@pytest.fixture
def folder(tmp_path):
    images = [texture((70, 80), seed) for seed in range(DEPTH)]
    images[6] = np.zeros((70, 80))
    save(tmp_path / "raw", images)
    return tmp_path


def begin(folder, overrides=()):
    """What a job has left that ended after its slices were registered; excluded ones not compared.

    Returns its inputs and attempt.
    """
    inputs = open_inputs(Job(str(folder / "raw"), "", folder / "out.h5"), Config(), COMM)
    inputs = replace(inputs, overrides=overrides)
    attempt = Attempt(folder / "out.h5", number=1)
    attempt.journal.mkdir(parents=True)
    attempt.forget(find_changes(attempt.out, attempt.journal, inputs, RADIUS, COMM))
    work, crcs = (
        compare_whole(inputs, Config()),
        [checksum(inputs.raw.read(z)) for z in range(DEPTH)],
    )
    seen = {z: Seen(z, crc, z == 6) for z, crc in enumerate(crcs) if z not in inputs.excluded}
    with attempt.open_journal(0, "prealign") as journal:
        for s in seen.values():
            journal.write({"kind": "seen", **vars(s)})
        for z, k in work.places(seen):
            journal.write(PairResult(z, k).to_record() | {"key": work.key(seen[z], seen[z + k])})
    with attempt.open_journal(0, "register") as journal:
        for z, crc in enumerate(crcs):
            left = inputs.left_out(z, RADIUS)
            result = SliceResult(z, blank=z == 6, crc=None if z == 6 else crc, left_out=left)
            journal.write(result.to_record())
    return inputs, attempt


def spoil(folder, *slices):
    for z in slices:
        path = folder / "raw" / f"slice_{z:03d}.tif"
        image = tifffile.imread(path)
        image[3:9, 3:9] ^= 1
        tifffile.imwrite(path, image)


def look(inputs, attempt):
    """As the next start does."""
    stamps = read_stamps(inputs, COMM)
    inputs = replace(inputs, looked=replace(inputs.looked, stamps=stamps))
    return find_changes(attempt.out, attempt.journal, inputs, RADIUS, COMM)


def test_nothing_has_changed(folder):
    inputs, attempt = begin(folder)
    assert read_stamps(inputs, COMM) == inputs.looked.stamps
    assert list(inputs.looked.stamps) == ["raw"]
    assert not look(inputs, attempt).slices
    (folder / "raw" / "slice_004.tif").touch()  # another time, the same pixels
    assert not look(inputs, attempt).slices


def test_what_depends_on_a_changed_slice_is_forgotten(folder):
    """Its pairs, and the slices whose templates hold it."""
    inputs, attempt = begin(folder)
    assert 25 not in sampled(DEPTH, 2)  # on which all pairs depend
    spoil(folder, 25)
    changes = look(inputs, attempt)
    assert (changes.raw, changes.slices) == ([25], [23, 24, 25, 26, 27])
    attempt.forget(changes)
    assert sorted(compared(attempt.journal)) == [z for z in range(DEPTH) if z != 25]
    kept = sorted(z for z, *_ in registered(attempt.journal, "slice"))
    assert kept == [*range(23), *range(28, DEPTH)]
    work = compare_whole(inputs, Config())
    assert work.split(attempt)[2] == [
        (17, 8), (21, 4), (23, 2), (24, 1), (25, 1), (25, 2), (25, 4), (25, 8)
    ]  # fmt: skip
    assert not look(inputs, attempt).slices  # once


def test_a_black_slice_that_is_black_no_more_has_changed(folder):
    inputs, attempt = begin(folder)
    black = folder / "raw" / "slice_006.tif"
    tifffile.imwrite(black, np.full((70, 80), 9, np.uint8))  # still constant
    assert not look(inputs, attempt).slices
    tifffile.imwrite(black, np.clip(texture((70, 80), 50), 0, 255).astype(np.uint8))
    assert look(inputs, attempt).raw == [6]


def test_an_excluded_slice_that_was_registered_is_looked_at_too(folder):
    """No pair holds it, but it is written as it was registered."""
    inputs, attempt = begin(folder, [Override(8, "exclude")])
    spoil(folder, 8)
    changes = look(inputs, attempt)
    assert changes.raw == [8]
    assert 8 in changes.slices
    late, told = find_late_changes(attempt.journal, inputs, RADIUS, COMM)
    assert (late.raw, told) == ([8], "RAW slice_008.tif")


def test_what_changes_while_the_job_runs_is_told(folder):
    inputs, attempt = begin(folder)
    assert find_late_changes(attempt.journal, inputs, RADIUS, COMM)[1] == ""
    spoil(folder, 2)
    (folder / "raw" / "slice_009.tif").unlink()  # has served its turn
    late, told = find_late_changes(attempt.journal, inputs, RADIUS, COMM)
    assert (late.raw, told) == ([2], "RAW slice_002.tif")


def test_another_stack_is_refused(folder):
    inputs, attempt = begin(folder)
    spoil(folder, *(z for z in range(32) if z != 6))
    with pytest.raises(InputError, match=r"OUT .*: was begun with another RAW: 31 slices of 60"):
        look(inputs, attempt)
