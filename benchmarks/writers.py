"""MB/s of one writer: `mpirun -n N python writers.py FILE collective|funnel GZIP` (see bench)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout
from amst_hpc.parallel.communicator import world

comm = world()
path, output = Path(sys.argv[1]), Output(writer=sys.argv[2], compression=int(sys.argv[3]))
layout = make_layout((32 * 4, 1024, 2048), 32, output)
mine = range(comm.rank, len(layout.layers), comm.size)
# membranes and noise compress about as real slices do
smooth = np.repeat(np.random.default_rng(1).integers(90, 170, (32, 64, 128)), 16, axis=1).repeat(
    16, axis=2
)
block = (smooth + np.random.default_rng(comm.rank).normal(0, 6, smooth.shape)).astype(np.uint8)
comm.Barrier()
began = time.perf_counter()
with BdvWriter(make_target(path, layout, np.uint8, output), comm) as out:
    for turn in range(-(-len(layout.layers) // comm.size)):
        layer = mine[turn] if turn < len(mine) else None
        out.write(layer, None if layer is None else block)
if comm.rank == 0:
    print(f"{np.prod(layout.shape) / (time.perf_counter() - began) / 1e6:.0f}")
    path.unlink()
