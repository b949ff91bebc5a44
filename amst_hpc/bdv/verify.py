"""Is a file still what was written? Chunks against checksums, tables and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import h5py
import numpy as np
from isal import isal_zlib

from amst_hpc.bdv.chunks import Checksums
from amst_hpc.bdv.file import HDF5_ERRORS, Target, find_target_mismatch
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
            except HDF5_ERRORS:  # it does not decompress
                return (k, z, y, x)
            if isal_zlib.crc32(region) != checksum:
                return (k, z, y, x)
    return None


def find_faults(
    target: Target, checksums: Mapping[int, Checksums], progress: Callable[[int], None]
) -> Iterator[str]:
    """What in the file is not as it was written: tables and attributes, then the first bad chunk.

    checksums : of each layer, as `BdvWriter.write` returned them. progress : told the layers read.
    """
    try:
        with h5py.File(target.path, "r") as file:
            fault = find_target_mismatch(file, target) or _find_wrong_type(file, target)
            if fault:
                yield fault
                return
            for layer in range(len(target.layout.layers)):
                if layer not in checksums:
                    yield f"layer {layer} has no checksums in the journal"
                elif bad := verify_layer(file, target.layout, layer, checksums[layer]):
                    level, *place = bad
                    yield f"level {level}: the chunk at (z, y, x) = {tuple(place)} is damaged"
                    return
                progress(layer + 1)
    except (*HDF5_ERRORS, KeyError) as error:
        yield f"it cannot be read ({error})"


def _find_wrong_type(file: h5py.File, target: Target) -> str | None:
    """What is wrong with the attribute dataType."""
    found = bytes(np.bytes_(file[SETUP].attrs.get("dataType", b""))).decode(errors="replace")
    wanted = "" if target.legacy else target.dtype.name
    return None if found == wanted else f"its dataType is {found!r}, not {wanted!r}"
