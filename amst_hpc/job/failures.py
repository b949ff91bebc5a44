"""Tries of a job: why the last one failed, and when to give up.

The reason of a failure stands in `OUT.amst/failed`; a batch job that fails before it has a run
folder leaves it beside the output, in `OUT.failed`. A try that neither registered a slice nor
closed the output was of no use: when Slurm has started a job again and again
(`SLURM_RESTART_COUNT`) and its last tries were of no use, it ends for good and says why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amst_hpc.config import InputError
from amst_hpc.job.journal import records, write_whole
from amst_hpc.job.run_folder import run_folder
from amst_hpc.parallel.node import batch_job, restarts
from amst_hpc.parallel.signals import Stopped

FRUITLESS_ATTEMPTS = 3


@contextmanager
def recording_failure(out: Path, comm: Any) -> Iterator[None]:
    """Keep the reason of a failure for `failure_reason`; forget it when the job ends well."""
    try:
        yield
    except InputError as error:
        if comm.rank == 0 and batch_job():  # else the user reads it
            _note(out, str(error))
        raise
    except Stopped:
        if comm.rank == 0:
            _forget(out)
        raise
    except BaseException as error:
        text = (str(error).strip().splitlines() or [""])[0]
        _note(out, f"rank {comm.rank}: {type(error).__name__}: {text}")
        raise
    if comm.rank == 0:
        _forget(out)


def _places(out: Path) -> tuple[Path, Path]:
    return run_folder(out) / "failed", out.with_suffix(".failed")


def _note(out: Path, reason: str) -> None:
    """Write the reason down; where there is no run folder, only for a batch job."""
    inside, beside = _places(out)
    place = inside if inside.parent.is_dir() else beside if batch_job() else None
    if place is None or not os.access(place.parent, os.W_OK):
        return
    write_whole(place, f"{reason}\n{time.strftime('%Y-%m-%d %H:%M:%S')} job {batch_job() or '-'}\n")


def _forget(out: Path) -> None:
    for place in _places(out):
        place.unlink(missing_ok=True)


def failure_reason(out: Path) -> str:
    """Why the last try failed (one line), empty if it did not or left no word."""
    found = [place for place in _places(out) if place.is_file()]
    newest = max(found, key=lambda place: place.stat().st_mtime, default=None)
    return (newest.read_text().splitlines() or [""])[0] if newest else ""


def failure_time(out: Path) -> float:
    """When the reason was written, seconds since the epoch; 0 where there is none."""
    return max((p.stat().st_mtime for p in _places(out) if p.is_file()), default=0.0)


def fruitless_attempts(journal: Path) -> int:
    """How many of the last tries in a row registered no slice and closed no output."""
    kinds: dict[int, set[str]] = {}
    for path in journal.glob("*.log"):
        found = {record["kind"] for record in records(journal, path.name)}
        kinds.setdefault(int(path.name.split("-")[0]), set()).update(found)
    count = 0
    for attempt in sorted(kinds, reverse=True):
        if kinds[attempt] & {"slice", "closed"}:
            break
        count += 1
    return count


def refuse_fruitless_restart(out: Path) -> None:
    """End a job that Slurm starts again and again for nothing. Raises `InputError`."""
    tries = fruitless_attempts(run_folder(out) / "journal")
    if not restarts() or tries < FRUITLESS_ATTEMPTS:
        return
    why = (
        failure_reason(out) or "it ended without a word (killed, out of memory or time, node lost)"
    )
    earlier = f"OUT {out}: gave up after "
    if why.startswith(earlier):  # told already
        raise InputError(why)
    raise InputError(f"{earlier}{tries} tries that registered no slice; the last one: {why}")
