"""The funnel writer: ranks compress their chunks, rank 0 stores them all."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib

from amst_hpc.bdv.chunks import Checksums, Chunk, ChunkChecksums, layer_chunks
from amst_hpc.bdv.file import HDF5_ERRORS, Target, open_target
from amst_hpc.bdv.metadata import cells
from amst_hpc.config import InputError
from amst_hpc.geometry import Zyx
from amst_hpc.transform import Block

BATCH_BYTES = 32 << 20  # of compressed chunks in one message
POLL_SECONDS = 0.001
ISAL_LEVELS = (1, 2, 3)  # isal's zlib streams take a sixth of the time there
Packed = tuple[int, Zyx, bytes]  # level, offset, the chunk as it stands in the file


class FunnelStore:
    """Each rank compresses its own chunks; rank 0 opens the file serially and stores them all."""

    def __init__(self, target: Target, comm: Any) -> None:
        self.layout = target.layout
        self.pack = _packer(target)
        self.file: h5py.File | None = None
        fault = None
        if comm.rank == 0:
            try:
                self.file = open_target(target)
            except InputError as error:
                fault = str(error)
        if fault := comm.bcast(fault):
            raise InputError(fault)
        self.comm = comm.Dup()

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        checksums = ChunkChecksums(self.layout, levels)
        packed = self._pack_all(layer_chunks(self.layout, layer, levels), checksums)
        if self.comm.rank == 0:
            self._store_all(packed)
        else:
            self._send_all(packed)
        return checksums.grids

    def _pack_all(self, chunks: Iterator[Chunk], checksums: ChunkChecksums) -> Iterator[Packed]:
        for chunk in chunks:
            checksums.add(chunk)
            shape = self.layout.levels[chunk.level].chunk
            yield chunk.level, chunk.offset, self.pack(_fill_up(chunk.region, shape))

    def _send_all(self, packed: Iterator[Packed]) -> None:
        batch: list[Packed] = []
        size = 0
        for item in packed:
            if size + len(item[2]) > BATCH_BYTES and batch:
                self.comm.send((batch, False), dest=0)
                batch, size = [], 0
            batch.append(item)
            size += len(item[2])
        self.comm.send((batch, True), dest=0)

    def _store_all(self, packed: Iterator[Packed]) -> None:
        """Store the chunks of rank 0, and between them what the others have sent meanwhile.

        Ranks are asked by number: one that is done may already be sending its next layer.
        """
        busy = set(range(1, self.comm.size))
        for item in packed:
            self._put(item)
            self._receive(busy)
        while busy:
            if not self._receive(busy):
                time.sleep(POLL_SECONDS)

    def _receive(self, busy: set[int]) -> bool:
        """Store one batch of each rank that has sent one; ranks that are done leave `busy`."""
        senders = [rank for rank in busy if self.comm.iprobe(source=rank)]
        for rank in senders:
            batch, last = self.comm.recv(source=rank)
            for item in batch:
                self._put(item)
            if last:
                busy.remove(rank)
        return bool(senders)

    def _put(self, item: Packed) -> None:
        level, offset, data = item
        if self.file is not None:
            self.file[cells(level)].id.write_direct_chunk(offset, data)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        self.comm.Barrier()
        self.comm.Free()

    def abandon(self) -> None:
        if self.file is not None:
            with contextlib.suppress(*HDF5_ERRORS):  # a full disk: the error under way says so
                self.file.close()


def _fill_up(region: Block, shape: Zyx) -> Block:
    """A chunk at the edge of the dataset is stored at full size, zeros outside."""
    if region.shape == shape:
        return region
    whole = np.zeros(shape, region.dtype)
    whole[tuple(slice(n) for n in region.shape)] = region
    return whole


def _packer(target: Target) -> Callable[[Block], bytes]:
    """What HDF5's filters make of a chunk: shuffle and gzip, as the target has them."""
    level = target.compression
    if level == 0:
        return lambda chunk: chunk.tobytes()
    deflate = isal_zlib.compress if level in ISAL_LEVELS else zlib.compress
    if not target.shuffle:
        return lambda chunk: deflate(chunk.data, level)
    width = target.stored.itemsize
    return lambda chunk: deflate(chunk.view(np.uint8).reshape(-1, width).T.tobytes(), level)
