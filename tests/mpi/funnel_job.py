"""Run by test_bdv_mpi.py on two ranks: rank 0 stores only when rank 1 is done with its layer.

Argument: the file to write, one layer of 8 MiB per rank.
"""

import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout

comm = MPI.COMM_WORLD
output = Output(chunk=512, levels=1, compression=0, writer="funnel")
layout = make_layout((16, 1024, 1024), 8, output)
block = np.random.default_rng(comm.rank).integers(0, 256, (8, 1024, 1024), np.uint8)
with BdvWriter(make_target(Path(sys.argv[1]), layout, np.uint8, output), comm) as out:
    if comm.rank == 0:
        comm.recv(source=1)
    out.write(comm.rank, block)
    if comm.rank == 1:
        comm.send("its next layer can be made", dest=0)
