"""Raw alone: the ranks compare raw slices with those after them, and rank 0 places all of them.

What was found is in the journal before it counts: of each slice that was seen a checksum, of each
pair a key, a digest of the pixels that it was found with.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from amst_hpc.config import Config
from amst_hpc.images.ahead import ReadAhead
from amst_hpc.images.moved import Canvas, lay_canvas
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, checksum
from amst_hpc.job.journal import compared, write_whole
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import PLACED, Attempt
from amst_hpc.overrides import Override
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.shares import Shares
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.passes.file_plan import check_layer
from amst_hpc.passes.filters import Sampling, lacking, measure_filters, sampled
from amst_hpc.placement import Placement
from amst_hpc.registration.equations import open_equations
from amst_hpc.registration.neighbours import Neighbours, Prepared, leave_device
from amst_hpc.registration.prealign import APART, NEAR, UNLIKE, place
from amst_hpc.registration.template import is_blank
from amst_hpc.slice_result import SliceResult

log = logging.getLogger(__name__)
FAR = (4, 8)  # at the coarse scales alone
RUN = 32  # slices that a rank takes at a time: it also reads those after them
NAMED = 5
Place = tuple[int, int]  # (z, k): raw slices z and z + k


@dataclass(frozen=True)
class Seen:
    """A raw slice as it was when it was compared; crc of its pixels, None if it is unreadable."""

    z: int
    crc: int | None = None
    blank: bool = False
    unreadable: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """The pairs that begin in the raw slices `first`; `around` : the slices that count. missed :
    what is `lacking`, where another rank has looked.
    """

    inputs: Inputs
    config: Config
    first: range
    around: range
    missed: Sequence[str] | None = None

    @cached_property
    def near(self) -> range:
        """Distances of the pairs at full detail: NEAR, or as many as `neighbours.reach`."""
        neighbours = self.config.neighbours
        return range(1, max(NEAR, neighbours.reach if neighbours.enabled else 0) + 1)

    @cached_property
    def steps(self) -> list[int]:
        """All distances."""
        return sorted({*self.near, *FAR})

    def places(self, seen: Mapping[int, Seen]) -> list[Place]:
        """All pairs of slices that are not known to be black, nor excluded, ascending.

        (z, 0) : a slice that is in none of them, to be looked at.
        """
        there = {z for z in self.around if not (z in seen and seen[z].blank)}
        there -= self.inputs.excluded
        found: list[Place] = []
        for z in sorted(there & {*self.first}):
            found += [(z, k) for k in self.steps if z + k in there]
            if z not in seen and not any({z - k, z + k} & there for k in self.steps):
                found.append((z, 0))
        return found

    @cached_property
    def lacking(self) -> Sequence[str]:
        """See `filters.lacking`."""
        return lacking(self.inputs, len(self.near)) if self.missed is None else self.missed

    def key(self, first: Seen, second: Seen) -> str:
        """Changes when the pixels of its slices do, the filters lack other slices, or others are
        compared at full detail.
        """
        missed = "\n".join(self.lacking)
        text = f"{first.crc} {second.crc} {len(self.near)}\n{missed}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def split(
        self, attempt: Attempt, provisional: bool = False
    ) -> tuple[dict[int, Seen], dict[Place, PairResult], list[Place]]:
        """What the journal holds of slices and of pairs, and the pairs that it does not.

        provisional : a slice that could not be read is left as it is, not tried again.
        """
        seen = {z: _from_record(r) for z, r in compared(attempt.journal).items()}
        if not provisional:
            seen = {z: s for z, s in seen.items() if not s.unreadable}
        journal = attempt.paired(sampled(self.inputs.depth, len(self.near)), "prealign")
        places = self.places(seen)
        done = {
            (z, k): journal[z, k][1]
            for z, k in places
            if (z, k) in journal
            and z in seen
            and z + k in seen
            and journal[z, k][0] == self.key(seen[z], seen[z + k])
        }
        return seen, done, [place for place in places if place not in done]


def _from_record(record: Mapping[str, Any]) -> Seen:
    return Seen(**{key: value for key, value in record.items() if key != "kind"})


def compare_whole(inputs: Inputs, config: Config) -> Comparison:
    """All pairs of the slices to align and of those that their templates hold."""
    radius = config.template.radius
    start, stop = inputs.select.start - radius, inputs.select.stop + radius
    around = range(max(0, start), min(inputs.depth, stop))
    return Comparison(inputs, config, around, around)


def compare_raw(
    work: Comparison, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> tuple[dict[int, Seen], list[PairResult]]:
    """Compare the slices whose pairs the journal does not hold, shared out over the ranks.

    Collective. Returns, on rank 0, what was seen of the slices, and all pairs, ascending. Raises
    `Stopped`.
    """
    work = replace(work, missed=on_rank_0(comm, lambda: work.lacking))
    looked = work.split(attempt) if comm.rank == 0 else None
    seen, done, missing = comm.bcast(looked)
    mine: list[Seen | PairResult] = []
    if missing:
        slices = sorted({z for z, _ in missing})
        comparer, tally = Comparer(work, comm, stop), Tally(comm)
        total, before = len(done) + len(missing), len(done)
        with (
            attempt.open_journal(comm.rank, "prealign") as journal,
            Shares(comm, slices, RUN) as shares,
            comparer.raw,
            ProgressMeter("compare raw", total, before, comm.rank == 0) as meter,
        ):
            for found in comparer.share(shares, missing, stop):
                journal.write(_to_record(found, comparer), durable=False)
                mine.append(found)
                if isinstance(found, PairResult):
                    tally.add(fell_back=found.matrix is None)
                    _show(meter, tally, before)
            journal.sync()
            tally.finish(lambda: _show(meter, tally, before))
            _show(meter, tally, before, always=True)
    stop.raise_together(comm, "the comparison of raw slices")
    parts = [found for part in comm.gather(mine) or [] for found in part]
    seen |= {s.z: s for s in parts if isinstance(s, Seen)}
    made = done | {(p.z, p.k): p for p in parts if isinstance(p, PairResult)}
    return seen, [made[place] for place in work.places(seen) if place in made]


def _to_record(found: Seen | PairResult, comparer: Comparer) -> dict[str, Any]:
    if isinstance(found, Seen):
        return {"kind": "seen", **asdict(found)}
    first, second = (comparer.seen[z] for z in (found.z, found.z + found.k))
    return found.to_record() | {"key": comparer.work.key(first, second)}


def _show(meter: ProgressMeter, tally: Tally, before: int, always: bool = False) -> None:
    """Pairs that were compared by all ranks, and how many are of slices unlike each other."""
    if always or meter.due():
        made, failed = tally.totals()
        meter.update(before + made, f"{failed} unlike each other" if failed else "")


class Comparer:
    """Prepares raw slices and registers their pairs on the device of one rank."""

    def __init__(self, work: Comparison, comm: Communicator, stop: StopRequest) -> None:
        """Opens the device (as `coarse.device`) and measures the filters; collective.

        Raises `Stopped`.
        """
        self.work = work
        self.raw = ReadAhead(work.inputs.raw, work.inputs.slice_bytes)
        local_rank, _ = local_place(comm)
        device = work.config.coarse.device
        equations = on_all_ranks(comm, lambda: open_equations(device, local_rank))
        sampling = Sampling(work.inputs, len(work.near))
        filters = measure_filters(sampling, comm, equations, stop)
        self.neighbours = Neighbours(equations, filters)
        self.hand: dict[int, Prepared | None] = {}
        self.seen: dict[int, Seen] = {}  # of those in hand

    def share(
        self, shares: Shares[int], missing: Iterable[Place], stop: StopRequest
    ) -> Iterator[Seen | PairResult]:
        """What is seen of the slices that this rank compares, and of the pairs `missing` those that
        begin in them, by the second slice; each is read once in a run. Ends early when asked to.
        """
        of_slice: dict[int, list[Place]] = {}
        for z, k in sorted(missing):
            of_slice.setdefault(z, []).append((z, k))
        for run in shares:
            places = sorted((p for z in run for p in of_slice[z]), key=lambda p: (sum(p), p))
            self.hand, self.seen = {}, {}  # a run is the same whatever was before it
            for n, (z, k) in enumerate(places):
                if stop:
                    return
                coming = [p for z in shares.coming() for p in of_slice[z]]
                self._expect([*places[n:], *coming])
                yield from self._look_at(z)
                yield from self._look_at(z + k)
                if k:
                    yield self.register(z, k)
                self._let_go(z + k)

    def _expect(self, places: Sequence[Place]) -> None:
        """These are next: the slices that they need are read meanwhile."""
        wanted = dict.fromkeys(i for z, k in places for i in (z, z + k) if i not in self.hand)
        self.raw.expect(wanted)

    def _let_go(self, last: int) -> None:
        """Slices that no pair of slice `last` needs, and the full detail of those far before it."""
        first = last - max(self.work.steps)
        self.hand = {z: ready for z, ready in self.hand.items() if first <= z <= last}
        self.seen = {z: self.seen[z] for z in self.hand}
        for z, ready in self.hand.items():
            if ready is not None and ready.full and z < last - len(self.work.near):
                self.hand[z] = replace(ready, full={})

    def _look_at(self, z: int) -> Iterator[Seen]:
        """What is seen of a slice that is not in hand."""
        if z in self.hand:
            return
        try:
            image = self.raw.read(z)
        except SliceError as error:
            log.warning("slice %d is left out: %s", z, error)
            seen = Seen(z, blank=True, unreadable=True, reason=str(error))
        else:
            blank = is_blank(image)
            seen = Seen(z, checksum(image), blank, reason="black or constant slice" * blank)
        self.seen[z], self.hand[z] = seen, None
        if not seen.blank:
            try:
                self.hand[z] = self.neighbours.prepare(image)
            except Exception as error:  # pyopencl's errors have no common class
                self._leave_device(error)
                self.hand[z] = self.neighbours.prepare(image)
        yield seen

    def _leave_device(self, error: Exception) -> None:
        """A device that fails is left for the host, which prepares what is in hand again."""
        self.neighbours = leave_device(self.neighbours, error)
        for z, ready in self.hand.items():
            if ready is not None:
                self.hand[z] = self.neighbours.prepare(self.raw.read(z))

    def register(self, z: int, k: int) -> PairResult:
        """A pair of slices in hand."""
        pair = PairResult(z, k)
        for _ in range(2):
            fixed, moving = self.hand[z], self.hand[z + k]
            if fixed is None or moving is None:
                return replace(pair, reason="a slice that is black or cannot be read")
            try:
                return self.neighbours.register(fixed, moving, pair, None)
            except Exception as error:  # pyopencl's errors have no common class
                self._leave_device(error)
        raise AssertionError("the host has no device to leave")


def place_whole(
    inputs: Inputs, config: Config, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> tuple[Inputs, Mapping[int, Seen]]:
    """Compare the raw slices and place them; collective.

    Returns the inputs on their canvas and, on rank 0, what was seen of the slices. Raises
    `Stopped`, and `InputError` where there is no canvas for them.
    """
    seen, pairs = compare_raw(compare_whole(inputs, config), attempt, comm, stop)
    placement = on_rank_0(comm, lambda: place_raw(seen, pairs, inputs, config))
    on_rank_0(comm, lambda: keep_placed(attempt, placement, inputs.overrides))
    return move(placement, inputs, config, comm), seen


def place_raw(
    seen: Mapping[int, Seen], pairs: Sequence[PairResult], inputs: Inputs, config: Config
) -> Placement:
    """Where the raw slices lie, all that there are; one that was stored twice lies on the first."""
    twice = [
        z
        for z, s in sorted(seen.items())
        if z - 1 in seen and s.crc is not None and s.crc == seen[z - 1].crc
    ]
    once = [p for p in pairs if p.z not in twice and p.z + p.k not in twice]
    drift, period = config.prealign.drift, config.drift.period
    placement = place(once, inputs.depth, inputs.shape, drift, period)
    for z in twice:
        placement.transforms[z] = placement.transforms[z - 1]
    if apart := placement.parts[1:]:
        named = ", ".join(map(str, apart[:NAMED])) + ", ..." * (len(apart) > NAMED)
        log.warning("no slices lead over the gap before slice %s: see status apart", named)
    return placement


def move(placement: Placement, inputs: Inputs, config: Config, comm: Communicator) -> Inputs:
    """The inputs on the canvas of the placed slices; collective. Raises `InputError`."""
    canvas = on_all_ranks(comm, lambda: lay_canvas(placement, inputs.shape, config.prealign))
    if comm.rank == 0:
        (y, x), (left, top) = canvas.shape, canvas.offset
        log.info("canvas: %d x %d px (y, x), from (%d, %d) of raw on", y, x, top, left)
    moved = inputs.on(canvas)
    if config.output.format != "tif":
        on_all_ranks(comm, lambda: check_layer(moved, config.output))
    return moved


def keep_placed(attempt: Attempt, placement: Placement, overrides: Sequence[Override]) -> bool:
    """Keep where the slices of the whole stack lie; False if that is kept already."""
    kept = {"overrides": [list(each) for each in overrides]} | placement.to_record()
    path, text = attempt.folder / PLACED, json.dumps(kept)
    if path.exists() and path.read_text() == text:
        return False
    write_whole(path, text)
    return True


def read_placed(attempt: Attempt, overrides: Sequence[Override]) -> Placement | None:
    """What `keep_placed` has kept; None where it has not, or with other overrides, or damaged."""
    try:
        kept = json.loads((attempt.folder / PLACED).read_text())
        same = kept["overrides"] == [list(each) for each in overrides]
        return Placement.from_record(kept) if same else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def describe_canvas(inputs: Inputs) -> dict[str, Any]:
    """What run.json says of it; nothing where there is none."""
    if inputs.canvas is None:
        return {}
    canvas = {"shape_yx": inputs.canvas.shape, "offset_xy": inputs.canvas.offset}
    return {"canvas": canvas, "parts": list(inputs.canvas.placement.parts)}


def placed_results(inputs: Inputs, seen: Mapping[int, Seen]) -> list[SliceResult]:
    """The slices where pairs have placed them, for those who want no more than that."""
    if inputs.canvas is None:
        raise ValueError("no canvas is laid")
    made: list[SliceResult] = []
    for z in inputs.select:
        one = SliceResult(
            z,
            inputs.raw.names[z],
            seen[z].blank,
            seen[z].unreadable,
            crc=seen[z].crc,
            reason=seen[z].reason,
        )
        made.append(_decided(one, inputs.canvas, seen.get(z - 1)))
    return made


def _decided(one: SliceResult, canvas: Canvas, before: Seen | None) -> SliceResult:
    """With its status and transform. before : what was seen of the slice before it."""
    z, placement = one.z, canvas.placement
    if one.blank:
        return replace(one, status="unreadable" if one.unreadable else "blank")
    one = replace(one, transform=canvas.moves[z], pairs=int(placement.pairs[z]))
    if before is not None and before.crc == one.crc:
        return replace(one, status="repeated", reason=f"the same pixels as slice {before.z}")
    if z in placement.parts[1:]:
        return replace(one, status="apart", reason=APART)
    if not one.pairs:
        return replace(one, status="interpolated", reason=UNLIKE)
    return replace(one, status="placed", pair_residual=float(placement.residual[z]))
