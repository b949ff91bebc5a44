"""Shifts between slices come back, blur gains nothing, and what cannot be measured is no 0."""

import csv
import io
import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from amst_hpc.cli.options import parse_area, parse_voxel_size
from amst_hpc.config import InputError
from amst_hpc.quality.adjacent import (
    jitter,
    low_pass,
    measure_area,
    measure_pair,
)
from amst_hpc.quality.evaluate import EvaluationOptions, evaluate, grid_areas
from amst_hpc.quality.figures import statistics, summarise, to_csv, to_json, to_lines, write_files
from amst_hpc.registration.correlation import cross_correlation


class Alone:
    """A communicator of one rank."""

    rank, size = 0, 1

    def allgather(self, value):
        return [value]


def texture(shape=(160, 180), seed=0):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return (128 + 300 * field).astype(np.float32)


def moved(image, y, x):
    """`moved(p + (y, x)) = image(p)`."""
    return ndimage.shift(image, (y, x), order=3, mode="reflect").astype(np.float32)


def save(folder, images):
    folder.mkdir()
    for z, image in enumerate(images):
        tifffile.imwrite(folder / f"slice_{z:03d}.tif", np.clip(image, 0, 255).astype(np.uint8))
    return str(folder)


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (0.3, -0.6), (5.0, -7.0), (-11.4, 8.2)])
def test_a_known_shift_comes_back(y, x):
    image = texture()
    found = measure_area(image, moved(image, y, x), (30, 130, 40, 140), cross_correlation)
    assert found[:2] == pytest.approx((y, x), abs=0.06)
    assert found[3] > 0.99
    assert found[2] <= found[3]


def test_noise_that_stays_in_the_frame_does_not_hold_the_peak_at_zero():
    frame = np.random.default_rng(1).normal(0, 12, (160, 180))
    image = texture()
    pair = [ndimage.gaussian_filter(a + frame, 1.5) for a in (image, moved(image, 3, 4))]
    found = measure_area(
        *(a.astype(np.float32) for a in pair), (30, 130, 40, 140), cross_correlation
    )
    assert found[:2] == pytest.approx((3, 4), abs=0.5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: image * 0, "black"),
        (lambda image: image * 0 + 7, "constant"),
        (lambda image: texture(seed=9), "no match"),
        (lambda image: image[:100], "sizes"),
        (lambda image: None, "cannot be read"),
    ],
)
def test_a_pair_that_cannot_be_measured_says_why_and_has_no_numbers(spoil, reason):
    image = texture()
    pair = measure_pair(4, image, spoil(image), [(40, 100, 40, 100)], cross_correlation)
    assert reason in pair.reason
    assert np.isnan([pair.y, pair.x, pair.length, pair.ncc, pair.ncc_best]).all()
    assert (pair.areas, pair.areas_failed) == (0, 1)


def test_three_failed_pairs_are_three_failures_and_the_figures_stay_finite(tmp_path):
    random = np.random.default_rng(2)
    images = [moved(texture(), *random.normal(0, 1, 2)) for _ in range(12)]
    images[0] = images[6] = np.zeros((160, 180))
    (found,) = evaluate(EvaluationOptions((save(tmp_path / "s", images),), grid=2), Alone())
    figures = summarise(found)
    assert figures["pairs_failed"] == 3
    assert [f["z"] for f in figures["failed"]] == [0, 5, 6]
    for name in ("jitter_px", "shift_px", "ncc", "ncc_jump", "ncc_loss"):
        assert all(np.isfinite(v) for v in figures[name].values()), name
    assert figures["shift_px"]["mean"] > 0.5  # a failure as 0 px would pull it down
    json.loads(to_json([found]))
    rows = list(csv.DictReader(io.StringIO(to_csv([found]))))
    assert [row["shift"] == "" for row in rows].count(True) == 3
    assert "3/11" in to_lines([found])[1]


def test_nothing_measured_is_null_not_zero(tmp_path):
    (found,) = evaluate(
        EvaluationOptions((save(tmp_path / "s", [np.zeros((64, 64))] * 3),)), Alone()
    )
    assert summarise(found)["shift_px"]["mean"] is None
    assert summarise(found)["pairs_failed"] == 2
    assert len(to_lines([found])) == 2


