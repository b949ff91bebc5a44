"""`apptainer test`: every part of the image at work, one line each. Ends with 1 if any part fails.

python test.py             # all of it, on two ranks where MPI is meant
mpirun -n 2 python test.py hdf5 FILE      # one part, as the above starts it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

RANKS = 2
DEPTH, SIZE = 17, 192
LARGEST_ERROR_PX = 1.0


def tissue(size: int) -> np.ndarray:
    """(size, size) uint8, smooth noise: something to register."""
    noise = np.random.default_rng(7).random((size, size))
    image = sum(ndimage.gaussian_filter(noise, s) * s for s in (1.5, 4.0, 9.0))
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def check(right: bool, what: str) -> None:
    if not right:
        raise RuntimeError(what)


def mpirun(*command: str) -> str:
    """What `command` prints on two ranks of this machine."""
    from amst_hpc.parallel.launch import LOCAL_ENVIRONMENT

    environment = os.environ | LOCAL_ENVIRONMENT
    line = ["mpirun", "-n", str(RANKS), *command]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"{' '.join(line)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def try_mpi(_: Path) -> str:
    """Two ranks see each other."""
    said = mpirun(sys.executable, __file__, "ranks")
    check(said.split()[:2] == [str(RANKS), "1"], f"the ranks said {said!r}")
    return f"{RANKS} ranks, {' '.join(said.split()[2:])}"


def ranks() -> None:
    """(number of ranks) (sum of their numbers) (name of MPI), on rank 0."""
    from amst_hpc.parallel.communicator import mpi_library, world

    comm = world()
    total = comm.allreduce(comm.rank)
    if comm.rank == 0:
        sys.stdout.write(f"{comm.size} {total} {mpi_library()}\n")


def try_hdf5(folder: Path) -> str:
    """Two ranks write one compressed dataset collectively; it is read back without MPI."""
    import h5py

    path = folder / "collective.h5"
    mpirun(sys.executable, __file__, "hdf5", str(path))
    with h5py.File(path) as file:
        data = file["data"]
        check(data.compression == "gzip", "the dataset is not compressed")
        slices = [np.roll(tissue(SIZE), z) for z in range(4 * RANKS)]
        check(bool(np.array_equal(data[()], slices)), "what was read back is not what was written")
    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}"


def hdf5(path: str) -> None:
    """Each rank's half of the dataset, gzip, in one collective write."""
    from amst_hpc.parallel.communicator import world

    comm = world()
    import h5py

    with h5py.File(path, "w", driver="mpio", comm=comm) as file:
        shape = (4 * comm.size, SIZE, SIZE)
        data = file.create_dataset("data", shape, np.uint8, chunks=(4, 64, 64), compression=4)
        mine = slice(4 * comm.rank, 4 * comm.rank + 4)
        with data.collective:
            data[mine] = [np.roll(tissue(SIZE), z) for z in range(mine.start, mine.stop)]


def try_opencl(folder: Path) -> str:
    """The CPU computes with OpenCL, and SIFT on it finds a known displacement."""
    from amst_hpc.opencl.devices import open_device, prepare

    prepare(folder / "cache", 1)
    from silx.opencl import sift  # after prepare(): it imports pyopencl

    context, device = open_device("cpu", 0)
    template = tissue(512).astype(np.float32)
    moving = np.roll(template, (7, -4), (0, 1))
    plan = sift.SiftPlan(template=template, ctx=context)
    matches = sift.MatchPlan(ctx=context)(plan(template), plan(moving))
    check(len(matches) > 9, f"SIFT on {device} found {len(matches)} matches")
    moved = np.median([matches[:, 1][k] - matches[:, 0][k] for k in ("y", "x")], axis=1)
    check(bool(np.allclose(moved, (7, -4), atol=0.1)), f"SIFT found {moved}, not (7, -4)")
    return f"{device}: {len(matches)} matches"


def try_elastix(backend: str) -> Callable[[Path], str]:
    """A backend finds a known displacement."""

    def run(_: Path) -> str:
        from amst_hpc.registration.elastix import make_refine, program_version
        from amst_hpc.settings import load_config

        register = make_refine(load_config(None, [f'refine.backend="{backend}"']).refine)
        template = tissue(256)
        found = register(template, ndimage.shift(template, (1.5, -2.5), order=3), (0, 0))
        check(bool(np.allclose(found[:, 2], (-2.5, 1.5), atol=0.5)), f"found {found.tolist()}")
        return program_version() if backend == "pyelastix" else "itk-elastix"

    return run


def try_vigra(folder: Path) -> str:
    """Debian's vigra (Debian 12 alone) smooths as scipy does."""
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import vigra"], capture_output=True, check=False).returncode:
        return "not in this base (scipy's gaussian does the same)"
    image = tissue(128).astype(np.float32)
    np.save(folder / "image.npy", image)
    program = (
        "import sys, numpy, vigra; image = numpy.load(sys.argv[1]); "
        "numpy.save(sys.argv[2], numpy.asarray(vigra.gaussianSmoothing(image, 1.6))); "
        "print(vigra.version)"
    )
    files = [str(folder / "image.npy"), str(folder / "smooth.npy")]
    done = subprocess.run(
        [python, "-c", program, *files], capture_output=True, text=True, check=True
    )
    ours = ndimage.gaussian_filter(image, 1.6, truncate=3.0, mode="mirror")
    check(bool(np.array_equal(np.load(files[1]), ours)), "vigra and scipy smooth differently")
    return f"vigra {done.stdout.strip()} on {python}, equal to scipy's gaussian"


def try_align(folder: Path) -> str:
    """A tiny stack, aligned on two ranks, is where it should be."""
    import h5py

    from amst_hpc.synthetic.stack import make_demo, residual

    truth = make_demo(folder / "stack", DEPTH, SIZE)
    out = folder / "stack" / "aligned.h5"
    inputs = [str(folder / "stack" / name) for name in ("raw", "prealigned")]
    mpirun(sys.executable, "-m", "amst_hpc", "align", *inputs, str(out))
    with h5py.File(out) as file:
        cells = file["t00000/s00/0/cells"]
        check(cells.shape == (DEPTH, SIZE, SIZE), f"the output has shape {cells.shape}")
        check(int(cells[DEPTH // 2].max()) > 0, "the output is black")
    check(out.with_suffix(".xml").exists(), "there is no XML beside the output")
    found = json.loads((out.parent / "aligned.amst" / "transforms.json").read_text())
    error = residual(found, truth.raw, (SIZE, SIZE))
    check(error < LARGEST_ERROR_PX, f"{error:.2f} px from the truth")
    return f"{DEPTH} slices of {SIZE}x{SIZE}, {error:.2f} px from the truth"


PARTS: dict[str, Callable[[Path], str]] = {
    "MPI": try_mpi,
    "parallel HDF5": try_hdf5,
    "OpenCL and SIFT": try_opencl,
    "elastix in process": try_elastix("itk"),
    "elastix program": try_elastix("pyelastix"),
    "vigra": try_vigra,
    "align": try_align,
}


def main() -> int:
    failed = 0
    for name, part in PARTS.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="amst_hpc_test_") as folder:
            try:
                result = part(Path(folder))
            except Exception as error:  # the other parts are tried all the same
                failed += 1
                result = f"FAILED: {type(error).__name__}: {error}"
        sys.stdout.write(f"{name}: {result} ({time.monotonic() - began:.1f} s)\n")
        sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ranks"]:
        ranks()
    elif sys.argv[1:2] == ["hdf5"]:
        hdf5(sys.argv[2])
    else:
        sys.exit(main())
