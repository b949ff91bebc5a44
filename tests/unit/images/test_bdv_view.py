"""BigDataViewer files of one view and of several, by XML and by HDF5."""

import h5py
import numpy as np
import pytest
from series import check, refused

XML = """<?xml version="1.0" encoding="UTF-8"?>
<SpimData version="0.2">
  <BasePath type="relative">{base}</BasePath>
  <SequenceDescription>
    <ImageLoader format="bdv.hdf5"><hdf5 type="relative">
      stack.h5
    </hdf5></ImageLoader>
    <ViewSetups>{setups}</ViewSetups>
    {times}
  </SequenceDescription>
</SpimData>
"""
RANGE = '<Timepoints type="range"><first>{}</first><last>{}</last></Timepoints>'
ONE = RANGE.format(0, 0)


@pytest.fixture
def views(tmp_path):
    """A function (views, base, times) -> volumes by (timepoint, setup); stack.h5 and stack.xml."""
    rng = np.random.default_rng(5)

    def make(names, base=".", times=ONE):
        found = {name: rng.integers(0, 255, (3, 20, 24), np.uint8) for name in names}
        (tmp_path / base).mkdir(exist_ok=True)
        with h5py.File(tmp_path / base / "stack.h5", "w") as file:
            for (time, setup), volume in found.items():
                file[f"t{time:05d}/s{setup:02d}/0/cells"] = volume
        setups = sorted({setup for _, setup in names})
        text = "".join(f"<ViewSetup><id>{setup}</id></ViewSetup>" for setup in setups)
        xml = XML.format(base=base, setups=text, times=times)
        (tmp_path / "stack.xml").write_text(xml)
        return found

    return make


def test_one_view_needs_no_choice(tmp_path, views):
    (volume,) = views([(0, 0)]).values()
    check(tmp_path / "stack.xml", volume)
    check(tmp_path / "stack.h5", volume)
    (volume,) = views([(3, 2)], times=RANGE.format(3, 3)).values()
    check(tmp_path / "stack.xml", volume)
    check(tmp_path / "stack.h5", volume)


def test_setups_need_a_choice(tmp_path, views):
    volumes = views([(0, 0), (0, 1)])
    for name in ("stack.xml", "stack.h5"):
        said = refused(tmp_path / name, "holds 2 views .setup=0,timepoint=0, setup=1,timepoint=0.")
        assert said.endswith(f"expected a choice of one: {name}:setup=1")
        check(tmp_path / f"{name}:setup=1", volumes[0, 1])
        check(tmp_path / f"{name}:setup=0,timepoint=0", volumes[0, 0])
        refused(tmp_path / f"{name}:setup=2", "expected a choice of one")
        refused(tmp_path / f"{name}:setup=one", "'setup=one': expected setup=N")
        refused(tmp_path / f"{name}:channel=1", "'channel=1': expected setup=N")


@pytest.mark.parametrize(
    "times",
    [
        RANGE.format(0, 1),
        '<Timepoints type="pattern"><integerpattern>0-1</integerpattern></Timepoints>',
        '<Timepoints type="pattern"><integerpattern> 0, 1 </integerpattern></Timepoints>',
    ],
)
def test_timepoints_need_a_choice(tmp_path, views, times):
    volumes = views([(0, 0), (1, 0)], times=times)
    for name in ("stack.xml", "stack.h5"):
        said = refused(tmp_path / name, "holds 2 views")
        assert said.endswith(f"{name}:setup=0,timepoint=0")
        check(tmp_path / f"{name}:timepoint=1", volumes[1, 0])


def test_views_that_are_missing_are_none(tmp_path, views):
    missing = '<MissingViews><MissingView timepoint="1" setup="0"/></MissingViews>'
    volumes = views([(0, 0)], times=RANGE.format(0, 1) + missing)
    check(tmp_path / "stack.xml", volumes[0, 0])


def test_the_base_path_counts(tmp_path, views):
    volumes = views([(0, 0)], base="deep")
    check(tmp_path / "stack.xml", volumes[0, 0])
    volumes = views([(0, 0)], base=str(tmp_path / "absolute"))
    check(tmp_path / "stack.xml", volumes[0, 0])


def test_what_is_no_bigdataviewer_xml(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<SpimData>")
    refused(path, "RAW .*a.xml: not valid XML")
    path.write_bytes(b"\x89PNG\0")
    refused(path, "RAW .*a.xml: not valid XML")
    path.write_text("<SpimData/>")
    refused(path, "names no HDF5 file")
    path.write_text(XML.format(base=".", setups="<ViewSetup><id>a</id></ViewSetup>", times=""))
    refused(path, "not a BigDataViewer XML")
    path.write_text(XML.format(base=".", setups="<ViewSetup><id>0</id></ViewSetup>", times=""))
    refused(path, "stack.h5 does not exist")
