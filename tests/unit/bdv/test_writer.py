"""Files of one process: read back, continued, refused."""

import h5py
import npy2bdv
import numpy as np
import pytest
from bdv_files import LAYER, SHAPE, reference, small, stack, write
from mpi4py import MPI

from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.metadata import write_xml
from amst_hpc.bdv.verify import verify_layer
from amst_hpc.bdv.writer import BdvWriter, choose_writer
from amst_hpc.config import InputError, Output
from amst_hpc.geometry import make_layout


@pytest.mark.parametrize("compression", [0, 1, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_level_is_read_back_by_npy2bdv(tmp_path, dtype, compression):
    volume = stack(dtype)
    layout, _ = write(tmp_path / "out.h5", volume, small(compression=compression))
    write_xml(tmp_path / "out.xml", tmp_path / "out.h5", (8.0, 5.0, 4.0))
    editor = npy2bdv.BdvEditor(str(tmp_path / "out.xml"), mode="r")
    expected = volume
    for k in range(len(layout.levels)):
        np.testing.assert_array_equal(editor.read_view(ilevel=k), expected)
        expected = reference(expected, (2, 2, 2))
    assert editor.dtype == np.dtype(dtype)
    assert editor.get_view_property("view_shape") == (75, 70, 13)
    assert editor.get_view_property("voxel_size") == (4.0, 5.0, 8.0)
    editor._file_object_h5.close()


def test_append_adds_the_missing_layers(tmp_path):
    volume, output = stack("uint8"), small()
    write(tmp_path / "out.h5", volume, output, layers=[0, 2])
    layout, sums = write(tmp_path / "out.h5", volume, output, layers=[1, 3], append=True)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][:], volume)
        assert verify_layer(file, layout, 1, sums[1]) is None


@pytest.mark.parametrize(
    ("volume", "settings", "message"),
    [
        (stack("uint16"), {"compression": 1}, "cells has"),
        (stack("uint8"), {}, "cells has"),
        (stack("uint8", (13, 70, 76)), {"compression": 1}, "cells has"),
        (stack("uint8"), {"chunk": 16}, "subdivisions"),
        (stack("uint8"), {"levels": 2}, "resolutions"),
    ],
)
def test_append_refuses_another_file(tmp_path, volume, settings, message):
    path = tmp_path / "out.h5"
    write(path, stack("uint8"), small(compression=1), layers=[0])
    output = small(**settings)
    with pytest.raises(InputError, match=rf"out\.h5: cannot be continued: .*{message}"):
        write(path, volume, output, append=True)
    with h5py.File(path, "r+"):
        pass  # it was left closed


def test_append_refuses_what_is_no_whole_hdf5_file(tmp_path):
    path = tmp_path / "out.h5"
    write(path, stack("uint8"), small())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"out\.h5: cannot be opened"):
        write(path, stack("uint8"), small(), append=True)


def test_folder_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        write(tmp_path / "missing" / "out.h5", stack("uint8"), small())


def test_block_must_be_the_layer(tmp_path):
    layout = make_layout(SHAPE, LAYER, small())
    target = make_target(tmp_path / "o.h5", layout, "uint8", small())
    with (
        pytest.raises(ValueError, match=r"layer 3 is \(4, 70, 75\)"),
        BdvWriter(target, MPI.COMM_SELF) as writer,
    ):
        writer.write(3, stack("uint8")[:4])


def test_writer_is_chosen_by_what_h5py_can_do():
    parallel = bool(h5py.get_config().mpi)
    assert choose_writer(Output(), 1) == choose_writer(Output(), 16) == "direct"
    gzip = Output(compression=1)
    assert choose_writer(gzip, 2) == "funnel"  # HDF5's own gzip is the slower one
    assert choose_writer(gzip, 16) == ("collective" if parallel else "funnel")
    assert choose_writer(Output(writer="funnel"), 2) == "funnel"
    if parallel:
        assert choose_writer(Output(writer="collective"), 1) == "collective"
    else:
        with pytest.raises(InputError, match=r"output\.writer"):
            choose_writer(Output(writer="collective"), 2)
