"""The two stacks of a job, opened and checked before any work starts.

A slice that is missing, cut short, of another size or dtype ends the job with one line that names
it. Nothing is written here.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import logging
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.config import FORMATS, Config, InputError, Output
from amst_hpc.images.chunked import describe_unwritten
from amst_hpc.images.hdf5 import HDF5_SUFFIXES
from amst_hpc.images.headers import WHOLE, Looked, Part, look_at_slices
from amst_hpc.images.moved import Canvas, MovedStack
from amst_hpc.images.names import is_numbered, number_fault, number_gaps, slice_numbers
from amst_hpc.images.opening import open_stacks
from amst_hpc.images.stack import Averaged, SliceError, Stack, checksum, fit_to
from amst_hpc.overrides import Override, excluded, read_overrides
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0
from amst_hpc.transform import Image, Matrix, resample, translation

log = logging.getLogger(__name__)
PREVIEW_SLICES = 200
PREVIEW_SIZE = 1024  # px


@dataclass(frozen=True)
class Job:
    """What to align, as named on the command line.

    prealigned : empty where raw itself is pre-aligned (--prealign). preview : factor by which every
    slice is averaged down; 0: this is no preview. overrides : the table of what is decided about
    single slices. placing : raw alone is to be placed, and no more.
    """

    raw: str
    prealigned: str
    out: Path
    range: tuple[int | None, int | None] = (None, None)
    overwrite: bool = False
    allow_count_mismatch: bool = False
    strict: bool = False
    retry: bool = False
    preview: int = 0
    overrides: Path | None = None
    placing: bool = False

    @property
    def prealign(self) -> bool:
        """True where there is raw alone."""
        return not self.prealigned


@dataclass(frozen=True)
class Inputs:
    """The opened stacks.

    `shape` (y, x) of the output, `select` the slices to align, `depth` those there are, `overrides`
    what is decided about single ones, `voxel_source` where the voxel size was found. applied : what
    the output depends on where transforms of a finished run are applied and nothing is registered
    (`prealigned` is then `raw`). alone : there is raw alone, which `prealigned` is, too; on its
    `canvas` once it is placed. part : the slices that are looked at; looked : what was seen of them
    (on rank 0).
    """

    raw: Stack
    prealigned: Stack
    depth: int
    shape: tuple[int, int]
    dtype: str
    select: range
    overrides: Sequence[Override] = ()
    voxel_source: str = ""
    applied: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    canvas: Canvas | None = None
    part: Part = WHOLE
    looked: Looked = field(default_factory=lambda: Looked({}))

    @cached_property
    def excluded(self) -> frozenset[int]:
        """Slices that no other one sees."""
        return excluded(self.overrides)

    def left_out(self, z: int, radius: int) -> list[int]:
        """The excluded slices that the template of slice z is without."""
        return sorted(i for i in self.excluded if abs(i - z) <= radius)

    @property
    def slice_bytes(self) -> int:
        """Of a slice of the output, full size."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    def moved_by(self, z: int, radius: int) -> str:
        """Changes when the slices that the template of slice z is made of are moved otherwise;
        empty where raw is not alone.
        """
        if self.canvas is None:
            return ""
        near = self.canvas.moves[max(0, z - radius) : z + radius + 1]
        return hashlib.sha256(np.array([*self.shape, *np.ravel(near)]).tobytes()).hexdigest()[:16]

    def on(self, canvas: Canvas) -> Inputs:
        """Raw alone, placed: moved over the canvas it stands for PREALIGNED."""
        moved = MovedStack(self.prealigned, canvas)
        return dataclasses.replace(self, prealigned=moved, shape=canvas.shape, canvas=canvas)

    def fit(self, image: Image, z: int) -> tuple[Image, Matrix, int]:
        """A raw slice as it was read, on a grid of `shape`; the transform `fitted(p) = image(M p)`;
        a checksum of its pixels and where they stand.

        On the canvas where there is one, else see `fit_to`. Raises `SliceError`.
        """
        if self.alone:
            if self.canvas is None:
                return image, translation(0, 0), checksum(image)
            move = self.canvas.moves[z]
            return resample(image, move, self.shape), move, checksum(image)
        fitted, offset = fit_to(image, self.shape, self.raw.names[z])
        return fitted, offset, checksum(fitted, offset)

    def unmoved(self, image: Image, fitted: Image) -> Image:
        """A raw slice where it stands in raw, on a grid of `shape`; fitted : what `fit` made."""
        if self.canvas is None:
            return fitted
        return resample(image, translation(*self.canvas.offset), self.shape)

    def read_fitted(self, z: int) -> tuple[Image, Matrix, int]:
        """Raw slice z: see `fit`. Raises `SliceError`."""
        return self.fit(self.raw.read(z), z)

    def read_again(self, z: int, crc: int | None) -> tuple[Image, Image, Matrix]:
        """A raw slice that was registered: as it is, and as `read_fitted` gives it.

        crc : of its pixels then; None: not known. Raises OSError where it has others now or cannot
        be read: the job ends, and the same command goes on.
        """
        try:
            image = self.raw.read(z)
            fitted, offset, now = self.fit(image, z)
        except SliceError as error:
            reason = f"was registered, but cannot be read now: {error}"
            raise OSError(errno.EIO, reason) from None
        if crc not in (None, now):
            reason = "has other pixels than when it was registered; the same command looks again"
            raise OSError(errno.EIO, f"{self.raw.source} slice {self.raw.names[z]}: {reason}")
        return image, fitted, offset


