"""The run folder `OUT.amst/`.

What a job was begun with, what it has registered, and whether the disk will do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.config import Config, InputError, to_toml, to_tree
from amst_hpc.geometry import level_factors
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.images.stack import Stack
from amst_hpc.job.journal import differences, records, write_whole
from amst_hpc.opencl.resampling import Resampler
from amst_hpc.transform import resample


@dataclass
class Run:
    """The run folder and what every rank knows of it."""

    job: Job
    config: Config
    inputs: Inputs
    comm: Any
    attempt: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    resampler: Resampler = resample

    @property
    def folder(self) -> Path:
        """`OUT.amst`."""
        return run_folder(self.job.out)

    @property
    def journal(self) -> Path:
        """The folder of `Journal`."""
        return self.folder / "journal"

    @property
    def intermediates(self) -> Path:
        """Where refs/ and sift/ go: into the folder of TIFF slices, else into the run folder."""
        return self.job.out if self.config.output.format == "tif" else self.folder

    @property
    def thumbnails(self) -> Path:
        """The folder of `ThumbnailWriter`: what the report shows of the slices."""
        return self.folder / "thumbnails"

    @property
    def partial(self) -> Path:
        """The output while it grows; it gets its name when it is complete."""
        return self.folder / "writing.h5"


def run_folder(out: Path) -> Path:
    """`OUT.amst` beside `OUT.h5` (or beside the folder OUT of TIFF slices)."""
    return out.with_suffix(".amst") if out.suffix == ".h5" else out.with_name(f"{out.name}.amst")


def view_path(job: Job, config: Config) -> Path:
    """What to open: the BigDataViewer XML, or the folder of slices."""
    return job.out.with_suffix(".xml") if config.output.format == "bdv" else job.out


def fingerprint(run: Run) -> dict[str, Any]:
    """What the results depend on.

    `inputs` and `parameters` those of the registration, `output` those of the file.
    """
    inputs, tree = run.inputs, to_tree(run.config)
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


def open_run(run: Run, copies: bool = True) -> None:
    """Make the run folder, or take up the one that is there if it belongs to the same job (rank 0).

    copies : the output holds all slices itself, so the disk must have room for them. Raises
    `InputError`, before anything is written.
    """
    job, folder = run.job, run.folder
    path = folder / "journal" / "fingerprint.json"
    now = fingerprint(run)
    before = json.loads(path.read_text()) if path.exists() and not job.overwrite else None
    if (
        before is None
        and job.out.exists()
        and not job.overwrite
        and (job.out.is_file() or any(job.out.iterdir()))
    ):
        raise InputError(f"OUT {job.out}: exists; expected a new name, or --overwrite")
    if before is not None:
        changed = differences(
            {k: before[k] for k in ("inputs", "parameters")},
            {k: now[k] for k in ("inputs", "parameters")},
        )
        if changed:
            raise InputError(
                f"OUT {job.out}: was begun with other inputs or parameters "
                f"({'; '.join(changed[:4])}); expected the same, or --overwrite"
            )
    if copies:
        check_room(run)
    try:
        if job.overwrite and folder.exists():
            shutil.rmtree(folder)
        (folder / "journal").mkdir(parents=True, exist_ok=True)
        (folder / "stop").unlink(missing_ok=True)
        if before is not None and before["output"] != now["output"]:
            forget_output(run)
        write_whole(path, json.dumps(now, indent=1))
        write_whole(folder / "config.toml", to_toml(run.config))
    except OSError as error:
        raise InputError(
            f"OUT {job.out}: cannot be written ({error.strerror}: {error.filename})"
        ) from None


def forget_output(run: Run) -> None:
    """What was written is of no use: the output is made anew from the registered slices."""
    run.partial.unlink(missing_ok=True)
    for path in run.journal.glob("*.write.log"):
        path.unlink()


def check_room(run: Run) -> None:
    """The folder exists and can be written, and the disk has room for the output.

    Raises `InputError`.
    """
    parent = run.job.out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"OUT {run.job.out}: the folder {parent} does not exist")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"OUT {run.job.out}: the folder {parent} is not writable")
    need, free = output_bytes(run.inputs, run.config), shutil.disk_usage(parent).free
    if run.job.out.is_file():
        free += run.job.out.stat().st_size if run.job.overwrite else 0
    if run.partial.exists():  # of a try before: continued, or made anew in its place
        free += run.partial.stat().st_blocks * 512
    if run.job.out.is_dir():  # slices that are there already
        free += sum(path.stat().st_size for path in run.job.out.glob("*.tif*"))
    if need > free:
        raise InputError(
            f"OUT {run.job.out}: needs up to {need / 1e9:.1f} GB, "
            f"the disk has {free / 1e9:.1f} GB free"
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


def read_registered(run: Run) -> dict[int, dict[str, Any]]:
    """The journal's record of each slice of the job that is registered."""
    found = {r["z"]: r for r in records(run.journal) if r.get("kind") == "slice"}
    return {z: found[z] for z in run.inputs.select if z in found}
