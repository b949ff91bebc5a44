"""The main job, `align`: raw slices and their coarse pre-alignment in, a BigDataViewer file out.

Two passes. Each rank first registers its share of the slices (template, coarse, refine); every
result is in the journal before it counts. When all are there, the transforms are settled for the
whole stack at once (`registration.fallback`), and the ranks resample raw once and write the layers,
each rank its own into one file. Bad slices are judged against the whole stack, and a restart with
another number of ranks gives the same voxels.

Where raw is alone, its slices are compared and placed first (`passes.prealign`), and the templates
are made of slices that were moved onto each other.

The tasks of an array do the same in four steps (`cluster.blocks`): each registers its block,
`merge` settles, each writes its layers, `merge` completes. Raw alone takes six.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from amst_hpc.bdv.writer import choose_writer
from amst_hpc.cluster.blocks import Blocks, plan_blocks, read_blocks, record_blocks
from amst_hpc.config import Config, InputError, Output
from amst_hpc.images.headers import WHOLE, Part
from amst_hpc.images.pairing import Inputs, Job, describe_raw, open_inputs
from amst_hpc.job.done import keep_done, read_done, report_is_drawn
from amst_hpc.job.failures import recording_failure, refuse_fruitless_restart
from amst_hpc.job.journal import write_whole
from amst_hpc.job.room import check_room, find_place
from amst_hpc.job.run_folder import Attempt, has_begun, open_attempt, seen_before, view_path
from amst_hpc.opencl.devices import check_device, prepare
from amst_hpc.outcome import Outcome
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0
from amst_hpc.parallel.node import cores_per_rank, local_place, scratch_folder
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.passes.aligned import AlignedStack, open_resampler
from amst_hpc.passes.file_plan import (
    block_of_layer,
    check_layer,
    complete_file,
    plan_block,
    plan_file,
    record_file,
)
from amst_hpc.passes.pair import PairWork, pair_slices
from amst_hpc.passes.prealign import (
    FAR,
    compare_raw,
    compare_whole,
    describe_canvas,
    keep_placed,
    move,
    place_raw,
    place_whole,
    placed_results,
    read_placed,
)
from amst_hpc.passes.products import write_products
from amst_hpc.passes.register import register_slices
from amst_hpc.passes.write import write_layers
from amst_hpc.passes.write_tiff import write_tiffs
from amst_hpc.placement import Placement
from amst_hpc.preflight.same_tissue import refuse_other_tissue
from amst_hpc.preflight.voxel_size import settle_voxel_size
from amst_hpc.registration.elastix import check_refine
from amst_hpc.registration.elastix_trial import try_elastix
from amst_hpc.registration.fallback import choose_transforms
from amst_hpc.registration.mending import apply_overrides, hide
from amst_hpc.registration.prealign import hold
from amst_hpc.registration.solve import solve
from amst_hpc.settings import from_tree
from amst_hpc.slice_result import SliceResult, to_csv

NEXT = "when all blocks are: amst-hpc merge"


def align(
    job: Job, config: Config, comm: Communicator, block: tuple[int, int] | None = None
) -> Outcome:
    """Align a stack (Hennies et al., Sci Rep 10, 2004 (2020)); collective over `comm`.

    block : (I, N), the next step of block I of N. Raises `InputError` (on every rank, before
    anything is written) and `Stopped`.
    """
    number = block[0] if block else 0
    job = on_all_ranks(comm, lambda: replace(job, out=find_place(job.out)))
    with recording_failure(job.out, comm, number):
        on_rank_0(comm, lambda: refuse_fruitless_restart(job.out, number))
        part = _part_of(block, job, config) if block else WHOLE
        before = seen_before(job, number) if comm.rank == 0 else []
        inputs = open_inputs(job, config, comm, part, before)
        config, inputs = settle_voxel_size(job, config, inputs, comm)
        with ready_tools(job, config, inputs, comm):
            wanted = config.input.compare and not inputs.alone
            if wanted and not on_rank_0(comm, lambda: has_begun(job)):
                refuse_other_tissue(inputs, comm)
            if block:
                return _align_block(job, config, inputs, comm, block)
            return _align_whole(job, config, inputs, comm)


def _part_of(block: tuple[int, int], job: Job, config: Config) -> Part:
    """A block, with the slices that those of its templates and pairs need."""
    reach = config.neighbours.reach if config.neighbours.enabled else 0
    farthest = max(reach, *FAR) if job.prealign else reach
    return Part(*block, config.template.radius + farthest)


def _align_whole(job: Job, config: Config, inputs: Inputs, comm: Communicator) -> Outcome:
    began, view = time.monotonic(), view_path(job.out, config.output)
    with open_attempt(job, config, inputs, comm) as attempt:
        done = read_done(job, attempt, config, inputs) if comm.rank == 0 else []
        if comm.bcast(bool(done)):
            drawn = comm.rank or not config.output.report or report_is_drawn(attempt)
            report = None if drawn else job.out
            return Outcome(done, view, job.strict, placing=job.placing, report=report)
        with StopRequest(attempt.stop_flag) as stop:
            seconds = dict[str, float]()
            if inputs.alone:
                inputs, seen = place_whole(inputs, config, attempt, comm, stop)
                on_rank_0(comm, lambda: check_room(job, config, inputs, attempt.partial, True))
                seconds["compare"] = time.monotonic() - began
            if job.placing:
                results = on_rank_0(comm, lambda: placed_results(inputs, seen))
            else:
                results, laps = _register(inputs, config, attempt, comm, stop)
                seconds |= laps
            outcome = Outcome(results, view, job.strict, placing=job.placing)
            if outcome.refused:
                table = attempt.folder / "slices.csv"
                on_rank_0(comm, lambda: write_whole(table, to_csv(results)))
                return outcome
            settled = time.monotonic()
            aligned = AlignedStack(inputs, results, open_resampler(config, comm))
            write_output(aligned, config.output, attempt, comm, stop)
        written = time.monotonic()
        seconds |= {"write": written - settled, "total": written - began}
        attempt.refuse_late_changes(inputs, config.template.radius, comm)
        facts = describe_ranks(config, attempt, comm, seconds) | describe_raw(inputs)
        facts |= describe_canvas(inputs)
        on_rank_0(comm, lambda: write_products(job, config, inputs, results, facts))
        on_rank_0(comm, lambda: keep_done(job, attempt, config, inputs, results))
    return replace(outcome, report=job.out if config.output.report else None)


def _register(
    inputs: Inputs, config: Config, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> tuple[list[SliceResult], dict[str, float]]:
    """The first pass and the pairs: all slices settled, and the seconds of this rank."""
    found, seconds = register_slices(inputs, config, attempt, comm, stop)
    registered = time.monotonic()
    work = PairWork(inputs, {r.z: r for r in found}, config.neighbours)
    pairs = pair_slices(work, config.coarse.device, attempt, comm, stop)
    seconds["pair"] = time.monotonic() - registered
    return on_rank_0(comm, lambda: settle(found, pairs, inputs, config)), seconds


def settle(
    found: Sequence[SliceResult], pairs: Sequence[PairResult], inputs: Inputs, config: Config
) -> list[SliceResult]:
    """Status and transform of every slice, for the whole stack at once."""
    shape, overrides = inputs.shape, inputs.overrides
    chosen = choose_transforms(hide(found, overrides), shape)
    results = chosen
    if inputs.canvas:
        results = hold(chosen, inputs.canvas.placement, shape, config.template.radius)
    elif config.neighbours.enabled:
        results = solve(chosen, pairs, shape, config.drift.period)
    if not overrides:
        return results
    return apply_overrides(overrides, choose_transforms(found, shape), chosen, results)


def write_output(
    aligned: AlignedStack, output: Output, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """Write the aligned stack in the format of the configuration; collective. Raises `Stopped`."""
    if output.format == "tif":
        write_tiffs(aligned, output, attempt, comm, stop)
        return
    plan = on_rank_0(comm, lambda: plan_file(aligned, output, attempt, comm.size))
    write_layers(aligned, plan, attempt, comm, stop)
    on_rank_0(comm, lambda: complete_file(plan, attempt))


def _align_block(
    job: Job, config: Config, inputs: Inputs, comm: Communicator, block: tuple[int, int]
) -> Outcome:
    """Register the block and its pairs; when the whole is settled, write its layers."""
    (number, count), view = block, view_path(job.out, config.output)
    blocks = on_all_ranks(comm, lambda: plan_blocks(job, config, inputs, count))
    mine = blocks.slices(number)
    with (
        open_attempt(job, config, inputs, comm, number) as attempt,
        StopRequest(attempt.stop_flag) as stop,
    ):
        on_rank_0(comm, lambda: record_blocks(job.out, blocks))
        began, seconds = time.monotonic(), dict[str, float]()
        told = f"block {number} of {count}: slices {mine.start} to {mine.stop - 1} are"
        if inputs.alone:
            placement = on_rank_0(comm, lambda: read_placed(attempt, inputs.overrides))
            if placement is None:
                _compare_block(replace(inputs, select=mine), config, attempt, comm, stop)
                return Outcome([], view, next_step=f"{told} compared; {NEXT} {job.out}")
            inputs = move(placement, inputs, config, comm)
        part = replace(inputs, select=mine)
        settled = on_rank_0(comm, lambda: attempt.read_settled(inputs.overrides))
        if job.retry or not settled:
            _, seconds = register_slices(_with_halo(part, config), config, attempt, comm, stop)
        registered = time.monotonic()
        pairs = PairWork(part, _registered(part, config, attempt, comm), config.neighbours)
        pair_slices(pairs, config.coarse.device, attempt, comm, stop)
        paired = time.monotonic()
        seconds |= {"pair": paired - registered, "total": paired - began}
        if not settled:
            attempt.record_seconds(comm.rank, seconds)
            return Outcome([], view, next_step=f"{told} registered; {NEXT} {job.out}")
        aligned = AlignedStack(inputs, settled, open_resampler(config, comm))
        plan = on_rank_0(comm, lambda: plan_block(aligned, config.output, attempt, count))
        write_layers(aligned, plan, attempt, comm, stop)
        written = time.monotonic()
        seconds |= {"write": written - paired, "total": written - began}
        attempt.record_seconds(comm.rank, seconds)
    told = f"block {number} of {count}: its layers are written; {NEXT} {job.out}"
    return Outcome([], view, next_step=told)


def _compare_block(
    part: Inputs, config: Config, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    began = time.monotonic()
    work = compare_whole(replace(part, select=range(part.depth)), config)
    compare_raw(replace(work, first=part.select), attempt, comm, stop)
    seconds = time.monotonic() - began
    attempt.record_seconds(comm.rank, {"compare": seconds, "total": seconds})


def _with_halo(part: Inputs, config: Config) -> Inputs:
    """And the slices after `part` that its pairs need."""
    reach = config.neighbours.reach if config.neighbours.enabled and not part.alone else 0
    return replace(part, select=range(part.select.start, min(part.select.stop + reach, part.depth)))


def _registered(
    part: Inputs, config: Config, attempt: Attempt, comm: Communicator
) -> dict[int, SliceResult]:
    """What the journal holds of the slices of a block and its halo; on rank 0."""
    part, radius = _with_halo(part, config), config.template.radius
    return attempt.registered(part, radius, provisional=True) if comm.rank == 0 else {}


def merge(out: Path, comm: Communicator) -> Outcome:
    """Settle the transforms of a stack that was registered in blocks, so that the blocks can write
    their layers; complete it when they have. In one process; raises `InputError`.
    """
    if comm.size > 1:
        raise InputError(f"merge runs on one process, not {comm.size}")
    out = find_place(out)
    with recording_failure(out, comm):
        began = time.monotonic()
        blocks = read_blocks(out)
        config = from_tree(blocks.config)
        job = Job(blocks.raw, blocks.prealigned, out)
        job = replace(job, allow_count_mismatch=blocks.allow_count_mismatch)
        inputs = open_inputs(job, config, comm, before=seen_before(job))
        inputs = replace(inputs, overrides=blocks.decided)
        config, inputs = settle_voxel_size(job, config, inputs, comm)
        view = view_path(out, config.output)
        with open_attempt(job, config, inputs, comm) as attempt:
            if inputs.alone:
                placement, new = _place_blocks(inputs, config, blocks, attempt)
                if new:
                    told = "the raw slices are placed; now every block registers its slices"
                    return Outcome([], view, next_step=f"{told}: the same commands once more")
                inputs = move(placement, inputs, config, comm)
            results = _settle_blocks(inputs, config, blocks, attempt)
            settled_now = attempt.settle(results, blocks.decided)
            plan = plan_file(AlignedStack(inputs, results), config.output, attempt, 1)
            if plan.missing:
                record_file(plan, attempt)
                if not settled_now:
                    n = block_of_layer(plan, len(blocks.ranges))
                    raise InputError(f"OUT {out}: {_missing(blocks, n, 'written')}")
                told = "the transforms of the whole stack are settled; now every block writes its"
                return Outcome([], view, next_step=f"{told} layers: the same commands once more")
            complete_file(plan, attempt)
            facts = describe_ranks(config, attempt, comm, {"merge": time.monotonic() - began})
            facts |= describe_blocks(attempt, len(blocks.ranges)) | describe_raw(inputs)
            facts |= describe_canvas(inputs)
            write_products(job, config, inputs, results, facts)
    return Outcome(results, view, report=out if config.output.report else None)


def _place_blocks(
    inputs: Inputs, config: Config, blocks: Blocks, attempt: Attempt
) -> tuple[Placement, bool]:
    """Where the raw slices lie that the blocks have compared, and if that is new.

    Raises `InputError` for a block that has not compared its slices.
    """
    seen, pairs, missing = compare_whole(inputs, config).split(attempt, provisional=True)
    for z, _ in missing:
        raise InputError(f"OUT {attempt.out}: {_missing(blocks, blocks.find(z), 'compared')}")
    ordered = [pair for _, pair in sorted(pairs.items())]
    placement = place_raw(seen, ordered, inputs, config)
    return placement, keep_placed(attempt, placement, blocks.decided)


def _settle_blocks(
    inputs: Inputs, config: Config, blocks: Blocks, attempt: Attempt
) -> list[SliceResult]:
    """All slices, settled. Raises `InputError` for a block that has not registered its slices."""
    found = attempt.registered(inputs, config.template.radius, provisional=True)
    for z in inputs.select:
        if z not in found:
            raise InputError(f"OUT {attempt.out}: {_missing(blocks, blocks.find(z), 'registered')}")
    pairs, absent = PairWork(inputs, found, config.neighbours).split(attempt)
    for z, _ in absent:
        raise InputError(f"OUT {attempt.out}: {_missing(blocks, blocks.find(z), 'registered')}")
    return settle([found[z] for z in inputs.select], list(pairs.values()), inputs, config)


def _missing(blocks: Blocks, n: int, what: str) -> str:
    start, stop = blocks.ranges[n - 1]
    return (
        f"block {n} (slices {start}:{stop}) is not {what}; the command that began it continues it"
    )


def describe_ranks(
    config: Config, attempt: Attempt, comm: Communicator, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What run.json says of the ranks; collective."""
    parts = comm.allgather({key: round(value, 3) for key, value in seconds.items()})
    return {
        "ranks": comm.size,
        "attempt": attempt.number,
        "writer": choose_writer(config.output, comm.size),
        "seconds_per_rank": parts,
    }


