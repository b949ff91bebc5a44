"""A program is compiled once per node; what lies in the way of that changes nothing."""

import os
import subprocess
import sys

import pytest

KERNEL = "kernel void twice(global float *a) { a[get_global_id(0)] *= 2; }"
PROGRAM = f"""
import sys, time, warnings
from pathlib import Path
import numpy as np
from amst_hpc.opencl import devices
from amst_hpc.opencl.memory import DeviceMemory
from amst_hpc.parallel.node import scratch_folder
warnings.simplefilter("ignore")
with scratch_folder(0) as scratch:
    devices.prepare(scratch, 1)
    memory = DeviceMemory(devices.open_device("cpu", 0)[0])
    made = len([p for p in scratch.rglob("binary")])
    kernels = memory.build({KERNEL!r})
    values = memory.upload(np.arange(4, dtype=np.float32))
    kernels["twice"](memory.queue, (4,), None, values.data)
    print(values.get().tolist(), made)
"""
DOUBLED = "[0.0, 2.0, 4.0, 6.0]"


def run(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_programs_of_an_earlier_process_are_there(tmp_path):
    first = run(tmp_path)
    archives = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zip")}
    assert len(archives) == 2  # the test kernel of the device, and ours
    assert run(tmp_path) == first == f"{DOUBLED} 1"
    assert archives == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zip")}


@pytest.mark.parametrize("name", ["binary", "info", "source.cl"])
def test_damaged_programs_change_nothing(tmp_path, name):
    """Whole archives with damaged files inside, as a fault of the disk would not make them."""
    import zipfile

    run(tmp_path)
    for path in tmp_path.rglob("*.zip"):
        with zipfile.ZipFile(path) as file:
            found = {entry: file.read(entry) for entry in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for entry, data in found.items():
                file.writestr(entry, b"" if entry.endswith(f"/{name}") else data)
    assert run(tmp_path).startswith(DOUBLED)
