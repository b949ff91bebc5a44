"""A finished job has nothing to do, until anything of it is another."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mpi4py import MPI
from stacks import save_noise

from amst_hpc import pipeline
from amst_hpc.cluster.status import read_status
from amst_hpc.images.pairing import Job
from amst_hpc.settings import load_config

SETTINGS = ["coarse.method=none", "refine.backend=none", "output.chunk=16", "output.report=false"]


@pytest.fixture
def align(tmp_path, monkeypatch):
    """A function -> what a job on 6 slices did: the outcome, and if it registered anything."""
    monkeypatch.chdir(tmp_path)
    save_noise(6, np.uint8, 255)
    asked = []
    register = pipeline.register_slices
    monkeypatch.setattr(
        pipeline, "register_slices", lambda *given: asked.append(1) or register(*given)
    )

    def run(*settings, **changes):
        asked.clear()
        config = load_config(None, [*SETTINGS, *settings])
        job = dataclasses.replace(Job("raw", "pre", Path("out.h5")), **changes)
        return pipeline.align(job, config, MPI.COMM_SELF), bool(asked)

    return run


def test_the_same_line_again_does_nothing_and_says_the_same(align):
    outcome, worked = align()
    assert worked
    before = {p: p.stat().st_mtime_ns for p in Path("out.amst").glob("*.[cjs]*") if p.is_file()}
    again, worked = align()
    assert not worked
    assert again.summary() == outcome.summary()
    assert [r.status for r in again.results] == [r.status for r in outcome.results]
    assert read_status(Path("out.h5")).state == "done"
    assert not align()[1]
    for name in ("slices.csv", "transforms.json"):
        path = Path("out.amst") / name
        assert path.stat().st_mtime_ns == before[path]
    assert align("output.writer=direct")[1] is False  # what the file does not depend on


def rename_all():
    for path in Path("raw").iterdir():
        path.rename(path.with_name(f"s_{path.name}"))


def test_what_has_changed_is_made_again(align):
    align()
    for change in (
        lambda: Path("out.xml").unlink(),
        lambda: Path("out.settings.xml").write_text("damaged"),
        lambda: Path("out.h5").unlink(),
        lambda: Path("out.amst/slices.csv").write_text(""),
        lambda: Path("out.amst/run.json").write_text("{}"),
        lambda: Path("out.amst/done").write_text("damaged"),
        lambda: next(Path("out.amst/journal").glob("*.register.log")).unlink(),
        lambda: tifffile.imwrite("raw/003.tif", np.full((37, 45), 9, np.uint8)),
        rename_all,
    ):
        change()
        assert align()[1]
    assert not align()[1]
    assert Path("out.xml").exists()


def test_another_line_is_not_the_same_job(align):
    align()
    for settings in ("output.levels=1", "drift.period=77"):
        assert align(settings)[1]
    assert align(retry=True)[1]
    assert align(range=(1, 5))[1]
    assert align(range=(1, 5), preview=1)[1]  # of small slices the same, but for what is said of it
    assert align(range=(1, 5))[1]
    assert align(range=(1, 5), overwrite=True)[1]


def test_what_could_not_be_read_is_tried_again(align):
    align()
    Path("raw/002.tif").write_bytes(Path("raw/002.tif").read_bytes()[:-1])
    with pytest.raises(pipeline.InputError):
        align()


def test_strict_counts_for_a_finished_job_too(align):
    tifffile.imwrite("raw/003.tif", np.zeros((37, 45), np.uint8))
    assert align()[0].fallen_back
    assert align(strict=True)[0].refused


def test_a_report_of_another_output_is_drawn_again(align):
    outcome, _ = align("output.report=true")
    assert outcome.report == Path("out.h5")
    assert align("output.report=true")[0].report == Path("out.h5")  # nobody has drawn it
    report = Path("out.amst/report.html")
    report.write_text("of these settings")
    assert align("output.report=true")[0].report is None
    align("drift.period=77")
    again, worked = align("drift.period=77", "output.report=true")
    assert again.report == Path("out.h5")
    assert not worked
