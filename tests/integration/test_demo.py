"""`amst-hpc demo`, once with its defaults: SIFT on OpenCL and elastix against the known truth."""

import json
import re

import numpy as np
import pytest
from jobs import call, finished, run, slices, statuses
from scipy import ndimage
from stacks import check_output, error_px, read_stack

SHAPE = (384, 384)


def test_it_ends_well_and_says_how_well(demo):
    folder, ended = demo
    assert ended.code == 0, ended.stderr
    errors, pictures, view = ended.stdout.splitlines()[-3:]
    found = re.findall(r"([\d.]+) px ([a-z-]+)", errors)
    assert [name for _, name in found] == ["raw", "aligned"]
    raw, aligned = (float(number) for number, _ in found)
    assert aligned < 0.4 < 2 < raw
    assert pictures == f"how it went, in pictures: {folder}/aligned.amst/report.html"
    assert view == f"open in BigDataViewer or Fiji: {folder}/aligned.xml"
    assert error_px(folder, folder / "aligned.h5", SHAPE) == pytest.approx(aligned, abs=0.006)


def test_the_output_is_raw_under_the_transforms(demo):
    folder, _ = demo
    out = folder / "aligned.h5"
    check_output(out, read_stack(folder / "raw"))
    assert statuses(out) == ["affine"] * 48
    rows = slices(out)
    assert all("OpenCL" in row["device"] for row in rows)
    assert {row["rank"] for row in rows} == {"0", "1"}
    assert all(int(row["matches"]) > 10 for row in rows)
    finished(call("verify", out))


def test_every_slice_is_near_its_truth(demo):
    """Not only on the average: at the corners, less the pose that nobody can know."""
    folder, _ = demo
    truth = np.array(json.loads((folder / "truth.json").read_text())["raw"])
    found = np.array(json.loads((folder / "aligned.amst" / "transforms.json").read_text()))
    corners = np.array([[0, 0, 1], [383, 0, 1], [0, 383, 1], [383, 383, 1]]).T
    away = (found - truth) @ corners
    rough = away - ndimage.uniform_filter1d(away, 15, axis=0)
    assert np.abs(rough).max() < 2


def test_evaluate_sees_the_gain(demo):
    folder, _ = demo
    stacks = [folder / "raw", folder / "prealigned", folder / "aligned.xml"]
    some = ("--range", "10:30", "--grid", "2")
    options = (*some, "--reference", stacks[1], "--out", folder / "figures")
    ended = finished(run(2, "evaluate", *stacks, *options))
    assert "jitter" in ended.stdout
    raw, pre, aligned = json.loads((folder / "figures.json").read_text())
    for name in ("jitter_px", "ncc_jump", "shift_px"):
        assert aligned[name]["mean"] < pre[name]["mean"] < raw[name]["mean"], name
    assert aligned["jitter_nm"]["mean"] == pytest.approx(5 * aligned["jitter_px"]["mean"], rel=1e-3)
    assert all(found["pairs_failed"] == 0 for found in (raw, pre, aligned))
    table = (folder / "figures.csv").read_text()
    finished(call("evaluate", *stacks, *options))
    assert (folder / "figures.csv").read_text() == table


def test_the_report_is_there_and_can_be_drawn_again(demo):
    folder, _ = demo
    path = folder / "aligned.amst" / "report.html"
    assert 100_000 < path.stat().st_size < 10e6
    path.unlink()
    assert finished(call("report", folder / "aligned.h5")).stdout == f"{path}\n"
    text = path.read_text()
    assert text.count("data:image/png;base64,") == 7
    assert "48 slices" in text


def test_it_leaves_what_it_says(demo):
    folder, _ = demo
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("figures")) == [
        "aligned.amst", "aligned.h5", "aligned.settings.xml", "aligned.xml", "prealigned", "raw",
        "truth.json",
    ]  # fmt: skip
