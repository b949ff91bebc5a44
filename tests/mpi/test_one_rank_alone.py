"""What one rank alone meets ends the job on all of them, with a word, and none waits for it."""

import json

import pytest
from jobs import FAST, SLOWED, run
from spoilt import nothing_written, refused
from stacks import inputs

DIFFERENT = "RAW .*: the ranks do not see the same slices .*expected one shared file system"


@pytest.mark.parametrize(
    ("rank", "hidden", "options", "expected"),
    [
        (1, "/slice_00011.tif", (), DIFFERENT),
        (0, "/slice_00000.tif", (), DIFFERENT),
        (1, "raw/slice_00011.tif", (), "RAW .* has 23 slices"),
        (1, "raw/slice_00011.tif", ("--preview",), "RAW .* has 23 slices"),
        (1, "raw/slice_00011.tif", ("--allow-count-mismatch",), DIFFERENT),
        (1, "pre/slice_00023.tif", ("--preview",), "RAW .* has 24 slices, PREALIGNED .* 23"),
    ],
)
def test_a_listing_that_lacks_a_slice(
    tissue, tmp_path, monkeypatch, rank, hidden, options, expected
):
    monkeypatch.setenv("FAULTS", json.dumps({"hidden": [rank, hidden]}))
    line = ("align", *inputs(tissue), tmp_path / "out.h5", *FAST, *options)
    with nothing_written(tmp_path):
        refused(run(2, *line, timeout=40, program=SLOWED), expected)
