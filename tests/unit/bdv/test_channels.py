"""Several stacks in one XML: links, and the XML that names them."""

import h5py
import npy2bdv
import numpy as np
from bdv_files import small, stack, write

from amst_hpc.bdv.channels import write_master
from amst_hpc.bdv.metadata import Channel, find_xml_fault, write_xml

VOXEL = (8.0, 5.0, 4.0)


def make(folder, places):
    """A file with setup 0 at each place, and their volumes."""
    for n, path in enumerate(places):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, np.roll(stack("uint8"), n, axis=2), small())
    return [Channel(path, n, f"D{n}", (0, 9)) for n, path in enumerate(places)][1:]


def test_both_are_read_behind_the_links_wherever_they_are_moved(tmp_path):
    out = tmp_path / "a" / "out.h5"
    channels = make(tmp_path, [out, tmp_path / "b" / "esb.h5", out.with_name("third.h5")])
    before = out.read_bytes()
    for _ in range(2):
        write_master(out, channels)
        write_xml(out.with_suffix(".xml"), out, VOXEL, channels)
    assert out.read_bytes() == before
    assert find_xml_fault(out.with_suffix(".xml"), out, VOXEL, channels) == ""
    assert "where" in find_xml_fault(out.with_suffix(".xml"), out, VOXEL)
    for part in ("a", "b"):
        (tmp_path / part).rename(tmp_path / f"moved_{part}")
    (tmp_path / "moved_b").rename(tmp_path / "b")
    (tmp_path / "moved_a").rename(tmp_path / "elsewhere")
    editor = npy2bdv.BdvEditor(str(tmp_path / "elsewhere" / "out.xml"))
    for n in range(3):
        expected = np.roll(stack("uint8"), n, axis=2)
        np.testing.assert_array_equal(editor.read_view(channel=n), expected)
    editor._file_object_h5.close()
    with h5py.File(tmp_path / "elsewhere" / "out.setups.h5") as file:
        assert [*file] == ["s00", "s01", "s02", "t00000"]
        assert file["s01"].attrs["dataType"] == b"uint8"
        assert file["t00000/s02/1/cells"].shape == (7, 35, 38)


def test_a_stack_that_is_gone_is_named(tmp_path):
    out = tmp_path / "out.h5"
    channels = make(tmp_path, [out, tmp_path / "esb.h5"])
    write_master(out, channels)
    write_xml(out.with_suffix(".xml"), out, VOXEL, channels)
    (tmp_path / "out.setups.h5").unlink()
    assert "is not there" in find_xml_fault(out.with_suffix(".xml"), out, VOXEL, channels)
    (tmp_path / "esb.h5").unlink()
    assert "esb.h5, which is not" in find_xml_fault(out.with_suffix(".xml"), out, VOXEL, channels)
