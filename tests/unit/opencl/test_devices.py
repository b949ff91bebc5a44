"""A driver that crashes does so in a process of its own."""

from amst_hpc.opencl import devices as opencl


def test_a_driver_that_crashes_does_so_alone(opencl_ready, caplog):
    assert opencl.runs_without_crash("from amst_hpc.registration.coarse import Matcher")
    assert opencl.runs_without_crash("raise RuntimeError('no such kernel')")
    assert "RuntimeError: no such kernel" in caplog.text
    assert not opencl.runs_without_crash("import os; os.abort()")
