"""The journal: what is done, on disk before it counts.

`OUT.amst/journal/` holds one file per rank and attempt. A line is a CRC-32 in hex, a blank and a
JSON record; a line whose checksum is wrong (torn by a crash, a full disk) is dropped, never
trusted, and no attempt appends to a file of another. `fingerprint.json` says what inputs and
parameters the records belong to.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import IO, Any, Self

FSYNC_SECONDS = 2.0
FORGOTTEN = "forgotten"  # a record: what stands before it of its `slices` does not count any more
ALL: Set[int] = frozenset()
OF_BLOCK = re.compile(r"[0-9]+-b([0-9]+)-")  # a file of a block of an array, see `Attempt.name`
Record = dict[str, Any]


def encode(record: Mapping[str, Any]) -> bytes:
    """One line of the journal."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def whole(line: bytes) -> bytes:
    """The JSON of a line, empty if it is torn or damaged."""
    if len(line) < 11 or line[8:9] != b" " or not line.endswith(b"\n"):
        return b""
    try:
        return line[9:-1] if int(line[:8], 16) == zlib.crc32(line[9:-1]) else b""
    except ValueError:
        return b""


def decode(line: bytes) -> Record | None:
    """The record of a line, None if it is torn or damaged."""
    try:
        record = json.loads(whole(line) or b"null")
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    return {sys.intern(key): value for key, value in record.items()}  # one key for all records


def records(
    folder: Path, pattern: str = "*.register.log", blocks: Set[int] = ALL
) -> Iterator[Record]:
    """The whole records of the files that fit `pattern`, in the order of the attempts.

    blocks : of an array, whose files are read, beside those of no block; empty: all are.
    """
    for path in sorted(folder.glob(pattern)):
        of_block = OF_BLOCK.match(path.name)
        if of_block and blocks and int(of_block[1]) not in blocks:
            continue
        with path.open("rb") as file:
            for line in file:
                record = decode(line)
                if record is not None:
                    yield record


def undecoded(path: Path) -> Iterator[bytes]:
    """The JSON of each whole line of a file, for who needs little of many: decoding is dear."""
    with path.open("rb") as file:
        yield from filter(None, map(whole, file))


def registered(folder: Path, *kinds: str, blocks: Set[int] = ALL) -> dict[tuple[int, ...], Record]:
    """The last record of each slice, of these kinds, that was not forgotten since.

    By its number and those of the slices that its template was without. blocks : see `records`.
    """
    found: dict[tuple[int, ...], Record] = {}
    for r in records(folder, blocks=blocks):
        if r["kind"] == FORGOTTEN:
            found = {key: kept for key, kept in found.items() if key[0] not in r["slices"]}
        elif r["kind"] in kinds:
            found[(r["z"], *r.get("left_out", ()))] = r
    return found


def compared(folder: Path, blocks: Set[int] = ALL) -> dict[int, Record]:
    """The last record of each raw slice that was compared with others and not forgotten since.

    blocks : see `records`.
    """
    found: dict[int, Record] = {}
    for r in records(folder, "*.prealign.log", blocks):
        if r["kind"] == FORGOTTEN:
            found = {z: kept for z, kept in found.items() if z not in r["slices"]}
        elif r["kind"] == "seen":
            found[r["z"]] = r
    return found


def next_attempt(folder: Path) -> int:
    """A number that no file of the journal has yet."""
    return 1 + max((int(p.name.split("-")[0]) for p in folder.glob("*.log")), default=0)


class Journal:
    """The file of one rank, attempt and pass (`register` or `write`).

    Entered, it takes note of a crash.
    """

    def __init__(self, folder: Path, name: str, work: str) -> None:
        """name : of the attempt and the rank; no two files of the journal have the same."""
        self._file: IO[bytes] = (folder / f"{name}.{work}.log").open("xb")
        self._crash: IO[bytes] = (folder / f"{name}.{work}.crash").open("wb")
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        faulthandler.enable(
            self._crash
        )  # SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL: a fault of our own, no preemption
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.disable()
        self.sync()
        self._file.close()
        self._crash.close()
        Path(self._crash.name).unlink()

    def write(self, record: Mapping[str, Any], durable: bool = True) -> None:
        """Append a record.

        `durable`: on disk within FSYNC_SECONDS of the next record, or at `sync`.
        """
        self._file.write(encode(record))
        self._file.flush()
        if durable and time.monotonic() - self._synced > FSYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Everything written so far is on disk when this returns."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def crashed_slices(folder: Path) -> dict[int, int]:
    """Slices that were in hand when a rank died of a fault of its own, and how often.

    Such a fault is SIGSEGV and the like.
    """
    counts: dict[int, int] = {}
    for path in folder.glob("*.register.crash"):
        log_file = path.with_suffix(".log")
        if not path.stat().st_size or not log_file.exists():
            continue
        in_hand = None
        for record in records(folder, log_file.name):
            in_hand = record["z"] if record["kind"] == "start" else in_hand
        if in_hand is not None:
            counts[in_hand] = counts.get(in_hand, 0) + 1
    return counts


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    """What differs between two fingerprints, as 'name: before -> after'."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(
                before.get(key), after.get(key), f"{name}.{key}" if name else key
            )
        ]
    return [] if before == after else [f"{name}: {before} -> {after}"]


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
