"""`submit` and `status` as commands: what is shown, and that a dry run writes nothing."""

import pytest
from jobs import call, finished
from spoilt import linked, nothing_written, refused_at_once

from amst_hpc.cluster import slurm


@pytest.fixture(autouse=True)
def here(tissue, tmp_path, monkeypatch):
    """In a folder with raw and pre, on a machine without Slurm."""
    monkeypatch.chdir(linked(tissue, tmp_path))
    monkeypatch.setattr(slurm, "queued", lambda: None)
    return tmp_path


def test_submit_shows_the_script_and_sends_nothing(here):
    with nothing_written(here):
        said = finished(call("submit", "raw", "pre", "out.h5", "--set", "template.radius=3")).stdout
    assert "#SBATCH --nodes=1" in said
    assert "template.radius=3" in said
    assert said.endswith("Nothing was sent. Send it with --yes.\n")


def test_submit_of_raw_alone_says_so(here):
    with nothing_written(here):
        said = finished(call("submit", "raw", "out.h5", "--prealign", "--blocks", "3")).stdout
    assert said.startswith("# raw alone, without PREALIGNED (--prealign): out.h5\n")
    assert said.count("PREALIGNED=''\n") == 3
    assert "--array=1-3" in said
    assert "compare, place, register, settle, write, complete" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["submit"], "expected RAW PREALIGNED OUT.h5, or --manifest"),
        (["submit", "raw", "pre"], "raw pre: PREALIGNED or OUT.h5 is missing"),
        (["submit", "raw", "pre", "out.h5", "--prealign"], "too many names; expected RAW OUT.h5"),
        (["submit", "--manifest", "a.tsv", "--prealign"], "an empty cell of prealigned means raw"),
        (["submit", "raw", "--manifest", "a.tsv"], "raw: expected no stack with --manifest a.tsv"),
        (["submit", "gone", "pre", "out.h5"], "gone: no such file or folder"),
        (["submit", "raw", "pre", "out.h5", "--site", "none.toml"], "none.toml"),
        (["submit", "raw", "pre", "out.h5", "--set", "a.b=1"], "a: no such section"),
        (["submit", "--manifest", "none.tsv"], "none.tsv"),
        (["status", "none.h5"], "no job has begun"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line(here, arguments, expected):
    with nothing_written(here):
        ended = call(*arguments)
    refused_at_once(ended, expected)
