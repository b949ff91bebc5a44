"""Which slices have other pixels than when they were registered.

A slice is the same while its stamp is (name, size and time of the file). Where the stamp differs,
the pixels are read and their checksum is compared with the one in the journal: a copy of a stack is
the same stack.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amst_hpc.config import InputError
from amst_hpc.geometry import split
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, Stack, checksum
from amst_hpc.job.journal import compared, registered, write_whole
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.registration.template import is_blank

log = logging.getLogger(__name__)

STAMPS = "stamps.json"
OPTIONS = {"raw": "RAW", "prealigned": "PREALIGNED"}
NAMED = 4  # slices in a message
Stamps = Mapping[str, Sequence[str]]  # of each stack, by slice


@dataclass(frozen=True)
class Changes:
    """What is to be registered again. stamps : of now. raw : slices of RAW that have other pixels.

    slices : these, and those whose templates hold a pre-aligned slice that has.
    """

    stamps: Stamps
    raw: Sequence[int] = ()
    slices: Sequence[int] = ()


class Suspect(NamedTuple):
    """A slice with another stamp; `blank` or of this checksum when it was registered."""

    stack: str
    z: int
    crc: int | None
    blank: bool


def read_stamps(inputs: Inputs) -> Stamps:
    """Those of now."""
    stacks = {"raw": inputs.raw} | ({} if inputs.alone else {"prealigned": inputs.prealigned})
    return {name: [_stamp(s, z) for z in range(inputs.depth)] for name, s in stacks.items()}


def _stamp(stack: Stack, z: int) -> str:
    """Empty for a file that is gone: it has no other pixels."""
    try:
        return stack.stamp(z)
    except FileNotFoundError:
        return ""


def write_stamps(journal: Path, stamps: Stamps) -> None:
    """Keep them beside the records that they belong to."""
    write_whole(journal / STAMPS, json.dumps(stamps))


def find_changes(
    out: Path, journal: Path, inputs: Inputs, radius: int, comm: Communicator
) -> Changes:
    """Read the slices with other stamps, shared out over the ranks; collective.

    radius : of the templates. The result counts on rank 0. Raises `InputError` where most slices
    are others.
    """
    stamps = read_stamps(inputs) if comm.rank == 0 else {}
    looked = _look(journal, stamps, radius, inputs) if comm.rank == 0 else None
    known, suspects = comm.bcast(looked)
    changed = _compare(inputs, suspects, comm)
    names = {"raw": inputs.raw.names, "prealigned": inputs.prealigned.names}
    for stack, option in OPTIONS.items():
        others = [s.z for s in sorted(changed) if s.stack == stack and s.crc is not None]
        if 2 * len(others) > len(known):
            raise InputError(
                f"OUT {out}: was begun with another {option}: {len(others)} slices of "
                f"{len(known)} have other pixels ({_some([names[stack][z] for z in others])}); "
                "expected the same, another OUT, or --overwrite"
            )
    found = _affected(changed, known, radius, stamps)
    if comm.rank == 0 and suspects:
        _tell(names, suspects, changed, found)
    return found


def find_late_changes(
    journal: Path, inputs: Inputs, radius: int, comm: Communicator
) -> tuple[Changes, str]:
    """What got other pixels while the job ran, and some of its names; collective.

    What cannot be read any more has served its turn. The changes count on rank 0.
    """
    looked = None
    if comm.rank == 0:
        stamps = read_stamps(inputs)
        known, suspects = _look(journal, stamps, radius, inputs)
        looked = stamps, known, [s for s in suspects if s.blank or s.crc is not None]
    stamps, known, suspects = comm.bcast(looked)
    changed = _compare(inputs, suspects, comm, lost=False)
    names = {"raw": inputs.raw.names, "prealigned": inputs.prealigned.names}
    told = [f"{OPTIONS[s.stack]} {names[s.stack][s.z]}" for s in sorted(changed)]
    return _affected(changed, known, radius, stamps), _some(told)


def _affected(changed: Set[Suspect], known: Set[int], radius: int, stamps: Stamps) -> Changes:
    """Of the slices that are registered (`known`), those that depend on changed ones."""
    raw = sorted(s.z for s in changed if s.stack == "raw")
    last = [*stamps][-1] if stamps else ""  # what templates are made of
    around = {s.z + i for s in changed if s.stack == last for i in range(-radius, radius + 1)}
    return Changes(stamps, raw, sorted({*raw, *around} & known))


def _look(
    journal: Path, stamps: Stamps, radius: int, inputs: Inputs
) -> tuple[set[int], list[Suspect]]:
    """The slices that were registered; those they depend on whose stamps are not in the journal.

    Of raw alone also those that were compared: more are not looked at.
    """
    found = registered(journal, "slice", "provisional")
    records = {z: record for (z, *_), record in found.items()}
    if inputs.alone:
        records |= compared(journal)
    looked = [("raw", "crc", {*records})]
    if not inputs.alone:
        near = {i for z in records for i in range(z - radius, z + radius + 1)}
        looked.append(("prealigned", "crc_prealigned", near & {*range(inputs.depth)}))
    before = _kept_stamps(journal)
    suspects = []
    for stack, key, slices in looked:
        for z in sorted(slices):
            if before.get(stack, {}).get(z) != stamps[stack][z] != "":
                record = records.get(z, {})
                blank = stack == "raw" and record["blank"] and not record["unreadable"]
                suspects.append(Suspect(stack, z, record.get(key), blank))
    return set(records), suspects


def _kept_stamps(journal: Path) -> dict[str, dict[int, str]]:
    """What `write_stamps` has kept, by stack and slice; empty where it has not."""
    try:
        found = json.loads((journal / STAMPS).read_text())
        return {stack: dict(enumerate(each)) for stack, each in found.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}


def _compare(
    inputs: Inputs, suspects: Sequence[Suspect], comm: Communicator, lost: bool = True
) -> set[Suspect]:
    """Those that have other pixels, read by all ranks together; `lost` : or cannot be read."""
    mine = [suspects[i] for i in split(len(suspects), comm.size)[comm.rank]]
    parts = comm.allgather([s for s in mine if _differs(inputs, s, lost)])
    return {s for part in parts for s in part}


def _differs(inputs: Inputs, suspect: Suspect, lost: bool) -> bool:
    """True also where nothing is known of its pixels; `lost` where it cannot be read."""
    try:
        if suspect.stack == "prealigned":
            return suspect.crc is None or checksum(inputs.prealigned.read(suspect.z)) != suspect.crc
        image, _, crc = inputs.read_fitted(suspect.z)
    except SliceError:
        return lost
    return not is_blank(image) if suspect.blank else crc != suspect.crc


def _tell(
    names: Mapping[str, Sequence[str]],
    suspects: Sequence[Suspect],
    changed: Set[Suspect],
    found: Changes,
) -> None:
    for stack, option in OPTIONS.items():
        if others := [names[stack][s.z] for s in sorted(changed) if s.stack == stack]:
            log.warning("%s: %d slices have other pixels: %s", option, len(others), _some(others))
    if same := len(suspects) - len(changed):
        log.info("%d slices have another name or time, but their pixels: they are kept", same)
    if found.slices:
        log.info("%d slices are registered again", len(found.slices))


def _some(names: Sequence[str]) -> str:
    more = ["..."] * (len(names) > NAMED)
    return ", ".join([*names[:NAMED], *more])
