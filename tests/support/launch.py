"""Runs a script of the tests on several ranks, with OpenMPI 4 and 5."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from amst_hpc.parallel.launch import LOCAL_ENVIRONMENT, find_mpirun

# bound to no core, without OMPIO
MPI_ENVIRONMENT = LOCAL_ENVIRONMENT | {
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_io": "^ompio",
}
# for jobs of this module: on one machine alone, and a warning is an error
JOB_ENVIRONMENT = MPI_ENVIRONMENT | {
    "OMPI_MCA_btl_tcp_if_include": "lo",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "HDF5_USE_FILE_LOCKING": "FALSE",
    "PYTHONWARNINGS": "error",
}


def mpirun(
    n: int,
    args: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """``python args...`` on n ranks, output captured; `env` goes over what this module sets.

    timeout : seconds; raises `subprocess.TimeoutExpired` after it (a hang).
    """
    command = [find_mpirun(), "-n", str(n), sys.executable, *map(str, args)]
    environment = {**os.environ, **JOB_ENVIRONMENT, **(env or {})}
    return subprocess.run(
        command, env=environment, timeout=timeout, capture_output=True, text=True, check=False
    )
