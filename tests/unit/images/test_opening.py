"""What RAW and PREALIGNED may name, and what is said of anything else."""

import numpy as np
import pytest
import tifffile
from mpi4py import MPI
from series import check, refused, write_series

from amst_hpc.config import InputError
from amst_hpc.images.opening import open_stacks


def test_hidden_and_other_files_are_left_alone(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume, "s_{:03d}.TIFF")
    (folder / ".DS_Store").touch()
    (folder / "._s_000.TIFF").touch()
    (folder / "readme.txt").touch()
    check(folder, volume)


def test_glob_takes_what_fits(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume, "a_{:03d}.tif")
    write_series(folder, volume[:1], "b_{:03d}.tif")
    stack = check(folder / "a_*.tif", volume)
    assert stack.names[0] == "a_000.tif"


def test_sources_that_are_not_there(tmp_path):
    refused(tmp_path / "gone", "RAW .*gone: no such file or folder")
    refused(tmp_path / "gone.tif", "RAW .*gone.tif: no such file or folder")
    refused(tmp_path / "gone.h5:/data", "RAW .*gone.h5: no such file")
    refused(tmp_path / "gone_*.tif", "holds no .tif slices")
    refused(tmp_path / ("a" * 300), "RAW .*aaa: cannot be read .File name too long.")
    refused(tmp_path / f"{'a' * 300}.tif", "RAW .*aaa.tif: cannot be read .File name too long.")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "PREALIGNED .*empty: holds no .tif slices", "PREALIGNED")
    (tmp_path / "image.png").touch()
    refused(tmp_path / "image.png", "expected a folder, a TIFF or an HDF5 file")
    refused(tmp_path / "*.png", "expected .tif slices only")


def test_names_without_leading_zeros(tmp_path):
    volume = np.arange(12, dtype=np.uint8)[:, None, None] + np.eye(4, dtype=np.uint8)
    folder = write_series(tmp_path / "raw", volume, "s{}.tif")
    assert check(folder, volume).names[2] == "s2.tif"
    (folder / "overview.tif").touch()
    refused(folder, r"RAW .*raw: overview\.tif: not of the series s# by name; expected one series")


def test_a_glob_over_folders(tmp_path, volume):
    write_series(tmp_path / "day9", volume[:3], "s_{:03d}.tif")
    write_series(tmp_path / "day10", volume[2:], "s_{:03d}.tif")
    stack = check(tmp_path / "day*" / "*.tif", np.concatenate([volume[:3], volume[2:]]))
    assert stack.names[2:4] == ["day9_s_002.tif", "day10_s_000.tif"]


def test_a_folder_named_as_a_file(tmp_path, volume):
    check(write_series(tmp_path / "raw.h5", volume), volume)


def test_all_ranks_get_the_stacks(tmp_path, volume):
    folder, file = write_series(tmp_path / "raw", volume), tmp_path / "pre.tif"
    tifffile.imwrite(file, volume, photometric="minisblack")
    sources = [(str(folder), "RAW"), (str(file), "PREALIGNED")]
    for stack in open_stacks(sources, MPI.COMM_SELF):
        np.testing.assert_array_equal(stack.read(3), volume[3])
    with pytest.raises(InputError, match=r"PREALIGNED .*gone: no such file"):
        open_stacks([sources[0], (str(tmp_path / "gone"), "PREALIGNED")], MPI.COMM_SELF)
