"""BigDataViewer HDF5: mipmaps of one layer, two parallel writers, XML and viewer settings.

Setup 0, timepoint 0: level k is the dataset t00000/s00/k/cells, (z, y, x). Only the tables
resolutions and subdivisions are xyz (`_tables`). uint16 is stored as it is, with the attribute
dataType; `output.legacy` stores its bits as int16, as BigDataViewer before 10.4.6 expects them.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from pybdv.metadata import write_xml_metadata

from amst_hpc.config import InputError, Output
from amst_hpc.geometry import Layout, Level, Zyx

Block = NDArray[Any]  # (z, y, x), uint8 or uint16
Checksums = list[NDArray[np.uint32]]  # per level: (rows, columns) of chunks

LIBVER = ("earliest", "v110")  # BigDataViewer's HDF5 reads no later file format
BATCH_BYTES = 32 << 20  # of compressed chunks in one message
WRITE_BYTES = 256 << 20  # in one collective write; MPI-IO counts end at 2 GB
POLL_SECONDS = 0.001
# HDF5's own gzip takes five times as long per rank as isal's, which one rank stores at 700 MB/s
COLLECTIVE_RANKS = 16
HDF5_ERRORS = (OSError, RuntimeError)  # h5py raises both, the latter where a close fails
ISAL_LEVELS = (1, 2, 3)  # isal's zlib streams take a sixth of the time there


def downsample(block: Block, factors: Zyx) -> Block:
    """Block mean, rounded half up; the edge is replicated where a block sticks out.

    block : (z, y, x) uint8 or uint16. Returns ceil(dim / factor) in each axis, same dtype.
    """
    fz, fy, fx = factors
    if factors == (1, 1, 1):
        return block
    count = fz * fy * fx
    wide = np.uint16 if block.dtype == np.uint8 and count <= 256 else np.uint32
    depth, height, width = (-(-n // f) for n, f in zip(block.shape, factors, strict=True))
    out = np.empty((depth, height, width), block.dtype)
    for z in range(depth):
        total = _sum_slices(block[z * fz : (z + 1) * fz], fz, wide)
        total = _sum_neighbours(total, fy)
        total = _sum_neighbours(total.T, fx).T
        total += wide(count // 2)
        total //= wide(count)
        out[z] = total
    return out


def _sum_slices(slices: Block, count: int, wide: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Sum along z of `count` slices, the last one repeated where there are fewer."""
    total: NDArray[Any] = slices[0].astype(wide)
    for i in range(1, count):
        total += slices[min(i, len(slices) - 1)]
    return total


def _sum_neighbours(plane: NDArray[Any], count: int) -> NDArray[Any]:
    """Sums of `count` rows each, the last row repeated to a multiple of `count`."""
    if missing := -len(plane) % count:
        plane = np.concatenate([plane, np.repeat(plane[-1:], missing, axis=0)])
    total = plane[::count].copy(order="K")
    for i in range(1, count):
        total += plane[i::count]
    return total


