"""After the first pass: each rank registers its share of the raw slices to those after them.

A result is in the journal before it counts. It stands there with a key, a digest of all that it
was found with but the pixels: where a slice was registered otherwise since, its pairs are made
again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from amst_hpc.config import Neighbours
from amst_hpc.geometry import split
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, fit_to
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.registration.neighbours import PairRegistration
from amst_hpc.registration.template import is_blank
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import FloatImage, Matrix, compose, inverse

log = logging.getLogger(__name__)
Place = tuple[int, int]  # (z, k): slice z and z + k; k = 0: slice z and its own pre-aligned slice


@dataclass(frozen=True)
class PairWork:
    """The pairs that begin in the slices `inputs.select`.

    results : by z, of these slices and of as many after them as pairs reach; the rest of the
    stack does not matter.
    """

    inputs: Inputs
    results: Mapping[int, SliceResult]
    settings: Neighbours

    def places(self) -> list[Place]:
        """All pairs of slices that are neither black nor unreadable, ascending."""
        if not self.settings.enabled:
            return []
        good = {z for z, result in self.results.items() if not result.blank}
        steps = range(self.settings.reach + 1)
        return [(z, k) for z in self.inputs.select if z in good for k in steps if z + k in good]

    def start(self, place: Place) -> Matrix | None:
        """Where the search begins; None: nothing is known."""
        z, k = place
        if not k:
            return self.results[z].prealigned
        first, second = self._own(z), self._own(z + k)
        return None if first is None or second is None else compose(second, inverse(first))

    def _own(self, z: int) -> Matrix | None:
        found = self.results[z]
        return found.affine if found.affine is not None else found.shift

    def key(self, place: Place) -> str:
        """Changes when the slices of the pair are registered otherwise."""
        z, k = place
        start = self.start(place)
        digest = hashlib.sha256(b"none" if start is None else np.float64(start).tobytes())
        digest.update("\n".join([] if k else self.results[z].missed).encode())
        return digest.hexdigest()[:16]

    def split(
        self, journal: Mapping[Place, tuple[str, PairResult]]
    ) -> tuple[dict[Place, PairResult], list[Place]]:
        """The pairs that the journal holds, and those that it does not."""
        done = {
            p: journal[p][1] for p in self.places() if p in journal and journal[p][0] == self.key(p)
        }
        return done, [p for p in self.places() if p not in done]


def pair_slices(
    work: PairWork, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> list[PairResult]:
    """Register the pairs that the journal does not hold, a contiguous share on each rank.

    Collective. `work` has its results on rank 0; returns all its pairs, ascending, on rank 0
    (elsewhere none). Raises `Stopped`, and OSError for a slice that cannot be read any more.
    """
    if not work.settings.enabled:
        return []
    work = replace(work, results=comm.bcast(work.results))
    done, missing = work.split(attempt.paired()) if comm.rank == 0 else ({}, [])
    missing = comm.bcast(missing)
    mine: list[PairResult] = []
    if missing:
        slices = sorted({z for z, _ in missing})
        share = {slices[i] for i in split(len(slices), comm.size)[comm.rank]}
        wanted = [place for place in missing if place[0] in share]
        tally = Tally(comm)
        with (
            attempt.open_journal(comm.rank, "pair") as journal,
            ProgressMeter("pairs", len(done) + len(missing), len(done), comm.rank == 0) as meter,
        ):

            def show(always: bool = False) -> None:
                if always or meter.due():
                    made, failed = tally.totals()
                    meter.update(len(done) + made, f"{failed} failed" if failed else "")

            for found in _pair_share(work, wanted, stop):
                journal.write(found.to_record() | {"key": work.key((found.z, found.k))})
                mine.append(found)
                tally.add(fell_back=found.matrix is None)
                show()
            journal.sync()
            tally.finish(show)
            show(always=True)
    stop.raise_together(comm, "pairing")
    made = {(p.z, p.k): p for part in comm.gather(mine) or [] for p in part}
    return [pair for _, pair in sorted((done | made).items())] if comm.rank == 0 else []


@dataclass(frozen=True)
class Prepared:
    """A slice in hand. offset : `image(p)` is the slice as read at `offset p`."""

    image: FloatImage
    offset: Matrix


def _pair_share(work: PairWork, wanted: Sequence[Place], stop: StopRequest) -> Iterator[PairResult]:
    """The pairs `wanted` (ascending); each raw slice is read once. Ends early when asked to."""
    register = PairRegistration()
    hand: dict[int, Prepared] = {}
    by_slice: dict[int, list[int]] = {}
    for z, k in wanted:
        by_slice.setdefault(z, []).append(k)
    for z, steps in by_slice.items():
        if stop:
            return
        needed = {z, *(z + k for k in steps)}
        hand = {
            i: hand[i] if i in hand else _read(work.inputs, register, i)
            for i in range(z, max(needed) + 1)
            if i in hand or i in needed
        }
        for k in steps:
            yield _pair(work, register, (z, k), hand)


def _read(inputs: Inputs, register: PairRegistration, z: int) -> Prepared:
    try:
        image, offset = fit_to(inputs.raw.read(z), inputs.shape, inputs.raw.names[z])
    except SliceError as error:
        raise OSError(errno.EIO, f"was registered, but cannot be read now: {error}") from None
    return Prepared(register.prepare(image), offset)


def _pair(
    work: PairWork, register: PairRegistration, place: Place, hand: Mapping[int, Prepared]
) -> PairResult:
    """One pair, its matrix between the slices as they are read."""
    z, k = place
    start = work.start(place)
    moving = hand[z + k]
    if k:
        fixed, before = hand[z].image, hand[z].offset
    else:
        try:
            own = work.inputs.prealigned.read(z)
        except SliceError as error:
            return missing_pair(place, str(error))
        if is_blank(own):
            return missing_pair(place, "the pre-aligned slice is black")
        fixed, before = register.prepare(own), np.eye(2, 3)
    if start is not None:
        start = compose(inverse(moving.offset), compose(start, before))
    found = register.register(place, fixed, moving.image, start)
    if found.matrix is None:
        return found
    return replace(found, matrix=compose(moving.offset, compose(found.matrix, inverse(before))))


def missing_pair(place: Place, reason: str) -> PairResult:
    """A pair that nothing was found of."""
    return PairResult(*place, None, np.zeros((6, 6)), 1.0, 1.0, 0.0, reason)
