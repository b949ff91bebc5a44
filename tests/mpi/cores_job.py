"""Under mpirun: rank 0 says how many cores each rank counts as its own."""

from amst_hpc.parallel.communicator import world
from amst_hpc.parallel.node import cores_per_rank

comm = world()
everyone = comm.gather(cores_per_rank(comm))
if comm.rank == 0:
    print(everyone)
