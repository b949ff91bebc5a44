"""Tries of a job: why the last one failed, and when to give up.

The reason of a failure stands in `OUT.amst/failed`; a batch job that fails before it has a run
folder leaves it beside the output, in `OUT.failed`. A try that neither registered a
slice or a pair nor closed the output was of no use: when Slurm has started a job again and again
(`SLURM_RESTART_COUNT`) and its last tries were of no use, it ends for good and says why.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amst_hpc.config import InputError
from amst_hpc.job.journal import FORGOTTEN, records, write_whole
from amst_hpc.job.run_folder import beside, run_folder
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.node import batch_job, restarts
from amst_hpc.parallel.signals import Stopped

FRUITLESS_ATTEMPTS = 3
FRUITS = {"pair", "slice", "provisional", "layer", "closed", FORGOTTEN}
"""Records of what a try has done."""


@contextmanager
def recording_failure(out: Path, comm: Communicator, block: int = 0) -> Iterator[None]:
    """Keep the reason of a failure for `failure_reason`; forget it when the job ends well.

    block : of an array, from 1; it has a file of its own.
    """
    try:
        yield
    except InputError as error:
        if comm.rank == 0 and batch_job():  # else the user reads it
            _note(out, block, str(error))
        raise
    except Stopped:
        if comm.rank == 0:
            _forget(out, block)
        raise
    except BaseException as error:
        text = (str(error).strip().splitlines() or [""])[0]
        _note(out, block, f"rank {comm.rank}: {type(error).__name__}: {text}")
        raise
    if comm.rank == 0:
        _forget(out, block)


def _places(out: Path, block: int) -> tuple[Path, Path]:
    name = f"failed-{block:04d}" if block else "failed"
    return run_folder(out) / name, beside(out, f".{name}")


def _note(out: Path, block: int, reason: str) -> None:
    """Write the reason down; where there is no run folder, only for a batch job."""
    inside, outside = _places(out, block)
    place = inside if inside.parent.is_dir() else outside if batch_job() else None
    if place is None or not os.access(place.parent, os.W_OK):
        return
    write_whole(place, f"{reason}\n{time.strftime('%Y-%m-%d %H:%M:%S')} job {batch_job() or '-'}\n")


def _forget(out: Path, block: int) -> None:
    for place in _places(out, block):
        place.unlink(missing_ok=True)


def _newest(out: Path) -> Path | None:
    """The reason that was written last, of the job or any of its blocks."""
    inside, outside = _places(out, 0)
    pattern = glob.escape(outside.name) + "*"
    found = [*inside.parent.glob("failed*"), *outside.parent.glob(pattern)]
    return max(found, key=lambda place: place.stat().st_mtime, default=None)


def failure_reason(out: Path) -> str:
    """Why the last try failed (one line), empty if it did not or left no word."""
    newest = _newest(out)
    return (newest.read_text().splitlines() or [""])[0] if newest else ""


def failure_time(out: Path) -> float:
    """When the reason was written, seconds since the epoch; 0 where there is none."""
    newest = _newest(out)
    return newest.stat().st_mtime if newest else 0.0


def fruitless_attempts(journal: Path, block: int = 0) -> int:
    """How many of the last tries in a row registered no slice or pair and wrote no layer."""
    logs: dict[int, list[str]] = {}
    for path in journal.glob(f"*-b{block:04d}-*.log" if block else "*.log"):
        logs.setdefault(int(path.name.split("-")[0]), []).append(path.name)
    for count, attempt in enumerate(sorted(logs, reverse=True)):
        if any(r["kind"] in FRUITS for name in logs[attempt] for r in records(journal, name)):
            return count
    return len(logs)


def refuse_fruitless_restart(out: Path, block: int = 0) -> None:
    """End a job that Slurm starts again and again for nothing. Raises `InputError`."""
    if not restarts():
        return
    tries = fruitless_attempts(run_folder(out) / "journal", block)
    if tries < FRUITLESS_ATTEMPTS:
        return
    why = (
        failure_reason(out) or "it ended without a word (killed, out of memory or time, node lost)"
    )
    earlier = f"OUT {out}: gave up after "
    if why.startswith(earlier):  # told already
        raise InputError(why)
    raise InputError(f"{earlier}{tries} tries that registered no slice; the last one: {why}")
