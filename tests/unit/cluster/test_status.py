"""States of jobs from the files that they leave, and tries that are given up."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mpi4py import MPI

from amst_hpc.cluster import slurm
from amst_hpc.cluster.blocks import Blocks
from amst_hpc.cluster.status import HURRIED, WORDLESS, read_status, show, table, with_slurm
from amst_hpc.config import InputError
from amst_hpc.job.failures import (
    failure_reason,
    fruitless_attempts,
    recording_failure,
    refuse_fruitless_restart,
)
from amst_hpc.job.journal import encode
from amst_hpc.job.lock import OutputLock
from amst_hpc.parallel.signals import Stopped

SLICE = {"kind": "slice", "matrix": [[1, 0, 0], [0, 1, 0]], "seconds": {"coarse": 0.5}}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of slices 2 to 11 that has begun."""
    monkeypatch.setattr(slurm, "queued", lambda: None)
    journal = tmp_path / "out.amst/journal"
    journal.mkdir(parents=True)
    (journal / "fingerprint.json").write_text(json.dumps({"output": {"range": [2, 12]}}))
    return tmp_path / "out.h5"


def log(out: Path, name: str, *found: dict[str, Any], ended: bool = True) -> None:
    journal = out.with_suffix(".amst") / "journal"
    (journal / f"{name}.log").write_bytes(b"".join(map(encode, found)))
    if not ended:
        (journal / f"{name}.crash").touch()


def slices(*numbers: int, **changes: Any) -> list[dict[str, Any]]:
    return [SLICE | {"z": z} | changes for z in numbers]


def long_ago(out: Path) -> None:
    for path in out.with_suffix(".amst").rglob("*"):
        os.utime(path, (time.time() - 4000,) * 2)


def test_a_job_that_runs(out: Path) -> None:
    log(out, "0001-00000.register", *slices(2, 3, 4))
    log(out, "0002-00000.register", *slices(5, 6), ended=False)
    log(out, "0002-00001.register", *slices(9, matrix=None), ended=False)
    found = read_status(out)
    assert (found.state, found.total, found.registered, found.fallen_back) == ("running", 10, 6, 1)
    assert found.rate == pytest.approx(4.0)
    assert found.left == "0:01"
    long_ago(out)
    assert (read_status(out).state, read_status(out).reason) == ("failed", WORDLESS)


@pytest.mark.parametrize(
    ("told", "state", "reason"), [(True, "stopped", HURRIED), (False, "failed", WORDLESS)]
)
def test_a_job_that_was_killed_does_not_run(out: Path, told: bool, state: str, reason: str) -> None:
    """At once where its process is gone from this machine."""
    log(out, "0001-00000.register", *slices(2, 3), ended=False)
    folder = out.with_suffix(".amst")
    lock = OutputLock(folder)
    lock.take()
    if told:
        (folder / "stop").touch()
    assert read_status(out).state == "running"
    lock.release()
    dies = "import os, sys; from pathlib import Path; from amst_hpc.job.lock import OutputLock\n"
    dies += "OutputLock(Path(sys.argv[1])).take(); os._exit(9)"
    subprocess.run([sys.executable, "-c", dies, folder], check=False)
    assert (read_status(out).state, read_status(out).reason) == (state, reason)