def describe_blocks(attempt: Attempt, blocks: int) -> dict[str, Any]:
    """The same of the tasks that made the blocks: each of their ranks, all steps together."""
    parts = attempt.seconds()
    return {"blocks": blocks, "ranks": len(parts), "seconds_per_rank": parts}


@contextmanager
def ready_tools(job: Job, config: Config, inputs: Inputs, comm: Communicator) -> Iterator[None]:
    """Makes OpenCL ready and checks all that the settings name, before anything is written.

    Raises `InputError` for a device, program, elastix parameter or writer that is not there.
    """
    with ready_opencl(comm):

        def check() -> None:
            sift, alone = config.coarse.method == "sift", config.refine.backend == "gauss-newton"
            if sift or alone or config.neighbours.enabled or inputs.alone:
                check_device(config.coarse.device)
            if not job.placing:
                check_refine(config.refine)
            check_output(config.output, inputs, comm)

        on_all_ranks(comm, check)
        if not job.placing:
            # on every rank: each loads elastix here that would load it for its first slice
            on_all_ranks(comm, lambda: try_elastix(config.refine))
        yield


@contextmanager
def ready_opencl(comm: Communicator) -> Iterator[None]:
    """Makes OpenCL ready; nothing is computed there."""
    local_rank, _ = local_place(comm)
    with ExitStack() as held:
        scratch = on_all_ranks(comm, lambda: held.enter_context(scratch_folder(local_rank)))
        prepare(scratch, cores_per_rank(comm))
        yield


def check_output(output: Output, inputs: Inputs, comm: Communicator) -> None:
    """Raises `InputError` for a writer that is not there, or layers that cannot be."""
    if output.format != "tif":
        choose_writer(output, comm.size)
        check_layer(inputs, output)
