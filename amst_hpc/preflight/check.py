"""`amst-hpc check`: what is wrong with the input, and what the job will need, before it is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from amst_hpc.config import Config, InputError
from amst_hpc.images.chunked import block_bytes
from amst_hpc.images.headers import check_header, is_larger, margin_fault, sample_of
from amst_hpc.images.opening import open_stack
from amst_hpc.images.pairing import (
    common_depth,
    describe_stacks,
    refuse_other_numbers,
)
from amst_hpc.images.stack import SliceError, Stack
from amst_hpc.job.progress import ProgressMeter, duration
from amst_hpc.preflight.estimate import JobEstimate, estimate, with_prealignment
from amst_hpc.preflight.same_tissue import compare, order_note, sample, tissue_fault
from amst_hpc.preflight.voxel_size import find_voxel_size
from amst_hpc.registration.elastix import check_refine
from amst_hpc.registration.elastix_trial import try_elastix

CANVAS = (
    "canvas: grows with the motion of raw, by how much is known when it is pre-aligned; memory and "
    "disk are for the size of raw"
)


@dataclass(frozen=True)
class Report:
    """Lines to read and faults that would stop the job."""

    lines: list[str]
    faults: list[str]


def check_inputs(
    raw_source: str, prealigned_source: str, config: Config, allow_mismatch: bool
) -> Report:
    """Check both stacks, or RAW alone where `prealigned_source` is empty.

    Raises `InputError` where they cannot even be opened.
    """
    raw = open_stack(raw_source, "RAW")
    prealigned = open_stack(prealigned_source, "PREALIGNED") if prealigned_source else raw
    stacks = {"RAW": raw} | ({"PREALIGNED": prealigned} if prealigned_source else {})
    check_refine(config.refine)
    try_elastix(config.refine)
    faults, lines = [], []
    try:
        depth = common_depth(raw, prealigned, allow_mismatch)
        refuse_other_numbers(raw, prealigned, config)
    except InputError as error:
        faults.append(str(error))
        depth = min(len(raw.names), len(prealigned.names))
    lines += [_describe(stack, option) for option, stack in stacks.items()]
    lines += describe_stacks(raw, prealigned)
    voxel = find_voxel_size(stacks, config.output.voxel_size_nm)
    lines += [*voxel.notes, *voxel.warnings]
    config = replace(config, output=replace(config.output, voxel_size_nm=voxel.nm))
    found, blank = _look_at(stacks, depth)
    faults += found
    if config.input.compare and prealigned_source and not faults:
        compared = compare(raw, prealigned, sample(range(depth)))
        faults += filter(None, [tissue_fault(compared)])
        lines += filter(None, [order_note(compared)])
    lines += blank
    grows = not prealigned_source and config.prealign.canvas == "grow"
    lines += [CANVAS] if grows else []
    lines += describe_need(_need(raw, prealigned, depth, config))
    return Report(lines, faults)


def _look_at(stacks: Mapping[str, Stack], depth: int) -> tuple[list[str], list[str]]:
    """What is wrong with the slices, and which are black."""
    first = {option: stack.header(0) for option, stack in stacks.items()}
    canvas = [*first.values()][-1].shape
    faults: list[str] = []
    large: list[int] = []
    blank: dict[str, list[str]] = {option: [] for option in stacks}
    with ProgressMeter("check", depth, 0, True) as meter:
        for z in range(depth):
            for option, stack in stacks.items():
                header, fault = check_header(stack, z, option, first[option])
                if fault:
                    faults.append(fault)
                    continue
                blank[option] += _if_blank(stack, z, option, faults)
                if header and is_larger(header.shape, canvas):
                    large.append(z)
            if meter.due():
                meter.update(z + 1)
    faults += filter(None, [margin_fault(stacks["RAW"], z, canvas) for z in sample_of(large)])
    return faults, [_describe_blank(option, names) for option, names in blank.items() if names]


def _need(raw: Stack, prealigned: Stack, depth: int, config: Config) -> JobEstimate:
    """Of the job; raw alone stands for both stacks."""
    first = raw.header(0), prealigned.header(0)
    held = block_bytes(raw) + block_bytes(prealigned)
    need = estimate(depth, first[1].shape, first[0].dtype, config, held)
    return with_prealignment(need, first[1].shape) if prealigned is raw else need


def _describe(stack: Stack, option: str) -> str:
    header = stack.header(0)
    height, width = header.shape
    return (
        f"{option} {stack.source}: {len(stack.names)} slices of {height} x {width} px (y, x), "
        f"{header.dtype}"
    )


def _describe_blank(option: str, names: list[str]) -> str:
    more = " ..." if len(names) > 8 else ""
    return f"{option}: {len(names)} black or constant slices: {', '.join(names[:8])}{more}"


def _if_blank(stack: Stack, z: int, option: str, faults: list[str]) -> list[str]:
    try:
        return [stack.names[z]] if stack.is_constant(z) else []
    except SliceError as error:
        faults.append(f"{option} {error}")
        return []


def describe_need(need: JobEstimate) -> list[str]:
    """Time, memory and disk that the job will take."""
    cores = os.cpu_count() or 1
    rank = f"{need.rank_bytes / 1e9:.1f} GB per rank"
    together = f"{cores * need.rank_bytes / 1e9:.0f} GB for one rank each"
    one, many = duration(need.seconds), duration(need.seconds / 64)
    return [
        f"time: about {one} on one rank, {many} on 64 ranks",
        f"memory: about {rank} ({cores} cores here: {together})",
        f"disk: up to {need.output_bytes / 1e9:.2f} GB",
    ]
