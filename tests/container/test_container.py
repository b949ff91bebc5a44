"""The image that AMST_HPC_SIF names, made by .ci/container; the Apptainer is that of ../shared."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
LARGEST_SIF = 1.2e9
USER = 12345
PARTS = 7  # of containers/test.py

Run = Callable[..., subprocess.CompletedProcess[str]]
DEBIAN_MPIRUN = "/usr/bin/mpirun"


class Result(NamedTuple):
    """What a job made: level 0 of the output, the transforms, and its run.json."""

    cells: np.ndarray
    transforms: list[list[list[float]] | None]
    run: dict[str, object]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder in /tmp, which the Apptainer of ../shared sees at the same place."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="amst_hpc_sif_") as path:
        yield Path(path)


@pytest.fixture
def apptainer(shared: Path, put_image: Callable[[Path], None], folder: Path) -> list[str]:
    """The command; `folder` holds the image."""
    put_image(folder)
    return ["bash", str(shared / "tools/apptainer")]


@pytest.fixture
def run(folder: Path) -> Run:
    def start(
        *command: str | Path, expect: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        said = f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
        assert expect is None or done.returncode == expect, said
        return done

    return start


def read_result(out: Path) -> Result:
    beside = out.with_suffix(".amst")
    with h5py.File(out) as file:
        cells = file["t00000/s00/0/cells"][()]
    texts = [(beside / name).read_text() for name in ("transforms.json", "run.json")]
    return Result(cells, *map(json.loads, texts))


def residual_px(output: str) -> float:
    found = re.search(r"([\d.]+) px aligned", output)
    assert found, output
    return float(found[1])


def test_size(sif: Path) -> None:
    assert sif.stat().st_size <= LARGEST_SIF


def test_labels(run: Run, apptainer: list[str]) -> None:
    labels = run(*apptainer, "inspect", "--labels", "amst-hpc.sif").stdout
    assert re.search(r"^version: \d+\.\d+", labels, re.MULTILINE)
    assert re.search(r"^revision: \w+", labels, re.MULTILINE)


def test_own_test(run: Run, apptainer: list[str]) -> None:
    lines = run(*apptainer, "test", "amst-hpc.sif").stdout.splitlines()
    assert len([line for line in lines if line.endswith(" s)")]) == PARTS, lines
    assert not any("FAILED" in line for line in lines), lines


@pytest.fixture(params=["Open MPI 4", "Open MPI 5"])
def host_mpirun(request: pytest.FixtureRequest, mpirun: str) -> str:
    """The mpirun of Debian, and that of the wheel beside this interpreter."""
    return mpirun if request.param == "Open MPI 5" else DEBIAN_MPIRUN


@pytest.fixture(scope="session")
def outside(fib25_small: Path, mpirun: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The same slices aligned by this interpreter's own installation, on two ranks."""
    out = tmp_path_factory.mktemp("outside") / "out.h5"
    command = [mpirun, "-n", "2", sys.executable, "-m", "amst_hpc", "align"]
    inputs = [str(fib25_small / name) for name in ("raw", "pre")]
    done = subprocess.run(
        [*command, *inputs, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return read_result(out)


def test_ranks_from_the_host(
    run: Run,
    apptainer: list[str],
    host_mpirun: str,
    folder: Path,
    fib25_small: Path,
    outside: Result,
) -> None:
    """`mpirun -n 2 apptainer exec IMAGE amst-hpc align`, real slices: the result outside."""
    shutil.copytree(fib25_small, folder / "data")
    inside = ["align", "data/raw", "data/pre", "out.h5", "--set", "output.writer='collective'"]
    run(host_mpirun, "-n", "2", *apptainer, "exec", "amst-hpc.sif", "amst-hpc", *inside)
    found = read_result(folder / "out.h5")
    assert found.run["ranks"] == 2
    assert found.run["writer"] == "collective"
    assert found.transforms == outside.transforms
    assert np.array_equal(found.cells, outside.cells)


def test_devices_say_what_the_launcher_gave(
    run: Run, apptainer: list[str], host_mpirun: str
) -> None:
    said = run(host_mpirun, "-n", "2", *apptainer, "run", "amst-hpc.sif", "devices").stdout
    line = r"^launcher: mpirun \(Open MPI\), PMIx \d[\w.]*: tasks 2, local rank 0; MPI sees 2, "
    assert re.search(line + r"local rank 0 of 2$", said, re.MULTILINE), said
    assert "rank 1 of 2 on" in said
    assert re.search(r"^OpenCL cpu .*: computes$", said, re.MULTILINE), said


def test_devices_say_why_ranks_do_not_see_each_other(run: Run, apptainer: list[str]) -> None:
    """As under `srun` without --mpi=pmix, and under MPICH."""
    task = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}
    alone = run(*apptainer, "run", "amst-hpc.sif", "devices", expect=2, **task)
    assert "SLURM_NTASKS = 4, but MPI sees 1 process" in alone.stderr
    assert "The launcher offered no PMIx" in alone.stderr
    other = run(*apptainer, "run", "amst-hpc.sif", "devices", expect=2, PMI_SIZE="4", PMI_RANK="0")
    assert "The launcher speaks PMI (MPICH" in other.stderr
    second = run(
        *apptainer, "run", "amst-hpc.sif", "devices", expect=None, **{**task, "SLURM_PROCID": "1"}
    )
    assert second.stdout == ""


def test_mpirun_inside_continues_nothing_of_the_host(
    run: Run, apptainer: list[str], folder: Path, fib25_small: Path, outside: Result
) -> None:
    """One node without any MPI: `apptainer run IMAGE mpirun -n 2 amst-hpc align`.

    The host's Python and OpenCL settings have no effect.
    """
    shutil.copytree(fib25_small, folder / "data")
    (folder / "numpy.py").write_text("raise ImportError('the numpy of the host')")
    wrong = {"PYTHONPATH": str(folder), "OCL_ICD_VENDORS": "/of/the/host", "OPAL_PREFIX": "/host"}
    job = ["amst-hpc", "align", "data/raw", "data/pre", "out.h5"]
    run(*apptainer, "run", "amst-hpc.sif", "mpirun", "-n", "2", *job, **wrong)
    found = read_result(folder / "out.h5")
    assert found.run["ranks"] == 2
    assert np.array_equal(found.cells, outside.cells)


def test_demo_as_a_user_without_a_home(run: Run, apptainer: list[str], folder: Path) -> None:
    """No capability, --containall --no-home, HOME read-only on the host."""
    assert apptainer  # has put the image there
    (folder / "out").mkdir()
    os.chown(folder / "out", USER, USER)
    isolated = ["--containall", "--no-home", "--bind", f"{folder}/out:/out"]
    done = run(HERE / "unprivileged", folder, "run", *isolated, "amst-hpc.sif", "demo", "/out/demo")
    assert residual_px(done.stdout) < 1
    made = folder / "out" / "demo" / "aligned.xml"
    assert made.stat().st_uid == USER
    assert not list((folder / "home").iterdir())


def test_home_that_cannot_be_written(run: Run, apptainer: list[str], folder: Path) -> None:
    """HOME mounted, but read-only, as on some compute nodes."""
    assert apptainer
    said = run(HERE / "unprivileged", folder, "run", "amst-hpc.sif", "devices").stdout
    assert re.search(r"^OpenCL cpu .*: computes$", said, re.MULTILINE), said
    assert not list((folder / "home").iterdir())


def test_without_gpu_nv_changes_nothing(run: Run, apptainer: list[str]) -> None:
    said = run(*apptainer, "run", "--nv", "amst-hpc.sif", "devices").stdout
    assert re.search(r"^OpenCL cpu .*: computes$", said, re.MULTILINE), said


def test_gpu_drivers_are_announced(run: Run, apptainer: list[str]) -> None:
    icd = run(*apptainer, "exec", "amst-hpc.sif", "cat", "/etc/OpenCL/vendors/nvidia.icd").stdout
    assert icd.strip() == "libnvidia-opencl.so.1"
