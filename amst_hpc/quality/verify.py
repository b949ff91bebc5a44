"""`amst-hpc verify`: is a finished file still what was written?

Every chunk of every level is read back and compared with the checksum that was taken of its voxels
before they were compressed (`OUT.amst/checksums`); the tables and attributes are compared
with those that the settings ask for, and `OUT.xml` with the one that would be written now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.file import Target, make_target
from amst_hpc.bdv.metadata import find_xml_fault
from amst_hpc.bdv.verify import find_bad_chunk, find_fault
from amst_hpc.config import Config, InputError, load_config
from amst_hpc.geometry import Layout, make_layout, split
from amst_hpc.job.journal import records
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import run_folder
from amst_hpc.parallel.communicator import Communicator, on_rank_0
from amst_hpc.parallel.tally import Tally


@dataclass(frozen=True)
class Report:
    """What was looked at, and what is not as it was written."""

    summary: str
    faults: list[str]


def verify_output(out: Path, comm: Communicator) -> Report:
    """Read `OUT.h5` back against its checksums, the layers shared out over the ranks; collective.

    Raises `InputError` where there is nothing to verify.
    """
    target, unwritten = on_rank_0(comm, lambda: _read_target(out))
    layout = target.layout
    fault = on_rank_0(comm, lambda: find_fault(target))
    faults = [fault] if fault else [f"layer {n} is not in the journal" for n in unwritten]
    if not faults:
        tally = Tally(comm)
        with (
            ChecksumFile(run_folder(out) / "checksums", layout) as checksums,
            ProgressMeter("verify", layout.shape[0], 0, comm.rank == 0) as meter,
        ):

            def show() -> None:
                if meter.due():
                    meter.update(min(layout.shape[0], tally.totals()[0] * layout.layer))

            def progress() -> None:
                tally.add(fell_back=False)
                show()

            mine = split(len(layout.layers), comm.size)[comm.rank]
            bad = find_bad_chunk(target, checksums, mine, progress)
            tally.finish(show)
        faults = [text for text in comm.allgather(bad) if text]
    faults = [f"{out}: {text}" for text in faults]
    view = out.with_suffix(".xml")
    if not faults:
        size = target.output.voxel_size_nm
        fault = on_rank_0(comm, lambda: find_xml_fault(view, out, size) or "")
        faults = [f"{view}: {fault}"] if fault else []
    return Report(_summary(out, layout, faults), faults)


def _read_target(out: Path) -> tuple[Target, list[int]]:
    """The file as it was laid out, and its layers that are not in the journal."""
    config, facts = _read_run(out)
    folder = run_folder(out)
    written = list(records(folder / "journal", "*.write.log"))
    depths = [r["layer_depth"] for r in written if r["kind"] == "begun"]
    if not depths or not (folder / "checksums").exists():
        raise InputError(f"{out}: {folder} has no record of writing, nothing to verify against")
    layout = make_layout(tuple(facts["shape_zyx"]), depths[-1], config.output)
    there = {r["layer"] for r in written if r["kind"] == "layer"}
    target = make_target(out, layout, facts["dtype"], config.output, append=True)
    return target, [n for n in range(len(layout.layers)) if n not in there]


def _read_run(out: Path) -> tuple[Config, dict[str, Any]]:
    """The settings and the facts of a finished run. Raises `InputError`."""
    folder = run_folder(out)
    if not out.is_file():
        began = "; it was begun but not finished" if folder.is_dir() else ""
        raise InputError(f"{out}: no such file{began}")
    try:
        facts = json.loads((folder / "run.json").read_text())
        config = load_config(folder / "config.toml")
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: cannot be verified without {folder} ({error})") from None
    if config.output.format != "bdv":
        raise InputError(f"{out}: expected a BigDataViewer file")
    return config, facts


def _summary(out: Path, layout: Layout, faults: list[str]) -> str:
    chunks = sum(
        int(np.prod([-(-n // c) for n, c in zip(level.shape, level.chunk, strict=True)]))
        for level in layout.levels
    )
    state = "not as written" if faults else "as written"
    return f"{out}: {chunks} chunks on {len(layout.levels)} levels, tables and XML {state}"
