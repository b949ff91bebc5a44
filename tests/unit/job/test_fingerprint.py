"""What a run folder belongs to: raw alone, both stacks, and what is placed and no more."""

from dataclasses import replace

import pytest
from mpi4py import MPI
from shifted import save, texture

from amst_hpc.config import Config, InputError
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.job.fingerprint import fingerprint
from amst_hpc.job.run_folder import open_attempt, read_fingerprint
from amst_hpc.settings import load_config

COMM = MPI.COMM_SELF


@pytest.fixture
def job(tmp_path):
    raw = save(tmp_path / "raw", [texture((70, 80), seed) for seed in range(3)])
    return Job(raw, "", tmp_path / "out.h5")


def made(job, *settings):
    config = load_config(None, settings)
    return fingerprint(open_inputs(job, config, COMM), config)


def test_raw_alone_is_one_input_and_its_placement_part_of_the_solution(job):
    alone, both = made(job), made(replace(job, prealigned=job.raw))
    assert alone["inputs"] == {"raw": {"slices": 3}}
    assert both["inputs"] == {"raw": {"slices": 3}, "prealigned": {"slices": 3}}
    assert list(alone["solution"]) == ["neighbours", "drift", "prealign"]
    assert list(both["solution"]) == ["neighbours", "drift"]
    assert {k: alone[k] for k in ("parameters", "output")} == {
        k: both[k] for k in ("parameters", "output")
    }


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("prealign.drift=keep", "solution"),
        ("prealign.canvas=crop", "solution"),
        ("prealign.transform=affine", "solution"),
        ("drift.period=50", "solution"),
        ("neighbours.reach=3", "solution"),
        ("template.radius=3", "parameters"),
        ("refine.backend=none", "parameters"),
        ("output.chunk=64", "output"),
        ("coarse.device=cpu", None),
        ("output.report=false", None),
        ("output.writer=funnel", None),
        ("output.stripes=4", None),
    ],
)
def test_a_setting_changes_what_depends_on_it(job, setting, part):
    before, now = made(job), made(job, setting)
    assert [key for key in before if before[key] != now[key]] == [part] * (part is not None)


def begin(job):
    with open_attempt(job, Config(), open_inputs(job, Config(), COMM), COMM):
        return read_fingerprint(job.out)["parameters"]


def test_slices_that_are_placed_alone_are_another_job(job):
    """Neither continues the other."""
    placing = replace(job, placing=True)
    assert begin(placing)["placing"] is True
    begin(placing)
    with pytest.raises(InputError, match=r"other inputs or parameters \(parameters.placing: True"):
        begin(job)
    assert "placing" not in begin(replace(job, overwrite=True))
    with pytest.raises(InputError, match=r"parameters.placing: None -> True"):
        begin(placing)
