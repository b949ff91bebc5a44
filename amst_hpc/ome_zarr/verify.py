"""Are the chunks of an OME-Zarr still what was written?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from isal import isal_zlib

from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.chunks import Checksums
from amst_hpc.bdv.file import Target
from amst_hpc.geometry import Layout
from amst_hpc.ome_zarr.store import ERRORS, open_array


def find_bad_layers(
    target: Target, checksums: ChecksumFile, layers: Iterable[int], progress: Callable[[], None]
) -> dict[int, str]:
    """Of each of these layers that is not as it was written: its first chunk that is not.

    A chunk that is not there is none of zeros. progress : called after each layer.
    """
    arrays = [open_array(target.path / str(k), 3) for k in range(len(target.layout.levels))]
    found = {}
    for layer in layers:
        if bad := _find_bad_chunk(arrays, target.layout, layer, checksums.read(layer)):
            level, *place = bad
            text = f"level {level}: the chunk at (z, y, x) = {tuple(place)} is damaged"
            found[layer] = text
        progress()
    return found


def _find_bad_chunk(
    arrays: list[Any], layout: Layout, layer: int, checksums: Checksums
) -> tuple[int, int, int, int] | None:
    """Level and (z, y, x) of the first voxel of the first bad chunk; None if all are good."""
    for k, (level, expected) in enumerate(zip(layout.levels, checksums, strict=True)):
        z, y, x = (
            [range(a, min(a + c, n)) for a in range(0, n, c)]
            for n, c in zip(level.shape, level.chunk, strict=True)
        )
        for (row, column), checksum in np.ndenumerate(expected):
            spans = (z[layer], y[row], x[column])
            if _read_crc(arrays[k], spans) != checksum:
                return (k, spans[0].start, spans[1].start, spans[2].start)
    return None


def _read_crc(array: Any, spans: tuple[range, ...]) -> int | None:
    """None if the chunk is not there or does not decode."""
    try:
        region = array[tuple(slice(s.start, s.stop) for s in spans)].read().result()
    except ERRORS:
        return None
    return int(isal_zlib.crc32(np.ascontiguousarray(region)))
