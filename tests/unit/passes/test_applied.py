"""Another stack, resampled with the transforms of a run: what counts as written."""

import numpy as np
import pytest
from stacks import save_stack

from amst_hpc.images.opening import open_stack
from amst_hpc.images.paired import PairedStack
from amst_hpc.images.pairing import Inputs
from amst_hpc.passes.applied import AppliedStack
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import translation


@pytest.fixture
def made(tmp_path):
    """A function stamps -> three slices, the last of them not there, the second spoilt."""
    folder = save_stack(tmp_path / "s", np.full((2, 16, 20), 9, np.uint8))
    (folder / "slice_00001.tif").write_bytes(b"spoilt")
    stack = PairedStack(open_stack(str(folder), "OTHER_RAW"), {0: 0, 1: 1}, ["a", "b", "c"])
    inputs = Inputs(stack, stack, 3, (16, 20), "uint8", range(3))
    moved = translation(2, 0)
    results = [SliceResult(z, transform=moved if z < 2 else None) for z in range(3)]
    return lambda *stamps: AppliedStack(inputs, results, stamps=dict(enumerate(stamps)))


def test_what_is_not_there_is_black(made):
    stack = made("x", "y", "")
    images = [*stack.slices(range(3))]
    assert images[0][:, :18].all()
    assert not images[0][:, 18:].any()
    assert not images[1].any()
    assert not images[2].any()
    assert [*stack.unreadable] == [1]


def test_keys_change_with_the_slices_and_with_what_could_not_be_read(made):
    stack, later = made("x", "y", ""), made("x", "z", "")
    assert stack.key(range(1)) == later.key(range(1))
    assert stack.key(range(1, 2)) != later.key(range(1, 2))
    before = stack.key(range(3))
    assert len([*stack.slices(range(3))]) == 3
    assert stack.key(range(3)) != before
    assert stack.key(range(1)) == later.key(range(1))
