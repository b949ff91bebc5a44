"""Tables, chunks and attributes of the file."""

import h5py
import numpy as np
from bdv_files import reference, small, stack, write

from amst_hpc.bdv.verify import verify_layer


def test_layout_of_the_file(tmp_path):
    write(tmp_path / "out.h5", stack("uint16"), small(compression=3))
    with h5py.File(tmp_path / "out.h5") as file:
        setup = file["s00"]
        assert setup.attrs["dataType"] == b"uint16"
        assert setup["resolutions"].dtype == np.float64
        assert setup["resolutions"][:].tolist() == [[1, 1, 1], [2, 2, 2], [4, 4, 4]]
        assert setup["subdivisions"].dtype == np.int32
        assert setup["subdivisions"][:].tolist() == [[32, 32, 4], [32, 32, 2], [32, 32, 1]]
        cells = file["t00000/s00/1/cells"]
        assert (cells.shape, cells.chunks) == ((7, 35, 38), (2, 32, 32))
        assert (cells.compression, cells.compression_opts, cells.shuffle) == ("gzip", 3, True)


def test_legacy_keeps_the_bits_in_int16_without_attribute(tmp_path):
    volume = stack("uint16")
    layout, sums = write(tmp_path / "out.h5", volume, small(legacy=True))
    with h5py.File(tmp_path / "out.h5") as file:
        assert "dataType" not in file["s00"].attrs
        cells = file["t00000/s00/0/cells"]
        assert cells.dtype == np.int16
        np.testing.assert_array_equal(cells[:].view(np.uint16), volume)
        half = file["t00000/s00/1/cells"][:].view(np.uint16)
        np.testing.assert_array_equal(half, reference(volume, (2, 2, 2)))
        assert verify_layer(file, layout, 3, sums[3]) is None
