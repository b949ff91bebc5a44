"""`amst-hpc verify`: is a finished file (or OME-Zarr) still what was written?

Every chunk of every level is read back and compared with the checksum that was taken of its voxels
before they were compressed (`OUT.amst/checksums`); the tables and attributes are compared
with those that the settings ask for, and `OUT.xml` (of an OME-Zarr the metadata of its group) with
the one that would be written now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv import verify as bdv_verify
from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.file import Target, make_target
from amst_hpc.bdv.metadata import find_xml_fault
from amst_hpc.bdv.writer import INDEPENDENT, choose_writer
from amst_hpc.config import Config, InputError
from amst_hpc.geometry import make_layout, split
from amst_hpc.job.channels import read_channels, read_origin
from amst_hpc.job.journal import FORGOTTEN, records
from amst_hpc.job.lock import locked
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.room import find_place, seal_path, stem
from amst_hpc.job.run_folder import Attempt, run_folder
from amst_hpc.ome_zarr import folder as zarr_folder
from amst_hpc.ome_zarr import verify as zarr_verify
from amst_hpc.ome_zarr.metadata import find_group_fault
from amst_hpc.parallel.communicator import Communicator, on_rank_0
from amst_hpc.parallel.tally import Tally
from amst_hpc.settings import load_config

MOST_FAULTS = 20  # that are told


@dataclass(frozen=True)
class Report:
    """What was looked at, what is not as it was written, and what to do then."""

    summary: str
    faults: list[str]
    next_step: str = ""


def verify_output(out: Path, comm: Communicator, repair: bool = False) -> Report:
    """Read `OUT.h5` back against its checksums, the layers shared out over the ranks; collective.

    repair : the journal forgets what is damaged. Raises `InputError` where there is nothing to
    verify.
    """
    out = find_place(out)
    target, unwritten = on_rank_0(comm, lambda: _read_target(out))
    zarr = target.output.format == "ome-zarr"
    find_fault = zarr_folder.find_fault if zarr else bdv_verify.find_fault
    fault = on_rank_0(comm, lambda: find_fault(target))
    bad = {n: f"layer {n} is not in the journal" for n in unwritten}
    if not fault and not bad:
        bad = _read_layers(target, comm)
    faults = [f"{out}: {text}" for text in ([fault] if fault else bad.values())]
    if not faults:
        fault = on_rank_0(comm, lambda: _find_seal_fault(target))
        faults = [f"{seal_path(out)}: {fault}"] if fault else []
    if repair and bad and not fault:
        on_rank_0(comm, lambda: _forget(out, target, sorted(bad)))
    elif repair and fault and not bad:
        on_rank_0(comm, lambda: _forget(out, target, []))
    return Report(_summary(target, faults), _shorten(faults), _advice(faults, repair))


def _find_seal_fault(target: Target) -> str:
    """What is wrong with the XML, or with the group of an OME-Zarr; empty if nothing is."""
    out = target.path
    if target.output.format == "ome-zarr":
        return find_group_fault(target, stem(out))
    size, channels = target.output.voxel_size_nm, read_channels(out)
    return find_xml_fault(seal_path(out), out, size, channels, read_origin(out))


def _read_layers(target: Target, comm: Communicator) -> dict[int, str]:
    """See `find_bad_layers`; of all ranks."""
    layout, tally = target.layout, Tally(comm)
    zarr = target.output.format == "ome-zarr"
    find_bad_layers = zarr_verify.find_bad_layers if zarr else bdv_verify.find_bad_layers
    with (
        ChecksumFile(run_folder(target.path) / "checksums", layout) as checksums,
        ProgressMeter("verify", layout.shape[0], 0, comm.rank == 0) as meter,
    ):

        def show() -> None:
            if meter.due():
                meter.update(min(layout.shape[0], tally.totals()[0] * layout.layer))

        def progress() -> None:
            tally.add(fell_back=False)
            show()

        mine = split(len(layout.layers), comm.size)[comm.rank]
        found = find_bad_layers(target, checksums, mine, progress)
        tally.finish(show)
    return {n: text for part in comm.allgather(found) for n, text in part.items()}


def _forget(out: Path, target: Target, layers: list[int]) -> None:
    """Have these layers written again; the whole file where the writer cannot, or without any."""
    with locked(run_folder(out)):
        if layers and choose_writer(target.output, 1) in INDEPENDENT:
            Attempt(out).forget_layers(layers)
        else:
            Attempt(out).forget_output()


def _shorten(faults: list[str]) -> list[str]:
    more = len(faults) - MOST_FAULTS
    return [*faults[:MOST_FAULTS], *([f"and {more} layers more"] if more > 0 else [])]


def _advice(faults: list[str], repair: bool) -> str:
    if not faults:
        return ""
    if repair:
        return "the journal has forgotten it: the command that aligned it writes it again"
    return "amst-hpc verify --repair has it written again by the command that aligned it"


def _read_target(out: Path) -> tuple[Target, list[int]]:
    """The file as it was laid out, and its layers that are not in the journal."""
    config, facts = _read_run(out)
    folder = run_folder(out)
    written = list(records(folder / "journal", "*.write.log"))
    depths = [r["layer_depth"] for r in written if r["kind"] == "begun"]
    if not depths or not (folder / "checksums").exists():
        raise InputError(f"{out}: {folder} has no record of writing, nothing to verify against")
    layout = make_layout(tuple(facts["shape_zyx"]), depths[-1], config.output)
    there = set[int]()
    for r in written:
        if r["kind"] == "layer":
            there.add(r["layer"])
        elif r["kind"] == FORGOTTEN:
            there.difference_update(r["layers"])
    target = make_target(out, layout, facts["dtype"], config.output, append=True)
    target = replace(target, labels=facts["labels"])
    return target, [n for n in range(len(layout.layers)) if n not in there]


def _read_run(out: Path) -> tuple[Config, dict[str, Any]]:
    """The settings and the facts of a finished run. Raises `InputError`."""
    folder = run_folder(out)
    if not out.exists():
        began = "; it was begun but not finished" if folder.is_dir() else ""
        raise InputError(f"{out}: no such file{began}")
    try:
        run = json.loads((folder / "run.json").read_text())
        facts = {key: run[key] for key in ("shape_zyx", "dtype")}
        facts["labels"] = bool(run.get("applied", {}).get("nearest"))
        config = load_config(folder / "config.toml")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{out}: cannot be verified without {folder} ({error})") from None
    if config.output.format == "tif":
        raise InputError(f"{out}: expected a BigDataViewer file or an OME-Zarr")
    return config, facts


def _summary(target: Target, faults: list[str]) -> str:
    layout = target.layout
    chunks = sum(
        int(np.prod([-(-n // c) for n, c in zip(level.shape, level.chunk, strict=True)]))
        for level in layout.levels
    )
    state = "not as written" if faults else "as written"
    tables = "metadata" if target.output.format == "ome-zarr" else "tables and XML"
    return f"{target.path}: {chunks} chunks on {len(layout.levels)} levels, {tables} {state}"
