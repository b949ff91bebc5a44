"""A record counts only if it is whole, whatever a crash or a bad disk left of the file."""

import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amst_hpc.job.journal import (
    Journal,
    crashed_slices,
    decode,
    differences,
    encode,
    next_attempt,
    records,
    registered,
    write_whole,
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=8,
)
entries = st.dictionaries(st.text(), values, max_size=4)

SLICES = [
    {"kind": "slice", "z": z, "matrix": [[1.0, 0.0, z / 3], [0.0, 1.0, -z]], "reason": "no"}
    for z in range(5)
]


def write(folder, entries, attempt=1, rank=0):
    with Journal(folder, f"{attempt:04d}-{rank:05d}", "register") as journal:
        for entry in entries:
            journal.write(entry)
    return folder / f"{attempt:04d}-{rank:05d}.register.log"


@given(entries)
def test_a_record_comes_back(record):
    line = encode(record)
    assert line.count(b"\n") == 1
    assert decode(line) == record


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_nothing(data):
    assert decode(data) is None or encode(decode(data)) is not None


@given(entries, st.data())
def test_a_damaged_byte_is_found(record, data):
    line = bytearray(encode(record))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    # the checksum in capitals is the same number
    assert decode(bytes(line)) in (None, record)


def test_a_file_cut_at_every_byte_keeps_the_records_before(tmp_path):
    whole = write(tmp_path, SLICES).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "0001-00000.register.log"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends)
        assert list(records(tmp_path)) == SLICES[:kept]


def test_a_damaged_record_takes_no_other_with_it(tmp_path):
    path = write(tmp_path, SLICES)
    lines = path.read_bytes().splitlines(keepends=True)
    middle = sum(map(len, lines[:2]))
    for place in range(middle, middle + len(lines[2])):
        damaged = bytearray(b"".join(lines))
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        found = list(records(tmp_path))
        assert [r for r in found if r in SLICES] == found
        assert {r["z"] for r in found} >= {0, 1, 4}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_in_the_file_is_no_record(tmp_path_factory, rubbish):
    folder = tmp_path_factory.mktemp("journal")
    (folder / "0001-00000.register.log").write_bytes(rubbish + b"\n" + encode(SLICES[0]))
    assert list(records(folder))[-1] == SLICES[0]


def test_attempts_never_share_a_file(tmp_path):
    assert next_attempt(tmp_path) == 1
    write(tmp_path, SLICES[:1], attempt=1)
    write(tmp_path, SLICES[1:2], attempt=1, rank=1)
    assert next_attempt(tmp_path) == 2
    with pytest.raises(FileExistsError):
        Journal(tmp_path, "0001-00000", "register")
    write(tmp_path, SLICES[2:3], attempt=2)
    assert [r["z"] for r in records(tmp_path)] == [0, 1, 2]


CRASH = """
import os, signal, sys
from pathlib import Path
from amst_hpc.job.journal import Journal
with Journal(Path(sys.argv[1]), f"{int(sys.argv[2]):04d}-00000", "register") as journal:
    journal.write({"kind": "start", "z": 3})
    journal.write({"kind": "slice", "z": 3})
    journal.write({"kind": "start", "z": 4})
    os.kill(os.getpid(), int(sys.argv[3]))
"""


def crash(folder, attempt, number):
    command = [sys.executable, "-c", CRASH, folder, str(attempt), str(int(number))]
    done = subprocess.run(command, check=False)
    assert done.returncode == -number


def test_a_crash_names_the_slice_in_hand(tmp_path):
    crash(tmp_path, 1, signal.SIGSEGV)
    assert crashed_slices(tmp_path) == {4: 1}
    crash(tmp_path, 2, signal.SIGABRT)
    assert crashed_slices(tmp_path) == {4: 2}


def test_a_kill_from_outside_is_no_crash(tmp_path):
    crash(tmp_path, 1, signal.SIGKILL)
    crash(tmp_path, 2, signal.SIGTERM)
    assert crashed_slices(tmp_path) == {}
    assert [r["kind"] for r in records(tmp_path)] == ["start", "slice", "start"] * 2


def test_good_order_leaves_no_crash_file(tmp_path):
    write(tmp_path, SLICES)
    assert [p.name for p in tmp_path.iterdir()] == ["0001-00000.register.log"]


def test_differences_are_named_by_their_path():
    before = {"template": {"radius": 7}, "coarse": {"method": "sift"}}
    after = {"template": {"radius": 5}, "coarse": {"method": "sift"}, "new": 1}
    assert differences(before, after) == ["template.radius: 7 -> 5", "new: None -> 1"]
    assert differences(before, before) == []


def test_a_text_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_slice_counts_until_it_is_forgotten(tmp_path):
    logs = [
        [{"kind": "slice", "z": z, "left_out": out} for z, out in ((1, []), (2, []), (2, [3]))],
        [{"kind": "forgotten", "slices": [2, 5]}],
        [{"kind": "provisional", "z": 2}, {"kind": "start", "z": 3}],
    ]
    for n, log in enumerate(logs, 1):
        path = tmp_path / f"{n:04d}-00000.register.log"
        path.write_bytes(b"".join(encode(record) for record in log))
    assert [*registered(tmp_path, "slice")] == [(1,)]
    assert [*registered(tmp_path, "slice", "provisional")] == [(1,), (2,)]
