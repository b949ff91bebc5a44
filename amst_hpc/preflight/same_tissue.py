"""Whether PREALIGNED shows the tissue of RAW: a sample of slices, compared before the job.

Two slices each at four places of the stack. Each raw slice is compared with its own pre-aligned one
and with that of its neighbour.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from amst_hpc.config import InputError
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, Stack, fit_to
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.registration.chance import Likeness, likeness, reduced
from amst_hpc.registration.template import is_blank
from amst_hpc.transform import FloatImage

log = logging.getLogger(__name__)
PLACES = 4
LEAST = 3  # places that must say that the order is another, all of them
CLEARLY = 0.2  # of the limit of chance, which is at some five standard deviations: one of them


@dataclass(frozen=True)
class Comparison:
    """Raw slice z with pre-aligned slice `other`."""

    z: int
    other: int
    found: Likeness


def sample(select: range) -> list[Sequence[int]]:
    """Up to four places of up to two slices each, spread evenly over `select`."""
    if len(select) <= 2 * PLACES:
        return [select[i : i + 2] for i in range(0, len(select), 2)]
    first = np.linspace(0, len(select) - 2, PLACES).round().astype(int)
    return [select[i : i + 2] for i in first]


def compare(raw: Stack, prealigned: Stack, places: Iterable[Sequence[int]]) -> list[Comparison]:
    """All slices of each place with each other; black ones and unreadable ones are left out."""
    return [c for place in places for c in _compare_at(raw, prealigned, place)]


def _compare_at(raw: Stack, prealigned: Stack, place: Sequence[int]) -> list[Comparison]:
    shape = prealigned.header(place[0]).shape
    fixed = {z: _content(prealigned, z, shape) for z in place}
    moving = {z: _content(raw, z, shape) for z in place}
    return [
        Comparison(z, other, likeness(b, a))
        for z, a in moving.items()
        for other, b in fixed.items()
        if a is not None and b is not None
    ]


def _content(stack: Stack, z: int, shape: tuple[int, int]) -> FloatImage | None:
    try:
        image, _ = fit_to(stack.read(z), shape, stack.names[z])
    except SliceError:
        return None
    return None if is_blank(image) else reduced(image)


def tissue_fault(found: Sequence[Comparison]) -> str:
    """What is wrong with PREALIGNED as a whole, one line; empty: nothing."""
    own = {c.z: c.found for c in found if c.other == c.z}
    inverted = [z for z, f in own.items() if f.inverted > max(1, f.same)]
    unlike = [z for z, f in own.items() if f.same <= 1]
    way_out = "(input.compare=false leaves it)"
    if inverted and 2 * len(inverted) >= len(own):
        return (
            f"PREALIGNED shows RAW with inverted contrast (slices {_list(inverted)}); expected "
            f"the same contrast {way_out}"
        )
    if unlike and 2 * len(unlike) >= len(own):
        return (
            f"PREALIGNED does not show the same tissue as RAW (slices {_list(unlike)}): no more "
            f"alike than by chance; expected the same slices {way_out}"
        )
    return ""


def order_note(found: Sequence[Comparison]) -> str:
    """That PREALIGNED seems to be shifted along z; empty: it does not.

    At every place a raw slice is more like the pre-aligned slice beside its own one than any of the
    two is like its own.
    """
    same = {(c.z, c.other): c.found.same for c in found}
    for step, where in ((1, "after"), (-1, "before")):
        beside = [(z, o) for z, o in same if o == z + step and {(z, z), (o, o)} <= set(same)]
        if len(beside) >= LEAST and all(
            same[z, o] > max(1, same[z, z] + CLEARLY, same[o, o] + CLEARLY) for z, o in beside
        ):
            return (
                f"RAW slices {_list(z for z, _ in beside)} are more like the PREALIGNED slices "
                f"{where} theirs: is it shifted along z?"
            )
    return ""


def _list(slices: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(slices)))


def refuse_other_tissue(inputs: Inputs, comm: Communicator) -> None:
    """Compare the sample, shared out over the ranks; collective. Raises `InputError` on all."""
    mine = sample(inputs.select)[comm.rank :: comm.size]
    found = compare(inputs.raw, inputs.prealigned, mine)
    everything = [c for part in comm.allgather(found) for c in part]
    if fault := tissue_fault(everything):
        raise InputError(fault)
    if comm.rank == 0 and (note := order_note(everything)):
        log.warning("%s", note)
