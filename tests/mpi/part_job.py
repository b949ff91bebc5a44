"""Under mpirun: the other ranks end, rank 0 says when they are gone and ends with the code 3."""

import os
import sys
import time

import psutil

from amst_hpc.parallel.communicator import part, world

comm = world()
others = [pid for pid in comm.allgather(os.getpid()) if pid != os.getpid()]
if not part(comm):
    sys.exit(0)
end = time.monotonic() + 10


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


while any(map(alive, others)):
    time.sleep(0.02)
    if time.monotonic() > end:
        sys.exit("they are still there")
print("alone")
sys.exit(3)
