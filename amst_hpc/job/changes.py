"""Which slices have other pixels than when they were registered.

A slice is the same while its stamp is (name, size and time of the file). Where the stamp differs,
the pixels are read and their checksum is compared with the one in the journal: a copy of a stack is
the same stack.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amst_hpc.config import InputError
from amst_hpc.geometry import share_of
from amst_hpc.images.headers import DAMAGED, OPTIONS, Looked, stamp_of
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, Stack, checksum
from amst_hpc.job.journal import ALL, compared, registered, write_whole
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.registration.template import is_blank

log = logging.getLogger(__name__)
STAMPS = "stamps"  # a file of the journal
NAMED = 4  # slices in a message


@dataclass(frozen=True)
class Changes:
    """What is to be registered again. looked : what was seen of the slices now. raw : slices of RAW
    that have other pixels.

    slices : these, and those whose templates hold a pre-aligned slice that has.
    """

    looked: Looked
    raw: Sequence[int] = ()
    slices: Sequence[int] = ()


class Suspect(NamedTuple):
    """A slice with another stamp; `blank` or of this checksum when it was registered."""

    stack: str
    z: int
    crc: int | None
    blank: bool


def read_stamps(inputs: Inputs, comm: Communicator) -> dict[str, dict[int, str]]:
    """Those of now of `inputs.part`, by stack and slice, on rank 0; shared out over the ranks."""
    part = inputs.part.slices(inputs.depth)
    share = share_of(part, comm.size, comm.rank)
    found = {name: {z: stamp_of(s, z) for z in share} for name, s in _stacks(inputs).items()}
    parts = comm.gather(found) or []
    return {name: {z: s for each in parts for z, s in each[name].items()} for name in found}


def _stacks(inputs: Inputs) -> Mapping[str, Stack]:
    one = inputs.prealigned is inputs.raw or inputs.alone
    return {"raw": inputs.raw} | ({} if one else {"prealigned": inputs.prealigned})


def write_looked(journal: Path, looked: Looked, block: int) -> None:
    """Keep what was seen of the slices beside the records that belong to it.

    Each block of an array has a file of its own, until one that looks at all replaces them.
    """
    write_whole(_place(journal, block), looked.to_json())
    for path in [] if block else journal.glob(f"{STAMPS}-b*.json"):
        path.unlink()


def _place(journal: Path, block: int) -> Path:
    return journal / (f"{STAMPS}-b{block:04d}.json" if block else f"{STAMPS}.json")


def read_looked(journal: Path, blocks: Set[int] = ALL) -> list[Looked]:
    """What `write_looked` has kept, of these blocks and of all, without what is damaged; blocks :
    empty: of every block.
    """
    each = [_place(journal, n) for n in blocks] or journal.glob(f"{STAMPS}-b*.json")
    found = []
    for path in [_place(journal, 0), *each]:
        with suppress(FileNotFoundError, NotADirectoryError, *DAMAGED):
            found.append(Looked.from_json(path.read_text()))
    return found


def find_changes(
    out: Path, journal: Path, inputs: Inputs, radius: int, comm: Communicator
) -> Changes:
    """Read the slices with other stamps, shared out over the ranks; collective.

    radius : of the templates. The result counts on rank 0. Raises `InputError` where most slices
    are others.
    """
    looked = _look(journal, inputs.looked, radius, inputs) if comm.rank == 0 else None
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
    found = _affected(changed, known, radius, inputs.looked)
    if comm.rank == 0 and suspects:
        _tell(names, suspects, changed, found)
    return found


def find_late_changes(
    journal: Path, inputs: Inputs, radius: int, comm: Communicator
) -> tuple[Changes, str]:
    """What got other pixels while the job ran, and some of its names; collective.

    What cannot be read any more has served its turn. The changes count on rank 0; their headers
    were not looked at, so that their stamps are not those of slices that were.
    """
    now, looked = Looked(inputs.looked.first, read_stamps(inputs, comm)), None
    if comm.rank == 0:
        known, suspects = _look(journal, now, radius, inputs)
        looked = known, [s for s in suspects if s.blank or s.crc is not None]
    known, suspects = comm.bcast(looked)
    changed = _compare(inputs, suspects, comm, lost=False)
    names = {"raw": inputs.raw.names, "prealigned": inputs.prealigned.names}
    told = [f"{OPTIONS[s.stack]} {names[s.stack][s.z]}" for s in sorted(changed)]
    return _affected(changed, known, radius, inputs.looked), _some(told)


def _affected(changed: Set[Suspect], known: Set[int], radius: int, looked: Looked) -> Changes:
    """Of the slices that are registered (`known`), those that depend on changed ones."""
    raw = sorted(s.z for s in changed if s.stack == "raw")
    last = [*looked.first][-1] if looked.first else ""  # what templates are made of
    around = {s.z + i for s in changed if s.stack == last for i in range(-radius, radius + 1)}
    return Changes(looked, raw, sorted({*raw, *around} & known))


def _look(
    journal: Path, now: Looked, radius: int, inputs: Inputs
) -> tuple[set[int], list[Suspect]]:
    """The slices that were registered; those they depend on whose stamps are not the kept ones.
    Neither is looked for where all stamps are.

    Of raw alone also those that were compared: more are not looked at.
    """
    blocks = inputs.part.near(inputs.depth)
    before = read_looked(journal, blocks)
    others = {stack: _others(stack, stamps, before) for stack, stamps in now.stamps.items()}
    if not any(others.values()):
        return set(), []
    found = registered(journal, "slice", "provisional", blocks=blocks)
    records = {z: record for (z, *_), record in found.items()}
    if inputs.alone:
        records |= compared(journal, blocks)
    looked = [("raw", "crc", {*records})]
    if not inputs.alone:
        near = {i for z in records for i in range(z - radius, z + radius + 1)}
        looked.append(("prealigned", "crc_prealigned", near))
    suspects = []
    for stack, key, slices in looked:
        for z in sorted(slices & others.get(stack, set())):
            record = records.get(z, {})
            blank = stack == "raw" and record["blank"] and not record["unreadable"]
            suspects.append(Suspect(stack, z, record.get(key), blank))
    return set(records), suspects


def _others(stack: str, now: Mapping[int, str], before: Sequence[Looked]) -> set[int]:
    """Slices that are there with another stamp than any that was kept, or where none was."""
    kept = [seen.stamps[stack] for seen in before if stack in seen.stamps]
    return {
        z
        for z, stamp in now.items()
        if stamp and {stamp} != {stamps[z] for stamps in kept if z in stamps}
    }


def _compare(
    inputs: Inputs, suspects: Sequence[Suspect], comm: Communicator, lost: bool = True
) -> set[Suspect]:
    """Those that have other pixels, read by all ranks together; `lost` : or cannot be read."""
    mine = share_of(suspects, comm.size, comm.rank)
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
