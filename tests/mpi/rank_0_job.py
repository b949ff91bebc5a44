"""Under mpirun: rank 0 works alone for a while; says what the others got, and their CPU seconds."""

import time

from amst_hpc.config import InputError
from amst_hpc.parallel.communicator import on_rank_0, world

comm = world()
before = time.process_time()
result = on_rank_0(comm, lambda: time.sleep(1.5) or 42)
used = time.process_time() - before
fault = ""
try:
    on_rank_0(comm, lambda: int("x") if comm.rank else (_ for _ in ()).throw(InputError("no")))
except InputError as error:
    fault = str(error)
everyone = comm.gather((result, fault, used < 0.7))
if comm.rank == 0:
    print(set(everyone))
