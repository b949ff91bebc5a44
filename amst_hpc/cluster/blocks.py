"""One stack cut into blocks of whole layers, each aligned by a job of its own into a part file of
its own.

The parts of `OUT.h5` stand in `OUT.parts/`, with `blocks.json`, which says how the stack was cut.
All parts have the mipmap levels and the layer depth of the whole stack, and each holds at least one
full layer: so the chunks of a part are, byte for byte, chunks of the whole (`merge`).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from amst_hpc.config import Config, InputError, to_tree
from amst_hpc.geometry import LAYER_DEPTHS, Zyx, layer_depth, level_factors, split
from amst_hpc.images.pairing import Inputs, Job, open_inputs
from amst_hpc.job.failures import recording_failure
from amst_hpc.job.journal import differences, write_whole
from amst_hpc.parallel.communicator import on_all_ranks


@dataclass(frozen=True)
class Blocks:
    """How a stack is cut. `config`: the settings of the whole, as tables."""

    raw: str
    prealigned: str
    layer: int
    ranges: list[list[int]]
    config: dict[str, Any]
    allow_count_mismatch: bool = False

    def part(self, out: Path, block: int) -> Path:
        """The part file of block 1, 2, ..."""
        return parts_folder(out) / f"part-{block:04d}.h5"


def parts_folder(out: Path) -> Path:
    """`OUT.parts` beside `OUT.h5`."""
    return out.with_suffix(".parts")


def cut(depth: int, layer: int, blocks: int) -> list[range]:
    """The slices of each block: whole layers, equal to within one; a last layer that is not full
    adds to the last.

    Raises `InputError` if there are fewer full layers than blocks.
    """
    full = max(1, depth // layer)
    if not 1 <= blocks <= full:
        raise InputError(
            f"{blocks} blocks: expected 1 to {full}, the full layers of {layer} in {depth} slices"
        )
    ranges = [range(part.start * layer, part.stop * layer) for part in split(full, blocks)]
    return [*ranges[:-1], range(ranges[-1].start, depth)]


def plan_blocks(job: Job, config: Config, inputs: Inputs, blocks: int) -> Blocks:
    """The cut of a stack; the same in every job. Raises `InputError`."""
    if config.output.format != "bdv":
        raise InputError(f"output.format = {config.output.format!r}: expected bdv for blocks")
    if job.range != (None, None):
        raise InputError("--range: expected none with blocks, which take the whole stack")
    shape = (inputs.depth, *inputs.shape)
    layer = _common_layer(shape, inputs.slice_bytes, config, blocks)
    ranges = [[part.start, part.stop] for part in cut(shape[0], layer, blocks)]
    return Blocks(job.raw, job.prealigned, layer, ranges, to_tree(config), job.allow_count_mismatch)


def _common_layer(shape: Zyx, slice_bytes: int, config: Config, blocks: int) -> int:
    """Slices in a layer of all parts: as for so many ranks, and so few that each part has one."""
    layer = layer_depth(shape, slice_bytes, blocks, config.output)
    least = max(LAYER_DEPTHS[-1], *(z for z, _, _ in level_factors(shape, config.output)))
    while not config.output.layer and layer > least and shape[0] // layer < blocks:
        layer //= 2
    return layer


def part_settings(config: Config, shape: Zyx, layer: int) -> Config:
    """The settings of a part: the levels and the layer of the whole stack of this shape, spelled
    out.
    """
    cumulated = level_factors(shape, config.output)
    steps = tuple(
        tuple(b // a for a, b in zip(above, below, strict=True))
        for above, below in pairwise(cumulated)
    )
    output = dataclasses.replace(config.output, factors=steps, levels=len(cumulated), layer=layer)
    return dataclasses.replace(config, output=output)


def prepare_block(
    job: Job, config: Config, comm: Any, block: int, blocks: int
) -> tuple[Job, Config]:
    """The job and the settings of block `block` of `blocks` (from 1); collective. Raises
    `InputError`.
    """
    with recording_failure(job.out, comm):
        inputs = open_inputs(job, config, comm)
        plan = on_all_ranks(comm, lambda: plan_blocks(job, config, inputs, blocks))
        on_all_ranks(comm, lambda: _record(job, plan) if comm.rank == 0 else None)
    start, stop = plan.ranges[block - 1]
    part = dataclasses.replace(job, out=plan.part(job.out, block), range=(start, stop))
    return part, part_settings(config, (inputs.depth, *inputs.shape), plan.layer)


def _record(job: Job, plan: Blocks) -> None:
    """Write `blocks.json`, or see that the one that is there says the same. Raises `InputError`."""
    folder = parts_folder(job.out)
    before = read_blocks(job.out) if (folder / "blocks.json").exists() else None
    if before is not None and before != plan and not job.overwrite:
        changed = differences(dataclasses.asdict(before), dataclasses.asdict(plan))
        raise InputError(
            f"{folder}: was begun with other settings ({'; '.join(changed[:4])}); expected the "
            "same, or --overwrite"
        )
    if before != plan:
        try:
            folder.mkdir(exist_ok=True)
            write_whole(folder / "blocks.json", json.dumps(dataclasses.asdict(plan), indent=1))
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def read_blocks(out: Path) -> Blocks:
    """How the stack of `OUT.h5` was cut. Raises `InputError`."""
    path = parts_folder(out) / "blocks.json"
    try:
        return Blocks(**json.loads(path.read_text()))
    except OSError:
        raise InputError(
            f"{path}: cannot be read; expected the parts that align --block made"
        ) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
