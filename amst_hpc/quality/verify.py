"""`amst-hpc verify`: is a finished file still what was written?

Every chunk of every level is read back and compared with the checksum that was taken of its voxels
before they were compressed (`OUT.amst/journal/*.write.log`); the tables and attributes are compared
with those that the settings ask for, and `OUT.xml` with the one that would be written now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.metadata import find_xml_fault
from amst_hpc.bdv.verify import find_faults
from amst_hpc.config import Config, InputError, load_config
from amst_hpc.geometry import Layout, make_layout
from amst_hpc.job.journal import records
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import run_folder


@dataclass(frozen=True)
class Report:
    """What was looked at, and what is not as it was written."""

    summary: str
    faults: list[str]


def verify_output(out: Path) -> Report:
    """Read `OUT.h5` back against its journal.

    Raises `InputError` where there is nothing to verify.
    """
    config, facts = _read_run(out)
    written = list(records(run_folder(out) / "journal", "*.write.log"))
    depths = [r["layer_depth"] for r in written if r["kind"] == "begun"]
    if not depths:
        raise InputError(f"{out}: its journal has no record of writing, nothing to verify against")
    layout = make_layout(tuple(facts["shape_zyx"]), depths[0], config.output)
    checksums = {
        r["layer"]: [np.array(grid, np.uint32) for grid in r["checksums"]]
        for r in written
        if r["kind"] == "layer"
    }
    target = make_target(out, layout, facts["dtype"], config.output, append=True)
    with ProgressMeter("verify", layout.shape[0], 0, True) as meter:

        def tell(layers: int) -> None:
            if meter.due():
                meter.update(min(layers * layout.layer, layout.shape[0]))

        faults = [f"{out}: {fault}" for fault in find_faults(target, checksums, tell)]
    view = out.with_suffix(".xml")
    if not faults and (fault := find_xml_fault(view, out, config.output.voxel_size_nm)):
        faults = [f"{view}: {fault}"]
    return Report(_summary(out, layout, faults), faults)


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
