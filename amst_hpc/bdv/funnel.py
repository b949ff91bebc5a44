"""The funnel writer: ranks compress their chunks, rank 0 stores them all.

A layer travels in batches of chunks, which follow from the layout, so both sides know them. Of each
batch two buffers are sent: int64 (layer, bytes of each chunk), then the chunks. Nobody waits where
there is work: a rank makes its next layer while the last one is being sent, and rank 0 hands what
has come to a thread. MPI is called from the main thread alone.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from amst_hpc.bdv.chunks import Checksums, ChunkChecksums, chunk_grid, layer_chunks
from amst_hpc.bdv.file import HDF5_ERRORS, Target, open_target
from amst_hpc.bdv.metadata import cells
from amst_hpc.bdv.overlap import StoringThread
from amst_hpc.config import InputError
from amst_hpc.geometry import Layout, Zyx
from amst_hpc.transform import Block

BATCH_BYTES = 32 << 20  # of chunks, before compression
QUEUE = 8  # batches that wait on rank 0
POLL_SECONDS = 0.001
ISAL_LEVELS = (1, 2, 3)  # isal's zlib streams take a sixth of the time there
IDLE = -1  # instead of a layer
Place = tuple[int, int, int]  # of a chunk in its layer: level, y, x
Head = NDArray[np.int64]


class FunnelStore:
    """Each rank compresses its own chunks; rank 0 opens the file serially and stores them all."""

    def __init__(self, target: Target, comm: Any) -> None:
        self.layout = target.layout
        self.batches = make_batches(target.layout, target.stored.itemsize)
        self.longest = max(map(len, self.batches))
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
        self.thread = StoringThread(self._put, QUEUE)
        self.sent: list[Any] = []  # requests

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        """The levels may change on return; the thread may still be storing their chunks."""
        checksums = ChunkChecksums(self.layout, levels)
        packed = self._pack(layer, levels, checksums) if levels else iter(())
        if self.comm.rank == 0:
            self._store_all(packed)
        elif levels:
            self._send_all(packed)
        else:
            self.comm.Send(self._head(IDLE, []), 0)
        return checksums.grids

    def _pack(
        self, layer: int, levels: list[Block], checksums: ChunkChecksums
    ) -> Iterator[tuple[Head, bytes]]:
        """The two buffers of each batch."""
        chunks = layer_chunks(self.layout, layer, levels)
        for batch in self.batches:
            packed = []
            for chunk in itertools.islice(chunks, len(batch)):
                checksums.add(chunk)
                shape = self.layout.levels[chunk.level].chunk
                packed.append(self.pack(_fill_up(chunk.region, shape)))
            yield self._head(layer, packed), b"".join(packed)

    def _head(self, layer: int, packed: list[bytes]) -> Head:
        """All heads have one length."""
        sizes = [*map(len, packed)] + [0] * (self.longest - len(packed))
        return np.array([layer, *sizes], np.int64)

    def _send_all(self, packed: Iterator[tuple[Head, bytes]]) -> None:
        """Returns when all is under way; memory holds one layer of compressed chunks."""
        for request in self.sent:
            request.Wait()
        self.sent = []
        for head, data in packed:
            self.sent += [self.comm.Isend(head, 0), self.comm.Isend(data, 0)]
            self.sent = [request for request in self.sent if not request.Test()]

    def _store_all(self, packed: Iterator[tuple[Head, bytes]]) -> None:
        """Put in the batches of rank 0, and between them what the others have sent meanwhile."""
        working = [self._receive(rank) for rank in range(1, self.comm.size)]
        for batch, (head, data) in zip(self.batches, packed, strict=False):
            self.thread.put(batch, head, data)
            working = _advance(working)
        while working := _advance(working):
            time.sleep(POLL_SECONDS)

    def _receive(self, rank: int) -> Iterator[None]:
        """Put in the layer of a rank; yields where its next message is not there yet."""
        for batch in self.batches:
            head = np.empty(self.longest + 1, np.int64)
            yield from _arrival(self.comm.Irecv(head, rank))
            if head[0] == IDLE:
                return
            data = np.empty(head[1:].sum(), np.uint8)
            yield from _arrival(self.comm.Irecv(data, rank))
            self.thread.put(batch, head, data.data)

    def _put(self, batch: list[Place], head: Head, data: bytes | memoryview) -> None:
        """Store the chunks of a batch; in the thread of rank 0."""
        layer, sizes, start = int(head[0]), head[1:].tolist(), 0
        for (level, y, x), size in zip(batch, sizes, strict=False):
            offset = (layer * self.layout.levels[level].chunk[0], y, x)
            if self.file is not None:
                chunk = bytes(data[start : start + size])
                self.file[cells(level)].id.write_direct_chunk(offset, chunk)
            start += size

    def close(self) -> None:
        for request in self.sent:
            request.Wait()
        try:
            self.thread.finish()
        except HDF5_ERRORS:
            self.abandon()
            raise
        if self.file is not None:
            self.file.close()
        self.comm.Barrier()
        self.comm.Free()

    def abandon(self) -> None:
        self.thread.drop()
        if self.file is not None:
            with contextlib.suppress(*HDF5_ERRORS):  # a full disk: the error under way says so
                self.file.close()


def make_batches(layout: Layout, itemsize: int) -> list[list[Place]]:
    """The chunks of a layer, in the order of `layer_chunks`, in parts of `BATCH_BYTES`."""
    batches: list[list[Place]] = [[]]
    room = BATCH_BYTES
    for k, level in enumerate(layout.levels):
        size = math.prod(level.chunk) * itemsize
        rows, columns = chunk_grid(level)
        for y, x in itertools.product(range(rows), range(columns)):
            if size > room and batches[-1]:
                batches.append([])
                room = BATCH_BYTES
            batches[-1].append((k, y * level.chunk[1], x * level.chunk[2]))
            room -= size
    return batches


def _advance(working: list[Iterator[None]]) -> list[Iterator[None]]:
    """Those that are not done after another step."""
    return [rank for rank in working if next(rank, rank) is None]


def _arrival(request: Any) -> Iterator[None]:
    while not request.Test():
        yield


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