def pyramid(block: Block, layout: Layout) -> list[Block]:
    """One layer on every level, each made from the one above it."""
    levels = [np.ascontiguousarray(block)]
    for above, level in zip(layout.levels, layout.levels[1:], strict=False):
        fz, fy, fx = (b // a for a, b in zip(above.factors, level.factors, strict=True))
        levels.append(downsample(levels[-1], (fz, fy, fx)))
    return levels


def choose_writer(output: Output, comm_size: int) -> str:
    """ "collective" or "funnel" (see `BdvWriter`).

    Raises `InputError` if collective is asked for and h5py has no MPI.
    """
    parallel = bool(h5py.get_config().mpi)
    if output.writer == "collective" and not parallel:
        raise InputError(
            'output.writer = "collective": this h5py has no MPI; expected "funnel" or "auto"'
        )
    if output.writer == "auto":
        slower = output.compression > 0 and comm_size < COLLECTIVE_RANKS
        return "collective" if parallel and comm_size > 1 and not slower else "funnel"
    return output.writer


def cells(level: int) -> str:
    """Name of the dataset of a mipmap level."""
    return f"t00000/s00/{level}/cells"


@dataclass(frozen=True)
class Target:
    """The HDF5 file to write: where, how it is cut, what it holds and how it is compressed."""

    path: Path
    layout: Layout
    dtype: np.dtype[Any]  # of the blocks
    stored: np.dtype[Any]  # of the datasets; the same bits
    compression: int  # gzip level; 0: none
    legacy: bool
    append: bool

    @property
    def shuffle(self) -> bool:
        """Bytes of the same significance side by side: uint16 compresses better."""
        return self.compression > 0 and self.stored.itemsize > 1


def make_target(
    path: Path,
    layout: Layout,
    dtype: np.dtype[Any] | type[np.generic] | str,
    output: Output,
    append: bool,
) -> Target:
    """The file that `output` asks for; dtype uint8 or uint16."""
    dtype = np.dtype(dtype)
    legacy = output.legacy and dtype == np.uint16
    stored = np.dtype(np.int16) if legacy else dtype
    return Target(path, layout, dtype, stored, output.compression, legacy, append)


def _open(target: Target, **driver: Any) -> h5py.File:
    """The file, with its datasets; `driver` as in h5py.File.

    Raises `InputError` if it cannot be opened, or is to be continued and does not suit.
    """
    mode = "r+" if target.append else "w"
    try:
        file = h5py.File(target.path, mode, libver=LIBVER, **driver)
    except OSError as error:
        raise InputError(f"{target.path}: cannot be opened for writing ({error})") from None
    if not target.append:
        _create_tables(file, target)
        for k, level in enumerate(target.layout.levels):
            _create_cells(file, k, level, target)
    elif fault := _find_mismatch(file, target):
        file.close()
        raise InputError(f"{target.path}: cannot be continued: {fault}")
    return file


def _tables(layout: Layout) -> dict[str, NDArray[Any]]:
    """BigDataViewer's tables of the levels; the one place where zyx turns to xyz."""
    resolutions = np.array([level.factors[::-1] for level in layout.levels], np.float64)
    subdivisions = np.array([level.chunk[::-1] for level in layout.levels], np.int32)
    return {"resolutions": resolutions, "subdivisions": subdivisions}


def _create_tables(file: h5py.File, target: Target) -> None:
    setup = file.create_group("s00")
    for name, table in _tables(target.layout).items():
        setup.create_dataset(name, data=table)
    if not target.legacy:
        setup.attrs["dataType"] = np.bytes_(target.dtype.name)


def _create_cells(file: h5py.File, k: int, level: Level, target: Target) -> None:
    """The dataset of level k. Never filled: every chunk is written, and filling takes longer."""
    gzip = {"compression": "gzip", "compression_opts": target.compression}
    file.create_dataset(
        cells(k),
        shape=level.shape,
        dtype=target.stored,
        chunks=level.chunk,
        fill_time="never",
        shuffle=target.shuffle,
        **(gzip if target.compression else {}),
    )


def _find_mismatch(file: h5py.File, target: Target) -> str | None:
    """What keeps a file from being continued, None if nothing does."""
    for name, table in _tables(target.layout).items():
        key = f"s00/{name}"
        if key not in file or not np.array_equal(file[key], table):
            return f"its {name} are not those of this run"
    for k, level in enumerate(target.layout.levels):
        if cells(k) not in file:
            return f"it has no {cells(k)}"
        found, gzip = file[cells(k)], "gzip" if target.compression else None
        facts = (found.shape, found.chunks, str(found.dtype), found.compression, found.shuffle)
        wanted = (level.shape, level.chunk, str(target.stored), gzip, target.shuffle)
        # of a virtual dataset (`amst-hpc merge --link`) the chunks are those of the parts
        same = facts[::2][:2] == wanted[::2][:2] if found.is_virtual else facts == wanted
        if not same:
            return f"{cells(k)} has (shape, chunks, dtype, gzip, shuffle) {facts}, not {wanted}"
    return None


@dataclass(frozen=True)
class Chunk:
    """One chunk of a layer: its level, its offset in the dataset there and its valid region."""

    level: int
    offset: Zyx
    region: Block


def _chunks(layout: Layout, layer: int, levels: list[Block]) -> Iterator[Chunk]:
    """The chunks of a layer, level by level; `levels` as `pyramid` gives them, none when idle."""
    for k, (level, block) in enumerate(zip(layout.levels, levels, strict=False)):
        depth, height, width = level.chunk
        for y in range(0, level.shape[1], height):
            for x in range(0, level.shape[2], width):
                region = np.ascontiguousarray(block[:, y : y + height, x : x + width])
                yield Chunk(k, (layer * depth, y, x), region)


class _Checksums:
    """Collects the CRC-32 of the chunks that pass by."""

    def __init__(self, layout: Layout, levels: list[Block]) -> None:
        self.layout = layout
        self.grids = [np.zeros(_grid(level), np.uint32) for level in layout.levels[: len(levels)]]

    def add(self, chunk: Chunk) -> None:
        _, height, width = self.layout.levels[chunk.level].chunk
        _, y, x = chunk.offset
        self.grids[chunk.level][y // height, x // width] = isal_zlib.crc32(chunk.region)


def _grid(level: Level) -> tuple[int, int]:
    """Rows and columns of chunks."""
    (_, y, x), (_, height, width) = level.shape, level.chunk
    return (-(-y // height), -(-x // width))


class _Store(Protocol):
    """Where `BdvWriter` puts the levels of a layer. `store` and `close` are collective."""

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        """Write a layer on all levels; an idle rank hands in no levels."""

    def close(self) -> None:
        """Close the file; it is complete on return, for every rank."""

    def abandon(self) -> None:
        """After an exception: close what can be closed without the other ranks."""


class _Collective:
    """All ranks write through parallel HDF5, which compresses."""

    def __init__(self, target: Target, comm: Any) -> None:
        self.layout = target.layout
        self.file = _open(target, driver="mpio", comm=comm)
        self.transfer = h5py.h5p.create(h5py.h5p.DATASET_XFER)
        self.transfer.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        for k, level in enumerate(self.layout.levels):
            block = levels[k] if levels else None
            dataset = self.file[cells(k)]
            for y, x in write_regions(level, dataset.dtype.itemsize):
                self._write(dataset, layer * level.chunk[0], y, x, block)
        checksums = _Checksums(self.layout, levels)
        for chunk in _chunks(self.layout, layer, levels):
            checksums.add(chunk)
        return checksums.grids

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
        self.file.close()

    def abandon(self) -> None:
        """Leave the file open: its close is collective and would wait for the other ranks."""


def write_regions(level: Level, itemsize: int) -> list[tuple[range, range]]:
    """The (y, x) regions of a layer for one collective write each: whole chunks, `WRITE_BYTES`."""
    (_, height, width), (depth, chunk_y, chunk_x) = level.shape, level.chunk
    chunk_bytes = depth * chunk_y * chunk_x * itemsize
    columns = min(_grid(level)[1], max(1, WRITE_BYTES // chunk_bytes))
    rows = max(1, WRITE_BYTES // (chunk_bytes * columns))
    return [
        (range(y, min(y + rows * chunk_y, height)), range(x, min(x + columns * chunk_x, width)))
        for y in range(0, height, rows * chunk_y)
        for x in range(0, width, columns * chunk_x)
    ]


Packed = tuple[int, Zyx, bytes]  # level, offset, the chunk as it stands in the file


class _Funnel:
    """Each rank compresses its own chunks; rank 0 opens the file serially and stores them all."""

    def __init__(self, target: Target, comm: Any) -> None:
        self.layout = target.layout
        self.pack = _packer(target)
        self.file: h5py.File | None = None
        fault = None
        if comm.rank == 0:
            try:
                self.file = _open(target)
            except InputError as error:
                fault = str(error)
        if fault := comm.bcast(fault):
            raise InputError(fault)
        self.comm = comm.Dup()

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        checksums = _Checksums(self.layout, levels)
        packed = self._pack_all(_chunks(self.layout, layer, levels), checksums)
        if self.comm.rank == 0:
            self._store_all(packed)
        else:
            self._send_all(packed)
        return checksums.grids

    def _pack_all(self, chunks: Iterator[Chunk], checksums: _Checksums) -> Iterator[Packed]:
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


STORES: dict[str, Callable[[Target, Any], _Store]] = {
    "collective": _Collective,
    "funnel": _Funnel,
}


class BdvWriter:
    """Writes a BigDataViewer HDF5 file layer by layer; entering, `write` and exit are collective.

    Both writers (`choose_writer`) give the same values. After an exception the file is unusable and
    the ranks must be aborted: no rank waits for the others in the exit.

    path : the file, made anew; with `append` it is there, was closed, and its datasets suit.
    dtype : uint8 or uint16. comm : a communicator with mpi4py's methods.
    Raises `InputError` if the writer is not available or the file does not open or suit.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        dtype: np.dtype[Any] | type[np.generic] | str,
        output: Output,
        comm: Any,
        append: bool = False,
    ) -> None:
        self.target = make_target(path, layout, dtype, output, append)
        self.comm = comm
        self._make_store = STORES[choose_writer(output, comm.size)]

    def __enter__(self) -> Self:
        self._store = self._make_store(self.target, self.comm)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            with _naming(self.target.path):
                self._store.close()
        else:
            self._store.abandon()

    def write(self, layer: int | None, block: Block | None) -> Checksums:
        """Write one layer on all levels; every rank calls it equally often, idle ones with None.

        block : the slices of this layer, (z, y, x), in the dtype of the writer.
        Returns the CRC-32 of the uncompressed valid region of each chunk; [] on an idle rank.
        Raises OSError where the file cannot be written (funnel: on rank 0).
        """
        if layer is None or block is None:
            return self._put(0, [])
        layout, dtype = self.target.layout, self.target.dtype
        expected = (len(layout.layers[layer]), *layout.shape[1:])
        if block.shape != expected or block.dtype != dtype:
            found = f"{block.shape} {block.dtype}"
            raise ValueError(f"layer {layer} is {found}, expected {expected} {dtype}")
        levels = [level.view(self.target.stored) for level in pyramid(block, layout)]
        return self._put(layer, levels)

    def _put(self, layer: int, levels: list[Block]) -> Checksums:
        with _naming(self.target.path):
            return self._store.store(layer, levels)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of HDF5 as an OSError that names the file."""
    try:
        yield
    except HDF5_ERRORS as error:
        raise OSError(f"{path}: cannot be written ({error})") from error


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
            fault = _find_mismatch(file, target) or _find_wrong_type(file, target)
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
    found = bytes(np.bytes_(file["s00"].attrs.get("dataType", b""))).decode(errors="replace")
    wanted = "" if target.legacy else target.dtype.name
    return None if found == wanted else f"its dataType is {found!r}, not {wanted!r}"


def write_xml(xml_path: Path, h5_path: Path, voxel_size_nm: tuple[float, ...]) -> None:
    """The BigDataViewer XML of a complete file in the same folder.

    voxel_size_nm : z, y, x; empty: not known, voxels are of size 1 px. It also goes into the
    registration: BigDataViewer does not apply `voxelSize`.
    """
    temporary = xml_path.with_name(f".{xml_path.name}.part")
    temporary.unlink(missing_ok=True)  # pybdv would add to it
    names = ("illumination", "channel", "tile", "angle")
    write_xml_metadata(
        str(temporary),
        str(h5_path),
        unit="nm" if voxel_size_nm else "px",
        resolution=[float(size) for size in voxel_size_nm or (1, 1, 1)],
        is_h5=True,
        setup_id=0,
        timepoint=0,
        setup_name=h5_path.stem,
        affine=None,  # of the voxel size
        attributes={name: {"id": 0, "name": "0"} for name in names},
        overwrite=False,
        overwrite_data=False,
        enforce_consistency=False,
    )
    temporary.replace(xml_path)


SETTINGS = """\
<?xml version="1.0" encoding="UTF-8"?>
<Settings>
  <ViewerState>
    <Sources><Source><active>true</active></Source></Sources>
    <SourceGroups>
      <SourceGroup><active>true</active><name>group 1</name><id>0</id></SourceGroup>
    </SourceGroups>
    <DisplayMode>ss</DisplayMode>
    <Interpolation>nearestneighbor</Interpolation>
    <CurrentSource>0</CurrentSource>
    <CurrentGroup>0</CurrentGroup>
    <CurrentTimePoint>0</CurrentTimePoint>
  </ViewerState>
  <SetupAssignments>
    <ConverterSetups>
      <ConverterSetup>
        <id>0</id><min>{minimum}</min><max>{maximum}</max><color>-1</color><groupId>0</groupId>
      </ConverterSetup>
    </ConverterSetups>
    <MinMaxGroups>
      <MinMaxGroup>
        <id>0</id><fullRangeMin>0.0</fullRangeMin><fullRangeMax>65535.0</fullRangeMax>
        <rangeMin>{minimum}</rangeMin><rangeMax>{maximum}</rangeMax>
        <currentMin>{minimum}</currentMin><currentMax>{maximum}</currentMax>
      </MinMaxGroup>
    </MinMaxGroups>
  </SetupAssignments>
  <ManualSourceTransforms>
    <SourceTransform type="affine">
      <affine>1.0 0.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 0.0 1.0 0.0</affine>
    </SourceTransform>
  </ManualSourceTransforms>
</Settings>
"""


def write_settings(path: Path, minimum: float, maximum: float) -> None:
    """The contrast range (grey values) that BigDataViewer starts with: NAME.settings.xml."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(SETTINGS.format(minimum=float(minimum), maximum=float(maximum)))
    temporary.replace(path)


def contrast(path: Path) -> tuple[float, float]:
    """Grey values to show as black and white: 0.5 and 99.5 % of the coarsest level.

    Black is left out.
    """
    with h5py.File(path, "r") as file:
        last = len(file["s00/resolutions"]) - 1
        values = file[cells(last)][()]
    if values.dtype == np.int16:
        values = values.view(np.uint16)
    values = values[values > 0]
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 255.0)
    return float(low), float(max(high, low + 1))


def sync(path: Path) -> None:
    """The file is on disk when this returns."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_parallel() -> bool:
    """True if h5py can write collectively."""
    return bool(h5py.get_config().mpi)


def hdf5_version() -> str:
    """Of the library that h5py uses."""
    return str(h5py.version.hdf5_version)
