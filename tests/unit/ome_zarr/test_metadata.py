"""Shards belong to one layer and are of bearable size; the metadata say where a pixel is."""

import json

import pytest
from zarr_files import make_target, write

from amst_hpc.config import Output
from amst_hpc.geometry import make_layout, usual_layout
from amst_hpc.ome_zarr.metadata import (
    SHARD_BYTES,
    find_group_fault,
    folder_bytes,
    group_metadata,
    shard_shape,
)


@pytest.mark.parametrize(
    ("shape", "itemsize"),
    [
        ((30000, 12000, 12000), 1),
        ((5000, 12000, 12000), 2),
        ((200, 700, 100_000), 2),
        ((13, 70, 75), 1),
        ((3, 20, 30), 2),
    ],
)
def test_shards_are_whole_chunks_of_one_layer_and_not_too_large(shape, itemsize):
    layout = usual_layout(shape, shape[1] * shape[2] * itemsize, Output())
    for level in layout.levels:
        depth, height, width = shard_shape(level, itemsize)
        assert depth == level.chunk[0]
        assert height % level.chunk[1] == width % level.chunk[2] == 0
        assert depth * height * width * itemsize <= SHARD_BYTES
        rows = -(-level.shape[1] // level.chunk[1])
        assert height <= rows * level.chunk[1]  # none is larger than what there is


def test_a_chunk_larger_than_a_shard_is_a_shard():
    level = make_layout((256, 2000, 2000), 256, Output(chunk=1024, layer=256)).levels[0]
    assert shard_shape(level, 2) == level.chunk


def test_scale_and_half_a_pixel(tmp_path):
    target, _ = make_target(tmp_path / "a.zarr", "anisotropic")
    ome = group_metadata(target, "a", (3, 200))["attributes"]["ome"]
    image = ome["multiscales"][0]
    found = [
        (
            d["coordinateTransformations"][0]["scale"],
            d["coordinateTransformations"][1]["translation"],
        )
        for d in image["datasets"]
    ]
    assert found == [
        ([1, 1, 1], [0, 0, 0]),
        ([1, 2, 2], [0, 0.5, 0.5]),
        ([2, 6, 4], [0.5, 2.5, 1.5]),
        ([8, 6, 4], [3.5, 2.5, 1.5]),
    ]
    assert all("unit" not in axis for axis in image["axes"])
    window = ome["omero"]["channels"][0]["window"]
    assert (window["start"], window["end"], window["max"]) == (3, 200, 65535)


def test_a_changed_group_is_named(tmp_path):
    target, _ = make_target(tmp_path / "a.zarr", "uint8")
    path = target.path / "zarr.json"
    assert "cannot be read" in find_group_fault(target, "a")
    path.write_text(json.dumps(group_metadata(target, "a", (0, 9))))
    assert find_group_fault(target, "a") == ""
    path.write_text(path.read_text().replace('"scale": [1.0', '"scale": [2.0'))
    assert find_group_fault(target, "a") == "its multiscales are not those of this run"


@pytest.mark.parametrize("name", ["uint8", "one slice", "anisotropic", "odd chunks"])
def test_the_size_is_known_before(tmp_path, name):
    target, volume = make_target(tmp_path / "a.zarr", name)
    write(target, volume, list(range(len(target.layout.layers))))
    size = sum(path.stat().st_size for path in target.path.glob("*/c/**/*") if path.is_file())
    assert size <= folder_bytes(target) <= 1.01 * size
