"""The two stacks of a job on one rank; what is refused has tests of the command line."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from mpi4py import MPI
from stacks import SHAPE, inputs, read_stack

from amst_hpc.bdv.metadata import write_xml
from amst_hpc.config import Config, InputError
from amst_hpc.images.pairing import Job, open_inputs, prepare_preview
from amst_hpc.settings import load_config


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


def renumber(folder, target, name):
    """Links to the slices of a folder, named by a function of their number."""
    target.mkdir()
    for z, path in enumerate(sorted(folder.iterdir())):
        (target / name(z)).symlink_to(path)
    return str(target)


def test_numbers_that_disagree_are_refused_unless_position_counts(job, tmp_path, caplog):
    caplog.set_level("INFO")
    shifted = renumber(Path(job.prealigned), tmp_path / "later", lambda z: f"s_{z + 2:02d}.tif")
    other = dataclasses.replace(job, prealigned=shifted)
    said = (
        r"disagree \(another first number\): slice_00000.tif beside s_02.tif; expected .*position"
    )
    for open_either in (open_inputs, prepare_preview):
        with pytest.raises(InputError, match=said):
            open_either(other, Config(), MPI.COMM_SELF)
    by_position = load_config(None, ["input.pair_by=position"])
    assert open_inputs(other, by_position, MPI.COMM_SELF).depth == 24
    assert "PREALIGNED s_02.tif belongs to RAW slice_00000.tif, and so on" in caplog.text


def test_numbers_from_one_and_gaps_are_mentioned(job, tmp_path, caplog):
    raw = renumber(Path(job.raw), tmp_path / "r", lambda z: f"r_{z + (z > 9) * 3}.tif")
    pre = renumber(Path(job.prealigned), tmp_path / "p", lambda z: f"p_{z + 1 + (z > 9) * 3}.tif")
    caplog.set_level("INFO")
    found = open_inputs(dataclasses.replace(job, raw=raw, prealigned=pre), Config(), MPI.COMM_SELF)
    assert found.raw.names[10] == "r_13.tif"
    assert [r.message for r in caplog.records] == [
        "RAW: numbers after r_9.tif: 3 missing",
        "PREALIGNED: numbers after p_10.tif: 3 missing",
        "PREALIGNED p_1.tif belongs to RAW r_0.tif, and so on",
    ]


def test_an_output_behind_a_link_of_the_input_is_refused(job, tmp_path):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["d"] = read_stack(Path(job.raw))
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["d"] = h5py.ExternalLink("out.h5", "/d")
    found = dataclasses.replace(job, raw=f"{tmp_path}/raw.h5:/d", overwrite=True)
    with pytest.raises(InputError, match=r"OUT .*out.h5: is RAW .*; expected another"):
        open_inputs(found, Config(), MPI.COMM_SELF)


def test_chunks_that_were_never_written_are_mentioned(job, tmp_path, caplog):
    caplog.set_level("INFO")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        dataset = file.create_dataset("d", (24, *SHAPE), np.uint8, chunks=(4, *SHAPE))
        dataset[:20] = read_stack(Path(job.raw))[:20]
    open_inputs(dataclasses.replace(job, raw=f"{tmp_path}/raw.h5:/d"), Config(), MPI.COMM_SELF)
    assert "raw.h5:/d: 1 of 6 chunks were never written; they are black" in caplog.text


def test_names_whose_numbers_count_nothing_are_mentioned(job, tmp_path, caplog):
    caplog.set_level("INFO")
    raw = renumber(Path(job.raw), tmp_path / "r", lambda z: f"r_{z // 12}_{z % 12}.tif")
    open_inputs(dataclasses.replace(job, raw=raw), Config(), MPI.COMM_SELF)
    said = "RAW: no number in the names counts the slices (r_0_0.tif to r_1_11.tif)"
    assert [r.message for r in caplog.records] == [said]


def test_slices_that_are_no_files_are_not_said_to_be_badly_named(job, tmp_path, caplog):
    """Of a multi-page TIFF, as of HDF5 and OME-Zarr."""
    caplog.set_level("INFO")
    tifffile.imwrite(tmp_path / "raw.tif", read_stack(Path(job.raw)))
    open_inputs(dataclasses.replace(job, raw=f"{tmp_path}/raw.tif"), Config(), MPI.COMM_SELF)
    assert not caplog.records


@pytest.mark.parametrize(
    "source", ["pre.h5", "pre.xml", "pre.h5:setup=0", "pre.h5:/t00000/s00/0/cells"]
)
def test_an_output_that_is_an_input_is_refused(job, tmp_path, source):
    """By its XML, by a view of it and through a link, too."""
    with h5py.File(tmp_path / "pre.h5", "w") as file:
        file["t00000/s00/0/cells"] = read_stack(Path(job.prealigned))
    write_xml(tmp_path / "pre.xml", tmp_path / "pre.h5", ())
    (tmp_path / "link.h5").symlink_to("pre.h5")
    for name in ("pre.h5", "link.h5"):
        found = dataclasses.replace(
            job, prealigned=f"{tmp_path}/{source}", out=tmp_path / name, overwrite=True
        )
        with pytest.raises(InputError, match=rf"OUT .*{name}: is PREALIGNED .*; expected another"):
            open_inputs(found, Config(), MPI.COMM_SELF)
