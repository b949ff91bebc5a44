"""Names and XML of BigDataViewer: datasets of the HDF5 file, NAME.xml, NAME.settings.xml.

Setup 0, timepoint 0. `settings.xml` beside this module is the text of the view's settings.
"""

from __future__ import annotations

import re
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from string import Template

SETUP = "s00"  # the group of the tables and of the attribute dataType
NANOMETRES = {
    name: size
    for size, names in {
        1e-3: "pm picometer",
        0.1: "å angstrom",
        1.0: "nm nanometer",
        1e3: "um µm \u03bcm micron microns micrometer",
        1e6: "mm millimeter",
        1e7: "cm centimeter",
        25.4e6: "inch inches",
        1e9: "m meter",
    }.items()
    for name in names.split()
}
"""Of the units that programs write, in small letters."""


def cells(level: int) -> str:
    """Name of the dataset of a mipmap level."""
    return f"t00000/{SETUP}/{level}/cells"


def view_name(timepoint: int, setup: int) -> str:
    """Name of the dataset of a view, full size."""
    return f"t{timepoint:05d}/s{setup:02d}/0/cells"


def write_xml(xml_path: Path, h5_path: Path, voxel_size_nm: tuple[float, ...]) -> None:
    """The BigDataViewer XML of a complete file in the same folder.

    voxel_size_nm : z, y, x; empty: not known, voxels are of size 1 px. It also goes into the
    registration: BigDataViewer does not apply `voxelSize`.
    """
    from pybdv.metadata import write_xml_metadata  # half a second of scikit-image, on rank 0 alone

    temporary = xml_path.with_name(f".{xml_path.name}.part")
    temporary.unlink(missing_ok=True)  # pybdv would add to it
    names = ("illumination", "channel", "tile", "angle")
    write_xml_metadata(
        str(temporary),
        str(h5_path),
        unit="nm" if voxel_size_nm else "px",
        resolution=[float(size) for size in voxel_size_nm or (1, 1, 1)],
        is_h5=True,
        setup_id=0,
        timepoint=0,
        setup_name=h5_path.stem,
        affine=None,  # of the voxel size
        attributes={name: {"id": 0, "name": "0"} for name in names},
        overwrite=False,
        overwrite_data=False,
        enforce_consistency=False,
    )
    temporary.replace(xml_path)


def read_voxel_size_nm(xml_path: Path, h5_path: Path, dataset: str) -> tuple[float, ...]:
    """z, y, x in nm of a view of an HDF5 file; empty where its XML is not there or does not say it.

    dataset : see `view_name`; of another level nothing is known.
    """
    found = re.fullmatch(r"/?t[0-9]+/s([0-9]+)/0/cells", dataset)
    try:
        root = ElementTree.parse(xml_path).getroot()
        if not found or Path(root.findtext(".//ImageLoader/hdf5", "")).name != h5_path.name:
            return ()
        setups = {int(s.findtext("id", "-1")): s for s in root.iter("ViewSetup")}
        setup = setups[int(found[1])]
        scale = NANOMETRES[setup.findtext("voxelSize/unit", "").strip().lower()]
        x, y, z = (float(v) * scale for v in setup.findtext("voxelSize/size", "").split())
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return ()
    return z, y, x


def find_xml_fault(xml_path: Path, h5_path: Path, voxel_size_nm: tuple[float, ...]) -> str:
    """The first difference between an XML and what `write_xml` makes; empty if there is none.

    Spaces do not count.
    """
    try:
        found = _elements(xml_path)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return f"cannot be read ({error})"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / xml_path.name
        write_xml(fresh, h5_path, voxel_size_nm)
        wanted = _elements(fresh)
    pairs = zip_longest(found, wanted, fillvalue="nothing")
    return next((f"{a} where {b} belongs" for a, b in pairs if a != b), "")


def _elements(path: Path) -> list[str]:
    """Each element of an XML file as `<tag attributes> text`, in order; of paths the name alone."""
    found = []
    for element in ElementTree.parse(path).iter():
        text = (element.text or "").strip()
        attributes = "".join(f" {key}={value}" for key, value in sorted(element.items()))
        found.append(f"<{element.tag}{attributes}> {Path(text).name if text else ''}".strip())
    return found


def write_settings(path: Path, minimum: float, maximum: float) -> None:
    """The contrast range (grey values) that BigDataViewer starts with: NAME.settings.xml."""
    temporary = path.with_name(f".{path.name}.part")
    text = Template(files("amst_hpc.bdv").joinpath("settings.xml").read_text())
    temporary.write_text(text.substitute(minimum=float(minimum), maximum=float(maximum)))
    temporary.replace(path)
