"""A chunk that is not as it was written is found and named."""

import pytest
import zarr
from zarr_files import make_target, write

from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.ome_zarr.verify import find_bad_layers


def bad(target, sums, tmp_path):
    layers, seen = range(len(target.layout.layers)), []
    with ChecksumFile(tmp_path / "checksums", target.layout, write=True) as checksums:
        for layer in layers:
            checksums.write(layer, sums[layer])
        found = find_bad_layers(target, checksums, layers, lambda: seen.append(1))
    assert len(seen) == len(layers)
    return found


@pytest.mark.parametrize("compression", [0, 1])
def test_damage(tmp_path, compression):
    target, volume = make_target(tmp_path / "a.zarr", "uint16", compression)
    sums = write(target, volume, [0, 1, 2, 3])
    assert bad(target, sums, tmp_path) == {}
    array = zarr.open_array(target.path / "1", mode="r+")
    array[3, 33, 5] = int(array[3, 33, 5]) ^ 1
    shard = target.path / "0/c/2/0/0"
    data = bytearray(shard.read_bytes())
    data[9] ^= 16
    shard.write_bytes(data)
    (target.path / "2/c/3/0/0").unlink()
    assert bad(target, sums, tmp_path) == {
        1: "level 1: the chunk at (z, y, x) = (2, 32, 0) is damaged",
        2: "level 0: the chunk at (z, y, x) = (8, 0, 0) is damaged",
        3: "level 2: the chunk at (z, y, x) = (3, 0, 0) is damaged",
    }


@pytest.mark.parametrize("spoil", ["gone", "cut", "index"])
def test_a_black_chunk_that_is_not_there_is_damage(tmp_path, spoil):
    target, volume = make_target(tmp_path / "a.zarr", "one level")
    sums = write(target, 0 * volume, [0, 1, 2, 3])
    shard = target.path / "0/c/1/0/0"
    data = shard.read_bytes()
    if spoil == "gone":
        shard.unlink()
    else:
        shard.write_bytes(data[:-100] if spoil == "cut" else data[:-4] + b"1234")
    assert list(bad(target, sums, tmp_path)) == [1]
