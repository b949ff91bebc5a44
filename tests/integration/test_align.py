"""`amst-hpc align` end to end on real slices, read back by independent readers."""

import json
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import h5py
import npy2bdv
import numpy as np
import pytest
import tifffile
from jobs import FAST, Job, contents, registrations, run, score, slices, transforms
from scipy import ndimage

PARALLEL = bool(h5py.get_config().mpi)
WRITERS = ["funnel", "collective"] if PARALLEL else ["funnel"]


def finished(ended, *codes):
    assert ended.code in (codes or (0,)), ended.stderr
    return ended


def statuses(out):
    return [row["status"] for row in slices(out)]


def resampled(image, matrix):
    """Independent of the program: cubic spline at `matrix` p, 0 outside, clipped."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    m = np.array(matrix)
    at = [m[1, 0] * x + m[1, 1] * y + m[1, 2], m[0, 0] * x + m[0, 1] * y + m[0, 2]]
    spline = ndimage.spline_filter(image.astype(np.float64), 3, mode="mirror")
    found = ndimage.map_coordinates(spline, at, order=3, mode="constant", prefilter=False)
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(found), limits.min, limits.max)


def read_stack(folder):
    return np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])


def check_output(out, raw):
    """npy2bdv and h5py see the same volume, and it is raw under the transforms that stand beside.

    Truth for the pixels is a resampling of the test's own; float32 rounding may cost a grey value.
    """
    editor = npy2bdv.BdvEditor(str(out.with_suffix(".xml")), mode="r")
    volume = editor.read_view()
    editor._file_object_h5.close()
    with h5py.File(out, "r") as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][()], volume)
        assert file["s00"].attrs["dataType"] == raw.dtype.name.encode()
    assert volume.shape == raw.shape
    assert volume.dtype == raw.dtype
    for image, source, matrix in zip(volume, raw, transforms(out), strict=True):
        if matrix is None:
            assert not image.any()
            continue
        away = np.abs(image.astype(float) - resampled(source, matrix))
        assert (away > (1 if raw.dtype == np.uint8 else 3)).mean() < 1e-3


@pytest.fixture(scope="session")
def small(fib25_small, tmp_path_factory):
    """fib25_small aligned without disturbance on 2 ranks: (raw and pre folders, OUT.h5)."""
    out = tmp_path_factory.mktemp("small") / "out.h5"
    finished(run(2, "align", fib25_small / "raw", fib25_small / "pre", out, *FAST))
    return fib25_small, out


def inputs(folder):
    return folder / "raw", folder / "pre"


def test_fib25_dev_is_aligned_as_well_as_by_the_original(fib25_dev, shared, tmp_path):
    out = tmp_path / "out.h5"
    finished(run(2, "align", *inputs(fib25_dev), out), 0, 3)
    found = score(shared, fib25_dev, out)
    print(json.dumps(found))
    assert found["smooth"]["mean"] <= 0.80
    assert found["smooth"]["n"] == 96
    check_output(out, read_stack(fib25_dev / "raw"))


def test_lucchi_dev_with_artefacts_is_aligned_and_its_black_slices_reported(
    lucchi_dev, shared, tmp_path
):
    out = tmp_path / "out.h5"
    ended = finished(run(2, "align", *inputs(lucchi_dev), out), 3)
    found = score(shared, lucchi_dev, out)
    print(json.dumps(found), ended.stdout)
    truth = json.loads((lucchi_dev / "truth.json").read_text())["slices"]
    blank = [s["index"] for s in truth if "blank" in s["flags"]]
    partial = [s["index"] for s in truth if "partial" in s["flags"]]
    assert [z for z, m in enumerate(transforms(out)) if m is None] == blank
    for z in blank:
        assert statuses(out)[z] == "blank"
        assert f"{z} (blank)" in ended.stdout
    assert found["smooth"]["mean"] <= 0.44
    assert found["smooth"]["max"] <= 1.2
    assert found["smooth_partial_slices"][str(partial[0])] <= 0.6
    check_output(out, read_stack(lucchi_dev / "raw"))


def test_xcorr_output_is_what_it_says(small):
    folder, out = small
    check_output(out, read_stack(folder / "raw"))
    assert statuses(out) == ["affine"] * 24
    names = {p.name for p in out.parent.iterdir()}
    assert names >= {"out.h5", "out.xml", "out.settings.xml", "out.amst"}
    assert not (out.with_suffix(".amst") / "writing.h5").exists()


@pytest.mark.parametrize(("ranks", "writer"), [(1, "funnel"), (3, "funnel"), (5, "funnel")])
def test_contents_do_not_depend_on_the_number_of_ranks(small, tmp_path, ranks, writer):
    """24 slices in layers of 8: of five ranks two have nothing to write."""
    folder, reference = small
    out = tmp_path / "out.h5"
    finished(run(ranks, "align", *inputs(folder), out, *FAST, "--set", "output.layer=8"))
    other = tmp_path / "other.h5"
    finished(run(2, "align", *inputs(folder), other, *FAST, "--set", "output.layer=8"))
    assert transforms(out) == transforms(reference)
    assert contents(out) == contents(other)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_collective_writer_gives_the_same_or_says_that_it_cannot(small, tmp_path, ranks):
    folder, _ = small
    options = (*FAST, "--set", "refine.backend=none", "--set", "output.layer=8")
    out = tmp_path / "collective.h5"
    collective = ("--set", "output.writer=collective")
    ended = run(ranks, "align", *inputs(folder), out, *options, *collective)
    if not PARALLEL:
        assert ended.code == 2
        assert "this h5py has no MPI" in ended.stderr
        assert not out.exists()
        return
    finished(ended)
    other = tmp_path / "funnel.h5"
    finished(run(2, "align", *inputs(folder), other, *options, "--set", "output.writer=funnel"))
    assert contents(out) == contents(other)


def test_sift_output_does_not_change_from_run_to_run(lucchi_small, tmp_path):
    """SIFT's keypoint list does; the settled shift must not."""
    outs = [tmp_path / f"out{n}.h5" for n in (1, 2)]
    for ranks, out in enumerate(outs, 1):
        options = ("--set", "output.layer=8")
        finished(run(ranks, "align", *inputs(lucchi_small), out, *options), 0, 3)
        assert all("OpenCL" in row["device"] for row in slices(out))
    assert transforms(outs[0]) == transforms(outs[1])
    assert contents(outs[0]) == contents(outs[1])


