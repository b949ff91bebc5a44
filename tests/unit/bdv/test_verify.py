"""Checksums of chunks find a flipped byte."""

import zlib

import h5py
import numpy as np
import pytest
from bdv_files import small, stack, write

from amst_hpc.bdv.verify import verify_layer


def test_checksums_are_crc32_of_the_valid_region(tmp_path):
    volume = stack("uint8")
    _, sums = write(tmp_path / "out.h5", volume, small())
    assert [s.shape for s in sums[3]] == [(3, 3), (2, 2), (1, 1)]
    assert sums[3][0].dtype == np.uint32
    assert sums[3][0][2, 1] == zlib.crc32(volume[12:, 64:, 32:64].tobytes())


@pytest.mark.parametrize("compression", [0, 1])
def test_verify_finds_one_flipped_byte(tmp_path, compression):
    path = tmp_path / "out.h5"
    layout, sums = write(path, stack("uint16"), small(compression=compression))
    with h5py.File(path) as file:
        assert [verify_layer(file, layout, i, sums[i]) for i in range(4)] == [None] * 4
        chunk = file["t00000/s00/1/cells"].id.get_chunk_info_by_coord((4, 32, 0))
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + 20)
        byte = raw.read(1)[0]
        raw.seek(chunk.byte_offset + 20)
        raw.write(bytes([byte ^ 1]))
    with h5py.File(path) as file:
        found = [verify_layer(file, layout, i, sums[i]) for i in range(4)]
    assert found == [None, None, (1, 4, 32, 0), None]
