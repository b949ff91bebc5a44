"""Wherever in the writing of a layer a stop is heard, the same command continues."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from mpi4py import MPI
from stops import StopAtLook, look_always

from amst_hpc import geometry
from amst_hpc.bdv import direct
from amst_hpc.config import Config, Output
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.job.journal import records
from amst_hpc.job.run_folder import Attempt
from amst_hpc.parallel.signals import Stopped, StopRequest
from amst_hpc.passes.aligned import AlignedStack
from amst_hpc.passes.file_plan import plan_file
from amst_hpc.passes.write import write_layers
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import translation

COMM = MPI.COMM_SELF
DEPTH, SHAPE = 19, (70, 75)
NEVER = 10**6
SETTINGS = {"h5": {"chunk": 32, "levels": 3}, "zarr": {"format": "ome-zarr", "levels": 2}}


@pytest.fixture
def aligned(tmp_path, monkeypatch):
    """Noise, moved by whole pixels: three layers, the last one of three slices."""
    (tmp_path / "raw").mkdir()
    for z, image in enumerate(np.random.default_rng(1).integers(1, 255, (DEPTH, *SHAPE), np.uint8)):
        tifffile.imwrite(tmp_path / f"raw/{z:02d}.tif", image)
    job = Job(str(tmp_path / "raw"), str(tmp_path / "raw"), tmp_path / "in.h5")
    inputs = open_inputs(job, Config(), COMM)
    moves = [translation(z % 3, -z % 2) for z in range(DEPTH)]
    monkeypatch.setattr(direct, "PIECE_BYTES", 2 * 8 * 32 * 32)  # two chunks
    return AlignedStack(inputs, [SliceResult(z, "", transform=m) for z, m in enumerate(moves)])


def write(aligned, attempt, output, stop):
    plan = plan_file(aligned, output, attempt, 1)
    with stop:
        write_layers(aligned, plan, attempt, COMM, stop)
    return plan


def start(out, number):
    attempt = Attempt(out, number=number)
    attempt.journal.mkdir(parents=True, exist_ok=True)
    return attempt


def recorded(attempt):
    return [r["layer"] for r in records(attempt.journal, "*.write.log") if r["kind"] == "layer"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_stop_is_looked_for_between_all_steps(tmp_path, monkeypatch, aligned, kind, large):
    monkeypatch.setattr(geometry, "LARGE_LAYER", 0 if large else geometry.LARGE_LAYER)
    attempt = start(tmp_path / f"out.{kind}", 1)
    stop = StopAtLook(attempt.stop_flag, NEVER)
    write(aligned, attempt, Output(layer=8, **SETTINGS[kind]), stop)
    levels = (4 + 4 + 2) + (2 + 2 + 1) * (kind == "h5")  # the slices of the smaller ones
    pieces = {"h5": 3 * (5 + 1 + 1), "zarr": 3 * 2}[kind] if large else 0
    # each slice, those of the levels, each layer handed over, its pieces if it is large, the end
    assert NEVER - stop.left == DEPTH + levels + 3 + pieces + 1


@pytest.mark.parametrize(
    ("kind", "large", "looks"),
    [
        ("h5", False, 8 + 2),  # in the pyramid of the first layer
        ("h5", False, 15 + 8),  # in the slices of the second, with the first one being stored
        ("h5", True, 15 + 7 + 15 + 3),  # while the second is stored
        ("zarr", True, 13 + 2),  # between the shards of the first
    ],
)
def test_a_stop_loses_no_more_than_the_layer_in_hand(
    tmp_path, monkeypatch, aligned, kind, large, looks
):
    look_always(monkeypatch)
    monkeypatch.setattr(geometry, "LARGE_LAYER", 0 if large else geometry.LARGE_LAYER)
    attempt, output = start(tmp_path / f"out.{kind}", 1), Output(layer=8, **SETTINGS[kind])
    with pytest.raises(Stopped):
        write(aligned, attempt, output, StopAtLook(attempt.stop_flag, looks))
    before = recorded(attempt)
    assert before == ([0] if looks > 20 else [])
    attempt.stop_flag.unlink()
    plan = write(aligned, replace(attempt, number=2), output, StopRequest(attempt.stop_flag))
    assert [*plan.missing] == [n for n in range(3) if n not in before]
    if kind == "h5":
        assert_whole(plan.target.path, aligned)


def assert_whole(path, aligned):
    with h5py.File(path) as file:
        found = file["t00000/s00/0/cells"][()]
    wanted = [*aligned.slices(range(DEPTH))]
    np.testing.assert_array_equal(found, wanted)


def test_nothing_is_put_on_disk_for_a_layer_that_is_left_off(tmp_path, monkeypatch, aligned):
    look_always(monkeypatch)
    monkeypatch.setattr(geometry, "LARGE_LAYER", 0)
    synced = []
    monkeypatch.setattr(direct.DirectFile, "sync", lambda self: synced.append(self.path))
    attempt = start(tmp_path / "out.h5", 1)
    stop = StopAtLook(attempt.stop_flag, 15 + 2)  # the second piece
    with pytest.raises(Stopped):
        write(aligned, attempt, Output(layer=8, **SETTINGS["h5"]), stop)
    assert (synced, recorded(attempt)) == ([], [])


def test_a_layer_that_was_left_off_is_no_more_what_it_was(tmp_path, monkeypatch, aligned):
    """It was written with other transforms before, and is wanted so again."""
    look_always(monkeypatch)
    monkeypatch.setattr(geometry, "LARGE_LAYER", 0)
    attempt, output = start(tmp_path / "out.h5", 1), Output(layer=8, **SETTINGS["h5"])
    write(aligned, attempt, output, StopRequest(attempt.stop_flag))
    moved = replace(aligned.results[9], transform=translation(5, 5))
    results = [*aligned.results[:9], moved, *aligned.results[10:]]
    other, again = replace(aligned, results=results), replace(attempt, number=2)
    with pytest.raises(Stopped):
        write(other, again, output, StopAtLook(attempt.stop_flag, 15 + 3))
    attempt.stop_flag.unlink()
    plan = write(aligned, replace(attempt, number=3), output, StopRequest(attempt.stop_flag))
    assert [*plan.missing] == [1]
    assert_whole(plan.target.path, aligned)
