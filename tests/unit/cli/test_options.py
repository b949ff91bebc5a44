"""Numbers on the command line: what is taken, and one line for what is not."""

from pathlib import Path

import pytest
import typer

from amst_hpc.cli.options import (
    errors,
    name_canvas,
    name_stacks,
    output_file,
    parse_area,
    parse_block,
    parse_range,
)
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


@pytest.mark.parametrize(
    "text", ["3", "", "-1:4", "a:b", "1:2:3", "1.5:2", "²:4", "٣:4", "0:" + "9" * 5000]
)
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


def test_names_of_stacks_stand_in_their_places():
    three = ("RAW", "PREALIGNED", "OUT.h5")
    assert name_stacks(["r", "p", "o"], three, prealign=False) == ["r", "p", "o"]
    assert name_stacks(["r", "o", None], three, prealign=True) == ["r", "", "o"]
    assert name_stacks(["r", None], three[:2], prealign=True) == ["r", ""]
    with pytest.raises(InputError, match=r"^r: PREALIGNED is missing; expected RAW PREALIGNED, or"):
        name_stacks(["r", None], three[:2], prealign=False)
    with pytest.raises(InputError, match=r"^r p o x: too many names"):
        name_stacks(["r", "p", "o", "x"], three, prealign=False)


def test_the_canvas_is_that_of_the_short_option():
    assert name_canvas(True, True, None) == "crop"
    assert name_canvas(True, False, "raw") == "raw"
    assert name_canvas(True, False, None) is name_canvas(False, False, None) is None


def test_an_output_is_named_by_either_of_its_files():
    assert output_file(Path("a/out.xml")) == output_file(Path("a/out.h5")) == Path("a/out.h5")
    assert output_file(Path("slices")) == Path("slices")
    for nothing in ("/", ".", ".."):
        with pytest.raises(InputError, match="expected the name of an output"):
            output_file(Path(nothing))


@pytest.mark.parametrize(("number", "code"), [(13, 2), (21, 2), (28, 1), (5, 1)])
def test_a_file_that_may_not_be_opened_is_one_line(capsys, number, code):
    """A fault of the file system, which may pass, is no bad input."""
    with pytest.raises(typer.Exit) as ended, errors():
        raise OSError(number, "for a reason", "/some/file")
    assert ended.value.exit_code == code
    assert capsys.readouterr().err == "amst-hpc: /some/file: for a reason\n"
