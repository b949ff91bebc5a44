"""Bad input to `apply`: one line, exit code 2, nothing written."""

import shutil

import numpy as np
import pytest
import tifffile
from jobs import FAST, call, finished
from spoilt import cut, nothing_written, refused_at_once, save
from stacks import inputs


@pytest.fixture(scope="module")
def place(tissue, tmp_path_factory, opencl_ready):
    """out.h5 and raw/ with a finished run. For reading."""
    folder = tmp_path_factory.mktemp("apply")
    finished(call("align", *inputs(tissue), folder / "out.h5", *FAST, "--range", "2:12"))
    (folder / "raw").symlink_to(tissue / "raw")
    (folder / "begun.amst").mkdir()
    return folder


def refuse(folder, expected, *options, run="out.h5", raw="raw", out="o.h5"):
    with nothing_written(folder):
        ended = call("apply", folder / run, folder / raw, folder / out, *options)
    refused_at_once(ended, expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--scale", "2"], r"size \(144, 160\) \(y, x\), RAW of .*--scale 1 would fit"),
        (["--scale", "0"], "--scale 0: expected a number from 1/64 to 64"),
        (["--range", "0:5"], "--range 0:5: expected a part of 2:12, the slices of"),
        (["--range", "x"], "--range x: expected A:B"),
        (["--set", "output.chunk=3"], "output.chunk = 3: expected"),
        (["--set", "template.width=3"], "template.width: no such key"),
        (["--config", "/no/such.toml"], "--config /no/such.toml: cannot be read"),
        (["--device", "9:9"], "coarse.device = '9:9': no such device"),
        (["--add-to", "other.xml"], "--add-to other.xml: expected .*out.xml, the XML of the run"),
        (["--channel", "x"], "--channel x: expected --add-to OUT.xml with it"),
        (["--set", "output.layer=1", "--set", "output.levels=3"], "output.layer = 1: expected a m"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_options(place, options, expected):
    refuse(place, expected, *options)


def test_bad_places(place):
    refuse(place, r"OUT .*/out.h5: is .*out.h5 or inside it", out="out.h5")
    refuse(place, r"OUT .*/out: is .*out.h5 or inside it", "--output-format", "tif", out="out")
    refuse(place, r"out.setups.h5: is .*out.h5 or inside it", out="out.setups.h5")
    refuse(place, r"out.amst/o.h5: is .*out.h5 or inside it", out="out.amst/o.h5")
    refuse(place, r"o.tif: expected a name that ends in .h5", out="o.tif")
    refuse(place, r"o.h5: expected a name that ends in .zarr", "--output-format", "ome-zarr")
    refuse(place, r"o.zarr: expected a name .* in .h5", "--output-format", "bdv", out="o.zarr")
    refuse(place, r"no/o.h5: the folder .* does not exist", out="no/o.h5")
    refuse(place, r"OTHER_RAW .*gone: no such file or folder", raw="gone")
    refuse(place, r"OUT .*gone.h5: .*gone.amst is not there; expected the out", run="gone.h5")
    refuse(place, r"OUT .*begun.h5: is not finished \(waiting", run="begun.h5")
    refuse(place, r"OUT .*begun.amst: is no run folder", run="begun.amst")
    add = ("--add-to", place / "out.xml", "--output-format", "tif")
    for options, out in ((add, "o"), (add[:2], "o.zarr")):
        refuse(place, r"--add-to .*out.xml: expected output.format = bdv", *options, out=out)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (cut, "OTHER_RAW .*slice_00007.tif: cut short"),
        (save(np.zeros((144, 161), np.uint8)), r"slice_00007.tif: size .*no --scale would fit"),
        (save(np.zeros((144, 160), np.uint16)), "slice_00007.tif: dtype uint16, expected uint8"),
    ],
)
def test_bad_slices(place, tissue, tmp_path, change, expected):
    shutil.copytree(tissue / "raw", tmp_path / "raw")
    change(tmp_path / "raw" / "slice_00007.tif")
    with nothing_written(tmp_path):
        ended = call("apply", place / "out.h5", tmp_path / "raw", tmp_path / "o.h5")
    refused_at_once(ended, expected)


def test_labels_of_other_dtypes(place, tissue, tmp_path):
    (tmp_path / "raw").mkdir()
    for path in (tissue / "raw").iterdir():
        tifffile.imwrite(tmp_path / "raw" / path.name, tifffile.imread(path).astype(np.uint32))
    with nothing_written(tmp_path):
        ended = call("apply", place / "out.h5", tmp_path / "raw", tmp_path / "o.h5", "--nearest")
    refused_at_once(ended, r"OTHER_RAW .*slice_00002.tif: dtype uint32, expected uint8 or uint16")


def test_a_damaged_run(place, tissue, tmp_path):
    for name in ("out.h5", "out.xml"):
        shutil.copy2(place / name, tmp_path / name)
    shutil.copytree(place / "out.amst", tmp_path / "out.amst")
    (tmp_path / "out.amst" / "transforms.json").write_text("[")
    with nothing_written(tmp_path):
        ended = call("apply", tmp_path / "out.h5", tissue / "raw", tmp_path / "o.h5")
    refused_at_once(ended, r"OUT .*out.h5: .*out.amst cannot be read \(")