def test_a_job_elsewhere_runs_while_it_shows_signs_of_life(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(out, "0001-00000.register", *slices(2, 3), ended=False)
    lock = OutputLock(out.with_suffix(".amst"))
    lock.take()
    monkeypatch.setattr(socket, "getfqdn", lambda: "elsewhere")
    assert read_status(out).state == "running"
    path = out.with_suffix(".amst") / "lock" / "job"
    os.utime(path, (path.stat().st_mtime - 90,) * 2)
    assert read_status(out).state == "failed"
    lock.release()


def test_what_counts_is_whole_not_forgotten_and_the_last_of_a_slice(out: Path) -> None:
    named = {"file": 'a "matrix":null "z":7 b.tif', "left_out": [5]}
    log(out, "0001-00000.register", *slices(2, 3, 4), *slices(5, 6, matrix=None))
    log(out, "0002-00000.register", {"kind": "forgotten", "slices": [3, 6]})
    found = [{"kind": "provisional", "z": 7} | named | {"matrix": [[1, 0, 0], [0, 1, 0]]}]
    log(out, "0003-00000.register", *slices(5), *found, {"kind": "start", "z": 8})
    path = out.with_suffix(".amst") / "journal/0003-00000.register.log"
    whole = path.read_bytes()
    torn, damaged = encode(slices(9)[0])[:-9], encode(slices(10)[0]).replace(b"10", b"11")
    path.write_bytes(whole + damaged + torn)
    status = read_status(out)
    assert (status.registered, status.fallen_back) == (4, 0)  # 2, 4, 5, 7
    assert status.rate == pytest.approx(2.0)


def test_what_a_block_registers_of_the_next_one_counts_when_that_begins(out: Path) -> None:
    plan = Blocks("raw", "pre", [[2, 8], [8, 12]], {})
    (out.with_suffix(".amst") / "blocks.json").write_text(json.dumps(asdict(plan)))
    log(out, "0001-b0001-00000.register", *slices(2, 3, 4, 5, 6, 7, 8, 9))
    assert read_status(out).registered == 6
    log(out, "0001-b0002-00000.register", *slices(10))  # 8 and 9 are not registered again
    assert read_status(out).registered == 9


def test_raw_alone_is_compared_before_it_is_registered(out: Path) -> None:
    pairs = [{"kind": "pair", "z": z, "k": k} for z in (2, 3, 4) for k in (1, 2, 4)]
    log(out, "0001-00000.prealign", *pairs, {"kind": "start", "z": 9})
    found = read_status(out)
    assert (found.compared, found.registered) == (3, 0)
    text = table([found], "out.h5", 160)
    assert "compared" in text
    assert "3/10" in text
    (out.with_suffix(".amst") / "placed").touch()
    assert read_status(out).compared == 10


def test_slices_that_were_to_be_placed_have_not_fallen_back(out: Path) -> None:
    folder = out.with_suffix(".amst")
    told = {"output": {"range": [2, 12]}, "parameters": {"placing": True}}
    (folder / "journal/fingerprint.json").write_text(json.dumps(told))
    pairs = [{"kind": "pair", "z": z, "k": 1} for z in range(2, 6)]
    log(out, "0001-00000.prealign", *pairs)
    found = read_status(out)
    assert (found.compared, found.registered, found.left) == (4, 10, "")
    for path in (out, out.with_suffix(".xml"), folder / "run.json"):
        path.touch()
    (folder / "slices.csv").write_text("index,status\n2,placed\n3,placed\n4,apart\n")
    assert (read_status(out).state, read_status(out).fallen_back) == ("done", 1)


def test_where_there_is_a_pre_alignment_nothing_is_compared(out: Path) -> None:
    log(out, "0001-00000.register", *slices(2, 3))
    found = read_status(out)
    assert found.compared is None
    assert "compared" not in table([found], "out.h5", 160)


def test_a_job_that_stopped_in_good_order(out: Path) -> None:
    log(out, "0001-00000.register", *slices(2, 3))
    assert read_status(out).state == "stopped"


def test_a_job_that_stopped_before_its_first_record(out: Path) -> None:
    assert read_status(out).state == "running"
    (out.with_suffix(".amst") / "stop").touch()
    assert (read_status(out).state, read_status(out).reason) == ("stopped", "")


def test_a_job_that_is_done(out: Path) -> None:
    log(out, "0001-00000.register", *slices(*range(2, 12)))
    layers = [{"kind": "layer", "layer": n} for n in (0, 1)]
    log(out, "0001-00000.write", {"kind": "begun", "layer_depth": 4}, *layers)
    assert read_status(out).written == 8
    out.touch()
    out.with_suffix(".xml").touch()
    (out.with_suffix(".amst") / "slices.csv").write_text("index,status\n2,affine\n3,blank\n")
    (out.with_suffix(".amst") / "run.json").touch()
    found = read_status(out)
    assert (found.state, found.written, found.fallen_back) == ("done", 10, 1)


def test_a_job_that_could_not_write_its_xml_is_not_done(out: Path) -> None:
    """run.json is there, and OUT has its name."""
    log(out, "0001-00000.register", *slices(*range(2, 12)))
    out.touch()
    (out.with_suffix(".amst") / "run.json").touch()
    assert read_status(out).state != "done"


def test_the_reason_of_a_failure_stays_until_the_job_ends_well(out: Path) -> None:
    with pytest.raises(OSError, match="full"), recording_failure(out, MPI.COMM_SELF):
        raise OSError("disk full\nand more")
    assert read_status(out).state == "failed"
    assert failure_reason(out) == "rank 0: OSError: disk full"
    with pytest.raises(Stopped), recording_failure(out, MPI.COMM_SELF):
        raise Stopped("writing")
    assert failure_reason(out) == ""


def test_bad_input_of_a_batch_job_is_kept_beside_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new.h5"
    with pytest.raises(InputError), recording_failure(out, MPI.COMM_SELF):
        raise InputError("RAW raw: no such folder")
    assert not list(tmp_path.iterdir()), "not a batch job: nothing is written"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(InputError), recording_failure(out, MPI.COMM_SELF):
        raise InputError("RAW raw: no such folder")
    found = read_status(out)
    assert (found.state, found.reason) == ("failed", "RAW raw: no such folder")


def test_useless_tries_end_a_job_that_slurm_starts_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = out.with_suffix(".amst") / "journal"
    log(out, "0001-00000.register", *slices(2))
    for attempt in (2, 3, 4):
        log(out, f"000{attempt}-00000.register", {"kind": "start", "z": 3})
    assert fruitless_attempts(journal) == 3
    refuse_fruitless_restart(out)  # sent by a person: try
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    out.with_suffix(".failed").write_text("elastix crashed\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"3 tries .*; the last one: elastix crashed") as told:
            refuse_fruitless_restart(out)
        out.with_suffix(".failed").write_text(f"{told.value}\n")
    log(out, "0005-00000.register", *slices(3))
    refuse_fruitless_restart(out)


@pytest.mark.parametrize("work", ["pair", "prealign"])
def test_a_try_that_compared_slices_was_of_use(
    out: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    for attempt in (1, 2, 3):
        log(out, f"000{attempt}-00000.{work}", {"kind": "pair", "z": attempt, "k": 1})
    refuse_fruitless_restart(out)


def test_slurm_adds_what_the_files_cannot_know(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(out, "0001-00000.register", *slices(2), ended=False)
    monkeypatch.setattr(slurm, "ended", lambda place: "OUT_OF_MEMORY")
    place = ("5", "1")
    for queue, state in (({place: "PENDING"}, "waiting"), ({place: "RUNNING"}, "running")):
        assert with_slurm([read_status(out)], {out: [place]}, queue)[0].state == state
    found = with_slurm([read_status(out)], {out: [place]}, {})[0]
    assert (found.state, found.reason) == ("failed", f"{WORDLESS}; Slurm says OUT_OF_MEMORY")


def test_a_job_that_waits_for_ones_that_failed_shows_the_reason(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    out.with_suffix(".failed").write_text("RAW raw: 003.tif is cut short\n")
    place = ("6", "")
    found = with_slurm([read_status(out)], {out: [place]}, {place: "PENDING"})[0]
    assert (found.state, found.reason) == ("waiting", "RAW raw: 003.tif is cut short")


def test_status_goes_on_where_slurm_does_not_answer(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_answer() -> None:
        raise InputError("squeue: no answer (Socket timed out)")

    monkeypatch.setattr(slurm, "queued", no_answer)
    assert len(show(out)) == 1
    assert "Socket timed out" in caplog.text


def test_a_manifest_as_a_table(out: Path) -> None:
    log(out, "0001-00000.register", *slices(2, 3))
    manifest = out.with_name("stacks.tsv")
    manifest.write_text("raw\tprealigned\toutput\na\tb\tout.h5\na\tb\tlater.h5\n")
    text = table(show(manifest), "stacks.tsv", 120)
    assert "stacks.tsv: 1 stopped, 1 waiting" in text
    assert "2/10" in text


def test_where_nothing_has_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no job has begun"):
        show(tmp_path / "none.h5")
