"""The order of slices by their file names, and what the numbers in these say."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from amst_hpc.config import InputError

DECIMAL = re.compile(r"(?<![0-9.])[0-9]+\.[0-9]+(?![0-9]|\.[0-9])|[0-9]+")
NUMBER, SPLIT = re.compile("[0-9]+"), re.compile("([0-9]+)")
LEAST = 3
"""Names of one kind in a row are a series from so many on."""


def order_files(paths: Iterable[str]) -> tuple[list[str], list[str], list[int] | None]:
    """The files of a stack in natural order (2 before 10), folder by folder, and the slices' names
    and numbers (see `slice_numbers`).

    The names are those of the files; with that of the folder before, where they are not unique.
    Raises `InputError` for twins and for names that do not belong to the series.
    """
    found = sorted(map(_parse, paths), key=_key)
    for first, second in pairwise(found):
        if first.folder == second.folder and first.counts == second.counts:
            both = f"{first.name} and {second.name}"
            raise InputError(f"{both} are the same slice by name; expected one")
    _refuse_strangers(found)
    _refuse_decimals(found)
    files, names = [file.path for file in found], [file.name for file in found]
    numbers = slice_numbers(names)
    if numbers is None:
        _refuse_disorder(found)
    if len(set(names)) < len(names):
        common = os.path.commonpath({file.folder for file in found})
        names = [os.path.relpath(file, common).replace(os.sep, "_") for file in files]
        numbers = slice_numbers(names)
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise InputError(f"two slices would be named {twice}; expected other names")
    return files, names, numbers


class File(NamedTuple):
    """A file of a stack, and the parts of its path; counts : its stem, as `_natural` gives it."""

    path: str
    folder: str
    name: str
    stem: str
    counts: list[str | int]


def _parse(path: str) -> File:
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]  # noqa: PTH122 (a Path is slow)
    return File(path, folder, name, stem, _natural(stem))


def _key(file: File) -> tuple[Any, ...]:
    """To sort by: the text decides between 1 and 01."""
    return _of_folder(file.folder), file.folder, _natural(file.name), file.name


@lru_cache
def _of_folder(folder: str) -> list[str | int]:
    return _natural(folder)


def _natural(text: str) -> list[str | int]:
    """A key that puts 2 before 10."""
    parts = SPLIT.split(text)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)]


def skeleton(text: str) -> str:
    """A name without its numbers."""
    return NUMBER.sub("#", text)


def _refuse_strangers(files: Sequence[File]) -> None:
    """Raises `InputError` for names of another kind than the rest.

    Kinds that follow one another, each a series, are parts of one stack.
    """
    for file in files:
        if not _is_utf8(file.path):
            raise InputError(f"{file.path!r}: expected a name in UTF-8")
    folders = {folder: skeleton(folder) for folder in {file.folder for file in files}}
    kinds = [f"{folders[file.folder]}/{skeleton(file.stem)}" for file in files]
    counts = Counter(kinds)
    signed = {kind for kind in counts if kind.replace("-#", "#") != kind}
    if {kind.replace("-#", "#") for kind in signed} & set(counts):
        raise InputError(f"{files[0].name} ...: negative numbers beside others; expected none")
    if len({kind.casefold() for kind in counts}) < len(counts):
        raise InputError(f"{files[0].name} ... {files[-1].name}: names that differ only by case")
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    whole = len(counts) == len(runs) and min(n for _, n in runs) >= LEAST
    if len(runs) == 1 or whole or not any(NUMBER.search(file.stem) for file in files):
        return
    most = max(counts, key=lambda kind: counts[kind])
    strange = [file.name for file, kind in zip(files, kinds, strict=True) if kind != most]
    more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
    raise InputError(
        f"{', '.join(strange[:3])}{more}: not of the series {Path(most).name} by name; expected "
        "one series (a glob can choose it)"
    )


def _refuse_decimals(files: Sequence[File]) -> None:
    """Raises `InputError` where 0.75 and 0.8 would stand in the order of 75 and 8."""
    if not any("." in file.stem for file in files):
        return
    places = [tuple(map(float, DECIMAL.findall(file.stem))) for file in files]
    kinds = [(file.folder, skeleton(file.stem)) for file in files]
    if len(set(zip(kinds, places, strict=True))) < len(files):
        return  # 1.1 and 1.10 are counts
    for n in range(1, len(files)):
        if kinds[n - 1] == kinds[n] and places[n - 1] > places[n]:
            raise InputError(
                f"{files[n - 1].name} and {files[n].name}: numbers with a point sort in two ways; "
                "expected as many digits after it in every name"
            )


def _refuse_disorder(files: Sequence[File]) -> None:
    """Of files whose numbers count nothing in this order: raises `InputError` where one counts the
    slices in another: 02-02-2024_0009 before 30-01-2024_0008.
    """
    if not is_numbered([file.name for file in files]):
        return
    last = [float(DECIMAL.findall(file.stem)[-1]) for file in files]
    falls = [n for n in range(1, len(last)) if last[n - 1] > last[n]]
    if falls and len(set(last)) == len(last):
        n = falls[0]
        raise InputError(
            f"{files[n - 1].name} before {files[n].name}: the order by name is not that of the "
            "last number; expected names that sort in one way"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stems(names: Sequence[str]) -> list[str]:
    return [os.path.splitext(name)[0] for name in names]  # noqa: PTH122 (a Path is slow)


def is_numbered(names: Sequence[str]) -> bool:
    """True for a series whose names hold numbers, whatever these say."""
    kinds = set(map(skeleton, _stems(names)))
    return len(names) >= LEAST and len(kinds) == 1 and "#" in kinds.pop()


def slice_numbers(names: Sequence[str]) -> list[int] | None:
    """The number of each slice: that part of the names that counts them, None where there is none.

    Where several numbers grow from name to name (a time, a position), that which grows least.
    """
    stems = _stems(names)
    if len(set(map(skeleton, stems))) != 1:
        return None
    columns = zip(*([int(n) for n in NUMBER.findall(stem)] for stem in stems), strict=True)
    growing = [list(c) for c in columns if all(a < b for a, b in pairwise(c))]
    return min(growing, key=lambda c: c[-1] - c[0], default=None)


def number_gaps(names: Sequence[str], numbers: Sequence[int] | None) -> list[str]:
    """What is missing of the numbers of a series, each as 'after NAME: n missing'."""
    if numbers is None or len(names) < LEAST:
        return []
    step = min(b - a for a, b in pairwise(numbers))
    return [
        f"after {name}: {(b - a) // step - 1} missing"
        for name, a, b in zip(names, numbers, numbers[1:], strict=False)
        if b - a > step
    ]


def number_fault(raw: Sequence[int], prealigned: Sequence[int]) -> tuple[int, str] | None:
    """The first slice whose numbers disagree, and why; None where the two may count the same.

    They do if one is the other moved on as a whole; moved, PREALIGNED starts at 0 or 1, as a
    program that numbers its output anew does. Steps of 10 may stand for steps of 1.
    """
    depth = min(len(raw), len(prealigned))
    if depth < 2:
        return None
    steps = [min(b - a for a, b in pairwise(n)) for n in (raw, prealigned)]
    for z in range(depth):
        places = [(n[z] - n[0]) / step for n, step in zip((raw, prealigned), steps, strict=True)]
        if places[0] != places[1]:
            return z, "gaps in other places"
    anew = prealigned[0] in (0, 1) and len(raw) == len(prealigned)
    if raw[0] != prealigned[0] and not anew:
        return 0, "another first number"
    return None
