"""HDF5 and BigDataViewer files read as what was written."""

import os

import h5py
import numpy as np
import pytest
from series import check, refused

from amst_hpc.bdv import reading
from amst_hpc.bdv.metadata import write_xml
from amst_hpc.config import InputError
from amst_hpc.images import chunked
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


def test_voxel_size_of_a_view_is_that_of_its_setup(tmp_path):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        for name in ("s00/0", "s00/1", "s01/0"):
            file[f"t00000/{name}/cells"] = np.zeros((2, 4, 4), np.uint8)
    write_xml(tmp_path / "stack.xml", path, (8, 5, 4))
    text = (tmp_path / "stack.xml").read_text()
    setup = text[text.index("<ViewSetup>") : text.index("</ViewSetup>") + len("</ViewSetup>")]
    other = setup.replace("<id>0", "<id>1", 1).replace("<size>4.0 5.0 8.0", "<size>1 2 3")
    other = other.replace("<unit>nm", "<unit>µm")
    (tmp_path / "other.xml").write_text(text.replace(setup, setup + other))

    def size(source):
        return open_stack(str(tmp_path / source), "RAW").header(0).voxel_size

    assert size("other.xml:setup=1").nm == (3000, 2000, 1000)
    assert size("other.xml:setup=0").nm == (8, 5, 4)
    assert size("other.xml:setup=0").source == "BigDataViewer XML"
    assert size("stack.h5:/t00000/s00/0/cells").nm == (8, 5, 4)
    assert size("stack.h5:/t00000/s00/1/cells").nm == (), "of another level nothing is said"
    (tmp_path / "stack.xml").write_text(text.replace("stack.h5", "another.h5"))
    assert size("stack.h5:/t00000/s00/0/cells").nm == (), "the XML is that of another file"
    write_xml(tmp_path / "stack.xml", path, ())
    assert size("stack.h5:/t00000/s00/0/cells").nm == (), "pixels"


@pytest.mark.parametrize(
    ("size", "expected"), [([0.008, 0.005, 0.004], (8, 5, 4)), ([1, 1], ()), ("large", ())]
)
def test_voxel_size_of_a_dataset_is_its_attribute(tmp_path, size, expected):
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["data"] = np.zeros((2, 4, 4), np.uint8)
        file["data"].attrs["element_size_um"] = size
    found = open_stack(f"{tmp_path}/stack.h5:/data", "RAW").header(0).voxel_size
    assert found.nm == expected
    assert found.source == ("element_size_um" if expected else "")


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


def test_axes_in_another_order_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["d"] = np.zeros((2, 4, 4), np.uint8)
        for n, axis in enumerate("xyz"):
            file["d"].dims[n].label = axis
    refused(f"{path}:/d", "RAW .*a.h5:/d: axes xyz, expected zyx")


def test_another_file_behind_it_has_another_stamp(tmp_path):
    for name in "bc":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = np.zeros((2, 4, 4), np.uint8)
    stamps = []
    for target in ("b.h5", "c.h5", "b.h5"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["d"] = h5py.ExternalLink(target, "/x")
        os.utime(tmp_path / "a.h5", ns=(1, 1))
        stamps.append(open_stack(f"{tmp_path / 'a.h5'}:/d", "RAW").stamp(1))
    assert stamps[0] == stamps[2] != stamps[1]


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


@pytest.fixture
def deep(tmp_path):
    """A source of 23 slices in chunks of 8, and the volume."""
    volume = np.random.default_rng(1).integers(0, 255, (23, 20, 30), np.uint8)
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file.create_dataset("a", data=volume, chunks=(8, 16, 16), compression="gzip")
    return f"{tmp_path / 'deep.h5'}:/a", volume


@pytest.fixture
def blocks(monkeypatch):
    """First slice and length of what is read of a file."""
    found, read_into = [], reading.VolumeReader.read_into

    def noting(self, block, start):
        found.append((start, len(block)))
        read_into(self, block, start)

    monkeypatch.setattr(reading.VolumeReader, "read_into", noting)
    return found


def test_a_row_of_chunks_is_decoded_once(deep, blocks):
    source, volume = deep
    stack = check(source, volume)
    assert blocks == [(0, 8), (8, 8), (16, 7)]
    assert stack.block_bytes == chunked.block_bytes(stack) == 8 * 20 * 30
    held = stack.read(17)
    np.testing.assert_array_equal(stack.read(3), volume[3])
    np.testing.assert_array_equal(held, volume[17])
    assert blocks[3:] == [(0, 8)]


def test_of_large_slices_as_many_are_kept_as_fit(deep, blocks, monkeypatch):
    monkeypatch.setattr(chunked, "BLOCK_BYTES", 3 * 20 * 30)
    source, volume = deep
    stack = check(source, volume)
    assert stack.block_bytes == 3 * 20 * 30
    assert blocks == [(0, 3), (3, 3), (6, 2), (8, 3), (11, 3), (14, 2), (16, 3), (19, 3), (22, 1)]


def test_little_memory_is_not_filled(deep, blocks, monkeypatch):
    monkeypatch.setattr(chunked, "memory_per_rank", lambda _: 8 * 20 * 30)
    source, volume = deep
    assert check(source, volume).block_bytes == 20 * 30


def test_a_row_that_cannot_be_read_is_named_and_nothing_of_it_kept(deep, monkeypatch):
    source, volume = deep
    stack = open_stack(source, "RAW")
    stack.read(0)

    def fail(self, block, start):
        block[:] = 7
        raise OSError("filter returned failure during read")

    with monkeypatch.context() as patch:
        patch.setattr(reading.VolumeReader, "read_into", fail)
        with pytest.raises(InputError, match="slice 9: cannot be read"):
            stack.read(9)
    for z in (1, 9):
        np.testing.assert_array_equal(stack.read(z), volume[z])
