"""Reads an image of an OME-Zarr (0.4 or 0.5), or an array of any Zarr, slices at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv.metadata import NANOMETRES
from amst_hpc.ome_zarr.metadata import AXES, METADATA, read_json
from amst_hpc.ome_zarr.store import naming_errors, open_array
from amst_hpc.transform import Block

READ_BYTES = 64 << 20  # at once, beside the slices that are kept
MARKS = (METADATA, ".zarray", ".zgroup", ".zattrs")


def is_zarr(folder: Path) -> bool:
    """True for a folder that is an array or a group, or says so by its name."""
    return folder.suffix.lower() == ".zarr" or any((folder / mark).is_file() for mark in MARKS)


@dataclass(frozen=True)
class _Node:
    """What a folder says of itself: `array`, `group` or nothing; Zarr format; its tables."""

    kind: str
    zarr_format: int
    array: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def multiscales(self) -> list[dict[str, Any]]:
        """OME-Zarr 0.5 has them under `ome`."""
        found = self.attributes.get("ome", self.attributes)
        listed = found.get("multiscales", []) if isinstance(found, dict) else []
        return [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []


def _look(folder: Path) -> _Node:
    """Raises LookupError for metadata that cannot be read."""
    try:
        if (folder / METADATA).is_file():
            table = read_json(folder / METADATA)
            return _Node(str(table.get("node_type")), 3, table, table.get("attributes") or {})
        mine = folder / ".zattrs"
        attributes = read_json(mine) if mine.is_file() else {}
        if (folder / ".zarray").is_file():
            return _Node("array", 2, read_json(folder / ".zarray"), attributes)
        is_group = (folder / ".zgroup").is_file() or attributes
        return _Node("group" if is_group else "", 2, {}, attributes)
    except (OSError, ValueError, AttributeError) as error:
        raise LookupError(f"its metadata cannot be read ({error})") from None


def _find_image(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The array that is meant by a folder, and the multiscales that it belongs to.

    A group stands for its one image, full size. Raises LookupError.
    """
    node = _look(folder)
    if node.kind == "array":
        return folder, _find_multiscales(folder)
    if node.kind != "group":
        raise LookupError("holds no Zarr array or group")
    if len(node.multiscales) != 1:
        inside = sorted(path.parent.name for mark in MARKS for path in folder.glob(f"*/{mark}"))
        told = ", ".join(dict.fromkeys(inside[:6])) or "nothing"
        count = f"{len(node.multiscales)} images" if node.multiscales else "no multiscales"
        raise LookupError(f"has {count}, expected an OME-Zarr image, or {folder}:/ARRAY of {told}")
    try:
        path = folder / node.multiscales[0]["datasets"][0]["path"]
    except (LookupError, TypeError) as error:
        raise LookupError(f"its multiscales name no array ({error!r})") from None
    if _look(path).kind != "array":
        raise LookupError(f"its array {path} is not there")
    return path, node.multiscales[0]


def _find_multiscales(array: Path) -> dict[str, Any]:
    """Those of the group around an array; empty where there are none."""
    for parent in array.absolute().parents[:3]:
        for image in _look(parent).multiscales:
            paths = [d.get("path") for d in image.get("datasets", []) if isinstance(d, dict)]
            if str(array.absolute().relative_to(parent)) in paths:
                return image
    return {}