def test_tif_output_has_the_names_and_pixels(small, tmp_path):
    folder, reference = small
    out = tmp_path / "out"
    finished(run(2, "align", *inputs(folder), out, *FAST, "--output-format", "tif"))
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(p.name for p in (folder / "raw").iterdir())
    with h5py.File(reference, "r") as file:
        np.testing.assert_array_equal(read_stack(out), file["t00000/s00/0/cells"][()])
    # a slice that is cut short is written again, the others are kept
    victim, kept = out / names[3], out / names[4]
    whole, before = victim.read_bytes(), kept.stat().st_mtime_ns
    victim.write_bytes(whole[: len(whole) // 2])
    finished(run(1, "align", *inputs(folder), out, *FAST, "--output-format", "tif"))
    assert victim.read_bytes() == whole
    assert kept.stat().st_mtime_ns == before


def test_range_gives_the_slices_of_the_whole(small, tmp_path):
    folder, reference = small
    out = tmp_path / "out.h5"
    finished(run(2, "align", *inputs(folder), out, *FAST, "--range", "5:12"))
    found, whole = transforms(out), transforms(reference)
    assert found[5:12] == whole[5:12]
    assert found[:5] + found[12:] == [None] * 17
    with h5py.File(out) as a, h5py.File(reference) as b:
        np.testing.assert_array_equal(a["t00000/s00/0/cells"][()], b["t00000/s00/0/cells"][5:12])


def test_uint16_is_aligned_like_uint8(small, shared, tmp_path):
    folder, _ = small
    for name in ("raw", "pre"):
        (tmp_path / name).mkdir()
        for path in sorted((folder / name).glob("*.tif")):
            image = tifffile.imread(path).astype(np.uint16) * 200
            tifffile.imwrite(tmp_path / name / path.name, image, compression="lzw")
    out = tmp_path / "out.h5"
    finished(run(2, "align", *inputs(tmp_path), out, *FAST))
    raw = read_stack(tmp_path / "raw")
    check_output(out, raw)
    assert raw.max() > 32767
    truth = score(shared, folder, out)["smooth"]["mean"]
    assert truth <= score(shared, folder, small[1])["smooth"]["mean"] + 0.05


def test_pyelastix_backend_agrees_with_the_one_in_process(small, tmp_path):
    folder, reference = small
    out = tmp_path / "out.h5"
    options = (*FAST, "--set", "refine.backend=pyelastix", "--range", "8:14")
    ended = run(2, "align", *inputs(folder), out, *options)
    if shutil.which("elastix") is None:
        assert not os.environ.get("CI"), "elastix is not on PATH: see .ci/install-apt"
        assert ended.code == 2
        assert "the program elastix is not on PATH" in ended.stderr
        return
    finished(ended)
    for ours, theirs in zip(transforms(reference)[8:14], transforms(out)[8:14], strict=True):
        points = np.array([[0, 0, 1], [159, 0, 1], [0, 143, 1], [159, 143, 1]]).T
        away = (np.array(ours) - np.array(theirs)) @ points
        assert np.linalg.norm(away, axis=0).mean() < 0.3


def test_a_killed_rank_ends_the_job_and_the_same_line_finishes_it(small, tmp_path):
    folder, reference = small
    line = ("align", *inputs(folder), tmp_path / "out.h5", *FAST)
    job = Job(3, *line)
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
    assert transforms(job.out) == transforms(reference)
    check_output(job.out, read_stack(folder / "raw"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_stops_in_good_order_with_75(small, tmp_path, number):
    folder, reference = small
    line = ("align", *inputs(folder), tmp_path / "out.h5", *FAST)
    job = Job(0, *line)
    assert job.wait_for(lambda: job.registered() >= 4), job.log.read_text()
    os.kill(job.process.pid, number)
    ended = job.end()
    assert ended.code == 75, ended.stderr
    assert "stopped in good order" in ended.stderr
    assert not job.out.exists()
    finished(run(0, *line))
    assert sorted(registrations(job.folder)) == list(range(24))
    assert transforms(job.out) == transforms(reference)


def test_the_same_line_again_does_nothing_anew(small):
    folder, out = small
    before = (contents(out), out.stat().st_mtime_ns, registrations(out.with_suffix(".amst")))
    finished(run(2, "align", *inputs(folder), out, *FAST))
    assert (
        contents(out),
        out.stat().st_mtime_ns,
        registrations(out.with_suffix(".amst")),
    ) == before


def test_changed_parameters_and_inputs_are_named(small, tmp_path):
    folder, out = small
    ended = run(0, "align", *inputs(folder), out, *FAST, "--set", "template.radius=5")
    assert ended.code == 2
    assert "parameters.template.radius: 7 -> 5" in ended.faults[0]
    assert "--overwrite" in ended.faults[0]
    copy = tmp_path / "copy"
    shutil.copytree(folder / "raw", copy)
    ended = run(0, "align", copy, folder / "pre", out, *FAST)
    assert ended.code == 2
    assert "inputs.raw.source" in ended.faults[0]


def test_other_output_settings_write_again_without_registering(small, tmp_path):
    folder, reference = small
    out = tmp_path / "out.h5"
    shutil.copytree(reference.with_suffix(".amst"), out.with_suffix(".amst"))
    before = registrations(out.with_suffix(".amst"))
    finished(run(1, "align", *inputs(folder), out, *FAST, "--set", "output.compression=5"))
    assert registrations(out.with_suffix(".amst")) == before
    with h5py.File(out) as a, h5py.File(reference) as b:
        assert a["t00000/s00/0/cells"].compression_opts == 5
        np.testing.assert_array_equal(a["t00000/s00/0/cells"][()], b["t00000/s00/0/cells"][()])


# ---- bad input: one line, exit 2, nothing written


def broken(folder, tmp_path, name, change):
    """A copy of the inputs where `change(path of slice 7)` was done to RAW or PREALIGNED."""
    for part in ("raw", "pre"):
        shutil.copytree(folder / part, tmp_path / part)
    change(sorted((tmp_path / name).glob("*.tif"))[7])


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def save(image):
    return lambda path: tifffile.imwrite(path, image)


def without_zeros(path):
    for z, each in enumerate(sorted(path.parent.glob("*.tif"))):
        each.rename(each.with_name(f"s{z}.tif"))


GREY = np.zeros((144, 160), np.uint8)


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("raw", cut, "RAW .*slice_00007.tif: cut short"),
        ("pre", cut, "PREALIGNED .*slice_00007.tif: cut short"),
        ("raw", lambda p: p.write_bytes(b""), "RAW .*slice_00007.tif: not a readable TIFF"),
        ("raw", Path.unlink, "RAW .* has 23 slices, PREALIGNED .* 24: expected the same number"),
        ("pre", Path.unlink, "RAW .* has 24 slices, PREALIGNED .* 23: expected the same number"),
        ("pre", save(np.zeros((144, 161), np.uint8)), r"slice_00007.tif: size \(144, 161\)"),
        ("raw", save(np.ones((145, 160), np.uint8)), r"slice_00007.tif: size \(145, 160\)"),
        ("raw", save(GREY.astype(np.uint16)), "slice_00007.tif: dtype uint16, expected uint8"),
        ("pre", save(GREY.astype(np.uint16)), "slice_00007.tif: dtype uint16, expected uint8"),
        ("raw", save(GREY.astype(np.float32)), "slice_00007.tif: dtype float32, expected uint8"),
        ("raw", save(np.zeros((144, 160, 3), np.uint8)), "slice_00007.tif: shape .* one grey"),
        ("raw", without_zeros, "expected numbers with leading zeros"),
        ("raw", lambda p: shutil.rmtree(p.parent), "RAW .*raw: no such file or folder"),
        ("pre", lambda p: [q.unlink() for q in p.parent.iterdir()], "PREALIGNED .*: holds no .tif"),
    ],
)
def test_bad_slices_end_the_job_before_it_begins(
    fib25_small, tmp_path, name, change, expected, ranks
):
    broken(fib25_small, tmp_path, name, change)
    refused(tmp_path, ranks, expected)


def refused(folder, ranks, expected, *options, out="out.h5", **settings):
    out = folder / out
    before = sorted(p for p in folder.rglob("*") if "raw" not in p.parts and "pre" not in p.parts)
    ended = run(ranks, "align", *inputs(folder), out, *FAST, *options, **settings)
    assert ended.code == 2, ended.stderr
    assert len(ended.faults) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    if ranks == 0:
        assert ended.stderr.splitlines() == ended.faults
    assert re.search(expected, ended.faults[0]), ended.faults[0]
    after = sorted(p for p in folder.rglob("*") if "raw" not in p.parts and "pre" not in p.parts)
    assert after == before
    return ended


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "template.radius=0"], "template.radius = 0: expected a whole number >= 1"),
        (["--set", "template.width=3"], "template.width: no such key; expected radius"),
        (["--set", "coarse.colour=3"], "coarse.colour: no such key"),
        (["--range", "3:99"], "--range 3:99: expected a part of 0:24"),
        (["--range", "9:3"], "--range 9:3: expected a part of 0:24"),
        (["--range", "x"], "--range x: expected A:B"),
        (["--device", "9:9", "--set", "coarse.method=sift"], "coarse.device = '9:9': no such dev"),
        (["--config", "/no/such.toml"], "--config /no/such.toml: cannot be read"),
        (["--set", "output.layer=1", "--set", "output.levels=3"], "output.layer = 1: expected a m"),
        (["--set", "refine.parameter_file=/no/such"], "refine.parameter_file"),
        (["--set", "refine.elastix.Transform=BSpline"], "refine.elastix.Transform = 'BSpline'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_options_end_the_job_before_it_begins(fib25_small, tmp_path, options, expected):
    for part in ("raw", "pre"):
        (tmp_path / part).symlink_to(fib25_small / part)
    refused(tmp_path, 0, expected, *options)


def test_bad_destinations_end_the_job_before_it_begins(fib25_small, tmp_path):
    for part in ("raw", "pre"):
        (tmp_path / part).symlink_to(fib25_small / part)
    refused(tmp_path, 0, "no/out.h5: the folder .*/no does not exist", out="no/out.h5")
    refused(tmp_path, 0, "out.tiff: expected a name that ends in .h5", out="out.tiff")
    (tmp_path / "mine.h5").write_bytes(b"something of the user's")
    refused(tmp_path, 0, "mine.h5: exists; expected a new name, or --overwrite", out="mine.h5")
    assert (tmp_path / "mine.h5").read_bytes() == b"something of the user's"


def test_a_mismatch_can_be_allowed(small, tmp_path):
    folder, _ = small
    broken(folder, tmp_path, "raw", lambda p: max(p.parent.iterdir()).unlink())
    refused(tmp_path, 0, "has 23 slices")
    out = tmp_path / "out.h5"
    finished(run(0, "align", *inputs(tmp_path), out, *FAST, "--allow-count-mismatch"))
    assert len(transforms(out)) == 23


def test_strict_writes_nothing_when_a_slice_fell_back(small, tmp_path):
    folder, _ = small
    broken(folder, tmp_path, "raw", save(GREY))
    out = tmp_path / "out.h5"
    line = ("align", *inputs(tmp_path), out, *FAST)
    ended = run(2, *line, "--strict")
    assert ended.code == 1, ended.stderr
    assert "7 (blank)" in ended.stderr + ended.stdout
    assert not out.exists()
    assert not out.with_suffix(".xml").exists()
    assert statuses(out)[7] == "blank"
    before = registrations(out.with_suffix(".amst"))
    assert sorted(before) == list(range(24))
    finished(run(2, *line), 3)
    assert registrations(out.with_suffix(".amst")) == before


def test_help_comes_at_once():
    """Processor time: the same as wall time on an idle machine, and no matter on a busy one."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(0, "--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(4)) < 0.7
