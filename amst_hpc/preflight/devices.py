"""`amst-hpc devices`: what each rank would run on, and which libraries it found."""

from __future__ import annotations

import platform
import sys
from typing import Any

from amst_hpc import __version__
from amst_hpc.bdv.file import hdf5_version, is_parallel
from amst_hpc.opencl.devices import candidates, find_devices, prepare, prove
from amst_hpc.parallel.communicator import mpi_library
from amst_hpc.parallel.launch import launch_of
from amst_hpc.parallel.node import cores_per_rank, local_place, memory_per_rank, scratch_folder
from amst_hpc.registration.elastix import program_version
from amst_hpc.software import LIBRARIES, library_version


def describe(comm: Any) -> tuple[list[str], str]:
    """Lines to print and what is wrong with the launch; collective over `comm`.

    Both are empty on all ranks but the first, also where N copies do not see each other.
    """
    launch, fault, first = launch_of(comm)
    (local_rank, local_size), cores = local_place(comm), cores_per_rank(comm)
    with scratch_folder(local_rank) as scratch:
        prepare(scratch, cores)
        found = find_devices()
        state = {d: _state(d) for d in found}
        usable = [d for d in candidates("auto", local_rank, found) if not state[d]] if found else []
    device = usable[0] if usable else "no OpenCL: XCORR"
    mine = (
        f"rank {comm.rank} of {comm.size} on {platform.node()}: {device}, "
        f"{cores} cores, {memory_per_rank(local_size) / 1e9:.1f} GB"
    )
    everyone = comm.gather(mine)
    if not first:
        return [], ""
    versions = {name: library_version(name) for name in LIBRARIES}
    program = program_version() or "not found"
    writer = "collective" if is_parallel() else "funnel (h5py without MPI)"
    lines = [
        f"amst-hpc {__version__}, Python {platform.python_version()} ({sys.executable})",
        f"MPI: {mpi_library()}",
        f"launcher: {launch}; MPI sees {comm.size}, local rank {local_rank} of {local_size}",
        f"HDF5: {hdf5_version()}, writer {writer}",
        f"elastix: itk-elastix {versions['itk-elastix'] or 'not installed'}; program {program}",
        "libraries: " + ", ".join(f"{name} {v or '-'}" for name, v in versions.items()),
        *[f"OpenCL {d.kind} {d}: {state[d] or 'computes'}" for d in found],
        *everyone,
    ]
    return lines, fault


def _state(device: Any) -> str:
    """Empty if the device computes, else why not."""
    try:
        prove(device)
    except Exception as error:
        return (
            "does not compute: "
            + (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        )
    return ""
