"""After the first pass: the ranks register the raw slices to those after them.

A result is in the journal before it counts. It stands there with a key, a digest of all that it
was found with but the pixels: where a slice was registered otherwise since, its pairs are made
again.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from amst_hpc.config import Neighbours as Settings
from amst_hpc.images.ahead import InputsAhead
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, checksum
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator, on_all_ranks
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.shares import Shares
from amst_hpc.parallel.signals import LeaveOff, StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.passes.filters import Sampling, lacking, measure_filters, sampled
from amst_hpc.registration.equations import open_equations
from amst_hpc.registration.neighbours import Neighbours, Prepared, leave_device
from amst_hpc.registration.template import RUN, is_blank
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Matrix, compose, invert

Place = tuple[int, int]  # (z, k): slice z and z + k; k = 0: slice z and its own pre-aligned slice


@dataclass(frozen=True)
class PairWork:
    """The pairs that begin in the slices `inputs.select`.

    results : by z, of these slices and of as many after them as pairs reach; the rest of the
    stack does not matter.
    """

    inputs: Inputs
    results: Mapping[int, SliceResult]
    settings: Settings

    def places(self) -> list[Place]:
        """All pairs of slices that are neither black, unreadable nor excluded, ascending."""
        if self.inputs.alone or not self.settings.enabled:
            return []  # raw alone is compared before it is registered: see `prealign`
        good = {z for z, result in self.results.items() if not result.blank}
        good -= self.inputs.excluded
        steps = range(self.settings.reach + 1)
        return [(z, k) for z in self.inputs.select if z in good for k in steps if z + k in good]

    @cached_property
    def lacking(self) -> list[str]:
        """See `filters.lacking`."""
        return lacking(self.inputs, self.settings.reach)

    def start(self, place: Place) -> Matrix | None:
        """Where the search begins; None: nothing is known."""
        z, k = place
        if not k:
            return self._own(z)
        first, second = self._own(z), self._own(z + k)
        return None if first is None or second is None else compose(second, invert(first))

    def _own(self, z: int) -> Matrix | None:
        """The best that the first pass found for a slice by itself."""
        found = self.results[z]
        return next(
            (m for m in (found.affine, found.shift, found.prealigned) if m is not None), None
        )

    def key(self, place: Place) -> str:
        """Changes when its slices or their registrations do, or the filters lack other slices."""
        z, k = place
        start = self.start(place)
        digest = hashlib.sha256(b"none" if start is None else np.float64(start).tobytes())
        first, second = self.results[z], self.results[z + k]
        digest.update(f"{first.crc} {second.crc if k else first.crc_prealigned}".encode())
        missed = self.lacking if k else first.missed
        digest.update("\n".join(missed).encode())
        return digest.hexdigest()[:16]

    def split(self, attempt: Attempt) -> tuple[dict[Place, PairResult], dict[Place, str]]:
        """The pairs that the journal holds, and the keys of those that it does not."""
        journal = attempt.paired(sampled(self.inputs.depth, self.settings.reach))
        keys = {place: self.key(place) for place in self.places()}
        done = {
            p: journal[p][1] for p, key in keys.items() if p in journal and journal[p][0] == key
        }
        return done, {p: key for p, key in keys.items() if p not in done}


def pair_slices(
    work: PairWork, device: str, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> list[PairResult]:
    """Register the pairs that the journal does not hold, shared out over the ranks.

    Collective. `work` has its results on rank 0; returns all its pairs, ascending, on rank 0
    (elsewhere none). device : as `coarse.device`. Raises `Stopped`, and OSError for a slice that
    cannot be read any more.
    """
    if not work.settings.enabled:
        return []
    work = replace(work, results=comm.bcast(work.results))
    done, missing = work.split(attempt) if comm.rank == 0 else ({}, {})
    missing = comm.bcast(missing)
    mine: list[PairResult] = []
    if missing:
        slices = sorted({z for z, _ in missing})
        pairer, tally, before = Pairer(work, device, comm, stop), Tally(comm), len(done)
        with (
            attempt.open_journal(comm.rank, "pair") as journal,
            Shares(comm, slices, RUN) as shares,
            pairer.ahead,
            ProgressMeter("pairs", before + len(missing), before, comm.rank == 0) as meter,
        ):
            for found in pairer.share(shares, missing):
                record = found.to_record() | {"key": missing[found.z, found.k]}
                journal.write(record, durable=False)
                mine.append(found)
                tally.add(fell_back=found.matrix is None)
                _show(meter, tally, before)
            journal.sync()
            tally.finish(lambda: _show(meter, tally, before))
            _show(meter, tally, before, always=True)
    stop.raise_together(comm, "pairing")
    made = {(p.z, p.k): p for part in comm.gather(mine) or [] for p in part}
    return [pair for _, pair in sorted((done | made).items())] if comm.rank == 0 else []


def _show(meter: ProgressMeter, tally: Tally, before: int, always: bool = False) -> None:
    """Pairs done by all ranks, and how many of them failed."""
    if always or meter.due():
        made, failed = tally.totals()
        meter.update(before + made, f"{failed} failed" if failed else "")


class Pairer:
    """Prepares the slices of one rank and registers their pairs, on the rank's device."""

    def __init__(self, work: PairWork, device: str, comm: Communicator, stop: StopRequest) -> None:
        """Opens the device (as `coarse.device`) and measures the filters; collective.

        Raises `Stopped`.
        """
        self.work, self.ahead, self.stop = work, InputsAhead(work.inputs), stop
        local_rank, _ = local_place(comm)
        equations = on_all_ranks(comm, lambda: open_equations(device, local_rank))
        crcs = {z: result.crc for z, result in work.results.items()}
        sampling = Sampling(work.inputs, work.settings.reach, crcs)
        filters = measure_filters(sampling, comm, equations, stop)
        self.neighbours = Neighbours(equations, filters)
        self.hand: dict[int, tuple[Prepared, Matrix]] = {}

    def share(self, shares: Shares[int], missing: Iterable[Place]) -> Iterator[PairResult]:
        """Those of the pairs `missing` that begin in the slices of this rank, ascending in a run;
        each raw slice is read once. Ends early when asked to.
        """
        of_slice: dict[int, list[Place]] = {}
        for place in sorted(missing):
            of_slice.setdefault(place[0], []).append(place)
        with suppress(LeaveOff):
            for run in shares:
                places = [place for z in run for place in of_slice[z]]
                for n, place in enumerate(places):
                    self.stop.look()
                    near = range(place[0], place[0] + self.work.settings.reach + 1)
                    self.hand = {i: ready for i, ready in self.hand.items() if i in near}
                    coming = [place for z in shares.coming() for place in of_slice[z]]
                    self._expect([*places[n:], *coming])
                    yield self.register(place)

    def _expect(self, places: Sequence[Place]) -> None:
        """These are next: the slices that they need are read meanwhile."""
        raw = dict.fromkeys(i for z, k in places for i in (z, z + k) if i not in self.hand)
        self.ahead.raw.expect(raw)
        self.ahead.prealigned.expect(z for z, k in places if not k)

    def register(self, place: Place) -> PairResult:
        """One pair; a device that fails is left for the host."""
        try:
            return self._register(place)
        except OSError:
            raise
        except Exception as error:  # pyopencl's errors have no common class
            self.neighbours, self.hand = leave_device(self.neighbours, error), {}
            return self._register(place)

    def _register(self, place: Place) -> PairResult:
        """The matrix of the result is between the slices as they are read."""
        z, k = place
        moving, after = self._prepared(z + k)
        if k:
            fixed, before = self._prepared(z)
        else:
            crc = self.work.results[z].crc_prealigned
            try:
                own = self.ahead.prealigned.read(z)
            except SliceError as error:
                if crc is None:
                    return PairResult(z, k, reason=str(error))
                reason = f"was in the templates, but cannot be read now: {error}"
                raise OSError(errno.EIO, reason) from None
            if crc not in (None, checksum(own)):
                name = f"{self.ahead.prealigned.source} slice {self.ahead.prealigned.names[z]}"
                raise OSError(errno.EIO, f"{name}: has other pixels than in the templates")
            if is_blank(own):
                return PairResult(z, k, reason="the pre-aligned slice is black")
            fixed, before = self.neighbours.prepare(own, coarse_alone=True), np.eye(2, 3)
        start = self.work.start(place)
        if start is not None:
            start = compose(invert(after), compose(start, before))
        found = self.neighbours.register(fixed, moving, PairResult(z, k), start)
        if found.matrix is None:
            return found
        return replace(found, matrix=compose(after, compose(found.matrix, invert(before))))

    def _prepared(self, z: int) -> tuple[Prepared, Matrix]:
        """A slice ready for its pairs, and `fitted(p) = read(offset p)`. Raises `LeaveOff`."""
        if z not in self.hand:
            self.stop.look()
            crc = self.work.results[z].crc
            _, image, offset = self.ahead.inputs.read_again(z, crc)
            self.hand[z] = self.neighbours.prepare(image), offset
        return self.hand[z]
