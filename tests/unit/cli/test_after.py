"""`verify`, `evaluate` and `report` where there is nothing to look at."""

import pytest
from jobs import call
from spoilt import nothing_written, refused_at_once


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["verify", "none.h5"], "none"),
        (["report", "none.h5"], "none.h5.*finished align"),
        (["evaluate", "none"], "none: no such file or folder"),
        (["evaluate", "raw", "--area", "1:2"], "--area 1:2: expected Y0:Y1,X0:X1"),
        (["evaluate", "raw", "--voxel-size-nm", "5,five,5"], "--voxel-size-nm 5,five,5: expected"),
        (["evaluate", "raw", "--method", "sfit"], "sfit"),
        (["evaluate", "raw", "--range", "x"], "--range x: expected A:B"),
        (["evaluate", "raw", "--range", "3:99"], "expected"),
        (["evaluate", "raw", "--sigma", "1e9"], "--sigma 1000000000.0: expected a number from 0"),
        (["evaluate", "raw", "--voxel-size-nm", "5,inf,5"], "--voxel-size-nm: expected three"),
        (["evaluate", "raw", "--out", "no/name"], "--out no/name: the folder is not there"),
        (["evaluate", "raw", "--out", "/"], "OUT /: expected the name of an output"),
        (["status", "/"], "OUT /: expected the name of an output"),
        (["verify", "/"], "OUT /: expected the name of an output"),
        (["report", ".."], "OUT ..: expected the name of an output"),
        (["merge", "/"], "OUT /: expected the name of an output"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line(tissue, tmp_path, monkeypatch, arguments, expected):
    (tmp_path / "raw").symlink_to(tissue / "raw")
    monkeypatch.chdir(tmp_path)
    with nothing_written(tmp_path):
        ended = call(*arguments)
    refused_at_once(ended, expected)