class ZarrVolume:
    """A (z, y, x) image; other axes have one place."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError if the array cannot be opened, LookupError if it is no such image."""
        self.path, self._image = _find_image(folder)
        node = _look(self.path)
        self._array = open_array(self.path, node.zarr_format, fill=True)
        self.axes = self._read_axes(node)
        if extra := [
            f"{a} has {n}" for a, n in zip(self.axes, self._array.shape, strict=True)
            if a not in AXES and n != 1
        ]:  # fmt: skip
            raise LookupError(f"axis {', '.join(extra)}, expected 1 beside z, y, x")
        if [a for a in self.axes if a in AXES] != list(AXES):
            raise LookupError(f"axes {''.join(self.axes)}, expected zyx")
        self._shape = tuple(int(n) for n in self._array.shape)
        self.shape = self._zyx(self._shape)
        self.dtype = np.dtype(self._array.dtype.numpy_dtype)
        layout = self._array.chunk_layout
        self._stored = tuple(map(int, layout.write_chunk.shape))
        self.chunk_depth, self._chunk_rows, _ = self._zyx(tuple(layout.read_chunk.shape))
        self.row_depth = self._zyx(self._stored)[0]
        self._key = _key_encoding(node)
        if prod(self._shape) and not self._has_chunks():
            raise LookupError("nothing was ever written to it")

    def _read_axes(self, node: _Node) -> list[str]:
        """Of the multiscales, else of the array itself, else zyx. Raises LookupError."""
        named = self._image.get("axes") or node.array.get("dimension_names") or []
        axes = [str(a.get("name") if isinstance(a, dict) else a).lower() for a in named]
        rank = len(self._array.shape)
        if not axes and self._image:
            raise LookupError("its multiscales have no axes, expected OME-Zarr 0.4 or 0.5")
        if not axes or (not self._image and "none" in axes):
            axes = list(AXES) if rank == 3 else ["?"] * rank
        if len(axes) != rank:
            raise LookupError(f"{rank} dimensions, but axes {''.join(axes)}")
        if "?" in axes:
            raise LookupError(f"shape {self._array.shape}, expected (z, y, x)")
        return axes

    def _zyx(self, sizes: tuple[int, ...]) -> tuple[int, int, int]:
        z, y, x = (int(n) for a, n in zip(self.axes, sizes, strict=True) if a in AXES)
        return z, y, x

    @property
    def voxel_size_nm(self) -> tuple[float, ...]:
        """z, y, x; empty where it is not known."""
        size = [1.0] * len(self.axes)
        name = self.path.name
        try:
            sets = [d for d in self._image["datasets"] if Path(d["path"]).name == name]
            lists = [sets[0]["coordinateTransformations"]]
            lists.append(self._image.get("coordinateTransformations") or [])
            for transform in (t for each in lists for t in each if t["type"] == "scale"):
                size = [a * float(b) for a, b in zip(size, transform["scale"], strict=True)]
            axes = [axis for axis in self._image["axes"] if axis["name"] in AXES]
            units = [NANOMETRES[str(axis["unit"]).lower()] for axis in axes]
        except (LookupError, TypeError, ValueError):
            return ()
        voxel = [n for a, n in zip(self.axes, size, strict=True) if a in AXES]
        return tuple(n * unit for n, unit in zip(voxel, units, strict=True))

    def read_into(self, block: Block, start: int, corner: tuple[int, int] = (0, 0)) -> None:
        """Fill `block` (z, y, x), of dtype `dtype`, with the slices from `start` on.

        corner : (y, x) where it begins in each. Raises OSError.
        """
        row_bytes = max(1, block[:, :1].nbytes)
        step = max(1, READ_BYTES // row_bytes // self._chunk_rows) * self._chunk_rows
        with naming_errors(self.path, "read"):
            for y in range(0, block.shape[1], step):
                part = block[:, y : y + step]
                begin = (start, corner[0] + y, corner[1])
                inside = (slice(a, a + n) for a, n in zip(begin, part.shape, strict=True))
                place = tuple(next(inside) if axis in AXES else 0 for axis in self.axes)
                part[...] = self._array[place].read().result()

    def _rows_of_files(self, row: int) -> list[Path]:
        """The files of a row of stored chunks, whether they are there or not."""
        counts = [-(-n // c) for n, c in zip(self._shape, self._stored, strict=True)]
        ranges = [
            range(row, row + 1) if axis == "z" else range(count)
            for axis, count in zip(self.axes, counts, strict=True)
        ]
        prefix, mark = self._key
        return [self.path / f"{prefix}{mark.join(map(str, place))}" for place in product(*ranges)]

    def _has_chunks(self) -> bool:
        """Is there any?"""
        return any(
            not name.startswith(".") and name != METADATA
            for _, _, names in os.walk(self.path)
            for name in names
        )

    def unwritten_chunks(self) -> tuple[int, int]:
        """How many of its stored chunks (or shards) were never written, and how many it has."""
        rows = range(-(-self.shape[0] // self.row_depth))
        files = [path.exists() for row in rows for path in self._rows_of_files(row)]
        return files.count(False), len(files)

    def row_stamp(self, row: int) -> str:
        """Changes when the files of a row of stored chunks do."""
        newest = size = count = 0
        for path in self._rows_of_files(row):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            newest, size = max(newest, status.st_mtime_ns), size + status.st_size
            count += 1
        return f"{count}:{size}:{newest}"


def _key_encoding(node: _Node) -> tuple[str, str]:
    """What stands before the numbers in the name of a chunk's file, and between them."""
    if node.zarr_format == 2:
        return "", node.array.get("dimension_separator") or "."
    encoding = node.array["chunk_key_encoding"]
    mark = encoding.get("configuration", {}).get("separator")
    if encoding["name"] == "v2":
        return "", mark or "."
    return f"c{mark or '/'}", mark or "/"
