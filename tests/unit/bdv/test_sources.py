"""What an HDF5 dataset is made of; what HDF5 would read as zeros is named."""

import json

import h5py
import numpy as np
import pytest

from amst_hpc.bdv.reading import VolumeReader
from amst_hpc.bdv.sources import axis_order, unwritten_chunks

VOLUME = np.random.default_rng(1).integers(1, 255, (5, 20, 30), np.uint8)


def make_virtual(folder, left_out=()):
    """a.h5:/d of five files of one slice each."""
    layout = h5py.VirtualLayout(VOLUME.shape, np.uint8)
    for z, image in enumerate(VOLUME):
        with h5py.File(folder / f"s{z}.h5", "w") as file:
            file["d"] = image
        if z not in left_out:
            layout[z] = h5py.VirtualSource(f"s{z}.h5", "d", image.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    return folder / "a.h5"


def refused(path, expected):
    with pytest.raises(LookupError, match=expected):
        VolumeReader(path, "d")


def test_a_virtual_dataset_is_read_with_all_its_sources(tmp_path):
    volume = VolumeReader(make_virtual(tmp_path), "d")
    found = np.empty_like(VOLUME)
    volume.read_into(found, 0)
    np.testing.assert_array_equal(found, VOLUME)
    assert volume.files == [tmp_path / "a.h5", *(tmp_path / f"s{z}.h5" for z in range(5))]
    assert volume.unwritten_chunks() == (0, 0)


def test_a_missing_source_is_named(tmp_path):
    path = make_virtual(tmp_path)
    (tmp_path / "s3.h5").rename(tmp_path / "elsewhere.h5")
    refused(path, r"its source s3\.h5 is missing")
    with h5py.File(tmp_path / "s3.h5", "w") as file:
        file["other"] = VOLUME[3]
    refused(path, r"its source .*s3\.h5 has no dataset d")
    with h5py.File(tmp_path / "s3.h5", "w") as file:
        file["d"] = VOLUME[3, :9]
    refused(path, r"its source .*s3\.h5 has 270 of 600 voxels")


def test_voxels_without_a_source_are_counted(tmp_path):
    refused(make_virtual(tmp_path, left_out=[2]), "600 of its 3000 voxels have no source")


def test_a_virtual_dataset_of_its_own_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = VOLUME
        layout = h5py.VirtualLayout(VOLUME.shape, np.uint8)
        layout[:] = h5py.VirtualSource(file["x"])
        file.create_virtual_dataset("d", layout)
    assert VolumeReader(tmp_path / "a.h5", "d").files == [tmp_path / "a.h5"]


def test_a_file_behind_a_link_is_known(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = VOLUME
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = h5py.ExternalLink("b.h5", "/x")
    assert [path.name for path in VolumeReader(tmp_path / "a.h5", "d").files] == ["b.h5"]


@pytest.mark.parametrize("have", [0, 1000, VOLUME.nbytes])
def test_an_external_file_that_is_short_is_named(tmp_path, have):
    raw = tmp_path / "voxels.bin"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external = [(str(raw), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("d", VOLUME.shape, np.uint8, external=external)
    raw.write_bytes(VOLUME.tobytes()[:have])
    if have < VOLUME.nbytes:
        refused(tmp_path / "a.h5", f"its external file .*voxels.bin holds {have} of 3000 bytes")
    else:
        assert VolumeReader(tmp_path / "a.h5", "d").files == [tmp_path / "a.h5", raw]


@pytest.mark.parametrize("chunks", [None, (1, 20, 30)])
def test_a_dataset_that_nobody_wrote_is_refused(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", VOLUME.shape, np.uint8, chunks=chunks)
    refused(tmp_path / "a.h5", "nothing was ever written to /d")


def test_chunks_that_nobody_wrote_are_counted(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("d", VOLUME.shape, np.uint8, chunks=(2, 20, 16))
        assert unwritten_chunks(dataset) == (6, 6)
        dataset[:2] = VOLUME[:2]
    assert VolumeReader(tmp_path / "a.h5", "d").unwritten_chunks() == (4, 6)


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, 20, 30))
        plan.set_filter(65000, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(VOLUME.shape)
        dataset = h5py.h5d.create(file.id, b"d", h5py.h5t.STD_U8LE, space, plan)
        dataset.write_direct_chunk((0, 0, 0), b"packed")
    refused(tmp_path / "a.h5", "its filter 65000 .* is not installed")


@pytest.mark.parametrize("order", ["zyx", "xyz", "zy", ""])
@pytest.mark.parametrize("how", ["dims", "axistags"])
def test_the_order_of_its_axes(tmp_path, order, how):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = VOLUME
        for n, axis in enumerate(order if how == "dims" else ""):
            file["d"].dims[n].label = axis
        if how == "axistags":
            file["d"].attrs["axistags"] = json.dumps({"axes": [{"key": axis} for axis in order]})
        assert axis_order(file["d"]) == (order if len(order) == 3 else "")
