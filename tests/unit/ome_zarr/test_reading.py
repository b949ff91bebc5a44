"""Which array of a Zarr is meant, its axes and its size."""

import json

import numpy as np
import pytest
import zarr
from zarr_files import make_target, save_image, write

from amst_hpc.ome_zarr.metadata import group_metadata
from amst_hpc.ome_zarr.reading import ZarrVolume, is_zarr

VOLUME = np.random.default_rng(0).integers(1, 255, (5, 40, 52), np.uint8)


def read(folder):
    volume = ZarrVolume(folder)
    block = np.empty(volume.shape, volume.dtype)
    volume.read_into(block, 0)
    return volume, block


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx"])
def test_axes_with_one_place(tmp_path, version, axes):
    data = VOLUME.reshape((1,) * (len(axes) - 3) + VOLUME.shape)
    for place in ("", "full"):
        volume, block = read(save_image(tmp_path / "a", data, axes, version) / place)
        np.testing.assert_array_equal(block, VOLUME)
        assert volume.chunk_depth == 2
        assert volume.voxel_size_nm == (20.0, 4.0, 4.0)
        assert volume.unwritten_chunks() == (0, 27)


def test_an_output_is_read_by_its_chunks(tmp_path):
    target, volume = make_target(tmp_path / "a.zarr", "anisotropic", 1)
    write(target, volume, [0, 1])
    table = json.dumps(group_metadata(target, "a", (0, 1)))
    (target.path / "zarr.json").write_text(table.replace('"space"', '"space", "unit": "nanometer"'))
    found, block = read(target.path)
    np.testing.assert_array_equal(block, volume)
    assert found.chunk_depth == found.row_depth == 8
    assert [ZarrVolume(target.path / str(k)).voxel_size_nm for k in (0, 2)] == [(1,) * 3, (2, 6, 4)]


@pytest.mark.parametrize(
    ("data", "axes", "expected"),
    [
        (np.ones((2, 3, 8, 8), np.uint8), "czyx", "axis c has 2, expected 1 beside z, y, x"),
        (np.ones((3, 1, 2, 8, 8), np.uint8), "tczyx", "axis t has 3, expected 1"),
        (np.ones((4, 8, 8), np.uint8), "xyz", "axes xyz, expected zyx"),
        (np.ones((4, 8, 8), np.uint8), "cyx", "axis c has 4"),
        (np.ones((4, 8, 8), np.uint8), "czyx", "3 dimensions, but axes czyx"),
        (np.ones((4, 8, 8), np.uint8), "", "no axes, expected OME-Zarr 0.4 or 0.5"),
    ],
)
def test_other_axes_are_refused(tmp_path, data, axes, expected):
    chunks = data.shape
    with pytest.raises(LookupError, match=expected):
        ZarrVolume(save_image(tmp_path, data, axes, chunks=chunks))


def test_what_is_no_image(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    for name in "bc":
        group.create_array(name, data=VOLUME)
    with pytest.raises(LookupError, match=r"has no multiscales, expected .*:/ARRAY of b, c"):
        ZarrVolume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr/b")[1], VOLUME)
    group.create_array("flat", data=VOLUME[0])
    with pytest.raises(LookupError, match=r"shape \(40, 52\), expected \(z, y, x\)"):
        ZarrVolume(tmp_path / "a.zarr/flat")
    for attributes in ({"multiscales": [{}]}, {"multiscales": [{"datasets": [{"path": "x"}]}]}):
        group.attrs.put({"ome": attributes})
        with pytest.raises(LookupError, match=r"name no array|is not there"):
            ZarrVolume(tmp_path / "a.zarr")
    group.attrs.put({"ome": {"multiscales": [{}, {}]}})
    with pytest.raises(LookupError, match="has 2 images"):
        ZarrVolume(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/zarr.json").write_text("{")
    with pytest.raises(LookupError, match="metadata cannot be read"):
        ZarrVolume(tmp_path / "a.zarr")


def test_what_was_never_written(tmp_path):
    """zarr-python stores no chunk of zeros: black, and said so; nothing at all is no image."""
    data = VOLUME.copy()
    data[2:4] = 0
    volume, block = read(save_image(tmp_path / "a", data))
    np.testing.assert_array_equal(block, data)
    assert volume.unwritten_chunks() == (9, 27)
    with pytest.raises(LookupError, match="nothing was ever written"):
        ZarrVolume(save_image(tmp_path / "b", 0 * data))


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("kind", [2, 3])
def test_chunks_are_counted_whatever_their_names(tmp_path, kind, separator):
    version, name = ("0.4", "v2") if kind == 2 else ("0.5", "default")
    keys = {"name": name, "separator": separator}
    volume = ZarrVolume(save_image(tmp_path, VOLUME, version=version, chunk_key_encoding=keys))
    assert volume.unwritten_chunks() == (0, 27)
    assert volume.row_stamp(0).startswith("9:")


def test_a_codec_that_nobody_knows(tmp_path):
    path = save_image(tmp_path, VOLUME, version="0.4") / "full/.zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), "compressor": {"id": "no"}}))
    with pytest.raises(OSError, match=r"cannot be opened .*compressor") as caught:
        ZarrVolume(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_zarr_is_known_by_its_marks(tmp_path):
    (tmp_path / "slices").mkdir()
    assert not is_zarr(tmp_path / "slices")
    assert is_zarr(tmp_path / "slices.zarr")
    assert is_zarr(save_image(tmp_path / "a", VOLUME, version="0.4"))
