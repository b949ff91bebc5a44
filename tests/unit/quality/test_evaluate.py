"""Stacks, areas and references of `evaluate`."""

import json

import h5py
import numpy as np
import pytest
import tifffile
from shifted import Alone, moved, save, texture

from amst_hpc.bdv.metadata import write_xml
from amst_hpc.cli.options import parse_area, parse_voxel_size
from amst_hpc.config import InputError
from amst_hpc.quality.evaluate import EvaluationOptions, evaluate, grid_areas
from amst_hpc.quality.figures import summarise, write_files


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


def test_margins_of_any_constant_are_black(tmp_path):
    image = texture((120, 130))
    slices = [moved(image, 0, s) for s in (0.0, 1.5, -1.0)]
    black, white = (
        save(tmp_path / str(value), [np.pad(a, 30, constant_values=value) for a in slices])
        for value in (0, 255)
    )
    found = [summarise(e) for e in evaluate(EvaluationOptions((black, white)), Alone())]
    assert found[0] | {"stack": ""} == found[1] | {"stack": ""}
    assert 0 < found[1]["areas_failed"] < 18


def test_figures_are_the_same_where_only_the_areas_are_read(tmp_path):
    """Of one compressed strip all is read; one shift is larger than what is read around an area."""
    image, noise = texture((1400, 1500)), np.random.default_rng(2).normal(0, 3, (4, 1400, 1500))
    shifted = [np.roll(image, shift, (0, 1)) for shift in ((0, 0), (2, -1), (62, -50), (60, -52))]
    slices = np.clip(shifted + noise, 1, 254).astype(np.uint8)
    slices[3, :, :600] = 0
    for name, how in (("parts", {}), ("whole", {"compression": "zlib", "rowsperstrip": 1400})):
        (tmp_path / name).mkdir()
        for z, each in enumerate(slices):
            tifffile.imwrite(tmp_path / name / f"s{z}.tif", each, **how)
    names = (str(tmp_path / "parts"), str(tmp_path / "whole"))
    parts, whole = evaluate(EvaluationOptions(names, grid=1), Alone())
    assert parts.pairs == whole.pairs
    assert parts.pairs[1].length > 70
    assert [pair.areas for pair in parts.pairs] == [1, 1, 0]


def test_voxel_size_of_a_bigdataviewer_file_is_found(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["t00000/s00/0/cells"] = np.array([texture()] * 3).astype(np.uint8)
    write_xml(tmp_path / "s.xml", tmp_path / "s.h5", (8, 5, 4))
    (found,) = evaluate(EvaluationOptions((str(tmp_path / "s.h5"),)), Alone())
    assert found.voxel_size_nm == (8, 5, 4)


def test_grid_stays_inside_the_slice_and_takes_the_given_area():
    areas = grid_areas((300, 2000), EvaluationOptions(("s",), grid=4))
    assert len(areas) == 16
    assert all(0 <= y0 < y1 <= 300 and 0 <= x0 < x1 <= 2000 for y0, y1, x0, x1 in areas)
    assert all(x1 - x0 == 400 for _, _, x0, x1 in areas)
    assert grid_areas((300, 300), EvaluationOptions(("s",), area=(1, 2, 3, 4))) == [(1, 2, 3, 4)]


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
    narrow = save(tmp_path / "n", [texture()[:, :-8]] * 4)
    for question in (
        EvaluationOptions((long,), reference=narrow),
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
