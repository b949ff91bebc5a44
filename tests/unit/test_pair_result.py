"""A pair's result is the same on both sides of the journal."""

import json
from dataclasses import fields

import numpy as np
import pytest

from amst_hpc.pair_result import PairResult


@pytest.mark.parametrize("matrix", [None, np.array([[1.0, 0.1, 3.5], [0.0, 1.0, -2.0]])])
def test_the_journal_gives_back_what_it_got(matrix):
    pair = PairResult(3, 2, matrix, 0.25, 0.5, 0.75, [1, 9, 2, 8], "why")
    again = PairResult.from_record(json.loads(json.dumps(pair.to_record())))
    for field in fields(PairResult):
        np.testing.assert_equal(getattr(again, field.name), getattr(pair, field.name))
