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

from amst_hpc.bdv.file import make_target, sync
from amst_hpc.bdv.join import Source, copy_chunks, filters, find_mismatch, link_layers
from amst_hpc.bdv.writer import BdvWriter, choose_writer
from amst_hpc.cluster.blocks import Blocks, parts_folder, read_blocks
from amst_hpc.config import Config, InputError, from_tree
from amst_hpc.geometry import Layout, make_layout
from amst_hpc.images.pairing import Inputs, Job, open_inputs
from amst_hpc.job.journal import differences, records
from amst_hpc.job.run_folder import Attempt, begin_attempt, fingerprint, run_folder, view_path
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.passes.products import write_products
from amst_hpc.passes.write import AlignedStack
from amst_hpc.quality.report import try_report
from amst_hpc.quality.thumbnails import collect_thumbnails
from amst_hpc.registration.fallback import choose_transforms
from amst_hpc.slice_result import SliceResult


@dataclass(frozen=True)
class Part:
    """A finished part file: its slices, what was registered of each, and the transforms (of all
    slices of RAW) that it was written with.
    """

    path: Path
    slices: range
    found: dict[int, SliceResult]
    applied: list[Any]


@dataclass(frozen=True)
class Whole:
    """The job that the parts are blocks of."""

    job: Job
    config: Config
    inputs: Inputs
    layout: Layout
    blocks: Blocks
    comm: Communicator


def join_parts(
    out: Path, comm: Communicator, link: bool, overwrite: bool
) -> tuple[Config, list[SliceResult]]:
    """Join `OUT.parts/` into `OUT.h5`, in one process; the settings and the results of the whole.

    link : the joined file reads the parts where they are, instead of holding copies. Raises
    `InputError` where a part is missing, not finished or of another job; nothing is written then.
    """
    if comm.size > 1:
        raise InputError(f"merge runs on one process, not {comm.size}")
    began = time.monotonic()
    whole = _open(out, comm, overwrite)
    parts = _read_parts(whole)
    job, config, inputs = whole.job, whole.config, whole.inputs
    attempt = begin_attempt(job, config, inputs, copies=not link)
    found = {z: result for part in parts for z, result in part.found.items()}
    results = choose_transforms([found[z] for z in inputs.select], inputs.shape)
    attempt.forget_output()
    view_path(out, config.output).unlink(missing_ok=True)
    _join(whole, attempt, parts, results, link)
    attempt.partial.replace(out)
    facts = {
        "ranks": 1,
        "attempt": attempt.number,
        "writer": choose_writer(config.output, 1),
        "seconds_per_rank": [{"merge": round(time.monotonic() - began, 3)}],
    }
    write_products(job, config, inputs, results, facts)
    thumbnails = [run_folder(part.path) / "thumbnails" for part in parts]
    collect_thumbnails(thumbnails, attempt.thumbnails)
    if config.output.report:
        try_report(out)
    return config, results


def _open(out: Path, comm: Communicator, overwrite: bool) -> Whole:
    """Raises `InputError`."""
    blocks = read_blocks(out)
    config: Config = from_tree(blocks.config)
    job = Job(blocks.raw, blocks.prealigned, out, (None, None), overwrite)
    job = dataclasses.replace(job, allow_count_mismatch=blocks.allow_count_mismatch)
    inputs = open_inputs(job, config, comm)
    layout = make_layout((inputs.depth, *inputs.shape), blocks.layer, config.output)
    return Whole(job, config, inputs, layout, blocks, comm)


def _read_parts(whole: Whole) -> list[Part]:
    """All parts; `InputError` names the first that is missing, not finished or foreign."""
    wanted = fingerprint(whole.inputs, whole.config)
    blocks = whole.blocks
    paths = [blocks.part(whole.job.out, n + 1) for n in range(len(blocks.ranges))]
    parts = []
    for path, (start, stop) in zip(paths, blocks.ranges, strict=True):
        name = f"part {path} (slices {start}:{stop})"
        if fault := _state_fault(path):
            raise InputError(f"{name}: {fault}")
        fault = _foreign(path, wanted, [start, stop]) or find_mismatch(
            path, whole.layout, range(start, stop)
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
    found = Attempt(path).registered(slices)
    missing = [z for z in slices if z not in found]
    if missing:
        raise InputError(f"part {path}: its journal lacks slice {missing[0]}")
    applied = json.loads((run_folder(path) / "transforms.json").read_text())
    return Part(path, slices, found, applied)


def _join(
    whole: Whole,
    attempt: Attempt,
    parts: Sequence[Part],
    results: Sequence[SliceResult],
    link: bool,
) -> None:
    """Make the file in the run folder; layers whose transforms have changed are made again."""
    layout, out = whole.layout, whole.job.out
    changed = _changed_layers(layout, parts, results)
    sources = [_source(part, layout, changed) for part in parts]
    made = parts_folder(out) / "anew.h5" if link else attempt.partial
    checksums = _copied_checksums(sources)
    known = attempt.registered(whole.inputs.select).keys()
    with attempt.open_journal(0, "register") as journal:
        for part in parts:
            for z in sorted(part.found.keys() - known):
                journal.write(part.found[z].to_record())
    with attempt.open_journal(0, "write") as journal:
        journal.write({"kind": "begun", "layer_depth": layout.layer})
        if changed or not link:
            checksums |= _make_layers(whole, results, changed, made)
        if link:
            extra = [Source(made, 0, changed)] if changed else []
            link_layers(attempt.partial, out.parent, layout, [*sources, *extra])
        else:
            copy_chunks(made, layout, sources)
        for layer in sorted(checksums):
            journal.write({"kind": "layer", "layer": layer, "checksums": checksums[layer]})
        sync(attempt.partial)
        journal.write({"kind": "closed"})


def _changed_layers(
    layout: Layout, parts: Sequence[Part], results: Sequence[SliceResult]
) -> list[int]:
    """Layers with a slice whose transform is not the one that its part was written with."""
    changed = set()
    for part in parts:
        for z in part.slices:
            transform = results[z].transform
            if part.applied[z] != (None if transform is None else transform.tolist()):
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
    whole: Whole, results: Sequence[SliceResult], layers: Sequence[int], path: Path
) -> dict[int, Any]:
    """Make a file with all datasets and these layers; their checksums."""
    checksums = {}
    layout, aligned = whole.layout, AlignedStack(whole.inputs, results)
    target = make_target(path, layout, whole.inputs.dtype, whole.config.output)
    with BdvWriter(target, whole.comm) as out:
        for layer in layers:
            block = aligned.layer(layout.layers[layer])
            checksums[layer] = [grid.tolist() for grid in out.write(layer, block)]
    return checksums