def open_inputs(
    job: Job,
    config: Config,
    comm: Communicator,
    part: Part = WHOLE,
    before: Sequence[Looked] = (),
) -> Inputs:
    """Open both stacks and check the header of every slice of `part`, shared out over the ranks.

    before : what earlier starts have seen, on rank 0: see `look_at_slices`. Raises `InputError`.
    """
    (raw, second), depth = _open_both(job, config, comm)
    prealigned = raw if job.prealign else second
    stacks = {"raw": raw} | ({} if job.prealign else {"prealigned": second})
    for note in describe_stacks(raw, prealigned) if comm.rank == 0 else []:
        log.info("%s", note)
    select = on_all_ranks(comm, lambda: _select(job.range, depth))
    table = job.overrides
    overrides = on_rank_0(comm, lambda: read_overrides(table, depth) if table else [])
    faults, looked = look_at_slices(stacks, part.slices(depth), before, comm)
    if fault := name_fault(job.out, config.output):
        faults.append(f"OUT {job.out}: {fault}")
    if faults:
        more = f" (and {len(faults) - 1} more: see amst-hpc check)" if len(faults) > 1 else ""
        raise InputError(faults[0] + more)
    shape, dtype = [*looked.first.values()][-1].shape, looked.first["raw"].dtype
    # of raw alone the second one is read, moved, at the same time as the first
    inputs = Inputs(raw, second, depth, shape, dtype, select, overrides)
    return dataclasses.replace(inputs, alone=job.prealign, part=part, looked=looked)


def describe_raw(inputs: Inputs) -> dict[str, Any]:
    """What run.json says of the raw slices, so that other stacks can be paired with them later:
    their usual size (y, x), that of those that differ, whether their names count them; on rank 0.
    """
    first = inputs.looked.first["raw"].shape
    sizes = {z: inputs.looked.sizes.get(z, first) for z in inputs.select}
    usual = Counter(sizes.values()).most_common(1)[0][0]
    others = {z: size for z, size in sizes.items() if size != usual}
    return {"raw_yx": usual, "raw_yx_others": others, "raw_numbered": bool(inputs.raw.numbers)}


def name_fault(out: Path, output: Output) -> str:
    """What is wrong with the ending of an output's name; empty if nothing is."""
    wanted = FORMATS[output.format]
    if out.suffix == wanted or (not wanted and out.suffix not in FORMATS.values()):
        return ""
    ending = f"ends in {wanted}" if wanted else f"does not end in {out.suffix}"
    others = [name for name, suffix in FORMATS.items() if suffix == out.suffix]
    more = f", or output.format={others[0]}" if others else ""
    return f"expected a name that {ending}{more}"


def refuse_different_views(raw: Stack, prealigned: Stack, comm: Communicator) -> None:
    """Every rank must see the same slices. Raises `InputError` on all."""
    for stack, option in ((raw, "RAW"), (prealigned, "PREALIGNED")):
        seen = comm.allgather((len(stack.names), zlib.crc32("\n".join(stack.names).encode())))
        if len(set(seen)) > 1:
            counts = ", ".join(str(count) for count, _ in seen)
            raise InputError(
                f"{option} {stack.source}: the ranks do not see the same slices ({counts}); "
                "expected one shared file system"
            )


def refuse_own_input(job: Job, raw: Stack, prealigned: Stack) -> None:
    """Raises `InputError` for an output that is a file of an input, by whatever name."""
    for stack, option in ((raw, "RAW"), (prealigned, "PREALIGNED")):
        first, *more = stack.files
        files = [first, *(path for path in more if path.suffix.lower() in HDF5_SUFFIXES)]
        if job.out.exists() and any(job.out.samefile(path) for path in files):
            raise InputError(
                f"OUT {job.out}: is {option} {stack.source} or inside it; expected another"
            )


