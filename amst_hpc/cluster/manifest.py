"""Manifests: a table with one stack per line, for job arrays.

A header line, then a line for each stack; tabs, semicolons or commas, as the header has them.
Columns `raw`, `prealigned` and `output`; an empty cell of `prealigned`, or no such column, means
raw alone (--prealign). Any further column is a setting, `section.key`, and an empty cell leaves it
alone. Lines that start with # are notes. Relative paths start at the manifest's own folder. Stacks
are counted from 1, as the array tasks are.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from amst_hpc.config import Config, InputError
from amst_hpc.images.opening import open_stack
from amst_hpc.images.pairing import Inputs, Job, common_depth, name_fault, refuse_other_numbers
from amst_hpc.images.stack import SliceError
from amst_hpc.job.journal import write_whole
from amst_hpc.settings import load_config

COLUMNS = ("raw", "prealigned", "output")
NEEDED = ("raw", "output")


@dataclass(frozen=True)
class Entry:
    """A line of a manifest; `where` names it in messages. prealigned : empty for raw alone."""

    raw: str
    prealigned: str
    output: Path
    overrides: tuple[tuple[str, str], ...]
    where: str

    def job(self) -> Job:
        """What to align."""
        return Job(self.raw, self.prealigned, self.output)

    def settings(self, config: Path | None, changes: Iterable[str]) -> Config:
        """The settings of this stack: those for all, then the line's own. Raises `InputError`."""
        own = [f"{key}={value}" for key, value in self.overrides]
        try:
            return load_config(config, [*changes, *own])
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None


def read_manifest(path: Path) -> list[Entry]:
    """The stacks of a manifest. Raises `InputError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    rows = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    head = rows[0][1] if rows else ""
    delimiter = next((mark for mark in "\t;," if mark in head), "\t")
    try:
        table = list(csv.reader((line for _, line in rows), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path}: expected a table ({error})") from None
    if len(table) < 2:
        raise InputError(f"{path}: expected a header line ({', '.join(COLUMNS)}) and stacks")
    header = [name.strip() for name in table[0]]
    _check_header(path, header)
    numbers = [number for number, _ in rows[1:]]
    return [_entry(path, n, header, row) for n, row in zip(numbers, table[1:], strict=True)]


def pick_entry(path: Path, number: int) -> Entry:
    """Stack `number` (from 1) of a manifest. Raises `InputError`."""
    entries = read_manifest(path)
    if not 1 <= number <= len(entries):
        raise InputError(f"{path}: stack {number}: expected 1 to {len(entries)}")
    return entries[number - 1]


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise InputError(
            f"{path}: the header has no column {missing[0]}; expected {', '.join(COLUMNS)}"
        )
    wrong = [name for name in header if name not in COLUMNS and "." not in name]
    if wrong:
        raise InputError(
            f"{path}: column {wrong[0]!r}: expected {', '.join(COLUMNS)} or section.key"
        )


def _entry(path: Path, number: int, header: Sequence[str], row: Sequence[str]) -> Entry:
    where = f"{path.name} line {number}"
    if len(row) > len(header):
        raise InputError(f"{where}: {len(row)} cells, expected {len(header)} as in the header")
    cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
    for name in NEEDED:
        if not cells.get(name):
            raise InputError(f"{where}: {name} is empty")
    folder = str(path.absolute().parent)
    names = [cells.get(name, "") for name in COLUMNS]
    overrides = tuple((k, v) for k, v in cells.items() if k not in COLUMNS and v)
    raw, prealigned, output = (n and os.path.normpath(os.path.join(folder, n)) for n in names)  # noqa: PTH118
    return Entry(raw, prealigned, Path(output), overrides, where)


def check_entries(
    entries: Sequence[Entry], config: Path | None, changes: Sequence[str]
) -> tuple[list[str], list[Inputs]]:
    """One fault per line that cannot run, and the stacks of those that can."""
    faults, found = [], []
    seen: dict[Path, str] = {}
    for entry in entries:
        try:
            if entry.output in seen:
                raise InputError(f"{entry.where}: output is that of {seen[entry.output]}")
            seen[entry.output] = entry.where
            found.append(open_entry(entry, entry.settings(config, changes)))
        except InputError as error:
            text = str(error)
            faults.append(text if text.startswith(entry.where) else f"{entry.where}: {text}")
    return faults, found


def open_entry(entry: Entry, config: Config) -> Inputs:
    """The stacks of a line, by their names and first slices. Raises `InputError`."""
    folder = entry.output.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"output {entry.output}: the folder is not there, or not writable")
    if fault := name_fault(entry.output, config.output):
        raise InputError(f"output {entry.output}: {fault}")
    raw = open_stack(entry.raw, "RAW")
    prealigned = open_stack(entry.prealigned, "PREALIGNED") if entry.prealigned else raw
    depth = common_depth(raw, prealigned, allow_mismatch=False)
    refuse_other_numbers(raw, prealigned, config)
    try:
        first = raw.header(0), prealigned.header(0)
    except SliceError as error:
        raise InputError(str(error)) from None
    return Inputs(raw, prealigned, depth, first[1].shape, first[0].dtype, range(depth))


def write_manifest(path: Path, entries: Sequence[Entry]) -> None:
    """A manifest of these stacks, with absolute paths."""
    keys = list(dict.fromkeys(key for entry in entries for key, _ in entry.overrides))
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow([*COLUMNS, *keys])
    for entry in entries:
        own = dict(entry.overrides)
        cells = [entry.raw, entry.prealigned, str(entry.output)]
        writer.writerow([*cells, *(own.get(key, "") for key in keys)])
    write_whole(path, table.getvalue())
