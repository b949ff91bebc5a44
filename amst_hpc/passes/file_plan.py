"""Which file (or OME-Zarr) is written, and which of its layers are there already.

It grows as `OUT.amst/writing.h5` (or `writing.zarr`) and is known by its token, which also stands
in the journal of the ranks that write it: a file of another job, or an older one of the same name,
is never taken for it. A layer counts if it was on disk before its record was, and if the
transforms of its slices are still those it was written with.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from amst_hpc.bdv.direct import ChunkAddresses, DirectFile, create_file, read_addresses
from amst_hpc.bdv.file import Target, make_target, read_token, sync
from amst_hpc.bdv.verify import find_fault
from amst_hpc.bdv.writer import INDEPENDENT, choose_writer
from amst_hpc.config import InputError, Output
from amst_hpc.geometry import Layout, layer_depth, split, usual_layout
from amst_hpc.images.pairing import Inputs
from amst_hpc.job.journal import FORGOTTEN, Journal, records
from amst_hpc.job.room import seal_path
from amst_hpc.job.run_folder import Attempt
from amst_hpc.ome_zarr import folder
from amst_hpc.passes.aligned import AlignedStack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilePlan:
    """The file to write, the layers that it lacks, and where its chunks stand.

    writer : as `choose_writer` gives it. missing : numbers of layers. addresses : of the direct
    writer, else empty.
    """

    target: Target
    writer: str
    missing: Sequence[int]
    addresses: ChunkAddresses = ()

    @property
    def layout(self) -> Layout:
        """Layers, levels and chunks."""
        return self.target.layout


def plan_layout(inputs: Inputs, output: Output) -> Layout:
    """Layers, levels and chunks: of the stack alone, the same for every number of ranks."""
    shape = (len(inputs.select), *inputs.shape)
    return usual_layout(shape, inputs.slice_bytes, output)


def check_layer(inputs: Inputs, output: Output) -> None:
    """Raises `InputError` for mipmap factors or a layer that cannot be."""
    layer_depth((len(inputs.select), *inputs.shape), 1, 1, output)


def plan_file(aligned: AlignedStack, output: Output, attempt: Attempt, ranks: int) -> FilePlan:
    """Find the file that is there, or make it (rank 0). Raises `InputError`, OSError (ENOSPC)."""
    layout, writer = plan_layout(aligned.inputs, output), choose_writer(output, ranks)
    token, keys, closed = _read_journal(attempt)
    target = make_target(attempt.partial, layout, aligned.inputs.dtype, output, append=True)
    target = replace(target, labels=aligned.labels)
    if token and (closed or writer in INDEPENDENT):
        wanted = {n: aligned.key(slices) for n, slices in enumerate(layout.layers)}
        missing = [n for n in wanted if keys.get(n) != wanted[n]]
        if plan := _find_file(replace(target, token=token), writer, missing, attempt):
            return plan
    attempt.forget_output()
    target = replace(target, token=secrets.token_hex(8), append=False)
    addresses = _lay_out(target, writer)
    return FilePlan(target, writer, range(len(layout.layers)), addresses)


def plan_block(aligned: AlignedStack, output: Output, attempt: Attempt, blocks: int) -> FilePlan:
    """The layers that a block of an array still has to write, into the file that `merge` has laid
    out (rank 0). Raises `InputError`.
    """
    layout = plan_layout(aligned.inputs, output)
    token, keys, _ = _read_journal(attempt)
    target = make_target(attempt.partial, layout, aligned.inputs.dtype, output, append=True)
    mine = layers_of_blocks(layout, blocks)[attempt.block - 1]
    missing = [n for n in mine if keys.get(n) != aligned.key(layout.layers[n])]
    plan = None
    if token:
        writer = choose_writer(output, 1)
        plan = _find_file(replace(target, token=token), writer, missing, attempt)
    if plan is None:
        raise InputError(f"OUT {attempt.out}: no file is laid out; expected amst-hpc merge before")
    return plan


def layers_of_blocks(layout: Layout, blocks: int) -> list[range]:
    """The layers that each block of an array writes."""
    return split(len(layout.layers), blocks)


def block_of_layer(plan: FilePlan, blocks: int) -> int:
    """The block, from 1, that writes the first missing layer."""
    mine = layers_of_blocks(plan.layout, blocks)
    return next(n for n, layers in enumerate(mine, 1) if plan.missing[0] in layers)


def record_file(plan: FilePlan, attempt: Attempt) -> None:
    """Put the file that was laid out into the journal, for those who will write it."""
    with attempt.open_journal(0, "write") as journal:
        begin_writing(plan, journal)


def begin_writing(plan: FilePlan, journal: Journal) -> None:
    """The first record of a rank that writes: which file, and how deep its layers are."""
    depth, token = plan.layout.layer, plan.target.token
    journal.write({"kind": "begun", "layer_depth": depth, "token": token})
    journal.sync()


def _read_journal(attempt: Attempt) -> tuple[str, dict[int, str], bool]:
    """Token of the file written last, key of each of its layers, and if all ranks closed it."""
    token, keys, closed = "", dict[int, str](), True
    for path in sorted(attempt.journal.glob("*.write.log")):
        found = list(records(attempt.journal, path.name))
        if not found or "token" not in found[0]:
            closed = False
            continue
        if found[0]["token"] != token:
            token, keys, closed = found[0]["token"], {}, True
        for r in found:
            if r["kind"] == "layer":
                keys[r["layer"]] = r["key"]
            elif r["kind"] == FORGOTTEN:
                keys = {n: key for n, key in keys.items() if n not in r["layers"]}
        closed &= found[-1]["kind"] == "closed"
    return token, keys, closed


def _find_file(
    target: Target, writer: str, missing: Sequence[int], attempt: Attempt
) -> FilePlan | None:
    """The file of this token, under its own name if nothing is missing, else the growing one."""
    token_of, fault_of = (
        (folder.read_token, folder.find_fault) if writer == "shards" else (read_token, find_fault)
    )
    path = next((p for p in (attempt.partial, attempt.out) if token_of(p) == target.token), None)
    if path is None:
        return None
    there = replace(target, path=path)
    try:
        addresses = read_addresses(there) if writer == "direct" else ()
        if fault := fault_of(there):
            raise InputError(f"{path}: {fault}")
    except InputError as error:
        log.warning("%s: it is made anew", error)
        return None
    if path == attempt.out and missing:
        seal_path(attempt.out).unlink(missing_ok=True)
        attempt.out.replace(attempt.partial)
        path = attempt.partial
    return FilePlan(replace(there, path=path), writer, missing, addresses)


def _lay_out(target: Target, writer: str) -> ChunkAddresses:
    if writer == "shards":
        folder.create_folder(target)
    if writer != "direct":
        return ()
    addresses = create_file(target)
    with DirectFile(target.path, target.layout, addresses) as file:
        if not file.reserve(len(target.layout.layers)):
            log.info("%s: this file system cannot keep space free for it", target.path)
    return addresses


def complete_file(plan: FilePlan, attempt: Attempt) -> None:
    """The file gets its name (rank 0); what describes an older one of that name goes first."""
    if plan.target.path == attempt.out:
        return
    seal_path(attempt.out).unlink(missing_ok=True)
    if plan.writer == "shards":
        folder.remove_leftovers(plan.target.path)
        aside = attempt.folder / "replaced.zarr"
        folder.put_in_place(plan.target.path, attempt.out, aside)
        return
    sync(plan.target.path)
    plan.target.path.replace(attempt.out)
    sync(attempt.out.absolute().parent)
