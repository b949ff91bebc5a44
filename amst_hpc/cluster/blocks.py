"""One stack aligned by the tasks of a job array: which task has which slices and layers.

Each task registers its block of slices into the one journal of the output; `merge` settles the
transforms of the whole stack and lays the file out; the same tasks, started again, write their
layers into that file; `merge` again completes it. `OUT.amst/blocks.json` says how the stack is cut.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amst_hpc.bdv.writer import INDEPENDENT, choose_writer
from amst_hpc.config import Config, InputError
from amst_hpc.geometry import split
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.job.journal import differences, write_whole
from amst_hpc.job.run_folder import Attempt, run_folder
from amst_hpc.overrides import Override
from amst_hpc.settings import to_tree


@dataclass(frozen=True)
class Blocks:
    """How a stack is cut: `ranges`, first slice and end of each block. `config`: the settings.

    `overrides`: of `overrides.Override`, as JSON has them.
    """

    raw: str
    prealigned: str
    ranges: list[list[int]]
    config: dict[str, Any]
    allow_count_mismatch: bool = False
    overrides: list[list[Any]] = field(default_factory=list)

    @property
    def decided(self) -> list[Override]:
        """The overrides."""
        return [Override(*each) for each in self.overrides]

    def slices(self, block: int) -> range:
        """Of block 1, 2, ..."""
        return range(*self.ranges[block - 1])

    def find(self, z: int) -> int:
        """The block of a slice."""
        return next(n for n, (start, stop) in enumerate(self.ranges, 1) if start <= z < stop)


def plan_blocks(job: Job, config: Config, inputs: Inputs, blocks: int) -> Blocks:
    """The cut of a stack; the same in every job. Raises `InputError`."""
    if config.output.format == "tif":
        raise InputError("output.format = 'tif': expected bdv or ome-zarr for blocks")
    if choose_writer(config.output, 1) not in INDEPENDENT:
        raise InputError(
            f"output.compression = {config.output.compression}, output.writer = "
            f"{config.output.writer!r}: expected 0 and direct for blocks, which share one file"
        )
    if job.range != (None, None):
        raise InputError("--range: expected none with blocks, which take the whole stack")
    if job.overwrite:
        raise InputError("--overwrite: expected none with blocks; remove OUT and its run folder")
    if job.strict:
        raise InputError("--strict: expected none with blocks, none of which knows the whole stack")
    if not 1 <= blocks <= inputs.depth:
        raise InputError(f"{blocks} blocks: expected 1 to {inputs.depth}, the slices there are")
    ranges = [[part.start, part.stop] for part in split(inputs.depth, blocks)]
    overrides = [list(override) for override in inputs.overrides]
    tree, mismatch = to_tree(config), job.allow_count_mismatch
    plan = Blocks(job.raw, job.prealigned, ranges, tree, mismatch, overrides)
    _is_recorded(job.out, plan)  # refused before anything is written
    return plan


def _path(out: Path) -> Path:
    return run_folder(out) / "blocks.json"


def record_blocks(out: Path, plan: Blocks) -> None:
    """Keep how the stack is cut, or see that what is there says the same. Raises `InputError`."""
    if not _is_recorded(out, plan):
        write_whole(_path(out), json.dumps(dataclasses.asdict(plan), indent=1))


def _is_recorded(out: Path, plan: Blocks) -> bool:
    """False where `plan` is to be kept. Raises `InputError` where the stack is cut otherwise.

    Once the stack is settled, the first block that has other overrides begins a new round.
    """
    path = _path(out)
    before = read_blocks(out) if path.exists() else None
    if (
        before not in (None, plan)
        and replace(before, overrides=plan.overrides) == plan
        and Attempt(out).read_settled(before.decided)
    ):
        before = None
    if before is not None and before != plan:
        changed = differences(dataclasses.asdict(before), dataclasses.asdict(plan))
        raise InputError(
            f"{path.parent}: was begun with other settings ({'; '.join(changed[:4])}); expected "
            "the same for all blocks"
        )
    return before is not None


def read_blocks(out: Path) -> Blocks:
    """How the stack of `OUT.h5` was cut. Raises `InputError`."""
    path = _path(out)
    try:
        return Blocks(**json.loads(path.read_text()))
    except OSError:
        raise InputError(
            f"{path}: cannot be read; expected the blocks that align --block registered"
        ) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
