"""Another stack under the numbers of RAW."""

import numpy as np
import pytest
from stacks import save_stack

from amst_hpc.images.opening import open_stack
from amst_hpc.images.paired import PairedStack
from amst_hpc.images.stack import SliceError


def test_slices_have_the_numbers_of_raw(tmp_path):
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    stack = open_stack(str(save_stack(tmp_path / "s", images)), "OTHER_RAW")
    paired = PairedStack(stack, {1: 0, 3: 2}, ["a.tif", "b.tif", "c.tif", "d.tif"])
    assert paired.names == ["a.tif", "slice_00000.tif", "c.tif", "slice_00002.tif"]
    np.testing.assert_array_equal(paired.read(3), images[2])
    assert paired.header(1).shape == (8, 8)
    assert not paired.is_constant(3)
    assert paired.stamp(3) == stack.stamp(2)
    assert paired.stamp(2) == ""
    with pytest.raises(SliceError, match=r"s: has no slice for c\.tif of RAW"):
        paired.read(2)
