"""The collective writer: all ranks write through parallel HDF5, which compresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from amst_hpc.bdv.chunks import Checksums, ChunkChecksums, chunk_grid, layer_chunks
from amst_hpc.bdv.file import Target, open_target
from amst_hpc.bdv.metadata import cells
from amst_hpc.bdv.overlap import StoringThread
from amst_hpc.bdv.storage import STRIPE_BYTES, is_lustre
from amst_hpc.geometry import Level
from amst_hpc.parallel.communicator import io_hints, threads_allowed
from amst_hpc.transform import Block

WRITE_BYTES = 256 << 20  # in one collective write; MPI-IO counts end at 2 GB


def choose_hints(target: Target) -> Mapping[str, str]:
    """Hints to MPI-IO on Lustre (ROMIO's names; an MPI leaves out what it does not know).

    A few ranks write for all, whole stripes, each to OSTs of its own. No bytes are read back to be
    written with those beside them, which takes locks. The stripes are for an MPI that makes the
    file itself. None elsewhere: on a local disk they cost half of the speed and more.
    """
    if not is_lustre(target.path):
        return {}
    stripes = target.output.stripes
    hints = {"romio_cb_write": "enable", "romio_ds_write": "disable"}
    if stripes:
        hints["striping_unit"] = str(STRIPE_BYTES)
    if stripes > 0:
        hints["striping_factor"] = str(stripes)
    return hints


class CollectiveStore:
    """All ranks write through parallel HDF5, which compresses.

    Where MPI allows it, in a thread, while the next layer is made.
    """

    def __init__(self, target: Target, comm: Any) -> None:
        self.layout = target.layout
        hints = io_hints(choose_hints(target))
        self.file = open_target(target, driver="mpio", comm=comm, info=hints)
        self.transfer = h5py.h5p.create(h5py.h5p.DATASET_XFER)
        self.transfer.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)
        self.thread = StoringThread(self._write_layer) if threads_allowed() else None

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        """The levels may change when `store` was called again and has returned."""
        if self.thread is None:
            self._write_layer(layer, levels)
        else:
            self.thread.put(layer, levels)
        checksums = ChunkChecksums(self.layout, levels)
        for chunk in layer_chunks(self.layout, layer, levels):
            checksums.add(chunk)
        return checksums.grids

    def _write_layer(self, layer: int, levels: list[Block]) -> None:
        """All levels; collective."""
        for k, level in enumerate(self.layout.levels):
            block = levels[k] if levels else None
            dataset = self.file[cells(k)]
            for y, x in write_regions(level, dataset.dtype.itemsize):
                self._write(dataset, layer * level.chunk[0], y, x, block)

    def _write(
        self, dataset: h5py.Dataset, z: int, y: range, x: range, block: Block | None
    ) -> None:
        """One collective write of block[:, y, x]. h5py's own skips empty ones and would hang."""
        in_file = dataset.id.get_space()
        if block is None:
            in_file.select_none()
            in_memory, block = in_file, np.empty(0, dataset.dtype)
        else:
            count = (len(block), len(y), len(x))
            in_file.select_hyperslab((z, y.start, x.start), count)
            in_memory = h5py.h5s.create_simple(block.shape)
            in_memory.select_hyperslab((0, y.start, x.start), count)
        dataset.id.write(in_memory, in_file, block, dxpl=self.transfer)

    def close(self) -> None:
        if self.thread is not None:
            self.thread.finish()
        self.file.close()

    def abandon(self) -> None:
        """Leave the file open: its close is collective and would wait for the other ranks, as a
        write in the thread may.
        """
        if self.thread is not None:
            self.thread.drop(wait=False)


def write_regions(level: Level, itemsize: int) -> list[tuple[range, range]]:
    """The (y, x) regions of a layer for one collective write each: whole chunks, `WRITE_BYTES`."""
    (_, height, width), (depth, chunk_y, chunk_x) = level.shape, level.chunk
    chunk_bytes = depth * chunk_y * chunk_x * itemsize
    columns = min(chunk_grid(level)[1], max(1, WRITE_BYTES // chunk_bytes))
    rows = max(1, WRITE_BYTES // (chunk_bytes * columns))
    return [
        (range(y, min(y + rows * chunk_y, height)), range(x, min(x + columns * chunk_x, width)))
        for y in range(0, height, rows * chunk_y)
        for x in range(0, width, columns * chunk_x)
    ]
