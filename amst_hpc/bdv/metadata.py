"""Names and XML of BigDataViewer: datasets of the HDF5 file, NAME.xml, NAME.settings.xml.

Setup 0, timepoint 0; further setups are `Channel`s, in files of their own. `settings.xml` beside
this module is the text of the view's settings.
"""

from __future__ import annotations

import copy
import re
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from string import Template

PER_SETUP = (
    "ViewerState/Sources",
    "SetupAssignments/ConverterSetups",
    "SetupAssignments/MinMaxGroups",
    "ManualSourceTransforms",
)  # of settings.xml: they hold an element for each setup
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
WHITE = -1  # a colour as BigDataViewer keeps it: alpha, red, green, blue in an int32
COLOURS = (0xFF00FF00 - (1 << 32), 0xFFFF00FF - (1 << 32), 0xFF00FFFF - (1 << 32))
"""Of further setups, in turn: green, magenta, cyan."""


@dataclass(frozen=True)
class Channel:
    """A further setup of an XML: setup 0 of another file, over the same slices.

    grey : values to show as black and as white. scale : its pixels in y and x for one of the first
    setup. first : the slice of the first setup that its slice 0 lies over.
    """

    file: Path
    setup: int
    name: str
    grey: tuple[float, float]
    scale: float = 1.0
    first: int = 0

    def voxel_size(self, size: Sequence[float]) -> list[float]:
        """z, y, x; size : that of the first setup."""
        return [size[0], size[1] / self.scale, size[2] / self.scale]

    def affine(self, size: Sequence[float], origin: Sequence[float] = (0, 0)) -> list[float]:
        """Of its registration, 12 numbers: `(p - (scale - 1) / 2) / scale` are pixels of the first
        setup, as `transform.scaled` has it; that begins at pixel `origin` (x, y) of RAW.
        """
        z, y, x = self.voxel_size(size)
        rest = (self.scale - 1) / 2
        left, top = origin[0] * size[2] - rest * x, origin[1] * size[1] - rest * y
        found = [x, 0, 0, left, 0, y, 0, top, 0, 0, z, self.first * z]
        return [v + 0.0 for v in found]  # no -0.0


def master_path(h5_path: Path) -> Path:
    """`OUT.setups.h5`, which an XML of several setups names: see `channels`."""
    return h5_path.with_name(f"{h5_path.stem}.setups.h5")


def cells(level: int) -> str:
    """Name of the dataset of a mipmap level."""
    return f"t00000/{SETUP}/{level}/cells"


def view_name(timepoint: int, setup: int) -> str:
    """Name of the dataset of a view, full size."""
    return f"t{timepoint:05d}/s{setup:02d}/0/cells"


def write_xml(
    xml_path: Path,
    h5_path: Path,
    voxel_size_nm: tuple[float, ...],
    channels: Sequence[Channel] = (),
    origin: Sequence[float] = (0, 0),
) -> None:
    """The BigDataViewer XML of a complete file in the same folder, and of further setups.

    voxel_size_nm : z, y, x; empty: not known, voxels are of size 1 px. It also goes into the
    registration: BigDataViewer does not apply `voxelSize`. origin : the pixel (x, y) of RAW that
    the file begins with; it goes there as well. With channels, `write_master` goes
    before. Raises OSError, KeyError where a file is not there.
    """
    from pybdv.metadata import write_xml_metadata  # half a second of scikit-image, on rank 0 alone

    temporary = xml_path.with_name(f".{xml_path.name}.part")
    temporary.unlink(missing_ok=True)  # pybdv would add to it
    data = master_path(h5_path) if channels else h5_path
    size = [float(v) for v in voxel_size_nm or (1, 1, 1)]
    attributes = {k: {"id": 0, "name": "0"} for k in ("illumination", "channel", "tile", "angle")}
    for c in [Channel(h5_path, 0, h5_path.stem, (0, 0)), *channels]:
        own = {"channel": {"id": c.setup, "name": c.name}} if c.setup else {}
        write_xml_metadata(
            str(temporary),
            str(data),
            unit="nm" if voxel_size_nm else "px",
            resolution=c.voxel_size(size),
            is_h5=True,
            setup_id=c.setup,
            timepoint=0,
            setup_name=c.name,
            affine=c.affine(size, origin) if c.setup or any(origin) else None,  # of the voxel size
            attributes=attributes | own,
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
        named = Path(root.findtext(".//ImageLoader/hdf5", "")).name
        if not found or named not in (h5_path.name, master_path(h5_path).name):
            return ()
        setups = {int(s.findtext("id", "-1")): s for s in root.iter("ViewSetup")}
        setup = setups[int(found[1])]
        scale = NANOMETRES[setup.findtext("voxelSize/unit", "").strip().lower()]
        x, y, z = (float(v) * scale for v in setup.findtext("voxelSize/size", "").split())
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return ()
    return z, y, x


def find_xml_fault(
    xml_path: Path,
    h5_path: Path,
    voxel_size_nm: tuple[float, ...],
    channels: Sequence[Channel] = (),
    origin: Sequence[float] = (0, 0),
) -> str:
    """The first difference between an XML and what `write_xml` makes; empty if there is none.

    Spaces do not count.
    """
    for channel in channels:
        if not channel.file.is_file():
            return f"shows {channel.file}, which is not there"
    try:
        found = _elements(xml_path)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return f"cannot be read ({error})"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / xml_path.name
        try:
            write_xml(fresh, h5_path, voxel_size_nm, channels, origin)
        except (OSError, KeyError) as error:
            return f"names what is not there ({error})"
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


def write_settings(path: Path, grey: tuple[float, float], channels: Sequence[Channel] = ()) -> None:
    """The contrast range (grey values) that BigDataViewer starts with: NAME.settings.xml.

    With channels, all are shown at once, each in a colour of its own.
    """
    root = _settings(0, WHITE, grey)
    for number, channel in enumerate(channels):
        more = _settings(channel.setup, COLOURS[number % len(COLOURS)], channel.grey)
        for place in PER_SETUP:
            _find(root, place).append(copy.deepcopy(_find(more, place)[0]))
    _find(root, "ViewerState/DisplayMode").text = "fs" if channels else "ss"
    temporary = path.with_name(f".{path.name}.part")
    ElementTree.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)
    temporary.replace(path)


def _settings(setup: int, colour: int, grey: tuple[float, float]) -> ElementTree.Element:
    """Of one setup."""
    text = Template(files("amst_hpc.bdv").joinpath("settings.xml").read_text())
    minimum, maximum = (float(v) for v in grey)
    filled = text.substitute(setup=setup, colour=colour, minimum=minimum, maximum=maximum)
    return ElementTree.fromstring(filled.encode())


def _find(root: ElementTree.Element, place: str) -> ElementTree.Element:
    found = root.find(place)
    if found is None:
        raise LookupError(f"settings.xml has no {place}")
    return found
