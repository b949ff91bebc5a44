"""A stop is heard while the first window is read, and nothing is half done then."""

from dataclasses import replace

import pytest
from mpi4py import MPI
from shifted import save, texture
from stops import Acting, look_always, signalled

from amst_hpc.images import ahead
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.job.journal import records
from amst_hpc.job.run_folder import Attempt
from amst_hpc.parallel.signals import Stopped, StopRequest
from amst_hpc.passes.register import register_slices
from amst_hpc.settings import load_config

COMM = MPI.COMM_SELF


@pytest.mark.parametrize("told", ["signal", "flag"])
def test_a_stop_is_heard_between_the_slices_of_a_window(tmp_path, monkeypatch, told):
    look_always(monkeypatch)
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 1)  # one slice of a stack: as of large ones
    config = load_config(None, ["coarse.method=xcorr", "refine.backend=none"])
    folder = save(tmp_path / "raw", [texture((80, 90), seed) for seed in range(12)])
    inputs = open_inputs(Job(folder, folder, tmp_path / "out.h5"), config, COMM)
    attempt = Attempt(tmp_path / "out.h5", number=1)
    attempt.journal.mkdir(parents=True)
    act = signalled if told == "signal" else attempt.stop_flag.touch
    stack = Acting(inputs.prealigned, 3, act)
    part = replace(inputs, prealigned=stack)
    with StopRequest(attempt.stop_flag) as stop, pytest.raises(Stopped):
        register_slices(part, config, attempt, COMM, stop)
    assert len(stack.seen) <= 4  # of the 11 of the first window; one may be read ahead
    assert not [*records(attempt.journal)]
    attempt.stop_flag.unlink()
    with StopRequest(attempt.stop_flag) as stop:
        found, _ = register_slices(inputs, config, replace(attempt, number=2), COMM, stop)
    assert [r.z for r in found] == [*range(12)]
