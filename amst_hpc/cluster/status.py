"""`amst-hpc status`: how far a job is, from the files that it leaves; Slurm is asked as well where
it is there.

What was sent stands in `sent.tsv` (job, array task, output) in the folder `NAME.slurm/` beside a
manifest or an output: so a line of a table finds its job.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amst_hpc.cluster import slurm
from amst_hpc.cluster.blocks import read_blocks
from amst_hpc.cluster.manifest import read_manifest
from amst_hpc.config import InputError
from amst_hpc.job.failures import failure_reason, failure_time
from amst_hpc.job.journal import FORGOTTEN, records, undecoded
from amst_hpc.job.lock import is_written
from amst_hpc.job.progress import duration
from amst_hpc.job.room import find_place, seal_path
from amst_hpc.job.run_folder import beside, run_folder
from amst_hpc.job.terminal import render_table
from amst_hpc.slice_result import ASKED_FOR, OVERRIDE

log = logging.getLogger(__name__)
SILENT_SECONDS = 300.0
"""Where no lock tells: a run whose journal has not grown for so long has ended without a word."""
HURRIED = "told to stop, and ended before it could in good order; the same command continues it"
WORDLESS = "ended without a word (killed, out of memory or time, node lost)"
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED"}
MANIFESTS = (".tsv", ".csv", ".txt")
COLUMNS = ("output", "state", "registered", "written", "fallen back", "slices/s", "left", "reason")
COMPARED = "compared"  # a column of jobs of raw alone
# in the lines of the journal, which are not decoded to be counted; a quote in a name is escaped
REGISTERED, PAIR = (b'{"kind":"slice"', b'{"kind":"provisional"'), b'{"kind":"pair"'
FORGET, NO_AFFINE = f'{{"kind":"{FORGOTTEN}"'.encode(), b'"matrix":null'
SLICE, SECONDS = re.compile(rb'"z":(\d+)'), re.compile(rb'"seconds":\{([^}]*)\}')
STAGE = re.compile(rb":([^,]+)")


@dataclass(frozen=True)
class Status:
    """A job: its state (waiting, running, stopped, done, failed), slices, slices per second, reason
    of a failure. compared : slices of raw alone, to be placed; None: there is a pre-alignment.
    """

    output: Path
    state: str
    total: int = 0
    registered: int = 0
    written: int = 0
    fallen_back: int = 0
    rate: float = 0.0
    reason: str = ""
    compared: int | None = None

    @property
    def left(self) -> str:
        """Time that registration still needs at this rate."""
        missing = self.total - self.registered
        return duration(missing / self.rate) if missing and self.rate else ""


def slurm_folder(path: Path) -> Path:
    """`NAME.slurm` beside a manifest or an output: scripts, logs and what was sent."""
    return path.with_suffix(".slurm") if path.suffix in MANIFESTS else beside(path, ".slurm")


def show(path: Path) -> list[Status]:
    """The jobs of a manifest, or of one output. Raises `InputError`."""
    path = find_place(path)
    if path.suffix in MANIFESTS:
        outputs = [entry.output for entry in read_manifest(path)]
    elif run_folder(path).is_dir() or failure_reason(path) or slurm_folder(path).is_dir():
        outputs = [path]
    else:
        raise InputError(f"{path}: no job has begun there; expected an output or a manifest")
    try:
        queue = slurm.queued()
    except InputError as error:
        log.warning("%s", error)
        queue = None
    return with_slurm([read_status(out) for out in outputs], sent(path), queue)


def read_status(out: Path) -> Status:
    """What the files of one job say."""
    folder = run_folder(out)
    began = _began(folder)
    if not began:
        return Status(
            out, "failed" if failure_reason(out) else "waiting", reason=failure_reason(out)
        )
    journal, (start, stop) = folder / "journal", began["output"]["range"]
    state, why = _state(out, folder, began)
    total = stop - start
    status = Status(
        out,
        state,
        total,
        total,
        written=total if state == "done" else min(total, _written(journal)),
        fallen_back=_fallen_back(folder) if state == "done" else 0,
        reason=why,
        compared=total if (folder / "placed").exists() else _compared(journal),
    )
    given = began.get("parameters", {})
    if "transforms" in given:  # of another run: none can fall back
        return replace(status, fallen_back=0)
    if "placing" in given:  # and no more: nothing is registered
        return status
    found, rate = _registered(journal)
    begun = _begun_slices(out, range(start, stop))
    mine = [affine for z, affine in found.items() if z in begun]
    status = replace(status, registered=len(mine), rate=rate)
    return status if state == "done" else replace(status, fallen_back=mine.count(False))


def _registered(journal: Path) -> tuple[dict[int, bool], float]:
    """Has each registered slice an affine, and the slices per second of all ranks of the last try
    together, start-up not counted.
    """
    found: dict[int, bool] = {}
    attempt, rate = "", 0.0
    for path in sorted(journal.glob("*.register.log")):
        if (number := path.name.split("-")[0]) != attempt:
            attempt, rate = number, 0.0
        times = []
        for line in undecoded(path):
            if line.startswith(REGISTERED):
                found[_slice_of(line)] = NO_AFFINE not in line
            elif line.startswith(FORGET):
                gone = set(json.loads(line)["slices"])
                found = {z: affine for z, affine in found.items() if z not in gone}
            if timed := SECONDS.search(line):
                times.append(sum(map(float, STAGE.findall(timed[1]))))
        rate += len(times) / sum(times) if sum(times) else 0.0
    return found, rate


def _slice_of(line: bytes) -> int:
    """Its number, in a line of the journal."""
    number = SLICE.search(line)
    return int(number[1]) if number else -1


def _compared(journal: Path) -> int | None:
    """Slices of raw alone that were compared with those after them; None where none was."""
    logs = sorted(journal.glob("*.prealign.log"))
    if not logs:
        return None
    lines = (line for path in logs for line in undecoded(path) if line.startswith(PAIR))
    return len({_slice_of(line) for line in lines})


def _begun_slices(out: Path, select: range) -> set[int]:
    """Of the whole, or of the blocks that have begun: one registers slices of the next one, too."""
    if not (run_folder(out) / "blocks.json").exists():
        return set(select)
    blocks, journal = read_blocks(out), run_folder(out) / "journal"
    begun = {int(path.name.split("-")[1][1:]) for path in journal.glob("*-b*-*.log")}
    return {z for n in begun for z in blocks.slices(n)}


def _began(folder: Path) -> dict[str, Any]:
    """The fingerprint of the job; empty if it has not begun."""
    try:
        found: dict[str, Any] = json.loads((folder / "journal" / "fingerprint.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _state(out: Path, folder: Path, began: Mapping[str, Any]) -> tuple[str, str]:
    """done, failed, running or stopped, and why it ended if not in good order."""
    begun = _changed(folder / "journal" / "fingerprint.json")
    is_tif = out.is_dir() and began["output"]["format"] == "tif"
    seal = out if is_tif else seal_path(out)
    if out.exists() and seal.exists() and _changed(folder / "run.json") >= begun:
        return "done", ""
    logs = list((folder / "journal").glob("*.log"))
    last = max((_changed(path) for path in logs), default=0.0)
    if failure_time(out) >= max(last, begun):
        return "failed", failure_reason(out) or WORDLESS
    attempt = max((path.name.split("-")[0] for path in logs), default="")
    open_ended = any((folder / "journal").glob(f"{attempt}-*.crash")) if attempt else False
    if not open_ended and begun <= last:
        return "stopped", ""
    alive, told = is_written(folder), any(folder.glob("stop*"))
    if alive is None and told and not open_ended:
        return "stopped", ""  # before the first record
    if alive is None:
        alive = time.time() - max(last, begun) < SILENT_SECONDS
    if alive:
        return "running", ""
    return ("stopped", HURRIED) if told else ("failed", WORDLESS)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _written(journal: Path) -> int:
    """Slices in the layers that are written."""
    found = list(records(journal, "*.write.log"))
    depth = next((r["layer_depth"] for r in found if r["kind"] == "begun"), 0)
    return len({r["layer"] for r in found if r["kind"] == "layer"}) * int(depth)


def _fallen_back(folder: Path) -> int:
    with (folder / "slices.csv").open(errors="replace") as file:
        rows = csv.DictReader(file)
        lower = [row for row in rows if row.get("status") not in ASKED_FOR]
        return sum(not (row.get("reason") or "").startswith(OVERRIDE) for row in lower)


def sent(path: Path) -> dict[Path, list[slurm.TaskId]]:
    """The jobs that were sent for each output (its whole path), the last one last."""
    try:
        lines = (slurm_folder(path) / "sent.tsv").read_text().splitlines()
    except OSError:
        return {}
    rows = [line.split("\t") for line in lines]
    found: dict[Path, list[slurm.TaskId]] = {}
    for row in rows:
        if len(row) == 3:
            found.setdefault(Path(row[2]), []).append((row[0], row[1]))
    return found


def with_slurm(
    found: Sequence[Status],
    jobs: Mapping[Path, Sequence[slurm.TaskId]],
    queue: Mapping[slurm.TaskId, str] | None,
) -> list[Status]:
    """The states with what Slurm knows: whether a job waits or runs, and how one ended that left no
    word.
    """
    if queue is None:
        return list(found)
    return [_ask(status, jobs.get(status.output.resolve(), ()), queue) for status in found]


def _ask(status: Status, jobs: Sequence[slurm.TaskId], queue: Mapping[slurm.TaskId, str]) -> Status:
    if not jobs or status.state == "done":
        return status
    states = {queue[job] for job in jobs if job in queue}
    if states - WAITING:
        return replace(status, state="running", reason="")
    if states:
        return replace(status, state="waiting", reason=status.reason.replace(WORDLESS, ""))
    if status.state == "stopped" or status.reason not in ("", WORDLESS):
        return status
    ended = slurm.ended(jobs[-1])
    why = WORDLESS if status.total else "ended before it began: see its log"
    return replace(status, state="failed", reason=why + (f"; Slurm says {ended}" if ended else ""))


def table(found: Sequence[Status], title: str, width: int | None) -> str:
    """The states as a table, with their numbers in the title; `width` in characters."""
    counts = Counter(status.state for status in found)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    if all(status.compared is None for status in found):
        return render_table(f"{title}: {told}", COLUMNS, map(_row, found), width)
    rows = [(*row[:2], _compared_cell(s), *row[2:]) for s in found for row in [_row(s)]]
    return render_table(f"{title}: {told}", (*COLUMNS[:2], COMPARED, *COLUMNS[2:]), rows, width)


def _compared_cell(status: Status) -> str:
    return "" if status.compared is None else f"{status.compared}/{status.total}"


def _row(status: Status) -> tuple[str, ...]:
    """The cells of a job; empty where they say nothing yet."""
    rate = f"{status.rate:.2f}" if status.rate else ""
    numbers = ("", "", "")
    if status.total:
        registered = f"{status.registered}/{status.total}"
        numbers = (registered, str(status.written), str(status.fallen_back))
    return (status.output.name, status.state, *numbers, rate, status.left, status.reason)
