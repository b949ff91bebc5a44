"""The original's Python interface: each of its parameters, on tissue, in this process.

One rank stands in for the `n_workers` that are asked for; tests/integration starts them.
"""

import inspect
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jobs import call, slices, transforms
from stacks import read_stack

from amst_hpc import amst_main, api
from amst_hpc.api import (
    amst_align,
    default_amst_params,
    default_elastix_params,
    optimized_elastix_params,
)
from amst_hpc.config import InputError
from amst_hpc.registration.elastix import elastix_parameters
from amst_hpc.settings import load_config

FEW = slice(8, 11)
QUICK = {**optimized_elastix_params(), "MaximumNumberOfIterations": 20}


@pytest.fixture
def started(monkeypatch):
    """What was started: (ranks, arguments); each runs in this process, on one rank."""
    notes = []

    def launch(ranks, arguments):
        notes.append((ranks, arguments))
        return call(*arguments).code

    monkeypatch.setattr(amst_main, "launch", launch)
    return notes


@pytest.fixture
def align(started, tissue, tmp_path):
    """A function (parameters) -> target folder; few slices and XCORR unless they say otherwise."""

    def run(**parameters):
        few = {"coarse_alignment": "XCORR", "compute_range": FEW, "elastix_params": QUICK}
        amst_align(tissue / "raw", tissue / "pre", tmp_path / "out", **few | parameters)
        return tmp_path / "out"

    return run


@pytest.fixture
def asked(monkeypatch):
    """A function (parameters) -> the configuration, the number of ranks and the options; no run."""

    def ask(**parameters):
        found = []

        def launch(ranks, arguments):
            path = Path(arguments[arguments.index("--config") + 1])
            found.append((load_config(path), ranks, arguments))
            return 0

        monkeypatch.setattr(amst_main, "launch", launch)
        amst_align("raw", "pre", "out", **parameters)
        return found[0]

    return ask


def written(out):
    return sorted(path.name for path in out.glob("*.tif"))


def test_the_name_of_the_interface_is_kept():
    for name in api.__all__:
        assert getattr(api, name) is getattr(amst_main, name)


def test_the_defaults_are_the_originals(asked):
    config, ranks, options = asked(**default_amst_params())
    assert ranks == 8
    assert (config.template.radius, config.coarse.method) == (7, "sift")
    assert (config.coarse.sigma, config.coarse.downsample, config.coarse.device) == (1.6, 2, "auto")
    assert (config.output.format, config.output.compression) == ("tif", 0)
    assert not config.output.intermediates
    assert options[1:3] == ["raw/*.tif", "pre/*.tif"]
    keys = inspect.signature(amst_align).parameters.keys()
    assert keys - {"raw_folder", "pre_alignment_folder", "target_folder"} == set(
        default_amst_params()
    )


def test_every_parameter_that_is_a_setting_becomes_it(asked):
    assert asked(median_radius=3)[0].template.radius == 3
    assert asked(coarse_alignment="XCORR")[0].coarse.method == "xcorr"
    assert asked(coarse_alignment=None)[0].coarse.method == "none"
    assert asked(sift_sigma=2.5)[0].coarse.sigma == 2.5
    assert asked(sift_sigma=None)[0].coarse.sigma == 0
    assert asked(sift_downsample=(4, 4))[0].coarse.downsample == 4
    assert asked(sift_downsample=3)[0].coarse.downsample == 3
    assert asked(sift_downsample=None)[0].coarse.downsample == 1
    assert asked(sift_devicetype="CPU")[0].coarse.device == "cpu"
    assert asked(sift_devicetype="GPU")[0].coarse.device == "auto"
    assert asked(compression=9)[0].output.compression == 9
    assert asked(write_intermediates=True)[0].output.intermediates
    assert asked(n_workers=3)[1] == 3
    assert asked(raw_pattern="a*.tif")[2][1] == "raw/a*.tif"
    assert asked(pre_pattern="b*.tif")[2][2] == "pre/b*.tif"


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_pre_alignment_there_is_raw_alone(monkeypatch, tmp_path, nothing):
    called = []
    monkeypatch.setattr(amst_main, "launch", lambda ranks, words: called.append(words) or 0)
    for z in range(5):
        (tmp_path / f"{z}.tif").touch()
    amst_align(tmp_path, nothing, "out", compute_range=slice(1, -1))
    ((_, raw, out, *options),) = called
    assert (raw, out) == (f"{tmp_path}/*.tif", "out")
    assert options[-3:] == ["--range", "1:4", "--prealign"]


