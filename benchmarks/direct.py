"""MB/s of the direct writer beside the others, MPI-IO at the same addresses, and dd.

    mpirun -n N python benchmarks/direct.py FOLDER [REPEATS]

64 slices of 2048x2048 uint8, random, a layer of 8, all levels, nothing registered or resampled;
with fsync. One line for each way, in changing order; after them the seconds of each part of
the work on one rank. Run it with 1 and 2 ranks, in memory (/dev/shm) and on the disk.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMPI_MCA_io", "^ompio")
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

import h5py
import numpy as np
from isal import isal_zlib
from mpi4py import MPI

from amst_hpc.bdv.chunks import layer_chunks
from amst_hpc.bdv.direct import DirectFile, create_file
from amst_hpc.bdv.file import make_target, sync
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.overlap import StoringThread
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout

SHAPE = (64, 2048, 2048)
LAYER = 8

comm = MPI.COMM_WORLD
folder = Path(sys.argv[1])
repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
path = folder / "direct-benchmark.h5"

output = Output(compression=0)
layout = make_layout(SHAPE, LAYER, output)
target = make_target(path, layout, "uint8", output, False)
mine = range(comm.rank, len(layout.layers), comm.size)
block = np.random.default_rng(comm.rank).integers(0, 256, (LAYER, *SHAPE[1:]), np.uint8)
megabytes = sum(np.prod(level.shape) for level in layout.levels) / 1e6


class MpiFile(DirectFile):
    """The same pieces at the same addresses through MPI-IO."""

    def __init__(self, collective: bool, *arguments) -> None:
        super().__init__(*arguments)
        self.file = MPI.File.Open(comm, str(path), MPI.MODE_RDWR)
        self.write = self.file.Write_at_all if collective else self.file.Write_at

    def _write(self, data: memoryview, offset: int) -> None:
        self.write(offset, data)

    def sync(self) -> None:
        self.file.Sync()

    def close(self) -> None:
        self.file.Close()
        super().close()


def lay_out():
    return comm.bcast(create_file(target) if comm.rank == 0 else None)


def direct(make=DirectFile, reserve=False) -> None:
    with make(path, layout, lay_out()) as file:
        if reserve and comm.rank == 0:
            file.reserve(len(layout.layers))
        comm.Barrier()
        for layer in mine:
            file.write_layer(layer, pyramid(block, layout))
        file.sync()


def direct_overlapped() -> None:
    with DirectFile(path, layout, lay_out()) as file:
        with StoringThread(file.write_layer) as thread:
            for layer in mine:
                thread.put(layer, pyramid(block, layout))
        file.sync()


def through_hdf5(writer: str) -> None:
    settings = Output(compression=0, writer=writer)
    with BdvWriter(make_target(path, layout, np.uint8, settings), comm) as file:
        for layer in mine:
            file.write(layer, block)
    if comm.rank == 0:
        sync(path)


def pwrite_alone() -> None:
    """As many bytes, in pieces of the same size, with nothing else done."""
    piece = block.reshape(-1)[: 4 << 20].data
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.truncate(file, int(megabytes * 1e6))
    for n in range(comm.rank, int(megabytes * 1e6) // len(piece), comm.size):
        os.pwrite(file, piece, n * len(piece))
    os.fdatasync(file)
    os.close(file)


def copy() -> None:
    """dd of the file that is there, from memory."""
    if comm.rank == 0:
        out = folder / "direct-benchmark.copy"
        source = f"if={folder / 'direct-benchmark.source'}"
        command = ["dd", source, f"of={out}", "bs=4M", "conv=fsync", "status=none"]
        subprocess.run(command, check=True)
        out.unlink()


WAYS: dict[str, Callable[[], None]] = {
    "dd conv=fsync": copy,
    "direct": direct,
    "direct, overlapped": direct_overlapped,
    "direct, space reserved": lambda: direct(reserve=True),
    "pwrite and fsync alone": pwrite_alone,
    "direct, MPI Write_at": lambda: direct(lambda *a: MpiFile(False, *a)),
    "direct, MPI Write_at_all": lambda: direct(lambda *a: MpiFile(True, *a)),
    "funnel": lambda: through_hdf5("funnel"),
}
if h5py.get_config().mpi and comm.size > 1:
    WAYS["collective"] = lambda: through_hdf5("collective")


def seconds(way: Callable[[], None]) -> tuple[float, float]:
    """Time that passes, and time of all processors with that of the kernel."""
    if comm.rank == 0:
        path.unlink(missing_ok=True)
        os.sync()
    comm.Barrier()
    began, used = time.perf_counter(), sum(os.times()[:4])
    way()
    used = comm.allreduce(sum(os.times()[:4]) - used)
    return time.perf_counter() - began, used


def parts() -> dict[str, float]:
    """Seconds of each part for all layers on one rank."""
    spent = dict.fromkeys(("pyramid", "checksums of views", "packing + crc", "pwrite", "sync"), 0.0)

    def add(name: str, work: Callable[[], object]) -> object:
        began = time.perf_counter()
        result = work()
        spent[name] += time.perf_counter() - began
        return result

    class Timed(DirectFile):
        def _write(self, data: memoryview, offset: int) -> None:
            add("pwrite", lambda: super(Timed, self)._write(data, offset))

    path.unlink(missing_ok=True)
    with Timed(path, layout, create_file(target)) as file:
        for layer in range(len(layout.layers)):
            levels = add("pyramid", lambda: pyramid(block, layout))
            add(
                "checksums of views",
                lambda n=layer, at=levels: [
                    isal_zlib.crc32(chunk.region) for chunk in layer_chunks(layout, n, at)
                ],
            )
            add("packing + crc", lambda n=layer, at=levels: file.write_layer(n, at))
        add("sync", file.sync)
    spent["packing + crc"] -= spent["pwrite"]
    return spent


if comm.rank == 0:
    direct_source = folder / "direct-benchmark.source"
    direct_source.write_bytes(os.urandom(1 << 20) * int(megabytes / 1.048576))
found = {name: [] for name in WAYS}
for turn in range(repeats):
    for name in sorted(WAYS, key=lambda name: zlib.crc32(f"{name}{turn}".encode())):
        found[name].append(seconds(WAYS[name]))
if comm.rank == 0:
    print(f"{comm.size} ranks, {folder}, {megabytes:.0f} MB on all levels")
    print(f"  {'':26} best MB/s, median MB/s, least processor s")
    for name, times in found.items():
        passed, used = zip(*times, strict=True)
        best, median = (megabytes / f(passed) for f in (min, statistics.median))
        print(f"  {name:26} {best:9.0f} {median:12.0f} {min(used):19.2f}")
    if comm.size == 1:
        print("  seconds:", ", ".join(f"{n} {s:.3f}" for n, s in parts().items()))
    path.unlink(missing_ok=True)
    direct_source.unlink()
