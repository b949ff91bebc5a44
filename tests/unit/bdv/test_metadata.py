"""The XML and the settings beside the file."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from bdv_files import small, stack, write

from amst_hpc.bdv.metadata import Channel, write_settings, write_xml


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
    write_settings(tmp_path / "out.settings.xml", (12, 3000))
    root = parse(tmp_path / "out.settings.xml")
    assert [e.tag for e in root] == ["ViewerState", "SetupAssignments", "ManualSourceTransforms"]
    setup = root.find(".//ConverterSetup")
    assert (setup.find("min").text, setup.find("max").text) == ("12.0", "3000.0")


def test_further_setups_are_shown_at_once_in_colours_of_their_own(tmp_path):
    channels = [Channel(tmp_path / "b.h5", n, "B", (1, 2)) for n in (1, 3)]
    write_settings(tmp_path / "out.settings.xml", (12, 3000), channels)
    root = parse(tmp_path / "out.settings.xml")
    setups = root.findall(".//ConverterSetup")
    assert [e.findtext("id") for e in setups] == ["0", "1", "3"]
    assert [e.findtext("groupId") for e in setups] == ["0", "1", "3"]
    assert [e.findtext("id") for e in root.findall(".//MinMaxGroup")] == ["0", "1", "3"]
    assert len({e.findtext("color") for e in setups}) == 3
    assert len(root.findall(".//SourceTransform")) == len(root.findall(".//Source")) == 3
    assert root.findtext(".//DisplayMode") == "fs"


def test_a_setup_of_another_scale_lies_over_the_first():
    """World coordinates of the same point of the tissue are the same."""
    channel = Channel(Path("b.h5"), 1, "B", (1, 2), scale=2, first=3)
    affine = np.array(channel.affine((8, 5, 4))).reshape(3, 4)
    p = np.array([10.0, 20.0, 7.0])  # xyz, px of the first setup
    large = np.array([2 * p[0] + 0.5, 2 * p[1] + 0.5, p[2] - 3, 1])
    np.testing.assert_allclose(affine @ large, p * [4, 5, 8])
    assert channel.voxel_size((8, 5, 4)) == [8, 2.5, 2]
