"""The run folder `OUT.amst/`: what a job was begun with, and what it has kept."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amst_hpc.config import PASSING_ERRORS, Config, InputError, Output
from amst_hpc.images.headers import Looked
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.job.changes import (
    Changes,
    find_changes,
    find_late_changes,
    read_looked,
    write_looked,
)
from amst_hpc.job.fingerprint import fingerprint
from amst_hpc.job.journal import (
    FORGOTTEN,
    Journal,
    differences,
    encode,
    next_attempt,
    records,
    registered,
    write_whole,
)
from amst_hpc.job.lock import OutputLock
from amst_hpc.job.room import ZARR, check_room, empty, refuse_foreign_folder, refuse_inputs, stem
from amst_hpc.ome_zarr.folder import remove
from amst_hpc.overrides import Override
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator, on_rank_0
from amst_hpc.parallel.node import batch_job, restarts
from amst_hpc.settings import to_toml
from amst_hpc.slice_result import SliceResult

PLACED = "placed"  # in the run folder: where the slices of raw alone lie
FORMER = "former.json"  # in the run folder: TIFF slices of an earlier output


def beside(out: Path, suffix: str) -> Path:
    """`OUT.suffix` beside `OUT.h5` or `OUT.ome.zarr`, or beside the folder OUT of TIFF slices."""
    return out.with_name(stem(out) + suffix)


def run_folder(out: Path) -> Path:
    """`OUT.amst`."""
    return beside(out, ".amst")


def view_path(out: Path, output: Output) -> Path:
    """What to open: the BigDataViewer XML, the OME-Zarr, or the folder of slices."""
    return out.with_suffix(".xml") if output.format == "bdv" else out


@dataclass(frozen=True)
class Attempt:
    """One start of a job, or of block `block` of it (0: the whole); its files are named by it.

    retry : slices that fell back at an earlier start are registered again. near : the blocks whose
    records a block needs; empty: all.
    """

    out: Path
    number: int = 0
    block: int = 0
    retry: bool = False
    near: frozenset[int] = frozenset()

    def name(self, rank: int) -> str:
        """Of the files of one rank."""
        block = f"b{self.block:04d}-" if self.block else ""
        return f"{self.number:04d}-{block}{rank:05d}"

    @property
    def folder(self) -> Path:
        """`OUT.amst`."""
        return run_folder(self.out)

    @property
    def journal(self) -> Path:
        """The folder of `Journal`."""
        return self.folder / "journal"

    @property
    def thumbnails(self) -> Path:
        """The folder of `ThumbnailWriter`: what the report shows of the slices."""
        return self.folder / "thumbnails"

    @property
    def checksums(self) -> Path:
        """Of all chunks of the output."""
        return self.folder / "checksums"

    @property
    def partial(self) -> Path:
        """The output while it grows; it gets its name when it is complete."""
        return self.folder / ("writing.zarr" if self.out.suffix == ZARR else "writing.h5")

    @property
    def stop_flag(self) -> Path:
        """There when a rank was told to stop."""
        return self.folder / (f"stop-{self.block:04d}" if self.block else "stop")

    def open_journal(self, rank: int, work: str) -> Journal:
        """The file of one rank in one pass (`register`, `pair` or `write`)."""
        return Journal(self.journal, self.name(rank), work)

    def registered(
        self, inputs: Inputs, radius: int, provisional: bool = False
    ) -> dict[int, SliceResult]:
        """What the journal holds of the slices `inputs.select`, by number; a later attempt counts.

        Of each what was found with a template (of `radius`) that is without the slices that are
        excluded now, and no others. provisional : also where something could not be read.
        """
        kinds = ("slice", "provisional") if provisional else ("slice",)
        found, names = registered(self.journal, *kinds, blocks=self.near), inputs.raw.names
        keys = {z: (z, *inputs.left_out(z, radius)) for z in inputs.select}
        return {
            z: replace(SliceResult.from_record(found[k]), file=names[z])
            for z, k in keys.items()
            if k in found and found[k].get("moved_by", "") == inputs.moved_by(z, radius)
        }

    def paired(
        self, sampled: Set[int] = frozenset(), work: str = "pair"
    ) -> dict[tuple[int, int], tuple[str, PairResult]]:
        """What the journal holds of pairs, by (z, k): the key it was found with, and the result.

        sampled : slices that all pairs depend on; when one was forgotten, so are all pairs. work :
        the pass that made them, `pair` or `prealign`.
        """
        found: dict[tuple[int, int], tuple[str, PairResult]] = {}
        for r in records(self.journal, f"*.{work}.log", self.near):
            if r["kind"] == "pair":
                found[r["z"], r["k"]] = r["key"], PairResult.from_record(r)
            elif r["kind"] == FORGOTTEN and not sampled.isdisjoint(r["slices"]):
                found.clear()
        return found

    def forget_layers(self, layers: Sequence[int]) -> None:
        """These layers of the file that was written last are to be written again."""
        begun = [r for r in records(self.journal, "*.write.log") if r["kind"] == "begun"][-1]
        number = replace(self, number=next_attempt(self.journal))
        with number.open_journal(0, "write") as journal:
            journal.write(begun)
            journal.write({"kind": FORGOTTEN, "layers": layers})

    def forget(self, changes: Changes) -> None:
        """Slices that have other pixels now are to be registered again; keep what was seen of all.

        Every block is to know: the file is of none.
        """
        if changes.slices:
            number = replace(self, number=next_attempt(self.journal), block=0)
            raw = changes.raw
            for work, slices in (("register", changes.slices), ("pair", raw), ("prealign", raw)):
                with number.open_journal(self.block, work) as journal:
                    journal.write({"kind": FORGOTTEN, "slices": slices})
            for kept in (self._settled, self.folder / PLACED):
                kept.unlink(missing_ok=True)
        write_looked(self.journal, changes.looked, self.block)

    def refuse_late_changes(self, inputs: Inputs, radius: int, comm: Communicator) -> None:
        """End a job whose inputs got other pixels while it ran; collective.

        What depends on them is to be registered again. Raises OSError on rank 0.
        """
        changes, told = find_late_changes(self.journal, inputs, radius, comm)
        if told and comm.rank == 0:
            self.forget(changes)
            reason = f"{told}: got other pixels while the job ran"
            raise OSError(errno.EIO, f"{reason}; the same command registers them again")

    def record_seconds(self, rank: int, seconds: Mapping[str, float]) -> None:
        """Keep how long a step of a block took on a rank, by pass, for `seconds`."""
        with self.open_journal(rank, "seconds") as journal:
            record = {"kind": "seconds", "block": self.block, "rank": rank, "seconds": seconds}
            journal.write(record)

    def seconds(self) -> list[dict[str, float]]:
        """Of each rank of each block that has ended a step, all its steps together."""
        found: dict[tuple[int, int], Counter[str]] = {}
        for r in records(self.journal, "*.seconds.log"):
            found.setdefault((r["block"], r["rank"]), Counter()).update(r["seconds"])
        return [{k: round(v, 3) for k, v in found[place].items()} for place in sorted(found)]

    def settle(self, results: Sequence[SliceResult], overrides: Sequence[Override]) -> bool:
        """Keep the decided results of the whole stack; False if they are kept already."""
        lines = encode({"kind": "overrides", "overrides": overrides})
        lines += b"".join(encode(result.to_record()) for result in results)
        if self._settled.exists() and self._settled.read_bytes() == lines:
            return False
        write_whole(self._settled, lines.decode())
        return True

    def read_settled(self, overrides: Sequence[Override]) -> list[SliceResult]:
        """What `settle` has kept; empty where it has not, or with other overrides."""
        first, *found = [*records(self.folder, self._settled.name)] or [{}]
        if first.get("overrides") != [list(override) for override in overrides]:
            return []
        return [SliceResult.from_record(r) for r in found]

    @property
    def _settled(self) -> Path:
        return self.folder / "settled"

    def former_slices(self) -> set[str]:
        """Names of TIFF slices in OUT that were of an earlier output of this folder."""
        return set(json.loads(self._former.read_text())) if self._former.exists() else set()

    def remove_former(self, kept: set[str]) -> None:
        """The new slices are there: remove those of an earlier output that are not among them."""
        for name in self.former_slices() - kept:
            (self.out / name).unlink(missing_ok=True)
        self._former.unlink(missing_ok=True)

    @property
    def _former(self) -> Path:
        return self.folder / FORMER

    def forget_output(self) -> None:
        """What was written is of no use: the output is made anew from the registered slices.

        TIFF slices stay until their successors are there: see `former_slices`.
        """
        if self.out.is_dir() and self.out.suffix != ZARR:
            names = {r["file"] for r in records(self.journal) if "file" in r}
            write_whole(self._former, json.dumps(sorted(names | self.former_slices())))
        remove(self.partial)
        self.checksums.unlink(missing_ok=True)
        for folder in (self.journal, self.thumbnails):
            for path in folder.glob("*.write.log"):
                path.unlink()


@contextmanager
def open_attempt(
    job: Job, config: Config, inputs: Inputs, comm: Communicator, block: int = 0
) -> Iterator[Attempt]:
    """Make the run folder, or take up the one that is there if it belongs to the same job, and
    hold its lock; collective.

    Raises `InputError`, before anything is written.
    """
    lock = OutputLock(run_folder(job.out), block, on_loss=lambda: comm.Abort(1))
    try:
        job, now = on_rank_0(comm, lambda: _look(job, config, inputs, lock))
        near = inputs.part.near(inputs.depth)
        attempt, radius = Attempt(job.out, 0, block, job.retry, near), config.template.radius
        if job.overwrite:
            changes = Changes(inputs.looked)
        else:
            changes = find_changes(job.out, attempt.journal, inputs, radius, comm)
        yield on_rank_0(comm, lambda: _make_folder(job, config, now, attempt, changes))
    finally:
        lock.release()


def seen_before(job: Job, block: int = 0) -> list[Looked]:
    """What earlier starts have seen of the slices: of a block its own."""
    blocks = {block} if block else frozenset[int]()
    return [] if job.overwrite else read_looked(run_folder(job.out) / "journal", blocks)


def _look(job: Job, config: Config, inputs: Inputs, lock: OutputLock) -> tuple[Job, dict[str, Any]]:
    """Take the lock if nothing is against it: the job and its fingerprint. Raises `InputError`."""
    refuse_inputs(job, config.output)
    now = fingerprint(inputs, config) | {"out": job.out.name, "job": batch_job()}
    now["parameters"] |= {"placing": True} if job.placing else {}
    before = read_fingerprint(job.out)
    if job.overwrite and before == now and restarts():
        job = replace(job, overwrite=False)  # Slurm starts it again: it has done so already
    _refuse_foreign(job, before, now)
    same = before is not None and before["output"] == now["output"]
    if job.out.suffix == ZARR and (job.overwrite or not same):
        refuse_foreign_folder(job.out)
    check_room(job, config, inputs, Attempt(job.out).partial, same and not job.overwrite)
    with _naming(job):
        lock.take()
    # what another job may have left is looked at once more: now it is ours alone
    _refuse_foreign(job, read_fingerprint(job.out), now)
    return job, now


@contextmanager
def _naming(job: Job) -> Iterator[None]:
    """A folder that cannot be written is bad input."""
    try:
        yield
    except OSError as error:
        if error.errno in PASSING_ERRORS:
            raise
        raise InputError(
            f"OUT {job.out}: cannot be written ({error.strerror}: {error.filename})"
        ) from None


def _make_folder(
    job: Job, config: Config, now: dict[str, Any], attempt: Attempt, changes: Changes
) -> Attempt:
    before = read_fingerprint(job.out)
    with _naming(job):
        if job.overwrite:
            if before is not None:
                attempt.forget_output()
            empty(attempt.folder, {"lock", FORMER})
            before = None
        attempt.journal.mkdir(parents=True, exist_ok=True)
        attempt.stop_flag.unlink(missing_ok=True)
        if before is not None and before["output"] != now["output"]:
            if attempt.block:
                raise InputError(
                    f"OUT {job.out}: was begun with other settings of the output "
                    f"({'; '.join(differences(before['output'], now['output'])[:4])}); expected "
                    "the same for all blocks"
                )
            attempt.forget_output()
        write_whole(attempt.journal / "fingerprint.json", json.dumps(now, indent=1))
        write_whole(attempt.folder / "config.toml", to_toml(config))
        attempt.forget(changes)
        return replace(attempt, number=next_attempt(attempt.journal))


def has_begun(job: Job) -> bool:
    """True if this continues a job. Raises `InputError`."""
    return not job.overwrite and read_fingerprint(job.out) is not None


def read_fingerprint(out: Path) -> dict[str, Any] | None:
    """Of the job that began OUT; None where there is none. Raises `InputError`."""
    try:
        found: Any = json.loads((run_folder(out) / "journal" / "fingerprint.json").read_text())
        if not isinstance(found, dict) or not {"inputs", "parameters", "output"} <= found.keys():
            raise ValueError("fingerprint.json lacks a part")
    except FileNotFoundError:
        return None
    except (ValueError, NotADirectoryError) as error:
        raise InputError(f"OUT {out}: {run_folder(out)} is damaged ({error})") from None
    return found


def _refuse_foreign(job: Job, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raises `InputError` for an output of another job; `before` : the fingerprint it left."""
    folder = run_folder(job.out)
    if before is not None and before.get("out", job.out.name) != job.out.name:
        raise InputError(
            f"OUT {job.out}: {folder} belongs to {before['out']}; expected another name"
        )
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (
        before is None
        and "journal" not in held
        and {n for n in held if n[:6] != "failed"} - {"lock", FORMER}
    ):
        raise InputError(f"OUT {job.out}: {folder} holds other things; expected another name")
    if job.overwrite:
        return
    if before is None:
        view = job.out.with_suffix(".xml") if job.out.suffix == ".h5" else job.out
        if job.out.is_file() or view.is_file() or (job.out.exists() and any(job.out.iterdir())):
            there = job.out if job.out.exists() else view
            raise InputError(f"OUT {there}: exists; expected a new name, or --overwrite")
        return
    keys = ("inputs", "parameters")
    changed = differences({k: before[k] for k in keys}, {k: now[k] for k in keys})
    if changed:
        raise InputError(
            f"OUT {job.out}: was begun with other inputs or parameters "
            f"({'; '.join(changed[:4])}); expected the same, or --overwrite"
        )
