"""The parts of a stack (`blocks`) joined into the file that one job would have made.

A part was written with transforms settled for its own slices alone. Here they are settled again for
the whole stack, from the journals of all parts; a layer in which one of them differs is made again
from raw, the others are copied (or linked) as they are. The journal of the whole is the parts'
journals together, so `status`, `verify` and `align` take the joined file as they take any other.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv.file import make_target, sync
from amst_hpc.bdv.join import Source, copy_chunks, filters, find_mismatch, link_layers
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.cluster.blocks import Blocks, parts_folder, read_blocks
from amst_hpc.config import Config, InputError, from_tree
from amst_hpc.geometry import Layout, make_layout
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.job.failures import recording_failure
from amst_hpc.job.journal import Journal, differences, next_attempt, records
from amst_hpc.job.run_folder import (
    Run,
    fingerprint,
    forget_output,
    open_run,
    read_registered,
    run_folder,
    view_path,
)
from amst_hpc.passes.products import finish
from amst_hpc.passes.write import aligned_slice
from amst_hpc.pipeline import Outcome, as_registered
from amst_hpc.quality.report import try_report
from amst_hpc.quality.thumbnails import collect_thumbnails
from amst_hpc.registration.fallback import Decision, decide


@dataclass(frozen=True)
class Part:
    """A finished part file: its slices, its registered slices by number and the transforms it was
    written with.
    """

    path: Path
    slices: range
    found: dict[int, dict[str, Any]]
    applied: list[Any]


def merge(out: Path, comm: Any, link: bool = False, overwrite: bool = False) -> Outcome:
    """Join `OUT.parts/` into `OUT.h5`, in one process.

    link : the joined file reads the parts where they are, instead of holding copies. Raises
    `InputError` where a part is missing, not finished or of another job; nothing is written then.
    """
    if comm.size > 1:
        raise InputError(f"merge runs on one process, not {comm.size}")
    with recording_failure(out, comm):
        return _merge(out, comm, link, overwrite)


def _merge(out: Path, comm: Any, link: bool, overwrite: bool) -> Outcome:
    began = time.monotonic()
    blocks = read_blocks(out)
    run, layout = _open(out, blocks, comm, overwrite)
    parts = _read_parts(run, blocks, layout)
    open_run(run, copies=not link)
    run.attempt = next_attempt(run.journal)
    found = {z: record for part in parts for z, record in part.found.items()}
    shape = run.inputs.shape
    decisions = decide([as_registered(found[z]) for z in run.inputs.select], shape)
    forget_output(run)
    view_path(run.job, run.config).unlink(missing_ok=True)
    _join(run, layout, parts, decisions, link)
    run.partial.replace(out)
    run.timings["merge"] = time.monotonic() - began
    finish(run, decisions, found, [run.timings])
    collect_thumbnails([run_folder(part.path) / "thumbnails" for part in parts], run.thumbnails)
    if run.config.output.report:
        try_report(out)
    return Outcome(decisions, 0, view_path(run.job, run.config))


def _open(out: Path, blocks: Blocks, comm: Any, overwrite: bool) -> tuple[Run, Layout]:
    """The job that the parts are blocks of. Raises `InputError`."""
    config: Config = from_tree(blocks.config)
    job = Job(blocks.raw, blocks.prealigned, out, (None, None), overwrite)
    job = dataclasses.replace(job, allow_count_mismatch=blocks.allow_count_mismatch)
    inputs = open_inputs(job, config, comm)
    layout = make_layout((inputs.depth, *inputs.shape), blocks.layer, config.output)
    return Run(job, config, inputs, comm), layout


def _read_parts(run: Run, blocks: Blocks, layout: Layout) -> list[Part]:
    """All parts; `InputError` names the first that is missing, not finished or foreign."""
    wanted = fingerprint(run)
    paths = [blocks.part(run.job.out, n + 1) for n in range(len(blocks.ranges))]
    parts = []
    for path, (start, stop) in zip(paths, blocks.ranges, strict=True):
        name = f"part {path} (slices {start}:{stop})"
        if fault := _state_fault(path):
            raise InputError(f"{name}: {fault}")
        fault = _foreign(path, wanted, [start, stop]) or find_mismatch(
            path, layout, range(start, stop)
        )
        if fault:
            raise InputError(f"{name}: not a part of this job: {fault}")
        if filters(path) != filters(paths[0]):
            found, first = filters(path), filters(paths[0])
            raise InputError(f"{name}: stored as {found}, {paths[0].name} as {first}")
        parts.append(_read_part(path, range(start, stop)))
    return parts


def _state_fault(path: Path) -> str:
    """Why a part is not there or not finished; its XML comes last."""
    if not path.exists() and not run_folder(path).exists():
        return "missing"
    whole = path.exists() and path.with_suffix(".xml").exists()
    return "" if whole else "not finished; the command that began it continues it"


def _foreign(path: Path, wanted: dict[str, Any], slices: list[int]) -> str:
    """What differs from the whole: other inputs or parameters, or another range."""
    try:
        text = (run_folder(path) / "journal" / "fingerprint.json").read_text()
        began = json.loads(text)
    except (OSError, ValueError) as error:
        return f"its journal cannot be read ({error})"
    before = {key: began.get(key) for key in ("inputs", "parameters")}
    changed = differences(before, {key: wanted[key] for key in ("inputs", "parameters")})
    changed += differences(began["output"].get("range"), slices, "range")
    return "; ".join(changed[:3])


def _read_part(path: Path, slices: range) -> Part:
    folder = run_folder(path)
    found = {r["z"]: r for r in records(folder / "journal") if r.get("kind") == "slice"}
    missing = [z for z in slices if z not in found]
    if missing:
        raise InputError(f"part {path}: its journal lacks slice {missing[0]}")
    applied = json.loads((folder / "transforms.json").read_text())
    return Part(path, slices, {z: found[z] for z in slices}, applied)


def _join(
    run: Run, layout: Layout, parts: Sequence[Part], decisions: Sequence[Decision], link: bool
) -> None:
    """Make the file in the run folder; layers whose transforms have changed are made again."""
    changed = _changed_layers(layout, parts, decisions)
    sources = [_source(part, layout, changed) for part in parts]
    made = parts_folder(run.job.out) / "anew.h5" if link else run.partial
    checksums = _copied_checksums(sources)
    known = read_registered(run).keys()
    with Journal(run.journal, run.attempt, 0, "register") as journal:
        for part in parts:
            for z in sorted(part.found.keys() - known):
                journal.write(part.found[z])
    with Journal(run.journal, run.attempt, 0, "write") as journal:
        journal.write({"kind": "begun", "layer_depth": layout.layer})
        if changed or not link:
            checksums |= _make_layers(run, layout, decisions, changed, made)
        if link:
            extra = [Source(made, 0, changed)] if changed else []
            link_layers(run.partial, run.job.out.parent, layout, [*sources, *extra])
        else:
            copy_chunks(made, layout, sources)
        for layer in sorted(checksums):
            journal.write({"kind": "layer", "layer": layer, "checksums": checksums[layer]})
        sync(run.partial)
        journal.write({"kind": "closed"})


def _changed_layers(
    layout: Layout, parts: Sequence[Part], decisions: Sequence[Decision]
) -> list[int]:
    """Layers with a slice whose transform is not the one that its part was written with."""
    changed = set()
    for part in parts:
        for z in part.slices:
            matrix = decisions[z].matrix
            if part.applied[z] != (None if matrix is None else matrix.tolist()):
                changed.add(z // layout.layer)
    return sorted(changed)


def _source(part: Part, layout: Layout, changed: Sequence[int]) -> Source:
    """The layers that are taken from a part as they are."""
    first, stop = part.slices.start // layout.layer, -(-part.slices.stop // layout.layer)
    return Source(part.path, first, [n for n in range(first, stop) if n not in changed])


def _copied_checksums(sources: Sequence[Source]) -> dict[int, Any]:
    """The checksums that the parts' journals hold, by layer of the whole."""
    found = {}
    for source in sources:
        for record in records(run_folder(source.path) / "journal", "*.write.log"):
            if record["kind"] == "layer" and record["layer"] + source.first in source.layers:
                found[record["layer"] + source.first] = record["checksums"]
    return found


def _make_layers(
    run: Run, layout: Layout, decisions: Sequence[Decision], layers: Sequence[int], path: Path
) -> dict[int, Any]:
    """Make a file with all datasets and these layers; their checksums."""
    checksums = {}
    target = make_target(path, layout, run.inputs.dtype, run.config.output)
    with BdvWriter(target, run.comm) as out:
        for layer in layers:
            slices = layout.layers[layer]
            block = np.stack([aligned_slice(run.inputs, z, decisions[z]) for z in slices])
            checksums[layer] = [grid.tolist() for grid in out.write(layer, block)]
    return checksums
