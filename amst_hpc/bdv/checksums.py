"""The checksum of every chunk in one binary file, `OUT.amst/checksums`.

CRC-32 of the valid region of a chunk before compression, uint32, little-endian: layer by layer,
in a layer level by level, row by row. A layer fills whole pages of 4 KiB, so that ranks on two
nodes never write into one page of a network file system.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from amst_hpc.bdv.chunks import Checksums, chunk_grid
from amst_hpc.geometry import PAGE, Layout

TYPE = np.dtype("<u4")


class ChecksumFile:
    """Any process writes the checksums of any layer, at any time, also again."""

    def __init__(self, path: Path, layout: Layout, write: bool = False) -> None:
        """write : make the file where it is not there. Raises OSError."""
        self.grids = [chunk_grid(level) for level in layout.levels]
        self.count = sum(rows * columns for rows, columns in self.grids)
        self.layer_bytes = -(-self.count * TYPE.itemsize // PAGE) * PAGE
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def write(self, layer: int, checksums: Checksums) -> None:
        """Keep those of a layer, per level (rows, columns)."""
        flat = np.concatenate([grid.reshape(-1) for grid in checksums]).astype(TYPE)
        page = np.zeros(self.layer_bytes // TYPE.itemsize, TYPE)
        page[: self.count] = flat
        os.pwrite(self._descriptor, page.tobytes(), layer * self.layer_bytes)

    def read(self, layer: int) -> Checksums:
        """Those of a layer; of 0 where none were kept."""
        data = os.pread(self._descriptor, self.count * TYPE.itemsize, layer * self.layer_bytes)
        flat = np.zeros(self.count, np.uint32)
        found = np.frombuffer(data[: len(data) // TYPE.itemsize * TYPE.itemsize], TYPE)
        flat[: len(found)] = found
        ends = np.cumsum([rows * columns for rows, columns in self.grids])[:-1]
        return [
            part.reshape(grid) for part, grid in zip(np.split(flat, ends), self.grids, strict=True)
        ]

    def sync(self) -> None:
        """What was written is on disk when this returns."""
        os.fdatasync(self._descriptor)