def test_parameters_that_no_longer_do_anything_are_accepted(asked):
    usual = asked()
    assert asked(n_workers_sift=4, verbose=True)[:2] == usual[:2]


@pytest.mark.parametrize("preset", [default_elastix_params, optimized_elastix_params])
def test_elastix_parameters_reach_elastix(asked, preset):
    given = preset() | {"MaximumStepLength": (8, 4, 2), "MaximumNumberOfIterations": 77}
    found = elastix_parameters(asked(elastix_params=given)[0].refine)
    assert found["MaximumNumberOfIterations"] == ["77"]
    assert found["MaximumStepLength"] == ["8", "4", "2"]
    assert found["ImageSampler"] == [preset()["ImageSampler"]]
    assert found["NumberOfResolutions"] == [str(preset()["NumberOfResolutions"])]
    assert found["WriteResultImage"] == ["false"]


def test_without_elastix_parameters_the_optimized_ones_are_taken(asked):
    assert asked()[0] == asked(elastix_params=optimized_elastix_params())[0]


def test_slices_are_aligned_into_files_of_their_names(align, started, tissue):
    out = align(n_workers=5)
    assert started[0][0] == 5
    assert written(out) == [f"slice_{z:05d}.tif" for z in (8, 9, 10)]
    found = transforms(out)
    assert [z for z, m in enumerate(found) if m is not None] == [8, 9, 10]
    assert [row["status"] for row in slices(out)] == ["affine"] * 3
    for image in read_stack(out):
        assert (image.shape, image.dtype) == ((144, 160), np.uint8)
        assert (image > 0).mean() > 0.8
    assert not list(out.glob("refs")) + list(out.glob("sift"))


def test_intermediates_and_compression(align, tissue):
    out = align(write_intermediates=True, compression=6, coarse_alignment=None)
    names = written(out)
    assert written(out / "refs") == written(out / "sift") == names
    pre = read_stack(tissue / "pre")
    template = np.median(pre[1:16], axis=0).astype(np.uint8)
    np.testing.assert_array_equal(tifffile.imread(out / "refs" / names[0]), template)
    raw = read_stack(tissue / "raw")  # without a coarse step nothing is shifted
    np.testing.assert_array_equal(tifffile.imread(out / "sift" / names[0]), raw[8])
    with tifffile.TiffFile(out / names[0]) as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_sift_on_the_cpu(opencl_ready, align):
    out = align(coarse_alignment="SIFT", sift_devicetype="CPU", sift_sigma=1.6, sift_downsample=1)
    rows = slices(out)
    assert all("OpenCL" in row["device"] for row in rows)
    assert all(int(row["matches"]) > 0 for row in rows)


def test_patterns_choose_the_slices(align, tissue, tmp_path):
    for part in ("raw", "pre"):
        folder = tmp_path / part
        folder.mkdir()
        for path in sorted((tissue / part).glob("*.tif"))[:6]:
            (folder / path.name).symlink_to(path)
            (folder / f"other_{path.name}").symlink_to(path)
    amst_align(
        tmp_path / "raw",
        tmp_path / "pre",
        tmp_path / "out",
        coarse_alignment="XCORR",
        elastix_params=QUICK,
        compute_range=slice(-2, None),
        raw_pattern="slice_*.tif",
        pre_pattern="other_*.tif",
    )
    assert written(tmp_path / "out") == ["slice_00004.tif", "slice_00005.tif"]


