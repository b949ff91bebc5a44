"""The XML and the settings beside the file."""

import xml.etree.ElementTree as ElementTree

from bdv_files import small, stack, write

from amst_hpc.bdv.metadata import write_settings, write_xml


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
