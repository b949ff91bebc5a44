"""The texts of an OME-Zarr 0.5: `zarr.json` of each level's array (Zarr v3) and of the group.

The axes are z, y, x. Coordinates are those of pixel centres, with the centre of the first pixel of
level 0 at 0: a pixel of a level is made of f of them, so its centre is (f - 1) / 2 further on.

A shard is a file that holds the chunks of one layer of a level, or a tile of them in y and x.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv.file import Target
from amst_hpc.geometry import Level, Zyx

VERSION = "0.5"
AXES = ("z", "y", "x")
METADATA = "zarr.json"
OUR_ID = "amst_hpc"  # attribute of the arrays, which viewers do not read

SHARD_BYTES = 64 << 20
"""Of a shard, uncompressed, unless one chunk has more. It is encoded in memory, twice its size at
the peak. A stack of a terabyte gets some 20,000 files, each many times a stripe of a parallel file
system."""


def shard_shape(level: Level, itemsize: int) -> Zyx:
    """Whole rows of chunks, as equal as they come; a part of one where a row is too large."""
    depth, height, width = level.chunk
    rows, columns = (-(-n // c) for n, c in zip(level.shape[1:], level.chunk[1:], strict=True))
    most = max(1, SHARD_BYTES // (depth * height * width * itemsize))
    wide = _share(columns, most)
    high = _share(rows, max(1, most // columns))
    return depth, high * height, wide * width


def _share(count: int, most: int) -> int:
    """The size of the parts of `count`, as few as can be, of at most `most`."""
    return -(-count // -(-count // most))


def array_metadata(level: Level, target: Target) -> dict[str, Any]:
    """Of a level's array (Zarr v3, sharding codec)."""
    size, level_of = target.dtype.itemsize, target.compression
    codecs: list[dict[str, Any]] = [_bytes(size)]
    if level_of:  # the default of zarr-python 3, so all readers of Zarr v3 have it
        codecs.append({"name": "zstd", "configuration": {"level": level_of, "checksum": False}})
    sharding = {
        "chunk_shape": list(level.chunk),
        "codecs": codecs,
        "index_codecs": [_bytes(8), {"name": "crc32c"}],
        "index_location": "end",
    }
    grid = {"chunk_shape": list(shard_shape(level, size))}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(level.shape),
        "data_type": target.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(AXES),
        "attributes": {OUR_ID: target.token} if target.token else {},
    }


def _bytes(itemsize: int) -> dict[str, Any]:
    order = {"configuration": {"endian": "little"}} if itemsize > 1 else {}
    return {"name": "bytes", **order}


def _multiscale(target: Target, name: str) -> dict[str, Any]:
    voxel = target.output.voxel_size_nm
    unit = {"unit": "nanometer"} if voxel else {}
    datasets = []
    for k, level in enumerate(target.layout.levels):
        sizes = [float(v) for v in voxel or (1, 1, 1)]
        scale = [v * f for v, f in zip(sizes, level.factors, strict=True)]
        shift = [v * (f - 1) / 2 for v, f in zip(sizes, level.factors, strict=True)]
        transforms = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(k), "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", **unit} for axis in AXES]
    way = "mode" if target.labels else "mean"
    return {"name": name, "type": way, "axes": axes, "datasets": datasets}


def group_metadata(target: Target, name: str, grey: tuple[float, float]) -> dict[str, Any]:
    """Of the group. grey : the contrast range that viewers start with (grey values)."""
    window = {"min": 0.0, "max": float(np.iinfo(target.dtype).max)}
    window |= {"start": float(grey[0]), "end": float(grey[1])}
    channel = {"label": name, "color": "FFFFFF", "active": True, "window": window}
    ome = {
        "version": VERSION,
        "multiscales": [_multiscale(target, name)],
        "omero": {"channels": [channel]},
    }
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}


def find_group_fault(target: Target, name: str) -> str:
    """What in the group is not as `group_metadata` has it; empty if nothing is.

    The contrast does not count.
    """
    try:
        found = json.loads((target.path / METADATA).read_text())
        ome = found["attributes"]["ome"]
        facts = (found["node_type"], ome["version"], ome["multiscales"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"cannot be read ({error})"
    if facts != ("group", VERSION, [_multiscale(target, name)]):
        return "its multiscales are not those of this run"
    return ""


def folder_bytes(target: Target) -> int:
    """Size of all shards, at most; their chunks are whole."""
    layers, found = len(target.layout.layers), 0
    for level in target.layout.levels:
        rows, columns = (-(-n // c) for n, c in zip(level.shape[1:], level.chunk[1:], strict=True))
        chunk_bytes = math.prod(level.chunk) * target.dtype.itemsize
        found += layers * rows * columns * (chunk_bytes + 20)  # 16 of the index; 4 of a checksum
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no table")
    return found