def test_folders_with_brackets_in_their_names(started, tissue, tmp_path):
    for part in ("raw", "pre"):
        (tmp_path / f"{part} [1]*").mkdir()
        for path in (tissue / part).glob("*.tif"):
            (tmp_path / f"{part} [1]*" / path.name).symlink_to(path)
    few = {"coarse_alignment": "XCORR", "elastix_params": QUICK, "compute_range": FEW}
    amst_align(tmp_path / "raw [1]*", tmp_path / "pre [1]*", tmp_path / "out [1]", **few)
    assert len(written(tmp_path / "out [1]")) == 3


def test_a_prealignment_shorter_than_raw(started, tissue, tmp_path):
    (tmp_path / "pre").mkdir()
    for path in sorted((tissue / "pre").glob("*.tif"))[:12]:
        (tmp_path / "pre" / path.name).symlink_to(path)
    few = {"coarse_alignment": "XCORR", "elastix_params": QUICK}
    for part, names in (
        (slice(10, None), ["slice_00010.tif", "slice_00011.tif"]),
        (slice(-1, 99), ["slice_00011.tif"]),
    ):
        out = tmp_path / f"out{part.start}"
        amst_align(tissue / "raw", tmp_path / "pre", out, compute_range=part, **few)
        assert written(out) == names


def test_numbers_of_numpy_arrays_tuples_and_none(asked):
    given = {
        "median_radius": np.int64(3),
        "sift_sigma": np.float32(2.5),
        "sift_downsample": np.array([4.0, 4.0]),
        "n_workers": np.int32(5),
        "compression": np.uint8(6),
        "write_intermediates": np.bool_(True),
        "sift_devicetype": None,
        "compute_range": slice(np.int64(2), np.int32(7)),
    }
    elastix = {
        **optimized_elastix_params(),
        "MaximumNumberOfIterations": np.int64(77),
        "MaximumStepLength": np.array([8.0, 4.0, 2.0]),
        "ImagePyramidSchedule": (8, 8, np.int16(3), 3, 1, 1),
        "NewSamplesEveryIteration": np.bool_(True),
        "BSplineInterpolationOrder": None,
    }
    config, ranks, _ = asked(elastix_params=elastix, **given)
    assert (config.template.radius, config.coarse.sigma, config.coarse.downsample) == (3, 2.5, 4)
    assert (config.output.compression, config.output.intermediates, ranks) == (6, True, 5)
    found = elastix_parameters(config.refine)
    assert found["MaximumNumberOfIterations"] == ["77"]
    assert found["MaximumStepLength"] == ["8.0", "4.0", "2.0"]
    assert found["ImagePyramidSchedule"] == ["8", "8", "3", "3", "1", "1"]
    assert found["NewSamplesEveryIteration"] == ["true"]
    assert "BSplineInterpolationOrder" not in found
    assert asked(sift_downsample=2.0, median_radius=7.0)[0].coarse.downsample == 2
    asked(compute_range=None, compression=None)


def test_the_settings_are_kept_beside_the_slices(align):
    out = align(median_radius=2)
    kept = tomllib.loads((out.with_suffix(".amst") / "config.toml").read_text())
    assert kept["template"]["radius"] == 2
    assert kept["coarse"]["method"] == "xcorr"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"sift_downsample": (2, 3)}, "expected the same factor for both axes"),
        ({"compute_range": slice(0, 9, 2)}, "expected a step of 1"),
        ({"median_radius": 0}, "bad input"),
        ({"raw_pattern": "none*.tif"}, "bad input"),
    ],
)
def test_bad_parameters_are_refused(align, parameters, expected):
    with pytest.raises(InputError, match=expected):
        align(**parameters)


def test_a_job_that_failed_is_an_error(monkeypatch, tissue, tmp_path):
    monkeypatch.setattr(amst_main, "launch", lambda ranks, arguments: 1)
    with pytest.raises(RuntimeError, match="exit code 1"):
        amst_align(tissue / "raw", tissue / "pre", tmp_path / "out")
