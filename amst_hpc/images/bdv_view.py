"""Which volume of a BigDataViewer XML or HDF5 file is meant: its one view, or the one chosen."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from amst_hpc.bdv.metadata import view_name
from amst_hpc.bdv.reading import list_views
from amst_hpc.config import InputError

View = tuple[int, int]
"""Timepoint and setup."""


def find_view(path: Path, choice: str) -> tuple[Path, str]:
    """The HDF5 file and the name of the dataset.

    choice : `setup=1`, `timepoint=2` or both with a comma; empty: the file has one view, or this is
    no BigDataViewer file. Raises `InputError` without the name of the file, OSError.
    """
    file, views = _read_xml(path) if path.suffix.lower() == ".xml" else (path, list_views(path))
    wanted = _parse(choice)
    found = [v for v in views if all(v[axis] == number for axis, number in wanted.items())]
    if len(found) == 1:
        return file, view_name(*found[0])
    if not views and not choice:
        return file, ""
    numbers = ", ".join(f"setup={setup},timepoint={time}" for time, setup in views[:4])
    more = " ..." if len(views) > 4 else ""
    raise InputError(
        f"holds {len(views)} views ({numbers}{more}), expected a choice of one: "
        f"{path.name}:setup={views[-1][1] if views else 0}"
        + (f",timepoint={views[0][0]}" if len({time for time, _ in views}) > 1 else "")
    )


def _parse(choice: str) -> dict[int, int]:
    """Place in a `View` -> number. Raises `InputError`."""
    wanted = {}
    for part in choice.split(",") if choice else []:
        match = re.fullmatch(r" *(timepoint|setup) *= *([0-9]{1,9}) *", part)
        if not match:
            raise InputError(f"{choice!r}: expected setup=N or setup=N,timepoint=N")
        wanted[("timepoint", "setup").index(match[1])] = int(match[2])
    return wanted


def _read_xml(path: Path) -> tuple[Path, list[View]]:
    """The HDF5 file that an XML names, and its views. Raises `InputError`."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"not valid XML ({error})") from None
    sequence = root.find("SequenceDescription")
    named = "" if sequence is None else sequence.findtext("ImageLoader/hdf5", "").strip()
    if sequence is None or not named:
        raise InputError("names no HDF5 file, expected a BigDataViewer XML")
    base = path.parent / root.findtext("BasePath", "").strip()
    try:
        setups = [int(e.text or "") for e in sequence.findall("ViewSetups/ViewSetup/id")]
        missing = [
            (int(e.get("timepoint", "")), int(e.get("setup", "")))
            for e in sequence.findall("MissingViews/MissingView")
        ]
        times = _read_timepoints(sequence.find("Timepoints"))
    except ValueError as error:
        raise InputError(f"not a BigDataViewer XML ({error})") from None
    views = [(time, setup) for setup in sorted(setups) for time in times]
    return base / named, [view for view in views if view not in missing]


def _read_timepoints(found: ElementTree.Element | None) -> list[int]:
    """The numbers; raises ValueError."""
    if found is None:
        return [0]
    if found.get("type") == "range":
        first, last = (int(found.findtext(name, "")) for name in ("first", "last"))
        return list(range(first, min(last, first + 100_000) + 1))
    text = found.findtext("integerpattern", "").strip() or "0"
    times: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r" *([0-9]{1,6})(?: *- *([0-9]{1,6})(?: *: *([0-9]{1,6}))?)? *", part)
        if not match:
            raise ValueError(f"timepoints {text!r}")
        times += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1) or 1)
    return times
