"""The voxel size of a job: the one that was given, or else what RAW and PREALIGNED say.

Of `apply` the one of the run, or else what OTHER_RAW says. A few slices of each are looked at. A
job that was begun keeps what was found then: its levels depend on it, and a slice that was replaced
must not lay the file out anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amst_hpc.config import Config
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.images.stack import SliceError, Stack
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize
from amst_hpc.job.run_folder import read_fingerprint
from amst_hpc.parallel.communicator import Communicator, on_rank_0

log = logging.getLogger(__name__)
GIVEN = "output.voxel_size_nm"
SAMPLE = 5  # slices of a stack that are looked at


@dataclass(frozen=True)
class Found:
    """The size, z, y, x in nm (empty: not known), where it stands, and what the reader should know;
    `warnings` : of that, what contradicts itself.
    """

    nm: tuple[float, ...]
    source: str
    notes: Sequence[str]
    warnings: Sequence[str]


def settle_voxel_size(
    job: Job, config: Config, inputs: Inputs, comm: Communicator
) -> tuple[Config, Inputs]:
    """The settings with the voxel size, and the inputs with its source; collective.

    Rank 0 looks and tells. Raises `InputError` for a run folder that is damaged.
    """
    size, source = on_rank_0(comm, lambda: _settle(job, config, inputs))
    output = replace(config.output, voxel_size_nm=size)
    return replace(config, output=output), replace(inputs, voxel_source=source)


def _settle(job: Job, config: Config, inputs: Inputs) -> tuple[tuple[float, ...], str]:
    given = config.output.voxel_size_nm
    before = (None if job.overwrite else read_fingerprint(job.out)) or {}
    then = tuple(before.get("output", {}).get("voxel_size_nm", ()))
    if before.get("voxel_source", GIVEN) != GIVEN and given in ((), then):
        return then, before["voxel_source"]
    stacks = {"OTHER_RAW" if inputs.applied else "RAW": inputs.raw}
    if not inputs.applied and not inputs.alone:
        stacks["PREALIGNED"] = inputs.prealigned
    found = find_voxel_size(stacks, given)
    for note in found.notes:
        log.info("%s", note)
    for warning in found.warnings:
        log.warning("%s", warning)
    return found.nm, found.source


def find_voxel_size(stacks: Mapping[str, Stack], given: tuple[float, ...]) -> Found:
    """stacks : by their names on the command line; the first one counts most. given : what counts
    where it is not empty; it is compared all the same.
    """
    size = UNKNOWN
    notes: list[str] = []
    warnings: list[str] = []
    for option, stack in stacks.items():
        found, noted, warned = _look(stack, option)
        notes, warnings = notes + noted, warnings + warned
        if size.differs(found):
            warnings.append(f"voxel size: {size} in {size.source}, {found} in {found.source}")
        else:
            size = _join(size, found)
    if given:
        if size.differs(VoxelSize(given)):
            what = f"{GIVEN} = {list(given)}, but {size} in {size.source}"
            warnings.append(f"{what}: the setting counts")
        return Found(given, GIVEN, notes, warnings)
    if size.nm:
        notes.append(f"voxel size: {size}, from {size.source}")
        return Found(size.nm, size.source, notes, warnings)
    if size.is_known:
        where = f"voxel size: {size} in {size.source}"
        notes.append(f"{where}, {size.missing} not known: give {GIVEN} (z, y, x)")
    return Found((), "", notes, warnings)


def _look(stack: Stack, option: str) -> tuple[VoxelSize, list[str], list[str]]:
    """What a stack says, with notes and warnings; nothing where its slices disagree."""
    last = len(stack.names) - 1
    found: list[tuple[VoxelSize, str]] = []
    ignored = ""
    for z in sorted({round(i * last / (SAMPLE - 1)) for i in range(SAMPLE)}) if last >= 0 else []:
        try:
            size = stack.header(z).voxel_size
        except SliceError:  # it is refused elsewhere
            continue
        ignored = ignored or size.ignored
        found += [(size, stack.names[z])] if size.is_known else []
    told = f"voxel size: {option} says {ignored}, which no electron microscope has: ignored"
    notes = [told] if ignored else []
    if not found:
        return UNKNOWN, notes, []
    first, name = found[0]
    for size, other in found[1:]:
        if size.differs(first):
            told = f"voxel size: {option} disagrees with itself: {first} in {name}"
            return UNKNOWN, notes, [f"{told}, {size} in {other}: ignored"]
    return replace(first, source=f"{option} ({first.source})"), notes, []


def _join(first: VoxelSize, second: VoxelSize) -> VoxelSize:
    """What the first says, and of the second the axes that the first does not know."""
    zyx = tuple(a or b for a, b in zip(first.zyx, second.zyx, strict=True))
    used = [first.source] if first.is_known else []
    if zyx != first.zyx:
        used.append(second.source)
    return VoxelSize(zyx, ", ".join(used))
