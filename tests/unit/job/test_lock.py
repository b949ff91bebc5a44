"""One job at a time writes an output; who is gone holds nothing."""

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from amst_hpc.config import InputError
from amst_hpc.job import lock
from amst_hpc.job.lock import OutputLock

DIES = (
    "import os, sys; from pathlib import Path; from amst_hpc.job.lock import OutputLock\n"
    "OutputLock(Path(sys.argv[1])).take(); os._exit(9)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.amst"


def held(folder: Path, block: int = 0) -> OutputLock:
    taken = OutputLock(folder, block)
    taken.take()
    return taken


def test_a_second_job_is_refused_in_one_line_that_names_the_holder(folder: Path) -> None:
    first = held(folder)
    with pytest.raises(InputError) as caught:
        OutputLock(folder).take()
    assert f"another job writes it (process {os.getpid()} on " in str(caught.value)
    assert re.search(r"last sign of life [0-5] s ago", str(caught.value))
    assert "\n" not in str(caught.value)
    first.release()
    held(folder).release()
    assert not list((folder / "lock").iterdir()), "nothing is left behind"


def test_blocks_exclude_the_whole_job_and_not_each_other(folder: Path) -> None:
    one, two = held(folder, 1), held(folder, 2)
    for block in (0, 1):
        with pytest.raises(InputError, match="another job writes it"):
            OutputLock(folder, block).take()
    one.release()
    two.release()
    whole = held(folder)
    with pytest.raises(InputError, match="another job writes it"):
        OutputLock(folder, 1).take()
    whole.release()
    held(folder, 1).release()


def test_a_holder_that_died_on_this_machine_holds_nothing(folder: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(folder)], check=False)
    assert died.returncode == 9
    assert list((folder / "lock").iterdir())
    held(folder).release()


def test_a_holder_without_a_sign_of_life_loses_it_and_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that was lost, comes back and goes on writing must not; it says so once."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.2)
    lost = threading.Event()
    first = OutputLock(folder, on_loss=lost.set)
    first.take()
    claim = next(p for p in (folder / "lock").iterdir() if "|" in p.name)
    (folder / "lock" / "job").unlink()  # as another job does that breaks it
    claim.unlink()
    second = OutputLock(folder)
    second._lock = lock._make(folder / "lock" / "job")
    second._lock.lock(timeout=5)
    assert lost.wait(5)
    second._lock.unlock()
    assert first._thread is not None
    first._thread.join(5)
    assert not first._thread.is_alive()
    assert [r.levelname for r in caplog.records] == ["ERROR"]


def test_signs_of_life_are_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    first = held(folder)
    path = folder / "lock" / "job"
    os.utime(path, (time.time(), time.time() - 5))
    limit = time.monotonic() + 5
    while path.stat().st_mtime < time.time() + lock.STALE_SECONDS / 2:
        assert time.monotonic() < limit
        time.sleep(0.05)
    first.release()


def test_a_requeued_job_waits_for_its_last_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    first = held(folder)
    timer = threading.Timer(0.5, first.release)
    timer.start()
    began = time.monotonic()
    held(folder).release()
    assert time.monotonic() - began > 0.4
    timer.join()


def test_another_working_folder_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler of OpenCL goes elsewhere for a while."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    lost = threading.Event()
    first = OutputLock(Path("out.amst"), on_loss=lost.set)
    first.take()
    monkeypatch.chdir("/")
    assert not lost.wait(0.5)
    first.release()
    assert not list((tmp_path / "out.amst/lock").iterdir())


def test_without_hard_links_the_job_runs_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    held(folder).release()
    assert "no hard links: OUT is not locked" in caplog.text


def test_a_holder_that_is_being_ended_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mpirun has returned, and the last of its ranks goes a moment later."""
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    code = DIES.replace("os._exit(9)", "print(1, flush=True); import time; time.sleep(0.7)")
    command = [sys.executable, "-c", code.replace("sleep(0.7)", "sleep(0.7); os._exit(9)"), folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dying:
        assert dying.stdout is not None
        dying.stdout.readline()
        held(folder).release()
