"""`amst-hpc demo`, once with its defaults: SIFT on OpenCL and elastix against the known truth."""

import json
import re

import numpy as np
import pytest
from jobs import call, finished, run, slices, statuses
from scipy import ndimage
from stacks import check_output, error_px, read_stack, save_stack

from amst_hpc.quality.run_results import read_run_results, step_jitter

SHAPE = (384, 384)


def canvas_of(folder):
    return json.loads((folder / "aligned.amst" / "run.json").read_text())["canvas"]


def on_canvas(folder, name, target):
    """A stack of the size of raw on the canvas of the aligned one, where it stands in raw."""
    (height, width), (x, y) = canvas_of(folder).values()
    top, left = max(0, -y), max(0, -x)
    sides = ((top, height - 384 - top), (left, width - 384 - left))
    return save_stack(target / name, [np.pad(i, sides) for i in read_stack(folder / name)])


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
    check_output(out, read_stack(folder / "raw"), tuple(canvas_of(folder)["shape_yx"]))
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


def test_evaluate_sees_the_gain(demo, tmp_path):
    folder, _ = demo
    both = [on_canvas(folder, name, tmp_path) for name in ("raw", "prealigned")]
    stacks = [*both, folder / "aligned.xml"]
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
    assert "93 pairs of neighbours moved the corners" in text  # those of raw, k = 1 and 2


def test_the_report_shows_raw_as_it_is_beside_raw_as_it_was_placed(demo):
    folder, _ = demo
    found = read_run_results(folder / "aligned.h5", folder / "aligned.amst")
    kept, (x, y) = found.thumbnails, canvas_of(folder)["offset_xy"]
    assert (x, y) < (0, 0)
    first = (found.shape[0] - 3) // 2 + y  # the three rows in the middle of the canvas
    rows = read_stack(folder / "raw")[:, first : first + 3].mean(1)
    np.testing.assert_array_equal(
        kept["raw"].lines("xz", range(48))[:, -x : -x + 384], np.rint(rows)
    )
    steps = {name: step_jitter(found, name) for name in ("raw", "prealigned", "aligned")}
    jumps = [float(np.nanmedian(np.hypot(*steps[name].T))) for name in steps]
    assert jumps[0] > 2 > 1 > jumps[1] > 0.2 > jumps[2]


def test_it_leaves_what_it_says(demo):
    folder, _ = demo
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("figures")) == [
        "aligned.amst", "aligned.h5", "aligned.settings.xml", "aligned.xml", "prealigned", "raw",
        "truth.json",
    ]  # fmt: skip
