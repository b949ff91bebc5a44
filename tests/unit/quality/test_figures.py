"""Figures of a stack: failures counted apart, nothing that is not known."""

import csv
import io
import json

import numpy as np
from shifted import Alone, moved, save, texture

from amst_hpc.quality.evaluate import EvaluationOptions, evaluate
from amst_hpc.quality.figures import statistics, summarise, to_csv, to_json, to_lines


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


def test_statistics_ignore_what_is_not_known():
    assert statistics([1, np.nan, 3]) == {"mean": 2, "median": 2, "std": 1, "max": 3, "p95": 2.9}
