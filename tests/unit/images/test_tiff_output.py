"""Slices as output: whole or not at all."""

import numpy as np
import pytest
import tifffile

from amst_hpc.images.stack import checksum
from amst_hpc.images.tiff_output import is_whole, write_slice


@pytest.mark.parametrize("compression", [0, 1, 9])
def test_what_was_written_comes_back(tmp_path, volume, compression):
    path = tmp_path / "s.tif"
    write_slice(path, volume[0], compression)
    np.testing.assert_array_equal(tifffile.imread(path), volume[0])
    assert is_whole(path, volume[0].shape, volume.dtype, checksum(volume[0]))
    assert not is_whole(path, volume[0].shape, volume.dtype, checksum(volume[1]))
    assert [p.name for p in tmp_path.iterdir()] == ["s.tif"]


def test_what_is_not_the_whole_slice_is_seen(tmp_path, volume):
    path, crc = tmp_path / "s.tif", checksum(volume[0])
    assert not is_whole(path, volume[0].shape, volume.dtype, crc)
    write_slice(path, volume[0], 1)
    assert not is_whole(path, (40, 51), volume.dtype, crc)
    assert not is_whole(path, volume[0].shape, np.dtype(np.int8), crc)
    path.write_bytes(path.read_bytes()[:700])
    assert not is_whole(path, volume[0].shape, volume.dtype, crc)
