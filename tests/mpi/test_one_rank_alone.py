"""What one rank alone meets ends the job on all of them, with a word, and none waits for it."""

import json

import pytest
from jobs import FAST, SLOWED, run
from spoilt import nothing_written, refused
from stacks import inputs

DIFFERENT = "RAW .*: the ranks do not see the same slices .*expected one shared file system"


@pytest.mark.parametrize(
    ("hidden", "options", "expected"),
    [
        ("/slice_00000.tif", (), DIFFERENT),
        ("raw/slice_00023.tif", ("--preview",), DIFFERENT),
        ("raw/slice_00015.tif", (), "RAW .*slice_00015.tif: not a readable TIFF .*No such file"),
    ],
)
def test_a_file_that_one_rank_does_not_see(
    tissue, tmp_path, monkeypatch, hidden, options, expected
):
    monkeypatch.setenv("FAULTS", json.dumps({"hidden": [1, hidden]}))
    line = ("align", *inputs(tissue), tmp_path / "out.h5", *FAST, *options)
    with nothing_written(tmp_path):
        refused(run(2, *line, timeout=40, program=SLOWED), expected)
