"""The headers of all slices, checked before any work starts: each once, by one of the ranks.

A slice that was checked when the job was begun is not opened again while its stamp is the same. The
task of an array looks at its own slices and at those around them that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from amst_hpc.config import PASSING_ERRORS, InputError
from amst_hpc.geometry import share_of, split
from amst_hpc.images.stack import Header, SliceError, Stack, fit_to
from amst_hpc.parallel.communicator import Communicator, on_rank_0

SAMPLE = 8  # slices larger than the canvas, whose margins are looked at
OPTIONS = {"raw": "RAW", "prealigned": "PREALIGNED"}
Yx = tuple[int, int]
Stacks = Mapping[str, Stack]  # `raw`, and `prealigned` where there is one


@dataclass(frozen=True)
class Part:
    """Block `number` of `count`, and `halo` slices on both sides of it; 0: the whole stack."""

    number: int = 0
    count: int = 1
    halo: int = 0

    def slices(self, depth: int) -> range:
        """With the halo."""
        if not self.number:
            return range(depth)
        block = split(depth, self.count)[self.number - 1]
        return range(max(0, block.start - self.halo), min(depth, block.stop + self.halo))

    def near(self, depth: int) -> frozenset[int]:
        """The numbers of the blocks that these slices belong to; empty: of all."""
        mine, blocks = self.slices(depth), split(depth, self.count)
        return frozenset(
            n
            for n, block in enumerate(blocks, 1)
            if self.number and block.start < mine.stop and mine.start < block.stop
        )


@dataclass(frozen=True)
class Looked:
    """What was seen of slices.

    first : header of the first slice of each stack. stamps : by stack and slice. sizes : (y, x) of
    the raw slices that have another one than the first.
    """

    first: dict[str, Header]
    stamps: dict[str, dict[int, str]] = field(default_factory=dict)
    sizes: dict[int, Yx] = field(default_factory=dict)

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Looked:
        """Raises one of `DAMAGED` for a text that is none."""
        tree = json.loads(text)
        headers = {k: Header(_yx(h["shape"]), h["dtype"]) for k, h in tree["first"].items()}
        stamps = {k: {int(z): str(s) for z, s in v.items()} for k, v in tree["stamps"].items()}
        return cls(headers, stamps, {int(z): _yx(size) for z, size in tree["sizes"].items()})


def _yx(size: Any) -> Yx:
    y, x = size
    return int(y), int(x)


WHOLE = Part()
DAMAGED = (ValueError, LookupError, TypeError, AttributeError)
"""What `Looked.from_json` raises."""


def look_at_slices(
    stacks: Stacks, part: range, before: Sequence[Looked], comm: Communicator
) -> tuple[list[str], Looked]:
    """What is wrong with the slices `part`, and what was seen of them (on rank 0); collective.

    before : what earlier starts have seen, on rank 0. Raises `InputError` for the first slice.
    """
    first = on_rank_0(comm, lambda: {name: _plain(stack) for name, stack in stacks.items()})
    known = comm.bcast(_join(first, before) if comm.rank == 0 else None)
    share = share_of(part, comm.size, comm.rank)
    faults, mine = _look(stacks, share, known)
    seen = _join(first, comm.gather(mine) or [])
    large = comm.bcast(_too_large(seen, known, part) if comm.rank == 0 else None)
    canvas = [*first.values()][-1].shape
    for z in large[comm.rank :: comm.size]:
        faults += filter(None, [margin_fault(stacks["raw"], z, canvas)])
    return list(dict.fromkeys(f for each in comm.allgather(faults) for f in each)), seen


def _plain(stack: Stack) -> Header:
    """Of the first slice."""
    header = stack.header(0)
    return Header(header.shape, header.dtype)


def _join(first: dict[str, Header], parts: Iterable[Looked]) -> Looked:
    """What counts of them: their slices were compared with these first ones."""
    stamps: dict[str, dict[int, str]] = {name: {} for name in first}
    sizes: dict[int, Yx] = {}
    for part in parts:
        if part.first == first:
            sizes |= part.sizes
            for name, kept in stamps.items():
                kept |= part.stamps.get(name, {})
    return Looked(first, stamps, sizes)


def _look(stacks: Stacks, share: Iterable[int], known: Looked) -> tuple[list[str], Looked]:
    """What is wrong with these slices, and what was seen of them."""
    faults, seen = [], Looked(known.first, {name: {} for name in stacks}, {})
    for z in share:
        for name, stack in stacks.items():
            first = known.first[name]
            stamp, shape = stamp_of(stack, z), known.sizes.get(z, first.shape)
            if not stamp or stamp != known.stamps[name].get(z):
                header, fault = check_header(stack, z, OPTIONS[name], first)
                shape = header.shape if header else first.shape
                faults += [fault] if fault else []
            seen.stamps[name][z] = stamp
            if name == "raw" and shape != first.shape:
                seen.sizes[z] = shape
    return faults, seen


def stamp_of(stack: Stack, z: int) -> str:
    """See `Stack`; empty for a file that is gone."""
    try:
        return stack.stamp(z)
    except FileNotFoundError:
        return ""


def read_header(stack: Stack, z: int, option: str) -> Header:
    """Raises `InputError`, which names the option; OSError where the file system is away."""
    try:
        return stack.header(z)
    except SliceError as error:
        cause = error.__context__
        if isinstance(cause, OSError) and cause.errno in PASSING_ERRORS:
            raise OSError(cause.errno, f"{option} {error}") from None
        raise InputError(f"{option} {error}") from None


def check_header(stack: Stack, z: int, option: str, first: Header) -> tuple[Header | None, str]:
    """The header of slice z, and what is wrong with it: unreadable, cut short, another dtype or, of
    PREALIGNED, another size. Raises OSError where the file system is away.
    """
    try:
        header = read_header(stack, z, option)
    except InputError as error:
        return None, str(error)
    where = f"{option} {stack.source} slice {stack.names[z]}"
    if header.dtype != first.dtype:
        told = f"dtype {header.dtype}, expected {first.dtype} as in {stack.names[0]}"
        return header, f"{where}: {told}"
    if option == OPTIONS["prealigned"] and header.shape != first.shape:
        told = f"size {header.shape} (y, x), expected {first.shape} as in {stack.names[0]}"
        return header, f"{where}: {told}"
    return header, ""


def _too_large(seen: Looked, known: Looked, part: range) -> list[int]:
    """Some of the raw slices that are larger than the canvas and were not looked at before."""
    raw, canvas = seen.first["raw"].shape, [*seen.first.values()][-1].shape
    new = (z for z in part if seen.stamps["raw"].get(z) != known.stamps["raw"].get(z))
    return sample_of([z for z in new if is_larger(seen.sizes.get(z, raw), canvas)])


def is_larger(shape: Yx, canvas: Yx) -> bool:
    """True if only the margins of a slice may lie beyond the canvas."""
    return shape[0] > canvas[0] or shape[1] > canvas[1]


def sample_of(slices: Sequence[int]) -> list[int]:
    """Up to `SAMPLE` of them, spread evenly."""
    if len(slices) <= SAMPLE:
        return list(slices)
    return [slices[round(i * (len(slices) - 1) / (SAMPLE - 1))] for i in range(SAMPLE)]


def margin_fault(raw: Stack, z: int, canvas: Yx) -> str:
    """What is wrong with a raw slice that is larger than the canvas; it is decoded."""
    try:
        fit_to(raw.read(z), canvas, f"{raw.source} slice {raw.names[z]}")
    except SliceError as error:
        return f"RAW {error}"
    return ""
