"""`devices` names what each rank would use, and ranks that do not see each other."""

import re
import warnings

import pytest
from jobs import call, finished
from spoilt import refused

from amst_hpc import __version__


@pytest.fixture(autouse=True)
def quiet(opencl_ready):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the drivers' compilers
        yield


def test_what_is_found():
    said = finished(call("devices")).stdout
    for line in (
        rf"amst-hpc {re.escape(__version__)}, Python 3\.\d+",
        r"MPI: .*MPI",
        r"launcher: none: one process; MPI sees 1, local rank 0 of 1",
        r"HDF5: [\d.]+, writer (collective|funnel)",
        r"elastix: itk-elastix \d[\d.]*; program ",
        r"libraries: numpy \d.*silx \d",
        r"OpenCL cpu .*: computes",
        r"rank 0 of 1 on .*, \d+ cores, [\d.]+ GB",
    ):
        assert re.search(f"^{line}", said, re.MULTILINE), line


def test_copies_that_do_not_see_each_other(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    ended = call("devices")
    refused(ended, "SLURM_NTASKS = 4, but MPI sees 1 process: 4 separate copies would run")
    assert "launcher:" in ended.stdout
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert call("devices").stdout == ""