def test_drift_is_the_slow_difference_to_the_reference(tmp_path):
    image, random = texture(), np.random.default_rng(3)
    slow = np.linspace(-6, 6, 40)
    pre = save(tmp_path / "pre", [image] * 40)
    raw = [moved(image, 0, s + random.normal(0, 1)) for s in slow]
    question = EvaluationOptions(
        (save(tmp_path / "raw", raw), pre), reference=pre, voxel_size_nm=(8, 4, 4)
    )
    drifting, itself = evaluate(question, Alone())
    assert drifting.drift[30, 1] - drifting.drift[10, 1] == pytest.approx(4.5, abs=2)
    assert np.abs(drifting.drift[:, 0]).max() < 0.2
    assert itself.drift is None
    figures = summarise(drifting)
    assert figures["drift_nm"]["max"] == pytest.approx(4 * figures["drift_px"]["max"], rel=1e-3)
    assert figures["jitter_nm"]["mean"] == pytest.approx(4 * figures["jitter_px"]["mean"], rel=1e-3)


def test_voxel_size_of_a_bigdataviewer_file_is_found(tmp_path):
    source = save(tmp_path / "s", [texture()] * 3)
    (tmp_path / "s.xml").write_text(
        "<SpimData><voxelSize><unit>µm</unit><size>0.004 0.005 0.008</size></voxelSize></SpimData>"
    )
    (found,) = evaluate(EvaluationOptions((source,)), Alone())
    assert found.voxel_size_nm == pytest.approx((8, 5, 4))


def test_jitter_leaves_out_what_changes_slowly():
    z = np.arange(200)
    slow = np.stack([0.5 + 0.3 * np.sin(z / 30), 0 * z], axis=1)
    fast = np.random.default_rng(4).normal(0, 0.5, slow.shape)
    assert np.abs(jitter(slow)).max() < 0.12
    assert jitter(slow + fast).std() == pytest.approx(0.5, rel=0.15)
    fast[::5] = np.nan
    assert np.isfinite(low_pass(slow + fast, 15)).all()
    assert np.isnan(jitter(fast * np.nan)).all()


def test_grid_stays_inside_the_slice_and_takes_the_given_area():
    areas = grid_areas((300, 2000), EvaluationOptions(("s",), grid=4))
    assert len(areas) == 16
    assert all(0 <= y0 < y1 <= 300 and 0 <= x0 < x1 <= 2000 for y0, y1, x0, x1 in areas)
    assert all(x1 - x0 == 400 for _, _, x0, x1 in areas)
    assert grid_areas((300, 300), EvaluationOptions(("s",), area=(1, 2, 3, 4))) == [(1, 2, 3, 4)]


def test_statistics_ignore_what_is_not_known():
    assert statistics([1, np.nan, 3]) == {"mean": 2, "median": 2, "std": 1, "max": 3, "p95": 2.9}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EvaluationOptions(("s",), method="sfit"),
        lambda: EvaluationOptions(("s",), grid=0),
        lambda: EvaluationOptions(("s",), sigma=-1.0),
        lambda: EvaluationOptions(("s",), voxel_size_nm=(1.0, 0.0, 1.0)),
        lambda: parse_area("1:2"),
        lambda: parse_voxel_size("5,five,5"),
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        wrong()


def test_options_are_read():
    assert parse_area("10:20, 30:40") == (10, 20, 30, 40)
    assert parse_area(None) is None
    assert parse_voxel_size("8,4,4") == (8, 4, 4)
    assert parse_voxel_size("") == ()


def test_stacks_that_do_not_fit_are_refused(tmp_path):
    long, short = save(tmp_path / "l", [texture()] * 4), save(tmp_path / "s", [texture()] * 2)
    for question in (
        EvaluationOptions((long,), reference=short),
        EvaluationOptions((long,), range=(2, 9)),
        EvaluationOptions((long,), range=(2, 3)),
        EvaluationOptions((long,), area=(0, 500, 0, 10)),
        EvaluationOptions((str(tmp_path / "none"),)),
    ):
        with pytest.raises(InputError):
            evaluate(question, Alone())
    (found,) = evaluate(EvaluationOptions((long,), range=(1, 4)), Alone())
    assert [pair.z for pair in found.pairs] == [1, 2]
    write_files([found], tmp_path / "figures")
    assert json.loads((tmp_path / "figures.json").read_text())[0]["pairs"] == 2
    with pytest.raises(InputError, match="cannot be written"):
        write_files([found], tmp_path / "nowhere" / "figures")
