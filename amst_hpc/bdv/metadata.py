"""The XML that BigDataViewer opens, and the settings of its view."""

from __future__ import annotations

from pathlib import Path

from pybdv.metadata import write_xml_metadata


def write_xml(xml_path: Path, h5_path: Path, voxel_size_nm: tuple[float, ...]) -> None:
    """The BigDataViewer XML of a complete file in the same folder.

    voxel_size_nm : z, y, x; empty: not known, voxels are of size 1 px. It also goes into the
    registration: BigDataViewer does not apply `voxelSize`.
    """
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


SETTINGS = """\
<?xml version="1.0" encoding="UTF-8"?>
<Settings>
  <ViewerState>
    <Sources><Source><active>true</active></Source></Sources>
    <SourceGroups>
      <SourceGroup><active>true</active><name>group 1</name><id>0</id></SourceGroup>
    </SourceGroups>
    <DisplayMode>ss</DisplayMode>
    <Interpolation>nearestneighbor</Interpolation>
    <CurrentSource>0</CurrentSource>
    <CurrentGroup>0</CurrentGroup>
    <CurrentTimePoint>0</CurrentTimePoint>
  </ViewerState>
  <SetupAssignments>
    <ConverterSetups>
      <ConverterSetup>
        <id>0</id><min>{minimum}</min><max>{maximum}</max><color>-1</color><groupId>0</groupId>
      </ConverterSetup>
    </ConverterSetups>
    <MinMaxGroups>
      <MinMaxGroup>
        <id>0</id><fullRangeMin>0.0</fullRangeMin><fullRangeMax>65535.0</fullRangeMax>
        <rangeMin>{minimum}</rangeMin><rangeMax>{maximum}</rangeMax>
        <currentMin>{minimum}</currentMin><currentMax>{maximum}</currentMax>
      </MinMaxGroup>
    </MinMaxGroups>
  </SetupAssignments>
  <ManualSourceTransforms>
    <SourceTransform type="affine">
      <affine>1.0 0.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 0.0 1.0 0.0</affine>
    </SourceTransform>
  </ManualSourceTransforms>
</Settings>
"""


def write_settings(path: Path, minimum: float, maximum: float) -> None:
    """The contrast range (grey values) that BigDataViewer starts with: NAME.settings.xml."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(SETTINGS.format(minimum=float(minimum), maximum=float(maximum)))
    temporary.replace(path)
