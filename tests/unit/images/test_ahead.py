"""Slices that are read before they are asked for are those that would be read then."""

import threading
import time

import numpy as np
import pytest

from amst_hpc.images import ahead
from amst_hpc.images.ahead import ReadAhead, slices_ahead
from amst_hpc.images.stack import Header, SliceError


class Slow:
    """Ten slices of 2x2 px that take their time; the fifth cannot be read."""

    source, names, files, numbers = "slow", [str(z) for z in range(10)], [], None

    def __init__(self):
        self.read_by: dict[int, list[str]] = {}
        self.inside = 0

    def header(self, z):
        return Header((2, 2), "uint8")

    def read(self, z):
        self.inside += 1
        assert self.inside == 1, "a file that stays open has one position"
        time.sleep(0.02)
        self.read_by.setdefault(z, []).append(threading.current_thread().name)
        self.inside -= 1
        if z == 5:
            raise SliceError("slice 5 is gone")
        return np.full((2, 2), z, np.uint8)

    def is_constant(self, z):
        return True

    def stamp(self, z):
        return f"stamp {z}"


def wait_until(happened):
    limit = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.fixture
def slow():
    return Slow()


def test_expected_slices_are_read_in_a_thread_and_once(slow):
    with ReadAhead(slow, 4) as stack:
        stack.expect([2, 3])
        wait_until(lambda: len(slow.read_by) == 2)
        stack.expect([2, 3, 4])
        found = [int(stack.read(z)[0, 0]) for z in (2, 3, 4, 7)]
    assert found == [2, 3, 4, 7]
    assert {z: len(by) for z, by in slow.read_by.items()} == {2: 1, 3: 1, 4: 1, 7: 1}
    assert slow.read_by[2][0].startswith("reading")
    assert slow.read_by[7] == ["MainThread"]


def test_an_error_is_raised_where_its_slice_is_asked_for(slow):
    with ReadAhead(slow, 4) as stack:
        stack.expect([5, 6])
        wait_until(lambda: 6 in slow.read_by)
        assert stack.read(6)[0, 0] == 6
        with pytest.raises(SliceError, match="slice 5 is gone"):
            stack.read(5)


def test_what_is_not_wanted_any_more_is_let_go(slow):
    with ReadAhead(slow, 4) as stack:
        stack.expect(range(5))
        stack.expect([8])
        wait_until(lambda: 8 in slow.read_by)
        assert len(slow.read_by) < 5
        stack.expect(range(10))
    assert len(slow.read_by) < 10, "and at the end"


def test_no_more_is_held_than_fits(slow, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 8)
    assert (slices_ahead(4), slices_ahead(100)) == (2, 1)
    with ReadAhead(slow, 4) as stack:
        stack.expect(range(10))
        wait_until(lambda: len(slow.read_by) == 2)
        time.sleep(0.1)
        assert sorted(slow.read_by) == [0, 1]


def test_the_rest_is_that_of_the_stack(slow):
    with ReadAhead(slow, 4) as stack:
        assert (stack.source, stack.names) == (slow.source, slow.names)
        assert (stack.header(1), stack.is_constant(1), stack.stamp(1)) == (
            Header((2, 2), "uint8"),
            True,
            "stamp 1",
        )
