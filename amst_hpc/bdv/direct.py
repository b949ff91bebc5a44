"""The direct writer: one file, laid out once, in which every rank writes its own bytes.

`create_file` (rank 0) makes the whole HDF5 file with all its chunks allocated and closes it. HDF5
is then done: where a chunk stands follows from its number (`LevelAddress`), and any process writes
it with `os.pwrite` (`DirectFile`). The file is valid HDF5 at every moment; a layer may be written
at any time, again, and by anyone.

In the file, the chunks of a level follow each other row by row: those of a layer are one run.

- HDF5 1.10 format: chunks that are allocated early and not filtered have no index ("implicit"):
  they are one block. Where the chunks of a layer do not fill whole pages, the dataset's largest
  shape (`maxshape`) gets further rows of chunks, which nobody writes or reads.
- Old format (`legacy`): a B-tree of chunks. They are allocated one by one in the same order, each
  on a page of its own, and form one block, since the B-tree has room in the first metadata block.

So no two layers share a page of 4 KiB: an NFS client writes whole pages of its cache.
"""

from __future__ import annotations

import errno
import itertools
import math
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from amst_hpc.averaging import go_on
from amst_hpc.bdv.chunks import Checksums, chunk_grid
from amst_hpc.bdv.file import (
    HDF5_ERRORS,
    LIBVER,
    Target,
    create_cells,
    create_tables,
    find_target_mismatch,
    raise_passing,
    sync,
    whole_chunks,
)
from amst_hpc.bdv.metadata import cells
from amst_hpc.bdv.storage import allocate, create_striped
from amst_hpc.config import InputError
from amst_hpc.geometry import PAGE, Layout, Level, Zyx

Block = NDArray[Any]  # (z, y, x), uint8 or uint16

ALIGNMENT = 1 << 20  # bytes: a level begins there, as the stripes of parallel file systems do

SMALL_BYTES = 64 << 20  # of voxels; in a smaller file a level begins at a page, to save space

METADATA_PAGES = 16, 8  # of a file, and of each level: HDF5 aligns them, too

BTREE_BYTES = 128  # for a chunk; HDF5 takes 101

MOST_BROKEN_CHUNKS = 20_000  # of the old format that are no whole pages; HDF5's time is quadratic

PIECE_BYTES = 4 << 20  # in one write; stays in the processor's cache until then


@dataclass(frozen=True)
class LevelAddress:
    """Where the chunks of a mipmap level stand in the file, in bytes."""

    base: int  # of the first chunk
    layer_bytes: int  # from one layer to the next
    chunk_bytes: int  # from one chunk to the next
    end: int  # of the last chunk

    def chunk(self, layer: int, number: int) -> int:
        """Of a chunk of a layer; they are counted row by row."""
        return self.base + layer * self.layer_bytes + number * self.chunk_bytes


ChunkAddresses = tuple[LevelAddress, ...]  # of each level


def create_file(target: Target) -> ChunkAddresses:
    """Lay the file out; the file gets its name when it is whole and on disk.

    Raises `InputError` if it cannot be made.
    """
    _check_chunks(target)
    part = target.path.with_name(f".{target.path.name}.part")
    create_striped(part, target)
    try:
        with h5py.File(part, "w", **_file_properties(target)) as file:
            create_tables(file, target)
            for k, level in enumerate(target.layout.levels):
                create_cells(file, k, target, _largest_shape(level, target))
        # HDF5 ends the file with its last chunk, which may break its page
        os.truncate(part, _round_up(part.stat().st_size, PAGE))
        with h5py.File(part, "r", locking=False) as file:
            addresses = _find_addresses(file, target, every_chunk=_is_old(target))
        sync(part)
        part.replace(target.path)
    except (*HDF5_ERRORS, AddressError) as error:
        part.unlink(missing_ok=True)
        raise_passing(error)
        raise InputError(f"{target.path}: cannot be laid out ({error})") from None
    return addresses


def read_addresses(target: Target) -> ChunkAddresses:
    """The addresses in a file that `create_file` has made, checked against HDF5.

    Raises `InputError` if the file is damaged or does not suit.
    """
    try:
        with h5py.File(target.path, "r", locking=False) as file:
            if fault := find_target_mismatch(file, target):
                raise InputError(f"{target.path}: cannot be continued: {fault}")
            return _find_addresses(file, target)
    except HDF5_ERRORS as error:
        raise_passing(error)
        raise InputError(f"{target.path}: cannot be opened ({error})") from None
    except AddressError as error:
        raise InputError(f"{target.path}: cannot be continued: {error}") from None


class AddressError(Exception):
    """A chunk does not stand where it is written."""


def _is_old(target: Target) -> bool:
    """Is the file to be of the old format? HDF5 1.8 reads no other."""
    return target.output.legacy


def _check_chunks(target: Target) -> None:
    """Raises `InputError` for so many broken chunks of the old format that it takes minutes."""
    layers = len(target.layout.layers)
    for level in target.layout.levels if _is_old(target) else ():
        chunk_bytes = math.prod(level.chunk) * target.stored.itemsize
        count = layers * math.prod(chunk_grid(level))
        if chunk_bytes % PAGE and count > MOST_BROKEN_CHUNKS:
            raise InputError(
                f"{target.path}: output.legacy with {count} chunks {level.chunk}, no whole pages "
                f'of {PAGE} bytes; expected output.chunk = 64 or 128, or output.writer = "funnel"'
            )


