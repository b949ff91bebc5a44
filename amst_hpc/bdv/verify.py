"""Is a file still what was written? Chunks against checksums, tables and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import h5py
import numpy as np
from isal import isal_zlib

from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.chunks import Checksums
from amst_hpc.bdv.file import HDF5_ERRORS, Target, find_target_mismatch, raise_passing
from amst_hpc.bdv.metadata import SETUP, cells
from amst_hpc.geometry import Layout


def verify_layer(
    file: h5py.File, layout: Layout, layer: int, checksums: Checksums
) -> tuple[int, int, int, int] | None:
    """Read a layer back and compare it with what `BdvWriter.write` returned for it.

    Returns level and (z, y, x) of the first voxel of the first bad chunk; None if all are good.
    """
    for k, (level, expected) in enumerate(zip(layout.levels, checksums, strict=True)):
        depth, height, width = level.chunk
        z = layer * depth
        for (row, column), checksum in np.ndenumerate(expected):
            y, x = row * height, column * width
            try:
                region = file[cells(k)][z : z + depth, y : y + height, x : x + width]
            except (*HDF5_ERRORS, KeyError):  # it does not decompress
                return (k, z, y, x)
            if isal_zlib.crc32(region) != checksum:
                return (k, z, y, x)
    return None


def find_fault(target: Target) -> str:
    """What in the tables, datasets, attributes is not as `target` has it; empty if nothing is."""
    try:
        with h5py.File(target.path, "r", locking=False) as file:
            return find_target_mismatch(file, target) or _find_wrong_type(file, target) or ""
    except (*HDF5_ERRORS, KeyError) as error:
        raise_passing(error)
        return f"it cannot be read ({error})"


def find_bad_layers(
    target: Target, checksums: ChecksumFile, layers: Iterable[int], progress: Callable[[], None]
) -> dict[int, str]:
    """Of each of these layers that is not as it was written: its first chunk that is not.

    progress : called after each layer.
    """
    found = {}
    with h5py.File(target.path, "r", locking=False) as file:
        for layer in layers:
            if bad := verify_layer(file, target.layout, layer, checksums.read(layer)):
                level, *place = bad
                text = f"level {level}: the chunk at (z, y, x) = {tuple(place)} is damaged"
                found[layer] = text
            progress()
    return found


def _find_wrong_type(file: h5py.File, target: Target) -> str | None:
    """What is wrong with the attribute dataType."""
    found = bytes(np.bytes_(file[SETUP].attrs.get("dataType", b""))).decode(errors="replace")
    wanted = "" if target.legacy else target.dtype.name
    return None if found == wanted else f"its dataType is {found!r}, not {wanted!r}"
