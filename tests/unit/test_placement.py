"""Where slices lie survives the way to JSON and back."""

import json

import numpy as np

from amst_hpc.placement import Placement
from amst_hpc.transform import translation


def test_a_record_and_back_is_the_same():
    """Also where a slice has no pairs, and its residual is no number."""
    transforms = np.array([translation(0.1, -2), translation(1 / 3, 4)])
    made = Placement(transforms, np.array([3, 0]), np.array([0.25, np.nan]), [np.int64(0), 1])
    text = json.dumps(made.to_record(), allow_nan=False)
    found = Placement.from_record(json.loads(text))
    np.testing.assert_array_equal(found.transforms, transforms)
    np.testing.assert_array_equal(found.residual, made.residual)
    assert found.pairs.tolist() == [3, 0]
    assert found.pairs.dtype.kind == "i"
    assert found.parts == [0, 1]
    assert json.dumps(found.to_record()) == text
