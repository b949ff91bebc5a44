"""`OUT.amst/done`: what a finished job ended with, so that the same line again has nothing to do.

It counts while nothing has changed since: inputs, settings, journal, and the files of the output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from amst_hpc.config import Config
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.job.journal import encode, records, write_whole
from amst_hpc.job.run_folder import Attempt, read_fingerprint, view_path
from amst_hpc.slice_result import SliceResult

DONE = "done"
PRODUCTS = ("transforms.json", "slices.csv", "checksums")


def keep_done(
    job: Job, attempt: Attempt, config: Config, inputs: Inputs, results: Sequence[SliceResult]
) -> None:
    """Keep what is to be said of a job of which all files are there."""
    if config.output.format != "bdv" or any(result.provisional for result in results):
        return
    plain = [(r.z, r.status) for r in results if not (r.fell_back or r.overridden)]
    lines = [encode({"state": _state(job, attempt, config, inputs), "plain": plain})]
    lines += [encode(r.to_record()) for r in results if r.fell_back or r.overridden]
    write_whole(attempt.folder / DONE, b"".join(lines).decode())


def read_done(job: Job, attempt: Attempt, config: Config, inputs: Inputs) -> list[SliceResult]:
    """All slices of a job with nothing to do: those that fell back as they are known, of the others
    the status; empty where something is to be done.
    """
    if job.retry:
        return []
    first, *found = [*records(attempt.folder, DONE)] or [{}]
    plain = [SliceResult(z, status=status) for z, status in first.get("plain", [])]
    if first.get("state") != _state(job, attempt, config, inputs):
        return []
    (attempt.folder / "run.json").touch()  # `status`: it is done since it was started again
    others = [SliceResult.from_record(record) for record in found]
    return sorted([*plain, *others], key=lambda result: result.z)


def report_is_drawn(attempt: Attempt) -> bool:
    """True if the report is of the job that is done, and not of an earlier one in its place."""
    drawn, done = (_stamp(attempt.folder / name)[1] for name in ("report.html", DONE))
    return drawn >= done


def _state(job: Job, attempt: Attempt, config: Config, inputs: Inputs) -> str:
    """Changes when anything does."""
    view = view_path(attempt.out, config.output)
    files = [attempt.out, view, view.with_suffix(".settings.xml")]
    files += [attempt.folder / name for name in PRODUCTS]
    began = read_fingerprint(attempt.out) or {}
    parts = {
        "job": {key: began[key] for key in sorted(began) if key != "job"},
        "preview": job.preview,
        "overrides": [list(override) for override in inputs.overrides],
        "names": inputs.raw.names,
        "journal": sorted((log.name, log.stat().st_size) for log in attempt.journal.glob("*.log")),
        "files": [_stamp(path) for path in files],
        "run": _text(attempt.folder / "run.json"),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _text(path: Path) -> str:
    """Of a small file; empty where it is not."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; (0, 0) where it is not."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
