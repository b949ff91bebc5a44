"""A driver that crashes does so in a process of its own; one that takes signals gives them back."""

import subprocess
import sys

from amst_hpc.opencl import devices as opencl


def test_a_driver_that_crashes_does_so_alone(opencl_ready, kernels_elsewhere, caplog):
    device = opencl.candidates("cpu", 0, opencl.find_devices())[0]
    crash = "import os; os.abort()"
    assert not opencl.runs_without_crash(crash, device)
    assert not opencl.runs_without_crash(crash, device)  # nothing of it was kept
    assert opencl.runs_without_crash("raise RuntimeError('no such kernel')", device)
    assert "RuntimeError: no such kernel" in caplog.text
    assert opencl.runs_without_crash("from amst_hpc.registration.coarse import Matcher", device)
    assert opencl.runs_without_crash(crash, device)  # compiled before: no process starts


def test_caches_of_many_processes_are_this_users_alone(tmp_path, kernels_elsewhere, monkeypatch):
    monkeypatch.setenv("OCL_ICD_VENDORS", "as it is")
    for name in ("AMST_HPC_SCRATCH", "XDG_CACHE_HOME", "POCL_CACHE_DIR", "CUDA_CACHE_PATH"):
        monkeypatch.setenv(name, "")
    opencl.prepare(tmp_path, 1)
    assert opencl.os.environ["CUDA_CACHE_PATH"] == str(opencl.node_folder() / "cuda")
    opencl.node_folder().chmod(0o755)
    opencl.prepare(tmp_path, 1)
    assert opencl.os.environ["CUDA_CACHE_PATH"] == str(tmp_path / "cuda")


def test_a_stop_signal_is_heard_after_the_first_use_of_a_device(tmp_path):
    """In a process that has used none: Intel's OpenCL takes the handlers then."""
    code = f"""
import os, signal, sys
from pathlib import Path
from amst_hpc.opencl import devices
devices.prepare(Path({str(tmp_path)!r}), 1)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
devices.open_device("cpu", 0)
os.kill(os.getpid(), signal.SIGUSR1)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 75
