"""OME-Zarr images read as what was written."""

import os

import numpy as np
import pytest
import zarr
from series import check, refused
from zarr_files import save_image

from amst_hpc.images.chunked import block_bytes, describe_unwritten
from amst_hpc.images.opening import open_stack
from amst_hpc.images.stack import SliceError


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_and_its_array(tmp_path, volume, version):
    path = save_image(tmp_path / "a.ome.zarr", volume, version=version)
    for source in (path, path / "full", f"{path}:/full", f"{path}:/"):
        stack = check(source, volume)
        size = stack.header(0).voxel_size
        assert (size.nm, size.source) == ((20.0, 4.0, 4.0), "OME-Zarr metadata")
    assert block_bytes(stack) == 2 * volume[0].nbytes
    assert describe_unwritten(stack) == []


def test_units_are_read_and_what_no_microscope_has_is_not_believed(tmp_path, volume):
    path = save_image(tmp_path / "a.zarr", volume)
    table = path / "zarr.json"
    text = table.read_text()
    for unit, size, ignored in (
        ("angstrom", (20.0, 0.4, 0.4), ""),
        ("Micrometer", (20.0, 4000.0, 4000.0), ""),
        ("millimeter", (), "y = 4e+06 nm, x = 4e+06 nm (OME-Zarr metadata)"),
        ("parsec", (), ""),
    ):
        table.write_text(text.replace("nanometer", unit))
        found = open_stack(str(path), "RAW").header(0).voxel_size
        assert (found.nm, found.ignored) == (size, ignored)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_both_orders_of_bytes(tmp_path, order):
    data = np.random.default_rng(0).integers(0, 65535, (5, 40, 52)).astype(order)
    path = save_image(tmp_path / "a.zarr", data, version="0.4")
    check(path, data.astype(np.uint16))
    check(save_image(tmp_path / "b.zarr", data, shards=(4, 32, 40)), data.astype(np.uint16))


def test_bad_input_is_one_line(tmp_path, volume):
    path = save_image(tmp_path / "a.zarr", volume[None].repeat(3, 0), "czyx")
    refused(path, r"RAW .*a\.zarr: axis c has 3, expected 1 beside z, y, x")
    refused(save_image(tmp_path / "b.zarr", volume.astype(np.float32)), "dtype float32, expected")
    zarr.create_group(tmp_path / "c.zarr")
    refused(tmp_path / "c.zarr", "has no multiscales")
    refused(f"{tmp_path / 'b.zarr'}:/gone", "holds no Zarr array or group")
    refused(tmp_path / "gone.zarr", "no such file or folder")
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", "holds no Zarr array or group")
    (path / "full/zarr.json").write_text("{}")
    refused(path, "is not there")


def test_unwritten_chunks_are_told(tmp_path, volume):
    volume[0:2] = 0
    stack = open_stack(str(save_image(tmp_path / "a.zarr", volume)), "RAW")
    (told,) = describe_unwritten(stack)
    assert told.endswith("9 of 27 chunks were never written; they are black")
    assert not stack.read(1).any()


def test_a_damaged_chunk_is_an_unreadable_slice(tmp_path, volume):
    path = save_image(tmp_path / "a.zarr", volume)
    (path / "full/c/1/0/0").write_bytes(b"no chunk")
    stack = open_stack(str(path), "RAW")
    np.testing.assert_array_equal(stack.read(1), volume[1])
    with pytest.raises(SliceError, match=r"a\.zarr/full slice 2: .*cannot be read") as caught:
        stack.read(2)
    assert len(str(caught.value).splitlines()) == 1


def test_a_chunk_that_changes_changes_the_stamps_of_its_slices(tmp_path, volume):
    path = save_image(tmp_path / "a.zarr", volume)
    stack = open_stack(str(path), "RAW")
    before = [stack.stamp(z) for z in range(5)]
    os.utime(path / "full/c/1/2/0", (1, 2**31))
    after = [stack.stamp(z) for z in range(5)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, False, True]
    os.utime(path / "full/c/2/2/0", (1, 2**31))
    assert stack.stamp(4) != after[4]
