"""MB/s of collective compressed writes: how the Debian release of the image was chosen.

    mpirun -n 2 python3 benchmarks/collective_write.py FILE [GZIP ...]

Needs numpy, mpi4py and an h5py with MPI, of any version; one line for every gzip level (0: no
filter), with the best of the repeats. Run it in both releases on the same disk, in turn.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMPI_MCA_io", "^ompio")
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
os.environ.setdefault("H5PY_ALWAYS_USE_MPI", "1")

import h5py
import numpy as np
from mpi4py import MPI

SHAPE = (128, 1024, 1024)
CHUNK = (32, 128, 128)
REPEATS = 5

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
path, levels = sys.argv[1], [int(level) for level in sys.argv[2:]] or [0, 1, 4]

# membranes and noise compress about as real slices do
rng = np.random.default_rng(rank)
smooth = np.random.default_rng(1).integers(90, 170, (32, 64, 64)).repeat(16, 1).repeat(16, 2)
block = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
layers = range(rank, SHAPE[0] // CHUNK[0], size)

for level in levels:
    seconds, processor = [], []
    for _ in range(REPEATS):
        comm.Barrier()
        began, used = time.perf_counter(), time.process_time()
        with h5py.File(path, "w", driver="mpio", comm=comm, libver=("earliest", "v110")) as file:
            options = {"compression": level} if level else {}
            data = file.create_dataset("cells", SHAPE, np.uint8, chunks=CHUNK, **options)
            for layer in layers:
                with data.collective:
                    data[layer * 32 : (layer + 1) * 32] = block
        seconds.append(comm.allreduce(time.perf_counter() - began, MPI.MAX))
        processor.append(comm.allreduce(time.process_time() - used))
    if rank == 0:
        stored = Path(path).stat().st_size / 1e6
        Path(path).unlink()
        library = MPI.Get_library_version().split(",")[0]
        print(
            f"HDF5 {h5py.version.hdf5_version}, {library}, {size} ranks, "
            f"gzip {level}: {np.prod(SHAPE) / 1e6 / min(seconds):.0f} MB/s "
            f"(best {min(seconds):.2f} s, worst {max(seconds):.2f} s, "
            f"processor {min(processor):.2f} s, {stored:.0f} MB stored)"
        )
