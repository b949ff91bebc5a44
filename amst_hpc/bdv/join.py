"""Part files joined into one BigDataViewer file: compressed chunks are copied as they are, or
linked.

A source is a file, the layers to take from it and where they go. Sources have the chunks, filters
and levels of the whole; so a chunk is moved without being decompressed, and a link (virtual
dataset) never cuts one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from amst_hpc.bdv.file import LIBVER
from amst_hpc.bdv.metadata import SETUP, cells
from amst_hpc.geometry import Layout, Level


@dataclass(frozen=True)
class Source:
    """Layers `layers` of the whole (counted there); the file's own first layer is number `first` of
    the whole.
    """

    path: Path
    first: int
    layers: list[int]


def find_mismatch(path: Path, layout: Layout, slices: range) -> str:
    """What keeps a part file with these slices from being joined into `layout`; empty if nothing
    does.
    """
    try:
        with h5py.File(path, "r") as file:
            for k, level in enumerate(layout.levels):
                if cells(k) not in file:
                    return f"it has no {cells(k)}"
                found = file[cells(k)]
                wanted = (-(-len(slices) // level.factors[0]), *level.shape[1:])
                if (found.shape, found.chunks) != (wanted, level.chunk):
                    return (
                        f"level {k} is {found.shape} in chunks of {found.chunks}, "
                        f"expected {wanted} in {level.chunk}"
                    )
            return "it has more levels" if cells(len(layout.levels)) in file else ""
    except OSError as error:
        return f"it cannot be read ({error})"


def filters(path: Path) -> tuple[Any, ...]:
    """What the chunks of a file are made of: dtype, compression, shuffle, dataType."""
    with h5py.File(path, "r") as file:
        first = file[cells(0)]
        kind = (str(first.dtype), first.compression, first.shuffle)
        return (*kind, bytes(file[SETUP].attrs.get("dataType", b"")).decode())


def copy_chunks(target: Path, layout: Layout, sources: Sequence[Source]) -> None:
    """Copy the chunks of all sources into `target`, whose datasets are there."""
    with h5py.File(target, "r+", libver=LIBVER) as out:
        for source in sources:
            with h5py.File(source.path, "r") as part:
                for k, level in enumerate(layout.levels):
                    for layer in source.layers:
                        _copy_layer(part[cells(k)], out[cells(k)], level, source.first, layer)


def _copy_layer(
    part: h5py.Dataset, out: h5py.Dataset, level: Level, first: int, layer: int
) -> None:
    """The chunks of one layer on one level; its slices are at another place in the part."""
    depth, height, width = level.chunk
    for y in range(0, level.shape[1], height):
        for x in range(0, level.shape[2], width):
            mask, chunk = part.id.read_direct_chunk(((layer - first) * depth, y, x))
            out.id.write_direct_chunk((layer * depth, y, x), chunk, mask)


def link_layers(target: Path, base: Path, layout: Layout, sources: Sequence[Source]) -> None:
    """Make `target` of virtual datasets that read the sources where they are, by paths relative to
    `base`.
    """
    with h5py.File(target, "w", libver=LIBVER) as out:
        with h5py.File(sources[0].path, "r") as part:
            part.copy(SETUP, out)
        for k, level in enumerate(layout.levels):
            out.create_virtual_dataset(cells(k), _virtual(base, k, level, sources))


def _virtual(base: Path, k: int, level: Level, sources: Sequence[Source]) -> h5py.VirtualLayout:
    """Level k, run by run of neighbouring layers: the fewer mappings, the faster it reads."""
    depth, end = level.chunk[0], level.shape[0]
    layout: h5py.VirtualLayout | None = None
    for source in sources:
        with h5py.File(source.path, "r") as part:
            found = part[cells(k)]
            layout = layout or h5py.VirtualLayout(shape=level.shape, dtype=found.dtype)
            name = os.path.relpath(source.path, base)
            view = h5py.VirtualSource(name, cells(k), shape=found.shape, dtype=found.dtype)
        for run in _runs(source.layers):
            start, stop = run.start * depth, min(run.stop * depth, end)
            offset = source.first * depth
            layout[start:stop] = view[start - offset : stop - offset]
    return layout


def _runs(numbers: Sequence[int]) -> list[range]:
    """Neighbouring numbers as ranges."""
    runs: list[range] = []
    for n in sorted(numbers):
        if runs and runs[-1].stop == n:
            runs[-1] = range(runs[-1].start, n + 1)
        else:
            runs.append(range(n, n + 1))
    return runs