def _file_properties(target: Target) -> dict[str, Any]:
    """All metadata stand in one block before the chunks. In a large file levels alone are aligned
    (all of them have `ALIGNMENT` bytes or more), in a small one metadata, too, at pages.
    """
    interval = PAGE if _is_old(target) else _alignment(target)
    return {
        "libver": LIBVER if _is_old(target) else ("v110", "v110"),
        "alignment_threshold": 1 if interval == PAGE else interval,
        "alignment_interval": interval,
        "meta_block_size": _metadata_bytes(target),
        "locking": False,
    }


def _alignment(target: Target) -> int:
    small = math.prod(target.layout.shape) * target.stored.itemsize < SMALL_BYTES
    return PAGE if small else ALIGNMENT


def _metadata_bytes(target: Target) -> int:
    """Of the first block, with the index of the old format."""
    layers, alignment = len(target.layout.layers), _alignment(target)
    chunks = layers * sum(math.prod(chunk_grid(level)) for level in target.layout.levels)
    index_bytes = BTREE_BYTES * chunks if _is_old(target) else 0
    pages = METADATA_PAGES[0] + METADATA_PAGES[1] * len(target.layout.levels)
    return _round_up(max(alignment, pages * PAGE) + index_bytes, alignment)


def file_bytes(target: Target) -> int:
    """Size of the file that `create_file` makes, at most; its chunks are whole."""
    alignment = _alignment(target)
    layers = len(target.layout.layers)
    found = 2 * alignment + _metadata_bytes(target)
    for level in target.layout.levels:
        run = _rows(level, target) * chunk_grid(level)[1] * _stride(level, target)
        found += _round_up(layers * run, alignment)
    return found


def _stride(level: Level, target: Target) -> int:
    """Bytes from one chunk to the next."""
    chunk_bytes = math.prod(level.chunk) * target.stored.itemsize
    return _round_up(chunk_bytes, PAGE) if _is_old(target) else chunk_bytes


def _largest_shape(level: Level, target: Target) -> Zyx:
    """With the further rows of chunks that fill whole pages."""
    depth, height, width = whole_chunks(level)
    rows, wanted = chunk_grid(level)[0], _rows(level, target)
    return depth, wanted * level.chunk[1] if wanted > rows else height, width


