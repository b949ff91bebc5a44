"""What RAW and PREALIGNED may name, and what is said of anything else."""

import numpy as np
import tifffile
from series import check, refused, write_series


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
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "PREALIGNED .*empty: holds no .tif slices", "PREALIGNED")
    (tmp_path / "image.png").touch()
    refused(tmp_path / "image.png", "expected a folder, a TIFF or an HDF5 file")
    refused(tmp_path / "*.png", "expected .tif slices only")


def test_names_without_leading_zeros(tmp_path):
    folder = write_series(tmp_path / "raw", np.zeros((12, 4, 4), np.uint8), "s{}.tif")
    refused(folder, r"s11\.tif stands before s2\.tif; expected numbers with leading zeros")


def test_names_of_several_kinds_are_sorted_as_text(tmp_path, volume):
    folder = tmp_path / "raw"
    folder.mkdir()
    names = ["a1.tif", "a10_x.tif", "a2.tif", "b.tif", "c.tif"]
    for name, image in zip(names, volume, strict=True):
        tifffile.imwrite(folder / name, image)
    assert check(folder, volume).names == names
