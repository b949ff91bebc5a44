"""The table of `align --overrides`: what is read, and what is said of a bad one."""

import re

import pytest

from amst_hpc.config import InputError
from amst_hpc.overrides import Override, excluded, read_overrides

HEAD = "slice,action,x,y\n"
GOOD = [Override(3, "shift", 3.5, -2), Override(4, "exclude"), Override(11, "blank")]


@pytest.fixture
def table(tmp_path):
    """A function (bytes or text) -> the overrides of a stack of 12 slices."""

    def read(content):
        path = tmp_path / "bad.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_overrides(path, 12)

    return read


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "11,blank,,\n3,shift,3.5,-2\n4,exclude,,\n",
        "\ufeffslice;action;x;y\r\n3;shift;3,5;-2\r\n;;;\r\n4;exclude;;\r\n11;blank;;\r\n",
        "Slice\tAction\tX\tY\n3\tshift\t3.5\t-2\n4\texclude\n11\tblank\t0\t0",
        "# charged\nslice, action, y, x\n3, SHIFT, -2, 3.5\n\n4, exclude\n# black\n11, blank\n",
        'slice,action,x,y\n"3","shift","3.5","-2"\n"4","exclude"\n"11","blank"\n',
    ],
    ids=["commas", "as Excel writes it", "tabs", "spaces, notes, another order", "quotes"],
)
def test_tables_that_say_the_same(table, text):
    assert table(text) == GOOD
    assert [str(o) for o in table(text)] == ["shift 3.5 -2", "exclude", "blank"]


def test_what_need_not_be_there(table):
    assert table(HEAD) == []
    assert table("slice,action\n4,interpolate\n") == [Override(4, "interpolate")]
    assert excluded(GOOD) == {4}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1: '': expected the header slice,action,x,y"),
        ("3,shift,1,2\n", "line 1: '3,shift,1,2': expected the header slice,action,x,y"),
        ("slice,action,x,x\n", "line 1: 'slice,action,x,x': expected the header"),
        ("slice,action,x,y,y\n", "line 1: .*: expected the header"),
        ("slice,what,x,y\n", "line 1: .*: expected the header"),
        (b"\x89PNG\r\n\x1a\n", r"bad\.csv: cannot be read \(.*utf-8"),
        (b"PK\x03\x04\x00\x00", "line 1: .*: expected the header"),
        (200_000 * "z", "line 1: 'z{60}': expected the header"),
        ("x,y,slice,action\n1,2\n", "line 2: slice '': expected a number"),
        (HEAD + "12,blank,,\n", "line 2: slice '12': expected a number from 0 to 11"),
        (HEAD + "\n# one\n-1,blank,,\n", "line 4: slice '-1': expected a number from 0 to 11"),
        (HEAD + "1.5,blank,,\n", "line 2: slice '1.5': expected a number"),
        (HEAD + "²,blank,,\n", "line 2: slice '²': expected a number"),
        (HEAD + ",blank,,\n", "line 2: slice '': expected a number"),
        (HEAD + "1,drop,,\n", "action 'drop': expected exclude, shift, interpolate, blank"),
        (HEAD + "1\n", "line 2: action '': expected exclude"),
        (HEAD + "1,shift,3,\n", "line 2: y '': expected a number of px"),
        (HEAD + "1,shift\n", "line 2: x '': expected a number of px"),
        (HEAD + "1,shift,a lot,2\n", "line 2: x 'a lot': expected a number of px"),
        (HEAD + "1,shift,nan,2\n", "line 2: x 'nan': expected a number of px"),
        (HEAD + "1,shift,1,inf\n", "line 2: y 'inf': expected a number of px"),
        (HEAD + "1,shift,1_0,1\n", "line 2: x '1_0': expected a number of px"),
        (HEAD + "1,shift,\uff11,1\n", "line 2: x '\uff11': expected a number of px"),
        (HEAD + "1,blank,3,\n", "line 2: x '3': expected none for blank"),
        (HEAD + "1,exclude,,b\n", "line 2: y 'b': expected none for exclude"),
        (HEAD + "1,shift,1,5,2,5\n", "line 2: '1,shift,1,5,2,5': expected 4 cells"),
        (HEAD + "1,blank,,\n2,blank,,\n1,shift,1,1\n", "line 4: slice 1 stands in line 2"),
    ],
)  # fmt: skip
def test_a_bad_table_is_named_with_line_value_and_expectation(table, content, said):
    with pytest.raises(InputError, match=said) as caught:
        table(content)
    assert re.match(r"--overrides .*bad\.csv", str(caught.value))
    assert len(str(caught.value).splitlines()) == 1


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_overrides(tmp_path / "none.csv", 3)
    with pytest.raises(InputError, match="cannot be read"):
        read_overrides(tmp_path, 3)
