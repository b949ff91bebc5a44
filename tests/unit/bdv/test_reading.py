"""Datasets read slices at a time; what is not there is said."""

import h5py
import numpy as np
import pytest

from amst_hpc.bdv.metadata import cells
from amst_hpc.bdv.reading import VolumeReader


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        volume = np.arange(60_000, 60_060, dtype=np.uint16).reshape(3, 4, 5)
        file[cells(0)] = volume.view(np.int16)  # as output.legacy stores it
        file["raw"] = volume
    return path


@pytest.mark.parametrize("name", ["", "raw", cells(0)])
def test_slices_are_unsigned(path, name):
    volume = VolumeReader(path, name)
    assert (volume.shape, volume.dtype, volume.name) == ((3, 4, 5), np.uint16, name or cells(0))
    block = np.empty((2, 4, 5), volume.dtype)
    volume.read_into(block, 1)
    np.testing.assert_array_equal(block, np.arange(60_020, 60_060).reshape(2, 4, 5))


def test_the_depth_of_a_chunk(path):
    assert VolumeReader(path, "raw").chunk_depth == 1, "contiguous"
    with h5py.File(path, "a") as file:
        file.create_dataset("deep", data=np.zeros((9, 4, 4), np.uint8), chunks=(6, 2, 2))
    assert VolumeReader(path, "deep").chunk_depth == 6


def test_what_is_missing_is_named(path):
    with pytest.raises(LookupError, match=r"no dataset /none; it holds raw, t00000/s00/0/cells"):
        VolumeReader(path, "none")
    path.write_text("no HDF5")
    with pytest.raises(OSError, match=r"file signature not found"):
        VolumeReader(path)
