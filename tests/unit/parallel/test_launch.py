"""What the environment says of the launch."""

from pathlib import Path

import pytest

from amst_hpc.config import InputError
from amst_hpc.parallel.launch import STARTED_BY_MPI, launched, provide_home, refuse_copies


@pytest.mark.parametrize(
    ("size", "environment"),
    [
        (1, {}),
        (1, {"SLURM_NTASKS": "1"}),
        (4, {"SLURM_NTASKS": "4"}),
        (4, {"OMPI_COMM_WORLD_SIZE": "4"}),
        (1, {"SLURM_NTASKS": "8", "OMPI_COMM_WORLD_SIZE": "1"}),  # mpirun -n 1 in an allocation
        (1, {"SLURM_NTASKS": ""}),
    ],
)
def test_launches_that_are_what_they_say(size, environment):
    refuse_copies(size, environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "4"},
        {"PMI_SIZE": "4"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"MPI_LOCALNRANKS": "4"},
    ],
)
def test_separate_copies_are_refused(environment):
    with pytest.raises(InputError, match=r"= 4, but MPI sees 1 process: 4 separate copies"):
        refuse_copies(1, environment)


def test_launched_looks_at_the_launchers_variables(monkeypatch):
    for name in STARTED_BY_MPI:
        monkeypatch.delenv(name, raising=False)
    assert not launched()
    monkeypatch.setenv("PMIX_RANK", "0")
    assert launched()


def test_a_home_is_provided_where_there_is_none(monkeypatch):
    kept = {"HOME": "/some/where"}
    provide_home(kept)
    assert kept == {"HOME": "/some/where"}
    monkeypatch.delenv("HOME", raising=False)
    for environment in ({}, {"HOME": ""}):
        provide_home(environment)
        assert Path(environment["HOME"]).is_dir()
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    provide_home(nobody := {})
    assert Path(nobody["HOME"]).is_dir(), "not in the list of users"
