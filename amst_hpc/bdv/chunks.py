"""The chunks of one layer on all mipmap levels, and their checksums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from amst_hpc.geometry import Layout, Level, Zyx
from amst_hpc.transform import Block

Checksums = list[NDArray[np.uint32]]  # per level: (rows, columns) of chunks


@dataclass(frozen=True)
class Chunk:
    """One chunk of a layer: its level, its offset in the dataset there and its valid region."""

    level: int
    offset: Zyx
    region: Block


def layer_chunks(layout: Layout, layer: int, levels: list[Block]) -> Iterator[Chunk]:
    """The chunks of a layer, level by level; `levels` as `pyramid` gives them, none when idle."""
    for k, (level, block) in enumerate(zip(layout.levels, levels, strict=False)):
        depth, height, width = level.chunk
        for y in range(0, level.shape[1], height):
            for x in range(0, level.shape[2], width):
                region = np.ascontiguousarray(block[:, y : y + height, x : x + width])
                yield Chunk(k, (layer * depth, y, x), region)


class ChunkChecksums:
    """Collects the CRC-32 of the chunks that pass by."""

    def __init__(self, layout: Layout, levels: list[Block]) -> None:
        self.layout = layout
        self.grids = [
            np.zeros(chunk_grid(level), np.uint32) for level in layout.levels[: len(levels)]
        ]

    def add(self, chunk: Chunk) -> None:
        _, height, width = self.layout.levels[chunk.level].chunk
        _, y, x = chunk.offset
        self.grids[chunk.level][y // height, x // width] = isal_zlib.crc32(chunk.region)


def chunk_grid(level: Level) -> tuple[int, int]:
    """Rows and columns of chunks."""
    (_, y, x), (_, height, width) = level.shape, level.chunk
    return (-(-y // height), -(-x // width))
