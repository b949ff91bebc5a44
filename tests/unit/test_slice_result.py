"""A slice's result is the same on both sides of the journal and of slices.csv."""

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst_hpc.slice_result import SliceResult, from_csv, to_csv

scores = st.one_of(st.just(float("nan")), st.floats(-1, 1))
matrices = st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=2, max_size=2)
some_matrix = st.one_of(st.none(), matrices.map(np.array))
results = st.builds(
    SliceResult,
    z=st.integers(0, 30_000),
    file=st.text(max_size=20),
    blank=st.booleans(),
    unreadable=st.booleans(),
    missed=st.lists(st.text(max_size=9), max_size=3),
    left_out=st.lists(st.integers(0, 30_000), max_size=3),
    method=st.sampled_from(["sift", "xcorr", "none", ""]),
    over_chance=st.one_of(st.just(float("nan")), st.floats(-2, 50)),
    shift=some_matrix,
    affine=some_matrix,
    prealigned=some_matrix,
    start=scores,
    metric=scores,
    matches=st.integers(0, 4000),
    crc=st.none() | st.integers(0, 2**32 - 1),
    reason=st.text(max_size=40),
    seconds=st.dictionaries(st.sampled_from(["template", "read"]), st.floats(0, 99)),
    rank=st.integers(0, 255),
    device=st.text(max_size=10),
)


def assert_same(one, other, but=()):
    for field in fields(SliceResult):
        if field.name not in but:
            np.testing.assert_equal(
                getattr(other, field.name), getattr(one, field.name), err_msg=field.name
            )


@given(results)
def test_the_journal_gives_back_what_it_got(result):
    record = json.loads(json.dumps(result.to_record()))
    assert_same(result, SliceResult.from_record(record))


def test_the_table_gives_back_what_it_shows():
    shift = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])
    seconds = {"template": 0.01, "refine": 1.5}
    first = SliceResult(
        4, 'a,"b".tif', shift=shift, start=0.5, metric=0.75, matches=12, seconds=seconds, rank=1,
        device="0:0 CPU", status="affine", transform=shift, method="sift", over_chance=2.25,
        missed=["b.tif", "d e.tif"], left_out=[2, 6],
    )  # fmt: skip
    second = SliceResult(5, "c.tif", blank=True, reason="black\nslice", status="blank")
    text = to_csv([first, second])
    assert text.splitlines()[1].startswith('4,"a,""b"".tif",affine,3.0,-2.0,12,0.5000,0.7500,0.01,')
    assert text.splitlines()[1].endswith(",sift,2.25,b.tif; d e.tif,2; 6")
    transforms = [None] * 4 + [shift.tolist(), None]
    for one, other in zip([first, second], from_csv(text, transforms), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("text", ["index\n1\n", to_csv([SliceResult(9)])])
def test_a_damaged_table_is_no_result(text):
    with pytest.raises(LookupError):
        from_csv(text, [None])
