"""The writer of OME-Zarr: every rank writes the shards of its layers, and nobody else does.

A shard is a file of its own, which gets its name when it is whole. A layer may be written at any
time, again, and by anyone.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Self

from amst_hpc.averaging import go_on
from amst_hpc.bdv.chunks import Checksums, ChunkChecksums, layer_chunks
from amst_hpc.bdv.file import Target, sync
from amst_hpc.ome_zarr.metadata import shard_shape
from amst_hpc.ome_zarr.store import naming_errors, open_array, write_whole
from amst_hpc.transform import Block


class ShardedFolder:
    """Writes layers into a folder of `create_folder`: any process, any layer, also again.

    One thread at a time uses an object of this class; each process has its own. between : called
    before each shard is written; what it raises leaves a layer that is to be written again.
    Raises OSError that names the array.
    """

    def __init__(self, target: Target, between: Callable[[], None] = go_on) -> None:
        self.path, self.layout, self.between = target.path, target.layout, between
        levels = target.layout.levels
        self._shards = [shard_shape(level, target.dtype.itemsize) for level in levels]
        self._arrays = [open_array(self.path / str(k), 3, write=True) for k in range(len(levels))]
        self._unsynced: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._arrays.clear()

    def write_layer(self, layer: int, levels: list[Block]) -> Checksums:
        """Write a layer on all levels, as `pyramid` gives them, in the dtype of the arrays.

        Returns the CRC-32 of the uncompressed valid region of each chunk, per level.
        Raises OSError that names the array.
        """
        checksums = ChunkChecksums(self.layout, levels)
        for chunk in layer_chunks(self.layout, layer, levels):
            checksums.add(chunk)
        for k, block in enumerate(levels):
            self._write_level(layer, k, block)
        return checksums.grids

    def _write_level(self, layer: int, k: int, block: Block) -> None:
        """Shard by shard."""
        folder, (depth, height, width) = self.path / str(k), self._shards[k]
        z = layer * depth
        starts = (range(0, block.shape[1], height), range(0, block.shape[2], width))
        with naming_errors(folder, "written"):
            for y, x in product(*starts):
                self.between()
                part = block[:, y : y + height, x : x + width]
                place = (slice(z, z + len(part)), *_slices(part, y, x))
                file = folder / f"c/{layer}/{y // height}/{x // width}"
                file.unlink(missing_ok=True)  # a shard with chunks beyond the edge would be read
                write_whole(self._arrays[k], place, part)
                self._unsynced.append(file)

    def sync(self) -> None:
        """What was written is on disk when this returns, under its name. Raises OSError."""
        folders = {path.parents[n] for path in self._unsynced for n in range(3)}
        for path in [*self._unsynced, *sorted(folders)]:
            sync(path)
        self._unsynced = []


def _slices(part: Block, y: int, x: int) -> tuple[slice, slice]:
    return slice(y, y + part.shape[1]), slice(x, x + part.shape[2])
