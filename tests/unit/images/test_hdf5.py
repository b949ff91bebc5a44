"""HDF5 and BigDataViewer files read as what was written."""

import h5py
import numpy as np
from series import check, refused

from amst_hpc.bdv.metadata import write_xml
from amst_hpc.images.opening import open_stack


def test_hdf5_dataset(tmp_path, volume):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("deep/data", data=volume, chunks=(2, 16, 16), compression="gzip")
    check(f"{path}:/deep/data", volume)


def test_bigdataviewer_h5_and_xml(tmp_path, volume):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = volume
    check(path, volume)
    write_xml(tmp_path / "stack.xml", path, ())
    check(tmp_path / "stack.xml", volume)


def test_legacy_bigdataviewer_bits_are_uint16(tmp_path):
    volume = np.arange(2 * 8 * 4096, dtype=np.uint16).reshape(2, 64, 512)
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = volume.view(np.int16)
    check(path, volume)


def test_signed_voxels_of_bigdataviewer_are_not_taken_for_uint16(tmp_path):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = np.full((2, 4, 4), -1, np.int16)
        file["s00/resolutions"] = np.ones((1, 3))
        file["s00"].attrs["dataType"] = "int16"
    refused(path, "dtype int16, expected uint8 or uint16")


def test_another_dataset_has_another_stamp(tmp_path):
    """A job that was begun with the one is not continued with the other."""
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["a"] = file["b"] = np.zeros((2, 4, 4), np.uint8)
    stamps = [open_stack(f"{path}:/{name}", "RAW").stamp(1) for name in "ab"]
    assert stamps[0] != stamps[1]


def test_hdf5_files_without_the_stack(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["flat"] = np.zeros((4, 4), np.uint8)
        file["real"] = np.zeros((2, 4, 4), np.float32)
        file["signed"] = np.full((2, 4, 4), -1, np.int16)
        file["empty"] = np.zeros((2, 0, 4), np.uint8)
        file["nothing"] = h5py.Empty("u1")
    refused(f"{path}:/signed", "dtype int16, expected uint8 or uint16")
    refused(f"{path}:/empty", "shape .2, 0, 4. .z, y, x. holds no pixels")
    refused(f"{path}:/nothing", "shape .., expected .z, y, x.")
    refused(f"{path}:/gone", "no dataset /gone; it holds empty, flat, nothing, real, signed")
    refused(path, "no dataset /t00000/s00/0/cells")
    refused(f"{path}:/flat", "expected .z, y, x.")
    refused(f"{path}:/real", "dtype float32, expected uint8 or uint16")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:100])
    refused(tmp_path / "cut.h5", "not a readable HDF5 file")
