"""Inputs of `align` with one fault each, and what is said of it: shared by tests/unit and /mpi."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from jobs import Ended


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def save(image: np.ndarray) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, image)


def renamed(name: str) -> Callable[[Path], None]:
    return lambda path: path.rename(path.with_name(name))


def twin(path: Path) -> None:
    path.with_suffix(".tiff").write_bytes(path.read_bytes())


def palette(path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, GREY, photometric="palette", colormap=colours)


def empty(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()


GREY = np.zeros((144, 160), np.uint8)

SLICES = {
    "raw cut": ("raw", cut, "RAW .*slice_00007.tif: cut short"),
    "pre cut": ("pre", cut, "PREALIGNED .*slice_00007.tif: cut short"),
    "no bytes": (
        "raw", lambda p: p.write_bytes(b""), "RAW .*slice_00007.tif: not a readable TIFF"
    ),
    "raw fewer": (
        "raw", Path.unlink, "RAW .* has 23 slices, PREALIGNED .* 24: expected the same number"
    ),
    "pre fewer": (
        "pre", Path.unlink, "RAW .* has 24 slices, PREALIGNED .* 23: expected the same number"
    ),
    "wider": ("pre", save(np.zeros((144, 161), np.uint8)), r"slice_00007.tif: size \(144, 161\)"),
    "higher": ("raw", save(np.ones((145, 160), np.uint8)), r"slice_00007.tif: size \(145, 160\)"),
    "raw uint16": (
        "raw", save(GREY.astype(np.uint16)), "slice_00007.tif: dtype uint16, expected uint8"
    ),
    "pre uint16": (
        "pre", save(GREY.astype(np.uint16)), "slice_00007.tif: dtype uint16, expected uint8"
    ),
    "float": (
        "raw", save(GREY.astype(np.float32)), "slice_00007.tif: dtype float32, expected uint8"
    ),
    "colour": (
        "raw", save(np.zeros((144, 160, 3), np.uint8)), "slice_00007.tif: shape .* one grey"
    ),
    "palette": ("pre", palette, "slice_00007.tif: colours PALETTE, expected grey"),
    "stranger": (
        "raw", renamed("overview.tif"), "RAW .*: overview.tif: not of the series slice_# by name"
    ),
    "twin": ("pre", twin, "slice_00007.tif and slice_00007.tiff are the same slice by name"),
    "numbers": (
        "raw", renamed("slice_00024.tif"),
        r"numbers disagree \(gaps in other places\): slice_00008.tif beside slice_00007.tif"
    ),
    "no folder": ("raw", lambda p: shutil.rmtree(p.parent), "RAW .*raw: no such file or folder"),
    "no slices": ("pre", empty, "PREALIGNED .*: holds no .tif"),
}  # fmt: skip
"""Name -> RAW or PREALIGNED, what is done to slice 7 of it, what is said."""


def broken(tissue: Path, folder: Path, name: str, change: Callable[[Path], object]) -> Path:
    """`folder` with a copy of the stacks where `change(path of slice 7)` was done to one."""
    for part in ("raw", "pre"):
        shutil.copytree(tissue / part, folder / part)
    change(folder / name / "slice_00007.tif")
    return folder


def linked(tissue: Path, folder: Path) -> Path:
    """`folder` with links to the stacks."""
    for part in ("raw", "pre"):
        (folder / part).symlink_to(tissue / part)
    return folder


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    """Assert that `folder` holds afterwards what it held before."""
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before


def refused(ended: Ended, expected: str) -> None:
    """Assert that bad input ended it: exit code 2 and one line that matches `expected`."""
    assert ended.code == 2, ended.stderr
    assert len(ended.faults) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert re.search(expected, ended.faults[0]), ended.faults[0]


def refused_at_once(ended: Ended, expected: str) -> None:
    """The same, and that the line is all that was said."""
    refused(ended, expected)
    assert ended.stderr.splitlines() == ended.faults
