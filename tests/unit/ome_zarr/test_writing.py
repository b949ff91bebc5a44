"""Every shape and dtype is read back by zarr-python as the BigDataViewer file has it."""

import dataclasses

import h5py
import numpy as np
import pytest
from direct_files import make_case
from direct_files import write as write_direct
from zarr_files import NAMES, make_target, read_level, write

from amst_hpc.bdv.direct import create_file
from amst_hpc.bdv.metadata import cells
from amst_hpc.ome_zarr import metadata
from amst_hpc.ome_zarr.writing import ShardedFolder


@pytest.mark.parametrize("compression", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_levels_and_checksums_are_those_of_bigdataviewer(tmp_path, name, compression):
    """In several shards a level, layers in any order, one of them twice, over what was there."""
    bdv, volume = make_case(tmp_path / "a.h5", name)
    create_file(bdv)
    wanted = write_direct(bdv, volume)
    target, _ = make_target(tmp_path / "a.zarr", name, compression)
    layers = list(range(len(target.layout.layers)))
    found = write(target, volume[::-1], layers[-1:]) | write(target, volume, layers[::-1])
    for layer, sums in wanted.items():
        for a, b in zip(sums, found[layer], strict=True):
            np.testing.assert_array_equal(a, b)
    with h5py.File(bdv.path) as file:
        for k in range(len(target.layout.levels)):
            np.testing.assert_array_equal(read_level(target.path, k), file[cells(k)][()])


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Some chunks each, in y and x."""
    monkeypatch.setattr(metadata, "SHARD_BYTES", 3 * 4 * 32 * 32)


def test_black_layers_are_stored(tmp_path):
    target, volume = make_target(tmp_path / "a.zarr", "uint8")
    write(target, np.zeros_like(volume), [0])
    whole, _ = make_target(tmp_path / "b.zarr", "uint8")
    write(whole, volume, [0])
    sizes = [
        {str(p.relative_to(t.path)): p.stat().st_size for p in t.path.rglob("*") if p.is_file()}
        for t in (target, whole)
    ]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) == 3 + 5  # metadata, shards


def test_a_damaged_shard_is_written_anew(tmp_path):
    target, volume = make_target(tmp_path / "a.zarr", "uint8")
    write(target, volume, [0, 1, 2, 3])
    (target.path / "0/c/1/0/0").write_bytes(b"no shard")
    write(target, volume, [1])
    np.testing.assert_array_equal(read_level(target.path), volume)


def test_a_fault_of_the_file_system_names_the_array(tmp_path):
    target, volume = make_target(tmp_path / "a.zarr", "one level")
    (target.path / "0/c/0/0/0/in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"a\.zarr/0: cannot be written .*directory") as caught:
        write(target, volume, [0])
    assert caught.value.errno == 21  # EISDIR
    with pytest.raises(OSError, match=r"gone/0: cannot be opened"):
        ShardedFolder(dataclasses.replace(target, path=tmp_path / "gone"))
