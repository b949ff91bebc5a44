"""A driver that crashes does so in a process of its own."""

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