def _open_both(job: Job, config: Config, comm: Communicator) -> tuple[list[Stack], int]:
    """RAW and PREALIGNED (of raw alone, RAW twice), and the number of slices that both have.

    Raises `InputError` on all ranks.
    """
    names = [(job.raw, "RAW"), (job.raw, "RAW") if job.prealign else (job.prealigned, "PREALIGNED")]
    opened = open_stacks(names, comm)
    if job.preview > 1:
        opened = [Averaged(stack, job.preview) for stack in opened]
    raw, prealigned = opened[0], opened[0 if job.prealign else 1]
    refuse_different_views(raw, prealigned, comm)

    def check() -> int:
        depth = common_depth(raw, prealigned, job.allow_count_mismatch)
        refuse_own_input(job, raw, prealigned)
        refuse_other_numbers(raw, prealigned, config)
        return depth

    return opened, on_rank_0(comm, check)


def prepare_preview(job: Job, config: Config, comm: Communicator) -> tuple[Job, Config]:
    """The job and the settings of a quick look: the middle slices, averaged down.

    Raises `InputError`.
    """
    if job.overrides:
        raise InputError("--overrides: expected none with --preview, whose pixels are larger")
    opened, depth = _open_both(job, config, comm)
    select = on_all_ranks(comm, lambda: _select(job.range, depth))
    shape = on_rank_0(comm, lambda: opened[1].header(select.start)).shape
    factor = max(1, -(-max(shape) // PREVIEW_SIZE))
    count = min(len(select), PREVIEW_SLICES)
    start = select.start + (len(select) - count) // 2
    voxel = config.output.voxel_size_nm
    if voxel:
        voxel = (voxel[0], voxel[1] * factor, voxel[2] * factor)
    output = dataclasses.replace(config.output, voxel_size_nm=voxel)
    return (
        dataclasses.replace(job, range=(start, start + count), preview=factor),
        dataclasses.replace(config, output=output),
    )


def common_depth(raw: Stack, prealigned: Stack, allow_mismatch: bool) -> int:
    """The slices that both stacks have. Raises `InputError` for different counts, and for none."""
    counts = len(raw.names), len(prealigned.names)
    if counts[0] != counts[1] and not allow_mismatch:
        raise InputError(
            f"RAW {raw.source} has {counts[0]} slices, PREALIGNED {prealigned.source} {counts[1]}: "
            "expected the same number (--allow-count-mismatch aligns the common part)"
        )
    if min(counts) == 0:
        raise InputError(f"RAW {raw.source}: no slices")
    return min(counts)


def refuse_other_numbers(raw: Stack, prealigned: Stack, config: Config) -> None:
    """Raises `InputError` where the numbers in the names are not those of the same slices."""
    if raw.numbers is None or prealigned.numbers is None:
        return
    fault = number_fault(raw.numbers, prealigned.numbers)
    if fault and config.input.pair_by == "number":
        z, why = fault
        raise InputError(
            f"RAW {raw.source} and PREALIGNED {prealigned.source}: the numbers disagree ({why}): "
            f"{raw.names[z]} beside {prealigned.names[z]}; expected those of the same slice "
            "(input.pair_by=position leaves the names alone)"
        )


def describe_stacks(raw: Stack, prealigned: Stack) -> list[str]:
    """What the reader should know of both: gaps in the numbers or the file, another beginning."""
    lines = []
    stacks = [(raw, "RAW"), (prealigned, "PREALIGNED")]
    for stack, option in stacks[: 1 if prealigned is raw else 2]:
        gaps = number_gaps(stack.names, stack.numbers)
        lines += [f"{option}: numbers {gap}" for gap in gaps[:5]]
        lines += [f"{option}: {len(gaps) - 5} more gaps in the numbers"] if len(gaps) > 5 else []
        if not stack.numbers and is_numbered(stack.names) and not slice_numbers(stack.names):
            ends = f"{stack.names[0]} to {stack.names[-1]}"
            lines.append(f"{option}: no number in the names counts the slices ({ends})")
        lines += [f"{option} {text}" for text in describe_unwritten(stack)]
    if raw.numbers and prealigned.numbers and raw.numbers[0] != prealigned.numbers[0]:
        lines.append(f"PREALIGNED {prealigned.names[0]} belongs to RAW {raw.names[0]}, and so on")
    return lines


def _select(wanted: tuple[int | None, int | None], depth: int) -> range:
    start, stop = (
        (0 if wanted[0] is None else wanted[0]),
        (depth if wanted[1] is None else wanted[1]),
    )
    if not 0 <= start < stop <= depth:
        raise InputError(f"--range {start}:{stop}: expected a part of 0:{depth}")
    return range(start, stop)
