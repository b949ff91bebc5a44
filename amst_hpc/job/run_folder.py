"""The run folder `OUT.amst/`: what a job was begun with, and whether the disk will do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.config import Config, InputError, Output, to_toml, to_tree
from amst_hpc.geometry import level_factors
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.images.stack import Stack
from amst_hpc.job.journal import Journal, differences, next_attempt, records, write_whole
from amst_hpc.slice_result import SliceResult


def run_folder(out: Path) -> Path:
    """`OUT.amst` beside `OUT.h5` (or beside the folder OUT of TIFF slices)."""
    return out.with_suffix(".amst") if out.suffix == ".h5" else out.with_name(f"{out.name}.amst")


def view_path(out: Path, output: Output) -> Path:
    """What to open: the BigDataViewer XML, or the folder of slices."""
    return out.with_suffix(".xml") if output.format == "bdv" else out


@dataclass(frozen=True)
class Attempt:
    """One start of a job; its number names its files in the run folder of `out`."""

    out: Path
    number: int = 0

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
    def partial(self) -> Path:
        """The output while it grows; it gets its name when it is complete."""
        return self.folder / "writing.h5"

    @property
    def stop_flag(self) -> Path:
        """There when a rank was told to stop."""
        return self.folder / "stop"

    def open_journal(self, rank: int, work: str) -> Journal:
        """The file of one rank in one pass (`register` or `write`)."""
        return Journal(self.journal, self.number, rank, work)

    def registered(self, select: range) -> dict[int, SliceResult]:
        """What the journal holds of the slices `select`, by number; a later attempt counts."""
        found = {r["z"]: r for r in records(self.journal) if r.get("kind") == "slice"}
        return {z: SliceResult.from_record(found[z]) for z in select if z in found}

    def forget_output(self) -> None:
        """What was written is of no use: the output is made anew from the registered slices."""
        self.partial.unlink(missing_ok=True)
        for path in self.journal.glob("*.write.log"):
            path.unlink()


def fingerprint(inputs: Inputs, config: Config) -> dict[str, Any]:
    """What the results depend on.

    `inputs` and `parameters` those of the registration, `output` those of the file.
    """
    tree = to_tree(config)
    tree["coarse"].pop("device")
    tree["output"].pop("writer")
    tree["output"].pop("report")
    stacks = (("raw", inputs.raw), ("prealigned", inputs.prealigned))
    return {
        "inputs": {
            name: {"source": s.source, "slices": len(s.names), "stamps": _digest(s, inputs.depth)}
            for name, s in stacks
        },
        "parameters": {key: tree[key] for key in ("template", "coarse", "refine")},
        "output": tree["output"] | {"range": [inputs.select.start, inputs.select.stop]},
    }


def _digest(stack: Stack, depth: int) -> str:
    digest = hashlib.sha256()
    for z in range(depth):
        digest.update(stack.stamp(z).encode())
    return digest.hexdigest()[:16]


def begin_attempt(job: Job, config: Config, inputs: Inputs, copies: bool = True) -> Attempt:
    """Make the run folder, or take up the one that is there if it belongs to the same job (rank 0).

    copies : the output holds all slices itself, so the disk must have room for them. Raises
    `InputError`, before anything is written.
    """
    attempt = Attempt(job.out)
    path = attempt.journal / "fingerprint.json"
    now = fingerprint(inputs, config)
    before = json.loads(path.read_text()) if path.exists() and not job.overwrite else None
    _refuse_foreign(job, before, now)
    if copies:
        check_room(job, config, inputs)
    try:
        if job.overwrite and attempt.folder.exists():
            shutil.rmtree(attempt.folder)
        attempt.journal.mkdir(parents=True, exist_ok=True)
        attempt.stop_flag.unlink(missing_ok=True)
        if before is not None and before["output"] != now["output"]:
            attempt.forget_output()
        write_whole(path, json.dumps(now, indent=1))
        write_whole(attempt.folder / "config.toml", to_toml(config))
    except OSError as error:
        raise InputError(
            f"OUT {job.out}: cannot be written ({error.strerror}: {error.filename})"
        ) from None
    return Attempt(job.out, next_attempt(attempt.journal))


def _refuse_foreign(job: Job, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raises `InputError` for an output of another job; `before` : the fingerprint it left."""
    if before is None:
        there = job.out.is_file() or (job.out.exists() and any(job.out.iterdir()))
        if there and not job.overwrite:
            raise InputError(f"OUT {job.out}: exists; expected a new name, or --overwrite")
        return
    keys = ("inputs", "parameters")
    changed = differences({k: before[k] for k in keys}, {k: now[k] for k in keys})
    if changed:
        raise InputError(
            f"OUT {job.out}: was begun with other inputs or parameters "
            f"({'; '.join(changed[:4])}); expected the same, or --overwrite"
        )


def check_room(job: Job, config: Config, inputs: Inputs) -> None:
    """The folder exists and can be written, and the disk has room for the output.

    Raises `InputError`.
    """
    parent = job.out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"OUT {job.out}: the folder {parent} does not exist")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"OUT {job.out}: the folder {parent} is not writable")
    need, free = output_bytes(inputs, config), shutil.disk_usage(parent).free
    if job.out.is_file():
        free += job.out.stat().st_size if job.overwrite else 0
    partial = Attempt(job.out).partial
    if partial.exists():  # of a try before: continued, or made anew in its place
        free += partial.stat().st_blocks * 512
    if job.out.is_dir():  # slices that are there already
        free += sum(path.stat().st_size for path in job.out.glob("*.tif*"))
    if need > free:
        raise InputError(
            f"OUT {job.out}: needs up to {need / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
        )


def output_bytes(inputs: Inputs, config: Config) -> int:
    """Upper estimate of the output's size: uncompressed with its mipmap levels.

    Compressed noise saves little.
    """
    full = len(inputs.select) * inputs.slice_bytes
    shape = (len(inputs.select), *inputs.shape)
    parts = (
        [1 / np.prod(f) for f in level_factors(shape, config.output)]
        if config.output.format == "bdv"
        else [1.0]
    )
    return int(full * sum(parts))
