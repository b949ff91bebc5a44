"""Ranks do unequal work, each item once; rank 0 prints who did what, and how long it took.

shares_job.py ITEMS MOST MILLISECONDS... : of each rank for an item. They sleep; in runs of several
items they hold Python's lock meanwhile, as elastix does. The variable STOP: "RANK ITEMS", the rank
leaves after so many.
"""

import ctypes
import json
import os
import sys
import time

from mpi4py import MPI

from amst_hpc.parallel.shares import Shares

comm = MPI.COMM_WORLD
count, most, *sleeps = map(int, sys.argv[1:])
leaves, after = map(int, os.environ.get("STOP", "-1 0").split())
usleep = (ctypes.PyDLL if most > 1 else ctypes.CDLL)(None).usleep
mine, seen, busy = [], [], []
with Shares(comm, [f"item {i}" for i in range(count)], most) as shares:
    comm.Barrier()
    began = time.monotonic()
    for run in shares:
        if comm.rank == leaves and len(mine) >= after:
            break
        for item in run:
            slept = time.monotonic()
            usleep(1000 * sleeps[comm.rank])
            busy.append(time.monotonic() - slept)
            mine.append(int(item.split()[1]))
            seen.append(len(shares.coming()))
    took = time.monotonic() - began
found = comm.gather((mine, took, sum(busy), max(seen, default=0)))
if found:
    print(json.dumps(found))
