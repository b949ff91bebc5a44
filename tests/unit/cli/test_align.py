"""Bad input to the commands that align: one line, exit code 2, nothing written."""

import pytest
from jobs import FAST, XCORR, call, finished, transforms
from spoilt import SLICES, broken, linked, nothing_written, refused, refused_at_once
from stacks import inputs


def refuse(folder, expected, *options, out="out.h5"):
    """`align` is refused for a reason that matches `expected`."""
    with nothing_written(folder):
        ended = call("align", *inputs(folder), folder / out, *XCORR, *options)
    refused_at_once(ended, expected)


@pytest.mark.parametrize("kind", SLICES)
def test_bad_slices_end_the_job_before_it_begins(tissue, tmp_path, kind):
    name, change, expected = SLICES[kind]
    refuse(broken(tissue, tmp_path, name, change), expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "template.radius=0"], "template.radius = 0: expected a whole number"),
        (["--set", "template.width=3"], "template.width: no such key; expected radius"),
        (["--set", "coarse.colour=3"], "coarse.colour: no such key"),
        (["--range", "3:99"], "--range 3:99: expected a part of 0:24"),
        (["--range", "9:3"], "--range 9:3: expected a part of 0:24"),
        (["--range", "x"], "--range x: expected A:B"),
        (["--block", "4/3"], "--block 4/3: expected I/N with I from 1 to N"),
        (["--device", "9:9", "--set", "coarse.method=sift"], "coarse.device = '9:9': no such dev"),
        (["--device", "9:9"], "coarse.device = '9:9': no such device"),  # XCORR: the pairs use it
        (["--config", "/no/such.toml"], "--config /no/such.toml: cannot be read"),
        (["--set", "output.layer=1", "--set", "output.levels=3"], "output.layer = 1: expected a m"),
        (["--set", "refine.parameter_file=/no/such"], "refine.parameter_file"),
        (["--set", "refine.elastix.Transform=BSpline"], "refine.elastix.Transform = 'BSpline'"),
        (["--set", "coarse.sigma=inf"], "coarse.sigma = inf: expected a number"),
        (["--set", "output.voxel_size_nm=[inf,5,5]"], r"output.voxel_size_nm = \(inf, 5, 5\)"),
        (["--range", "²:4"], "--range ²:4: expected A:B"),
        (["--set", "refine.elastix.Foo=1"], "refine.elastix.Foo: no parameter of elastix"),
        (["--set", "refine.elastix.Metric=Nonsense"], "elastix registers nothing with this Metric"),
        (["--output-format", "zarr"], "output.format = 'zarr': expected bdv, ome-zarr or tif"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_options_end_the_job_before_it_begins(
    opencl_ready, tissue, tmp_path, options, expected
):
    refuse(linked(tissue, tmp_path), expected, *options)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["raw", "pre", "out.h5", "--prealign"], "raw pre out.h5: too many .* RAW OUT.h5 with --p"),
        (
            ["raw", "out.h5"],
            "raw out.h5: PREALIGNED or OUT.h5 is missing; .*, or --prealign, which",
        ),
        (["raw", "", "out.h5"], "raw out.h5: PREALIGNED or OUT.h5 is missing"),
        (["raw", "--prealign"], "raw: OUT.h5 is missing; expected RAW OUT.h5 with --prealign"),
        (["raw", "pre", "out.h5", "--crop"], "--crop: expected with --prealign alone"),
        (["raw", "pre", "out.h5", "--canvas", "raw"], "--canvas raw: expected with --prealign"),
        (["raw", "out.h5", "--prealign", "--crop", "--canvas", "raw"], "--crop and --canvas raw: "),
        (
            ["raw", "out.h5", "--prealign", "--canvas", "big"],
            "prealign.canvas = 'big': expected gr",
        ),
        (["raw", "raw/out.h5", "--prealign"], "raw/out.h5: is RAW raw or inside it"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_raw_alone_has_two_names(tissue, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(linked(tissue, tmp_path))
    with nothing_written(tmp_path):
        ended = call("align", *words, *FAST)
    refused(ended, expected)


def test_bad_destinations_end_the_job_before_it_begins(tissue, tmp_path):
    linked(tissue, tmp_path)
    refuse(tmp_path, "no/out.h5: the folder .*/no does not exist", out="no/out.h5")
    refuse(tmp_path, "out.tiff: expected a name that ends in .h5", out="out.tiff")
    refuse(tmp_path, r"raw/out\.h5: is RAW .* or inside it; expected another", out="raw/out.h5")
    for options in ([], ["--overwrite"]):
        tif = ["--output-format", "tif", *options]
        refuse(tmp_path, "is PREALIGNED .* or inside it", *tif, out="pre")
    refuse(tmp_path, "OUT /: expected the name of an output", out="/")
    (tmp_path / "mine.h5").write_bytes(b"something of the user's")
    refuse(tmp_path, "mine.h5: exists; expected a new name, or --overwrite", out="mine.h5")
    assert (tmp_path / "mine.h5").read_bytes() == b"something of the user's"


def test_a_mismatch_can_be_allowed(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", lambda p: max(p.parent.iterdir()).unlink())
    refuse(tmp_path, "has 23 slices")
    out = tmp_path / "out.h5"
    finished(call("align", *inputs(tmp_path), out, *FAST, "--allow-count-mismatch"))
    assert len(transforms(out)) == 23


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["task", "none.tsv", "1"], "none.tsv"),
        (["merge", "none.h5"], "none"),
        (["demo", "d", "--ranks", "0"], "--ranks 0: expected at least 1"),
        (["demo", "file/d"], "DIR file/d: cannot be written"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_the_other_commands_refuse_in_the_same_way(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with nothing_written(tmp_path):
        ended = call(*arguments)
    refused_at_once(ended, expected)


def test_demo_is_not_for_mpirun(tmp_path, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    refused_at_once(call("demo", tmp_path / "d"), "demo: starts mpirun itself")
