"""Numbers on the command line: what is taken, and one line for what is not."""

import pytest

from amst_hpc.cli.options import parse_area, parse_block, parse_range
from amst_hpc.config import InputError


def test_a_range_is_pythons():
    assert parse_range("3:17") == (3, 17)
    assert parse_range("3:") == (3, None)
    assert parse_range(":17") == (None, 17)
    assert parse_range(":") == parse_range(None) == (None, None)


def test_a_block_counts_from_one():
    assert parse_block("1/4") == (1, 4)
    assert parse_block("4/4") == (4, 4)


def test_an_area_is_yx():
    assert parse_area("1:20,3:40") == parse_area("1:20, 3:40") == (1, 20, 3, 40)
    assert parse_area(None) is None


@pytest.mark.parametrize("text", ["3", "", "-1:4", "a:b", "1:2:3", "1.5:2"])
def test_a_bad_range_is_named(text):
    with pytest.raises(InputError, match=rf"--range {text}: expected A:B"):
        parse_range(text)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "/4", "-1/4", "1/4/4"])
def test_a_bad_block_is_named(text):
    with pytest.raises(InputError, match=rf"--block {text}: expected I/N"):
        parse_block(text)


@pytest.mark.parametrize("text", ["1:2", "1:2,3", "1:2,3:", "1:2,3:b"])
def test_a_bad_area_is_named(text):
    with pytest.raises(InputError, match=rf"--area {text}: expected Y0:Y1,X0:X1"):
        parse_area(text)
