"""`amst-hpc align` end to end on tissue with known truth, read back by independent readers."""

import json
import os
import shutil
import signal
import time

import h5py
import numpy as np
import pytest
import tifffile
from jobs import (
    FAST,
    SLOWED,
    XCORR,
    Job,
    call,
    contents,
    finished,
    registrations,
    run,
    slices,
    statuses,
    transforms,
)
from spoilt import GREY, broken, refused, save
from stacks import SHAPE, check_output, error_px, inputs, read_cells, read_stack, save_stack

from amst_hpc.bdv.metadata import write_xml

PARALLEL = bool(h5py.get_config().mpi)


def test_output_is_what_it_says(either):
    check_output(either.out, read_stack(either.folder / "raw"))
    assert statuses(either.out) == ["affine"] * 24
    names = {p.name for p in either.out.parent.iterdir()}
    assert names >= {"out.h5", "out.xml", "out.settings.xml", "out.amst"}
    assert not (either.out.with_suffix(".amst") / "writing.h5").exists()
    assert error_px(either.folder, either.out) < 0.6


@pytest.mark.parametrize("ranks", [1, 3, 5])
def test_contents_do_not_depend_on_the_number_of_ranks(either, two_ranks, tmp_path, ranks):
    """24 slices in layers of 8: of five ranks two have nothing to write."""
    out = tmp_path / "out.h5"
    finished(run(ranks, *either.line(out, *LAYERS)))
    assert transforms(out) == transforms(either.out)
    assert contents(out) == contents(two_ranks(either))


LAYERS = ("--set", "output.layer=8")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """A function `Aligned` -> its output in layers of 8, by two ranks and rank 0 alone writing."""
    made = {}

    def make(aligned):
        if aligned.options not in made:
            out = tmp_path_factory.mktemp("two") / "out.h5"
            finished(run(2, *aligned.line(out, *LAYERS, "--set", "output.writer=funnel")))
            made[aligned.options] = out
        return made[aligned.options]

    return make


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_collective_writer_gives_the_same_or_says_that_it_cannot(small, two_ranks, tmp_path, ranks):
    out = tmp_path / "collective.h5"
    ended = run(ranks, *small.line(out, *LAYERS, "--set", "output.writer=collective"))
    if not PARALLEL:
        refused(ended, "this h5py has no MPI")
        assert not out.exists()
        return
    finished(ended)
    assert contents(out) == contents(two_ranks(small))


