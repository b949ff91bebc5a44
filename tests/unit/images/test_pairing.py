"""The two stacks of a job on one rank; what is refused has tests of the command line."""

import dataclasses

import numpy as np
import pytest
from mpi4py import MPI
from stacks import SHAPE, inputs, read_stack

from amst_hpc.config import Config, InputError, load_config
from amst_hpc.images.pairing import Job, open_inputs, prepare_preview


@pytest.fixture
def job(tissue, tmp_path):
    raw, prealigned = inputs(tissue)
    return Job(str(raw), str(prealigned), tmp_path / "out.h5")


def test_inputs_say_what_there_is_and_what_is_wanted(job, tissue):
    found = open_inputs(dataclasses.replace(job, range=(5, None)), Config(), MPI.COMM_SELF)
    assert (found.depth, found.shape, found.dtype) == (24, SHAPE, "uint8")
    assert found.select == range(5, 24)
    assert found.slice_bytes == SHAPE[0] * SHAPE[1]
    np.testing.assert_array_equal(found.raw.read(6), read_stack(tissue / "raw")[6])


@pytest.mark.parametrize("wanted", [(3, 99), (9, 3), (4, 4)])
def test_a_range_that_is_no_part_is_refused(job, wanted):
    with pytest.raises(InputError, match=r"--range .*expected a part of 0:24"):
        open_inputs(dataclasses.replace(job, range=wanted), Config(), MPI.COMM_SELF)


def test_a_preview_takes_the_middle_averaged_down(job, monkeypatch):
    monkeypatch.setattr("amst_hpc.images.pairing.PREVIEW_SLICES", 6)
    monkeypatch.setattr("amst_hpc.images.pairing.PREVIEW_SIZE", 60)
    config = load_config(None, ["output.voxel_size_nm=[8, 4, 5]"])
    small, changed = prepare_preview(job, config, MPI.COMM_SELF)
    assert small.preview == 3
    assert small.range == (9, 15)
    assert changed.output.voxel_size_nm == (8, 12, 15)
    found = open_inputs(small, changed, MPI.COMM_SELF)
    assert found.shape == (48, 53)
    whole = open_inputs(job, config, MPI.COMM_SELF).raw.read(9)[:144, :159].astype(float)
    mean = whole.reshape(48, 3, 53, 3).mean((1, 3))
    assert np.abs(found.raw.read(9) - mean).max() <= 0.5
