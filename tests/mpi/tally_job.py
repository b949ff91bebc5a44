"""Ranks do unequal work; rank 0 prints what it has heard of."""

import time

from mpi4py import MPI

from amst_hpc.parallel.tally import Tally

comm = MPI.COMM_WORLD
tally = Tally(comm)
for turn in range(3 * comm.rank + 1):
    tally.add(fell_back=turn == 0)
    time.sleep(0.3 if comm.rank == comm.size - 1 else 0)
heard = []
tally.finish(lambda: heard.append(tally.totals()))
if comm.rank == 0:
    print(tally.totals(), len(set(heard)), heard == sorted(heard))