def test_tif_output_has_the_names_and_pixels(either, tmp_path):
    out = tmp_path / "out"
    finished(run(2, *either.line(out, "--output-format", "tif")))
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(p.name for p in (either.folder / "raw").iterdir())
    np.testing.assert_array_equal(read_stack(out), read_cells(either.out))
    # a slice that is cut short is written again, the others are kept
    victim, kept = out / names[3], out / names[4]
    whole, before = victim.read_bytes(), kept.stat().st_mtime_ns
    victim.write_bytes(whole[: len(whole) // 2])
    finished(call(*either.line(out, "--output-format", "tif")))
    assert victim.read_bytes() == whole
    assert kept.stat().st_mtime_ns == before


def test_tif_output_of_other_slices_keeps_their_names_and_depth(small, tmp_path):
    """uint16 slices with names of their own, stored with zlib."""
    for part in ("raw", "pre"):
        (tmp_path / part).mkdir()
        for z, image in enumerate(read_stack(small.folder / part)):
            tifffile.imwrite(tmp_path / part / f"cell_{2 * z:03d}.tif", image.astype(np.uint16))
    options = (*FAST, "--output-format", "tif", "--set", "output.compression=6")
    finished(call("align", *inputs(tmp_path), tmp_path / "out", *options))
    found = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in found] == [f"cell_{2 * z:03d}.tif" for z in range(24)]
    np.testing.assert_array_equal(read_stack(tmp_path / "out"), read_cells(small.out))
    with tifffile.TiffFile(found[0]) as tiff:
        assert tiff.pages[0].dtype == np.uint16
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_range_gives_the_slices_of_the_whole(either, tmp_path):
    """Of the templates: with neighbours the slices around the range would have their say."""
    out, single = tmp_path / "out.h5", tmp_path / "single.h5"
    alone = ("--set", "neighbours.enabled=false")
    finished(run(2, *either.line(single, *alone)))
    finished(run(2, *either.line(out, *alone, "--range", "5:12")))
    found, whole = transforms(out), transforms(single)
    assert found[5:12] == whole[5:12]
    assert found[:5] + found[12:] == [None] * 17
    np.testing.assert_array_equal(read_cells(out), read_cells(single)[5:12])


def test_uint16_is_aligned_like_uint8(either, tmp_path):
    for name in ("raw", "pre"):
        (tmp_path / name).mkdir()
        for path in sorted((either.folder / name).glob("*.tif")):
            image = tifffile.imread(path).astype(np.uint16) * 200
            tifffile.imwrite(tmp_path / name / path.name, image, compression="lzw")
    out = tmp_path / "out.h5"
    finished(run(2, "align", *inputs(tmp_path), out, *either.options))
    raw = read_stack(tmp_path / "raw")
    check_output(out, raw)
    assert raw.max() > 32767
    truth = either.folder
    assert error_px(truth, out) <= error_px(truth, either.out) + 0.05


@pytest.mark.parametrize("backend", ["itk", "none"])
def test_registration_at_a_working_size_gives_transforms_of_the_full_size(
    either, tmp_path, backend
):
    """64 px: slices averaged down by 2."""
    out = tmp_path / "out.h5"
    small = ("--set", "registration.working_size=64", "--set", "neighbours.enabled=false")
    line = either.line(out, *small, "--set", f"refine.backend={backend}")
    finished(run(2, *line))
    check_output(out, read_stack(either.folder / "raw"))
    assert statuses(out) == ["affine"] * 24
    assert error_px(either.folder, out) < (0.9 if backend == "itk" else 1.2)


def test_another_working_size_is_another_parameter(small, tmp_path):
    """What was registered at the one is not continued with the other."""
    out = tmp_path / "out.h5"
    finished(run(1, *small.line(out)))
    line = small.line(out, "--set", "registration.working_size=64")
    refused(call(*line), "other inputs or parameters .*registration.working_size")


@pytest.mark.parametrize("source", ["stack.xml", "stack.h5"])
def test_bigdataviewer_files_are_read_like_slices(small, tmp_path, source):
    for part in ("raw", "pre"):
        (tmp_path / part).mkdir()
        path = tmp_path / part / "stack.h5"
        with h5py.File(path, "w") as file:
            file["t00000/s00/0/cells"] = read_stack(small.folder / part)
        write_xml(path.with_suffix(".xml"), path, ())
    out = tmp_path / "out.h5"
    raw, pre = (tmp_path / part / source for part in ("raw", "pre"))
    finished(call("align", raw, pre, out, *FAST))
    assert transforms(out) == transforms(small.out)
    assert contents(out) == contents(small.out)


def test_an_output_is_input_again(small, tmp_path):
    """As pre-alignment: OUT.xml of one run for the next, whose affine needs no elastix."""
    out = tmp_path / "out.h5"
    view = small.out.with_suffix(".xml")
    line = ("align", small.folder / "raw", view, out, *FAST, "--set", "refine.backend=gauss-newton")
    finished(call(*line))
    check_output(out, read_stack(small.folder / "raw"))
    assert statuses(out) == ["affine"] * 24
    assert error_px(small.folder, out) < 0.8


def test_raw_larger_than_the_canvas(either, tmp_path):
    """The tissue in a wider black frame: the same result, with the frame in the transforms."""
    (tmp_path / "pre").symlink_to(either.folder / "pre")
    raw = np.pad(read_stack(either.folder / "raw"), ((0, 0), (5, 30), (7, 40)))
    save_stack(tmp_path / "raw", raw)
    out = tmp_path / "out.h5"
    finished(call("align", *inputs(tmp_path), out, *either.options))
    check_output(out, raw, SHAPE)
    frame = np.array([[0, 0, 7], [0, 0, 5]])
    expected = np.array(transforms(either.out)) + frame
    np.testing.assert_allclose(transforms(out), expected, rtol=0, atol=1e-9)
    inside = np.s_[:, 24:-24, 24:-24]  # the spline of a black frame differs from that of an edge
    found, whole = (read_cells(path)[inside].astype(int) for path in (out, either.out))
    assert np.abs(found - whole).max() <= 1


def test_raw_smaller_than_the_canvas(either, tmp_path):
    """What the microscope did not see stays black; the rest is where it belongs."""
    (tmp_path / "pre").symlink_to(either.folder / "pre")
    raw = read_stack(either.folder / "raw")[:, 4:136, 6:152]
    save_stack(tmp_path / "raw", raw)
    out = tmp_path / "out.h5"
    finished(call("align", *inputs(tmp_path), out, *either.options), 0, 3)
    assert set(statuses(out)) <= {"affine", "neighbours", "translation"}
    check_output(out, raw, SHAPE)
    found = np.array(transforms(out)) + np.array([[0, 0, 6], [0, 0, 4]])
    away = found @ [80, 72, 1] - np.array(transforms(either.out)) @ [80, 72, 1]
    assert np.abs(away).max() < 2


def test_artefacts_are_named_and_the_rest_is_aligned(either, tmp_path):
    """A black slice, one that was not finished, one of noise, and one stored twice."""
    shutil.copytree(either.folder / "pre", tmp_path / "pre")
    raw = read_stack(either.folder / "raw")
    raw[7] = 0
    raw[12, 90:] = 0
    raw[21] = raw[20]
    raw[17] = np.random.default_rng(0).integers(0, 256, SHAPE)
    save_stack(tmp_path / "raw", raw)
    out = tmp_path / "out.h5"
    ended = finished(call("align", *inputs(tmp_path), out, *either.options), 3)
    check_output(out, raw)
    found = statuses(out)
    assert found[7] == "blank"
    assert found[12] == "affine"
    assert found[17] not in ("affine", "blank")
    assert [z for z, status in enumerate(found) if status != "affine"] == [7, 17, 21]
    told = f"3 of them not by affine registration: 7 (blank), 17 ({found[17]}), 21 (repeated)"
    assert told in ended.stdout
    assert "as by chance" in slices(out)[17]["reason"]
    assert float(slices(out)[17]["over_chance"]) < 1 < float(slices(out)[12]["over_chance"])
    assert slices(out)[12]["method"] == "xcorr"
    assert slices(out)[21]["reason"] == "the same pixels as slice 20"
    assert transforms(out)[21] == transforms(out)[20]
    assert [z for z, m in enumerate(transforms(out)) if m is None] == [7]
    truth = json.loads((either.folder / "truth.json").read_text())
    truth["raw"][21] = truth["raw"][20]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert error_px(tmp_path, out) < 0.8


@pytest.mark.slow
def test_pyelastix_backend_agrees_with_the_one_in_process(make_aligned, tmp_path):
    """By templates alone: neighbours would hide what the backends do."""
    line, out = make_aligned("elastix").line, tmp_path / "out.h5"
    alone = ("--set", "neighbours.enabled=false", "--range", "8:14")
    ended = run(2, *line(out, "--set", "refine.backend=pyelastix", *alone))
    if shutil.which("elastix") is None:
        assert not os.environ.get("CI"), "elastix is not on PATH: see .ci/install-apt"
        refused(ended, "the program elastix is not on PATH")
        return
    finished(ended)
    ours = tmp_path / "ours.h5"
    finished(run(2, *line(ours, *alone)))
    for mine, theirs in zip(transforms(ours)[8:14], transforms(out)[8:14], strict=True):
        points = np.array([[0, 0, 1], [159, 0, 1], [0, 143, 1], [159, 143, 1]]).T
        away = (np.array(mine) - np.array(theirs)) @ points
        assert np.linalg.norm(away, axis=0).mean() < 0.3


@pytest.fixture
def slowed(monkeypatch):
    """Jobs of SLOWED take a tenth of a second for each slice."""
    monkeypatch.setenv("FAULTS", json.dumps({"register": 0.1}))


def test_a_killed_rank_ends_the_job_and_the_same_line_finishes_it(either, slowed, tmp_path):
    line = either.line(tmp_path / "out.h5")
    job = Job(3, *line, program=SLOWED)
    assert job.wait_for(lambda: job.registered() >= 6), job.log.read_text()
    assert len(job.ranks()) == 3
    os.kill(job.ranks()[1], signal.SIGKILL)
    killed = time.monotonic()
    ended = job.end()
    assert time.monotonic() - killed < 10
    assert ended.code != 0
    assert not (tmp_path / "out.xml").exists()
    assert not (tmp_path / "out.h5").exists()
    before = registrations(job.folder)
    finished(run(2, *line))
    after = registrations(job.folder)
    assert len(before) >= 6
    assert sorted(after) == list(range(24))
    assert transforms(job.out) == transforms(either.out)
    check_output(job.out, read_stack(either.folder / "raw"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_stops_in_good_order_with_75(either, slowed, tmp_path, number):
    line = either.line(tmp_path / "out.h5")
    job = Job(0, *line, program=SLOWED)
    assert job.wait_for(lambda: job.registered() >= 4), job.log.read_text()
    os.kill(job.process.pid, number)
    ended = job.end()
    assert ended.code == 75, ended.stderr
    assert "stopped in good order" in ended.stderr
    assert not job.out.exists()
    finished(call(*line))
    assert sorted(registrations(job.folder)) == list(range(24))
    assert transforms(job.out) == transforms(either.out)


def test_the_same_line_again_does_nothing_anew(small):
    out = small.out
    before = (contents(out), out.stat().st_mtime_ns, registrations(out.with_suffix(".amst")))
    finished(run(2, *small.line(out)))
    assert (
        contents(out),
        out.stat().st_mtime_ns,
        registrations(out.with_suffix(".amst")),
    ) == before


def test_changed_parameters_are_named(small):
    ended = call(*small.line(small.out, "--set", "template.radius=5"))
    refused(ended, "parameters.template.radius: 7 -> 5.*--overwrite")


def test_other_output_settings_write_again_without_registering(small, tmp_path):
    out = tmp_path / "out.h5"
    shutil.copytree(small.out.with_suffix(".amst"), out.with_suffix(".amst"))
    before = registrations(out.with_suffix(".amst"))
    finished(call(*small.line(out, "--set", "output.compression=5")))
    assert registrations(out.with_suffix(".amst")) == before
    with h5py.File(out) as file:
        assert file["t00000/s00/0/cells"].compression_opts == 5
    np.testing.assert_array_equal(read_cells(out), read_cells(small.out))


def test_strict_writes_nothing_when_a_slice_fell_back(small, tmp_path):
    broken(small.folder, tmp_path, "raw", save(GREY))
    out = tmp_path / "out.h5"
    line = ("align", *inputs(tmp_path), out, *small.options)
    ended = run(2, *line, "--strict")
    assert ended.code == 4, ended.stderr
    assert "7 (blank)" in ended.stderr + ended.stdout
    assert not out.exists()
    assert not out.with_suffix(".xml").exists()
    assert statuses(out)[7] == "blank"
    before = registrations(out.with_suffix(".amst"))
    assert sorted(before) == list(range(24))
    finished(run(2, *line), 3)
    assert registrations(out.with_suffix(".amst")) == before


def test_preview_is_a_small_job_with_a_report(tissue, tmp_path):
    for name in ("raw", "pre"):
        (tmp_path / name).mkdir()
        for z in range(6):
            image = tifffile.imread(tissue / name / f"slice_{z:05d}.tif")
            large = np.tile(image, (1, 7))  # 1120 px wide
            tifffile.imwrite(tmp_path / name / f"s{z}.tif", large)
    out = tmp_path / "p.h5"
    arguments = ["align", *inputs(tmp_path), out, *XCORR, "--set", "refine.backend=none"]
    done = run(1, *arguments, "--preview", "--set", "output.voxel_size_nm=[8,4,4]")
    finished(done, 0, 3)
    facts = json.loads((tmp_path / "p.amst" / "run.json").read_text())
    assert (facts["preview"], facts["shape_zyx"]) == (2, [6, 72, 560])
    assert "voxel_size_nm = [8, 8, 8]" in (tmp_path / "p.amst" / "config.toml").read_text()
    assert "Preview of p.h5" in (tmp_path / "p.amst" / "report.html").read_text()
    refused(call(*arguments), r"p\.h5")  # not the same job
    finished(call(*arguments, "--overwrite", "--set", "output.report=false"), 0, 3)
    assert not (tmp_path / "p.amst" / "report.html").exists()