def _rows(level: Level, target: Target) -> int:
    """Rows of chunks to allocate for a layer: as many as fill whole pages.

    Each chunk of the old format does; a level of one layer shares nothing. In a large file a level
    has `ALIGNMENT` bytes at least.
    """
    rows, columns = chunk_grid(level)
    if _is_old(target):
        return rows
    row_bytes, layers = columns * _stride(level, target), len(target.layout.layers)
    fill = PAGE // math.gcd(row_bytes, PAGE) if level.chunk[0] < level.shape[0] else 1
    least = -(-ALIGNMENT // (layers * row_bytes)) if _alignment(target) == ALIGNMENT else 0
    return _round_up(max(rows, least), fill)


def _find_addresses(file: h5py.File, target: Target, every_chunk: bool = False) -> ChunkAddresses:
    """Raises `AddressError` where HDF5 has the first or last chunk (or any) at another place."""
    addresses = tuple(
        _find_address(file[cells(k)].id, level, target)
        for k, level in enumerate(target.layout.levels)
    )
    end = max(address.end for address in addresses)
    if (size := Path(file.filename).stat().st_size) < end:
        raise AddressError(f"it has {size} bytes of {end}")
    for k, address in enumerate(addresses if every_chunk else ()):
        _check_every_chunk(file[cells(k)].id, address)
    return addresses


def _find_address(dataset: h5py.h5d.DatasetID, level: Level, target: Target) -> LevelAddress:
    """The address of a level; its first and last chunk and their number are checked."""
    (rows, columns), layers = chunk_grid(level), len(target.layout.layers)
    count = layers * rows * columns
    if (found := dataset.get_num_chunks()) != count:
        raise AddressError(f"{found} chunks of {count} in level of shape {level.shape}")
    first, last = (dataset.get_chunk_info(number) for number in (0, count - 1))
    stride = _stride(level, target)
    layer_bytes = _rows(level, target) * columns * stride
    end = first.byte_offset + (layers - 1) * layer_bytes + rows * columns * stride
    address = LevelAddress(first.byte_offset, layer_bytes, stride, end)
    for chunk in (first, last):
        _check_chunk(chunk, address, level)
    return address


def _check_chunk(chunk: Any, address: LevelAddress, level: Level) -> None:
    """chunk : as HDF5 describes it."""
    layer, row, column = (o // c for o, c in zip(chunk.chunk_offset, level.chunk, strict=True))
    wanted = address.chunk(layer, row * chunk_grid(level)[1] + column)
    if chunk.byte_offset != wanted or chunk.size > address.chunk_bytes or chunk.filter_mask:
        raise AddressError(
            f"the chunk at {chunk.chunk_offset} of the level of shape {level.shape} stands at "
            f"{chunk.byte_offset}, not {wanted}"
        )


def _check_every_chunk(dataset: h5py.h5d.DatasetID, address: LevelAddress) -> None:
    """Of the old format, without further rows: they follow each other, in HDF5's order."""
    wanted = itertools.count(address.base, address.chunk_bytes)

    def check(chunk: Any) -> None:
        if chunk.byte_offset != (place := next(wanted)):
            raise AddressError(f"a chunk stands at {chunk.byte_offset}, not {place}")

    if hasattr(dataset, "chunk_iter"):  # HDF5 before 1.14 cannot list them
        dataset.chunk_iter(check)


class DirectFile:
    """Writes layers into a file of `create_file`: any process, any layer, at any time, also again.

    addresses : of `create_file` or `read_addresses`, which rank 0 tells the others. One thread at a
    time uses an object of this class; each process (or thread) has its own. between : called before
    each piece is written; what it raises leaves a layer that is to be written again.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        addresses: ChunkAddresses,
        between: Callable[[], None] = go_on,
    ) -> None:
        self.path, self.between = path, between
        self.layout = layout
        self.addresses = addresses
        largest = max(address.chunk_bytes for address in addresses)
        self._buffer = np.frombuffer(mmap.mmap(-1, max(PIECE_BYTES, largest)), np.uint8)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def reserve(self, layers: int) -> bool:
        """Is there space for this number of layers that are still to be written?

        Where the file system can, it is kept for them, and the answer is True. What the file holds
        stays as it is. fallocate(2) itself: posix_fallocate would write zeros where the file system
        cannot. Raises OSError (ENOSPC, EDQUOT) that names the file and the sizes.
        """
        status, space = os.fstat(self._descriptor), os.fstatvfs(self._descriptor)
        wanted = layers * sum(address.layer_bytes for address in self.addresses)
        missing = max(0, min(wanted, status.st_size - 512 * status.st_blocks))
        free = space.f_bavail * space.f_frsize
        code = errno.ENOSPC
        if missing <= free:
            code = allocate(self._descriptor, status.st_size)
            if code in (0, errno.EOPNOTSUPP, errno.ENOSYS):
                return code == 0
        sizes = f"{missing / 1e9:.1f} GB are still to be written, {free / 1e9:.1f} GB are free"
        raise OSError(code, f"{os.strerror(code)}: {sizes}", str(self.path))

    def write_layer(self, layer: int, levels: list[Block]) -> Checksums:
        """Write a layer on all levels, as `pyramid` gives them, in the dtype of the file.

        Returns the CRC-32 of the uncompressed valid region of each chunk, per level.
        Raises OSError that names the file.
        """
        try:
            return [
                self._write_level(layer, k, block)
                for k, block in zip(range(len(self.addresses)), levels, strict=True)
            ]
        except OSError as error:
            text = f"cannot be written ({error.strerror})"
            raise OSError(error.errno, text, str(self.path)) from error

    def _write_level(self, layer: int, k: int, block: Block) -> NDArray[np.uint32]:
        """One run of chunks, packed and written piece by piece."""
        level, address = self.layout.levels[k], self.addresses[k]
        checksums = np.zeros(chunk_grid(level), np.uint32)
        regions = _regions(level, block)
        count = max(1, PIECE_BYTES // address.chunk_bytes)
        slots = self._buffer[: count * address.chunk_bytes].reshape(count, -1)
        for first in range(0, checksums.size, count):
            self.between()
            piece = slots[: checksums.size - first]
            for number, slot in enumerate(piece, first):
                checksums.flat[number] = _pack(next(regions), slot, level)
            self._write(piece.reshape(-1).data, address.chunk(layer, first))
        return checksums

    def _write(self, data: memoryview, offset: int) -> None:
        """All of it: one call writes 2 GB at most, and fewer bytes where a signal comes."""
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written

    def sync(self) -> None:
        """What was written is on disk when this returns. Raises OSError that names the file."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            text = f"cannot be written ({error.strerror})"
            raise OSError(error.errno, text, str(self.path)) from error


def _regions(level: Level, block: Block) -> Iterator[Block]:
    """The valid regions of the chunks of a layer, row by row; views of `block`."""
    _, height, width = level.chunk
    for y in range(0, level.shape[1], height):
        for x in range(0, level.shape[2], width):
            yield block[:, y : y + height, x : x + width]


def _pack(region: Block, slot: NDArray[np.uint8], level: Level) -> int:
    """The bytes of a chunk, zeros beyond its valid region. Returns the CRC-32 of that region."""
    if region.nbytes < slot.nbytes:
        slot[:] = 0
    bytes_used = math.prod(level.chunk) * region.itemsize
    chunk = slot[:bytes_used].view(region.dtype).reshape(level.chunk)
    z, y, x = region.shape
    chunk[:z, :y, :x] = region
    valid = slot[:bytes_used] if region.nbytes == bytes_used else np.ascontiguousarray(region)
    return int(isal_zlib.crc32(valid))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
