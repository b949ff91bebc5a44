"""BigDataViewer files of one process: mipmaps, datasets, checksums, XML and settings."""

import xml.etree.ElementTree as ElementTree
import zlib

import h5py
import npy2bdv
import numpy as np
import pytest
from mpi4py import MPI

from amst_hpc.averaging import downsample
from amst_hpc.bdv import collective
from amst_hpc.bdv.collective import write_regions
from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.metadata import write_settings, write_xml
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.verify import verify_layer
from amst_hpc.bdv.writer import BdvWriter, choose_writer
from amst_hpc.config import InputError, Output
from amst_hpc.geometry import Level, make_layout

SHAPE = (13, 70, 75)
LAYER = 4


def stack(dtype, shape=SHAPE):
    """Noise on a ramp that spans the dtype: no two chunks alike, some of it compresses."""
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, np.iinfo(dtype).max - 16, int(np.prod(shape))).reshape(shape)
    return (ramp + rng.integers(0, 16, shape)).astype(dtype)


def write(path, volume, output, layers=None, append=False):
    layout = make_layout(volume.shape, LAYER, output)
    wanted = range(len(layout.layers)) if layers is None else layers
    target = make_target(path, layout, volume.dtype, output, append)
    with BdvWriter(target, MPI.COMM_SELF) as writer:
        sums = {
            i: writer.write(i, volume[layout.layers[i].start : layout.layers[i].stop])
            for i in wanted
        }
    return layout, sums


def small(**settings):
    return Output(chunk=32, levels=3, **settings)


def test_each_level_comes_from_the_one_above():
    volume = stack("uint16")
    one, two, four = pyramid(volume, make_layout(SHAPE, 16, small()))
    np.testing.assert_array_equal(one, volume)
    np.testing.assert_array_equal(two, downsample(volume, (2, 2, 2)))
    np.testing.assert_array_equal(four, downsample(two, (2, 2, 2)))


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
        expected = downsample(expected, (2, 2, 2))
    assert editor.dtype == np.dtype(dtype)
    assert editor.get_view_property("view_shape") == (75, 70, 13)
    assert editor.get_view_property("voxel_size") == (4.0, 5.0, 8.0)
    editor._file_object_h5.close()


def test_layout_of_the_file(tmp_path):
    write(tmp_path / "out.h5", stack("uint16"), small(compression=3))
    with h5py.File(tmp_path / "out.h5") as file:
        setup = file["s00"]
        assert setup.attrs["dataType"] == b"uint16"
        assert setup["resolutions"].dtype == np.float64
        assert setup["resolutions"][:].tolist() == [[1, 1, 1], [2, 2, 2], [4, 4, 4]]
        assert setup["subdivisions"].dtype == np.int32
        assert setup["subdivisions"][:].tolist() == [[32, 32, 4], [32, 32, 2], [19, 18, 1]]
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
        np.testing.assert_array_equal(half, downsample(volume, (2, 2, 2)))
        assert verify_layer(file, layout, 3, sums[3]) is None


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
        (stack("uint16"), {}, "cells has"),
        (stack("uint8"), {"compression": 0}, "cells has"),
        (stack("uint8", (13, 70, 76)), {}, "cells has"),
        (stack("uint8"), {"chunk": 16}, "subdivisions"),
        (stack("uint8"), {"levels": 2}, "resolutions"),
    ],
)
def test_append_refuses_another_file(tmp_path, volume, settings, message):
    path = tmp_path / "out.h5"
    write(path, stack("uint8"), small(), layers=[0])
    output = Output(**{"chunk": 32, "levels": 3, **settings})
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
    with (
        pytest.raises(ValueError, match=r"layer 3 is \(4, 70, 75\)"),
        BdvWriter(
            make_target(tmp_path / "o.h5", layout, "uint8", small()), MPI.COMM_SELF
        ) as writer,
    ):
        writer.write(3, stack("uint8")[:4])


def test_writer_is_chosen_by_what_h5py_can_do():
    parallel = bool(h5py.get_config().mpi)
    assert choose_writer(Output(), 1) == "funnel"
    assert choose_writer(Output(), 2) == "funnel"  # HDF5's own gzip is the slower one
    for output, ranks in ((Output(), 16), (Output(compression=0), 2)):
        assert choose_writer(output, ranks) == ("collective" if parallel else "funnel")
    assert choose_writer(Output(writer="funnel"), 2) == "funnel"
    if parallel:
        assert choose_writer(Output(writer="collective"), 1) == "collective"
    else:
        with pytest.raises(InputError, match=r"output\.writer"):
            choose_writer(Output(writer="collective"), 2)


@pytest.mark.parametrize("limit", [1, 32 * 32 * 4, 3 * 32 * 32 * 4, 10**9])
def test_collective_writes_take_whole_chunks_within_the_limit(monkeypatch, limit):
    monkeypatch.setattr(collective, "WRITE_BYTES", limit)
    regions = write_regions(Level((1, 1, 1), SHAPE, (4, 32, 32)), itemsize=1)
    seen = np.zeros(SHAPE[1:], int)
    for y, x in regions:
        seen[y.start : y.stop, x.start : x.stop] += 1
        assert y.start % 32 == x.start % 32 == 0
        assert 4 * len(y) * len(x) <= max(limit, 4 * 32 * 32)
    assert (seen == 1).all()


def parse(path):
    return ElementTree.parse(path).getroot()


def test_xml_holds_the_voxel_size_twice_and_declares_its_attributes(tmp_path):
    write(tmp_path / "out.h5", stack("uint8"), small())
    for _ in range(2):  # made anew, not added to
        write_xml(tmp_path / "out.xml", tmp_path / "out.h5", (8.0, 5.0, 4.0))
    root = parse(tmp_path / "out.xml")
    affines = [e.text.split() for e in root.iter("affine")]
    assert [list(map(float, a)) for a in affines] == [[4, 0, 0, 0, 0, 5, 0, 0, 0, 0, 8, 0]]
    assert [e.text for e in root.iter("unit")] == ["nm"]
    assert [e.text for e in root.iter("hdf5")] == ["out.h5"]
    declared = {e.attrib["name"] for e in root.iter("Attributes")}
    used = {e.tag for e in root.find(".//ViewSetup/attributes")}
    assert declared == used == {"illumination", "channel", "tile", "angle"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "out.xml"]


def test_unknown_voxel_size_is_one_pixel(tmp_path):
    write(tmp_path / "out.h5", stack("uint8"), small())
    write_xml(tmp_path / "out.xml", tmp_path / "out.h5", ())
    root = parse(tmp_path / "out.xml")
    assert root.find(".//voxelSize/unit").text == "px"
    assert root.find(".//voxelSize/size").text == "1.0 1.0 1.0"


def test_settings_hold_the_contrast_range(tmp_path):
    write_settings(tmp_path / "out.settings.xml", 12, 3000)
    root = parse(tmp_path / "out.settings.xml")
    assert [e.tag for e in root] == ["ViewerState", "SetupAssignments", "ManualSourceTransforms"]
    setup = root.find(".//ConverterSetup")
    assert (setup.find("min").text, setup.find("max").text) == ("12.0", "3000.0")
