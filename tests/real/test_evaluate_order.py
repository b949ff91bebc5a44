"""`evaluate` puts truth, aligned, pre-aligned and raw in their order; the report comes too."""

import json

import numpy as np
import pytest
import tifffile
from jobs import run
from scipy import ndimage

pytestmark = pytest.mark.real

ORDERED = [
    (name, key)
    for name in ("jitter_px", "ncc_jump")
    for key in ("mean", "median", "std", "max", "p95")
]


def only_interpolated(source, target):
    """Every slice moved by half a pixel: blurred, not aligned."""
    target.mkdir()
    for path in sorted(source.glob("*.tif")):
        image = tifffile.imread(path).astype(float)
        blurred = ndimage.shift(image, (0.5, 0.5), order=1, mode="nearest")
        tifffile.imwrite(target / path.name, np.rint(blurred).astype(np.uint8))
    return target


@pytest.fixture(scope="module")
def work(fib25_dev, tmp_path_factory):
    """An alignment, and the controls that were only interpolated."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name in ("raw", "pre"):
        only_interpolated(fib25_dev / name, folder / f"blurred_{name}")
    arguments = [fib25_dev / "raw", fib25_dev / "pre", folder / "out.h5"]
    done = run(2, "align", *arguments, "--set", "output.voxel_size_nm=[8,8,8]")
    assert done.code in (0, 3), done.stderr
    return folder


@pytest.fixture(scope="module")
def figures(work, fib25_dev):
    """The figures of each stack, by a short name."""
    stacks = {name: fib25_dev / name for name in ("true", "pre", "raw")} | {
        "aligned": work / "out.xml",
        "blurred_pre": work / "blurred_pre",
        "blurred_raw": work / "blurred_raw",
    }
    options = ["--grid", "2", "--reference", fib25_dev / "pre", "--out", work / "figures"]
    done = run(2, "evaluate", *stacks.values(), *options)
    assert done.code == 0, done.stderr
    return dict(zip(stacks, json.loads((work / "figures.json").read_text()), strict=True))


@pytest.mark.parametrize(("name", "key"), ORDERED)
def test_truth_aligned_prealigned_raw(figures, name, key):
    values = [figures[stack][name][key] for stack in ("true", "aligned", "pre", "raw")]
    assert values == sorted(values)


@pytest.mark.parametrize("name", ["shift_px", "ncc_loss"])
def test_what_holds_the_tissue_too_falls_with_the_alignment(figures, name):
    values = [figures[stack][name]["mean"] for stack in ("aligned", "pre", "raw")]
    assert values == sorted(values)
    assert figures["true"][name]["mean"] < figures["pre"][name]["mean"]


@pytest.mark.parametrize("stack", ["pre", "raw"])
def test_interpolation_alone_does_not_win(figures, stack):
    blurred, itself, aligned = figures[f"blurred_{stack}"], figures[stack], figures["aligned"]
    for name in ("jitter_px", "shift_px"):
        assert blurred[name]["mean"] == pytest.approx(itself[name]["mean"], rel=0.01)
    assert blurred["ncc"]["mean"] < aligned["ncc"]["mean"]
    for name, key in ORDERED:
        assert blurred[name][key] > aligned[name][key]


def test_drift_and_nanometres(figures):
    assert figures["aligned"]["drift_px"]["mean"] < 0.3 * figures["raw"]["drift_px"]["mean"]
    assert "drift_px" not in figures["pre"]
    nm, px = (figures["aligned"][name]["mean"] for name in ("jitter_nm", "jitter_px"))
    assert nm == pytest.approx(8 * px, rel=1e-3)
    assert all(found["pairs_failed"] == 0 for found in figures.values())


def test_one_rank_and_two_measure_the_same(work, fib25_dev):
    tables = []
    for ranks in (1, 2):
        options = ["--range", "20:33", "--grid", "2", "--out", work / f"on_{ranks}"]
        done = run(ranks, "evaluate", fib25_dev / "pre", *options)
        assert done.code == 0, done.stderr
        tables.append((work / f"on_{ranks}.csv").read_text())
    assert tables[0] == tables[1]


def test_the_report_is_there_and_can_be_drawn_again(work):
    path = work / "out.amst" / "report.html"
    assert 100_000 < path.stat().st_size < 10e6
    path.unlink()
    done = run(1, "report", work / "out.h5")
    assert done.code == 0, done.stderr
    text = path.read_text()
    assert text.count("data:image/png;base64,") == 7
    assert "96 slices" in text
    assert run(1, "report", work / "none.h5").code == 2
