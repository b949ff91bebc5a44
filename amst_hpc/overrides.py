"""What a person has decided about single slices: the table of `align --overrides`.

CSV with a header line; columns `slice` (its number, from 0), `action`, and for `shift` `x` and `y`.
Commas, semicolons or tabs; empty lines and lines that start with # do not count.
`registration.mending` applies it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from amst_hpc.config import InputError

ACTIONS = ("exclude", "shift", "interpolate", "blank")
COLUMNS = ("slice", "action", "x", "y")
LONGEST = 60  # characters of a file that a message repeats


class Override(NamedTuple):
    """Slice z and what becomes of it; x, y : px of the output, of `shift` alone.

    `exclude` leaves it out of the templates, pairs and solution of the others; `shift` moves it
    from where it was found, +x to the right, +y down; `interpolate` moves it as the slices beside
    it; `blank` leaves it black.
    """

    z: int
    action: str
    x: float = 0.0
    y: float = 0.0

    def __str__(self) -> str:
        return f"shift {self.x:g} {self.y:g}" if self.action == "shift" else self.action


def read_overrides(path: Path, depth: int) -> list[Override]:
    """The table, by slice; `depth` : slices that there are. Raises `InputError`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--overrides {path}: cannot be read ({error}); expected CSV") from None
    rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip(" ,;\t\r")]
    rows = [(n, line) for n, line in rows if not line.startswith("#")]
    number, head = rows[0] if rows else (1, "")
    delimiter = next((mark for mark in ";\t" if mark in head), ",")
    header = [name.lower() for name in _cells(head, delimiter)]
    if set(header) not in (set(COLUMNS), set(COLUMNS[:2])) or len(header) > len(COLUMNS):
        expected = f"the header {','.join(COLUMNS)}"
        raise InputError(
            f"--overrides {path} line {number}: {head[:LONGEST]!r}: expected {expected}"
        )
    found: dict[int, Override] = {}
    lines_of: dict[int, int] = {}
    for number, line in rows[1:]:
        cells = _cells(line, delimiter)
        try:
            if len(cells) > len(header):
                raise InputError(f"{line[:LONGEST]!r}: expected {len(header)} cells")
            override = _override(dict(zip(header, cells, strict=False)), depth, delimiter)
            if override.z in found:
                there = lines_of[override.z]
                raise InputError(f"slice {override.z} stands in line {there}: expected it once")
        except InputError as error:
            raise InputError(f"--overrides {path} line {number}: {error}") from None
        found[override.z], lines_of[override.z] = override, number
    return [found[z] for z in sorted(found)]


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a cell of more than 128 KiB
        return []


def _override(cells: Mapping[str, str], depth: int, delimiter: str) -> Override:
    """One line of the table. Raises `InputError`."""
    text, action = cells.get("slice", ""), cells.get("action", "").lower()
    if not (text.isascii() and text.isdigit() and int(text) < depth):
        raise InputError(f"slice {text!r}: expected a number from 0 to {depth - 1}")
    if action not in ACTIONS:
        raise InputError(f"action {action!r}: expected {', '.join(ACTIONS)}")
    x, y = (_number(name, cells.get(name, ""), action, delimiter) for name in "xy")
    return Override(int(text), action, x, y)


def _number(name: str, text: str, action: str, delimiter: str) -> float:
    """x or y, px; a comma may stand for the point where semicolons part the cells."""
    try:
        value = float(text.replace(",", ".") if delimiter == ";" else text)
        value = value if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = 0.0 if action != "shift" and not text else math.nan
    if not math.isfinite(value) or (value and action != "shift"):
        expected = "a number of px" if action == "shift" else f"none for {action}"
        raise InputError(f"{name} {text!r}: expected {expected}")
    return value


def excluded(overrides: Sequence[Override]) -> frozenset[int]:
    """The slices that are left out."""
    return frozenset(o.z for o in overrides if o.action == "exclude")
