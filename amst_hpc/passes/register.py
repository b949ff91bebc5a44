"""The first pass: the ranks register the slices, each as many as it has the time for.

A result is in the journal before it counts, and goes to rank 0 when the pass is over; what an
earlier start of the job left in the journal is not registered again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from amst_hpc.averaging import shrink
from amst_hpc.config import Config
from amst_hpc.content import Mask, blackened, content
from amst_hpc.images.ahead import InputsAhead
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, checksum
from amst_hpc.images.tiff_output import write_slice
from amst_hpc.job.journal import Journal, crashed_slices
from amst_hpc.job.progress import ProgressMeter, StageTimer
from amst_hpc.job.run_folder import Attempt
from amst_hpc.parallel.communicator import Communicator, on_all_ranks
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.shares import Shares
from amst_hpc.parallel.signals import LeaveOff, StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.quality.thumbnails import Look, ThumbnailWriter, look_at
from amst_hpc.registration.chance import over_chance
from amst_hpc.registration.coarse import Matcher, Shift, Smooth, compile_kernels
from amst_hpc.registration.elastix import make_refine
from amst_hpc.registration.fallback import choose_transforms
from amst_hpc.registration.template import RUN, groups, is_blank, of_content, window
from amst_hpc.slice_result import RegistrationError, SliceResult
from amst_hpc.transform import Image, Matrix, compose, invert, scaled, shift_whole, translation

log = logging.getLogger(__name__)

CRASHES_ALLOWED = 1
PREALIGNED_BELOW = 0.6  # correlation at the coarse shift: worse, and the pre-aligned slice is asked
PREALIGNED_SCORE = 0.8
FOR_GOOD = ("affine", "blank", "repeated")  # not registered again by --retry


def register_slices(
    inputs: Inputs, config: Config, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> tuple[list[SliceResult], dict[str, float]]:
    """Register the slices that the journal does not hold, shared out over the ranks.

    What could not be read at an earlier start is tried again. Returns the results of all slices, in
    their order, on rank 0 (elsewhere none), and the seconds of this rank by step. Raises `Stopped`.
    """
    earlier = attempt.registered(inputs, config.template.radius) if comm.rank == 0 else {}
    if attempt.retry:
        decided = choose_transforms(list(earlier.values()), inputs.shape)
        earlier = {s.z: earlier[s.z] for s in decided if s.status in FOR_GOOD}
    done: set[int] = comm.bcast(set(earlier))
    missing = [z for z in inputs.select if z not in done]
    if comm.rank == 0 and done:
        log.info("%d of %d slices are registered already", len(done), len(inputs.select))
    mine: list[SliceResult] = []
    timer = StageTimer()
    if missing:
        with (
            attempt.open_journal(comm.rank, "register") as journal,
            ThumbnailWriter(attempt.thumbnails, attempt.name(comm.rank), "register") as kept,
            Shares(comm, missing, RUN) as shares,
        ):
            registrar = on_all_ranks(comm, lambda: Registrar(inputs, config, attempt, comm, kept))
            timer.lap("start")
            crashes = comm.bcast(crashed_slices(attempt.journal) if comm.rank == 0 else None)
            tally = Tally(comm)
            with ProgressMeter("register", len(inputs.select), len(done), comm.rank == 0) as meter:
                for result in _register_share(registrar, shares, crashes, journal, stop):
                    mine.append(result)
                    tally.add(fell_back=bool(result.reason))
                    _show(meter, tally, earlier)
                journal.sync()
                timer.lap("register")
                tally.finish(lambda: _show(meter, tally, earlier))
                _show(meter, tally, earlier, always=True)
    stop.raise_together(comm, "registration")
    found = earlier | {r.z: r for part in comm.gather(mine) or [] for r in part}
    return [found[z] for z in inputs.select if z in found], timer.laps


def _intermediates(config: Config, attempt: Attempt) -> Path | None:
    """Where refs/ and sift/ go, if asked for: beside the TIFF slices, else into the run folder."""
    if not config.output.intermediates:
        return None
    return attempt.out if config.output.format == "tif" else attempt.folder


def _show(
    meter: ProgressMeter, tally: Tally, earlier: Mapping[int, SliceResult], always: bool = False
) -> None:
    """Slices done by all ranks, and how many of them fell back."""
    if always or meter.due():
        done, faults = tally.totals()
        faults += sum(bool(result.reason) for result in earlier.values())
        meter.update(len(earlier) + done, f"{faults} fell back" if faults else "")


def _register_share(
    registrar: Registrar,
    shares: Shares[int],
    crashes: Mapping[int, int],
    journal: Journal,
    stop: StopRequest,
) -> Iterator[SliceResult]:
    """Results of the slices of this rank, in the journal; ends early when asked to."""
    with registrar.ahead, suppress(LeaveOff):
        for run in shares:
            left = list(run)
            for group in groups(run):
                began = time.monotonic()
                registrar.expect([*left, *shares.coming()])
                templates = registrar.templates(group, stop)
                seconds = {"template": round((time.monotonic() - began) / len(group), 4)}
                for z, template in zip(group, templates, strict=True):
                    stop.look()
                    journal.write({"kind": "start", "z": z}, durable=False)
                    left.remove(z)
                    registrar.expect([z, *left, *shares.coming()])
                    result = registrar.register(z, template, crashes.get(z, 0) > CRASHES_ALLOWED)
                    result = replace(result, seconds=seconds | dict(result.seconds))
                    journal.write(result.to_record())
                    yield result


@dataclass(frozen=True)
class Pair:
    """Template and raw slice at the working size, and both as the coarse step sees them.

    offset : the raw slice at full size is at p the slice as read at `offset p`.
    """

    template: Image
    raw: Image
    offset: Matrix
    fixed: Smooth
    moving: Smooth


class Registrar:
    """Template, coarse and refine of one rank, built once."""

    def __init__(
        self,
        inputs: Inputs,
        config: Config,
        attempt: Attempt,
        comm: Communicator,
        thumbnails: ThumbnailWriter,
    ) -> None:
        """Opens the device and loads elastix. Raises `InputError`."""
        self.ahead = InputsAhead(inputs)
        self.inputs, self.config, self.rank = self.ahead.inputs, config, comm.rank
        self.thumbnails, self.intermediates = thumbnails, _intermediates(config, attempt)
        self.factor = config.registration.factor(inputs.shape)
        y, x = (n // self.factor for n in inputs.shape)
        rank_on_node, ranks_on_node = local_place(comm)
        coarse = compile_kernels(config.coarse, rank_on_node, (y, x))
        self.matcher = Matcher(coarse, rank_on_node)
        size = y * x * np.dtype(inputs.dtype).itemsize
        self.matcher.share_memory(size, y * x, config.template.radius, ranks_on_node)
        self.matcher.warm_up((y, x))
        self.refine = make_refine(config.refine, config.coarse.device, rank_on_node)
        self.window: dict[int, Image | None] = {}
        self.content: dict[int, Mask | None] = {}
        self.looks: dict[int, Look] = {}
        self.unreadable: set[int] = set()
        self.crcs: dict[int, int] = {}  # of pre-aligned slices
        if self.matcher.note:
            log.warning("%s", self.matcher.note)
        if comm.rank == 0:
            log.info(
                "coarse: %s on %s; refine: %s",
                self.matcher.method,
                self.matcher.device,
                config.refine.backend,
            )

    def templates(self, group: Sequence[int], stop: StopRequest) -> list[Image | None]:
        """The template of each slice of a group; each pre-aligned slice is read once.

        At the working size, as all that is registered. Raises `LeaveOff`.
        """
        depth, radius = self.inputs.depth, self.config.template.radius
        needed = sorted({i for z in group for i in window(z, depth, radius)})
        self.window = {i: self.window[i] for i in needed if i in self.window}
        for i in needed:
            if i not in self.window:
                stop.look()
                self.window[i] = self.read_prealigned(i)
        self.looks = {i: look for i, look in self.looks.items() if i in self.window}
        self.content = {i: mask for i, mask in self.content.items() if i in self.window}
        windows = [
            {
                i: s
                for i in window(z, depth, radius)
                if i not in self.inputs.excluded and (s := self.window[i]) is not None
            }
            for z in group
        ]
        full = [[*w.values()] for w in windows if w]
        made = iter(self.matcher.templates(full)) if full else iter(())
        return [
            of_content(next(made), [*w.values()], [self.content[i] for i in w]) if w else None
            for w in windows
        ]

    def expect(self, slices: Sequence[int]) -> None:
        """These are registered next, in this order: what they need is read meanwhile."""
        depth, radius = self.inputs.depth, self.config.template.radius
        around = dict.fromkeys(i for z in slices for i in window(z, depth, radius))
        self.ahead.raw.expect(slices)
        self.ahead.prealigned.expect(i for i in around if i not in self.window)

    def read_prealigned(self, z: int) -> Image | None:
        """A pre-aligned slice, None if black or unreadable: the template goes without it."""
        try:
            image = self.inputs.prealigned.read(z)
        except SliceError as error:
            log.warning("left out of the templates: %s", error)
            self.unreadable.add(z)
            return None
        self.crcs[z] = checksum(image)
        if is_blank(image):
            return None
        self.looks[z] = look_at(image)
        small = blackened(shrink(image, self.factor))
        self.content[z] = content(small)
        return small

    def register(self, z: int, template: Image | None, crashed: bool) -> SliceResult:
        """Register one slice; whatever goes wrong with it is in the result.

        crashed : elastix has crashed on it, it is not asked again.
        """
        timer, result = StageTimer(), self.begin(z)
        try:
            raw, offset, crc = self.inputs.fit(image := self.inputs.raw.read(z), z)
        except SliceError as error:
            log.warning("slice %d is left black: %s", z, error)
            return replace(
                result, blank=True, unreadable=True, reason=str(error), seconds=timer.laps
            )
        self.keep_thumbnails(z, self.inputs.unmoved(image, raw))
        timer.lap("read")
        if is_blank(raw):
            return replace(result, blank=True, reason="black or constant slice", seconds=timer.laps)
        result = replace(result, crc=crc)
        small = blackened(shrink(raw, self.factor))
        try:
            if template is None:
                raise RegistrationError("no pre-aligned slice around it can be used")
            smooth = self.matcher.smooth
            pair = Pair(template, small, offset, smooth(template), smooth(small))
            result, shift = self.find_shift(result, pair)
            timer.lap("coarse")
            if crashed:
                raise RegistrationError("elastix crashed on this slice twice")
            result = self.find_affine(result, pair, shift, timer)
        except RegistrationError as error:
            result = replace(result, reason=str(error))
            log.warning("slice %d: %s", z, error)
        if template is not None:
            result = self.judge(result, template, small, offset)
            timer.lap("coarse")
        low = result.shift is None or result.start < PREALIGNED_BELOW or result.over_chance <= 1
        if low and not self.inputs.alone:
            result = replace(result, prealigned=self.match_prealigned(z, small, offset))
            timer.lap("coarse")
        return replace(result, seconds=timer.laps)

    def begin(self, z: int) -> SliceResult:
        """What is known of a slice beforehand."""
        prealigned, radius = self.inputs.prealigned.names, self.config.template.radius
        missed = self.unreadable.intersection(window(z, self.inputs.depth, radius))
        return SliceResult(
            z,
            self.inputs.raw.names[z],
            missed=[prealigned[i] for i in sorted(missed - self.inputs.excluded)],
            left_out=self.inputs.left_out(z, radius),
            moved_by=self.inputs.moved_by(z, radius),
            crc_prealigned=self.crcs.get(z),
            rank=self.rank,
            device=self.matcher.device,
        )

    def keep_thumbnails(self, z: int, raw: Image) -> None:
        """Raw and pre-aligned slice for the report, while they are in hand."""
        self.thumbnails.add("raw", z, look_at(raw))
        if (own := self.looks.get(z)) is not None:
            self.thumbnails.add("prealigned", z, own)

    def find_shift(self, result: SliceResult, pair: Pair) -> tuple[SliceResult, tuple[int, int]]:
        """The coarse step: the result with the shift, and the shift. Raises `RegistrationError`."""
        found = self.matcher(pair.fixed, pair.moving)
        coarse = translation(found.x, found.y)
        if self.intermediates is not None:
            moved = shift_whole(pair.raw, found.x, found.y, pair.raw.shape)
            self.keep_intermediates(self.intermediates, result.file, pair.template, moved)
        score = self.matcher.quality(pair.fixed, pair.moving, coarse)
        result = replace(
            result,
            shift=compose(pair.offset, self.whole_pixels(found)),
            matches=found.matches,
            method=found.method,
            device=self.matcher.device,
            start=score,
            metric=score,
        )
        return result, (found.x, found.y)

    def whole_pixels(self, found: Shift) -> Matrix:
        """A shift at the working size as one by whole pixels of the full size."""
        if self.factor == 1:
            return translation(found.x, found.y)
        return translation(*(round(self.factor * v) for v in found.top))

    def find_affine(
        self, result: SliceResult, pair: Pair, shift: tuple[int, int], timer: StageTimer
    ) -> SliceResult:
        """The refine step: the result with the affine. Raises `RegistrationError`."""
        matrix = self.refine(pair.template, pair.raw, shift)
        timer.lap("refine")
        score = self.matcher.quality(pair.fixed, pair.moving, matrix)
        timer.lap("coarse")
        full = scaled(matrix, self.factor)
        return replace(result, affine=compose(pair.offset, full), metric=score)

    def judge(
        self, result: SliceResult, template: Image, raw: Image, offset: Matrix
    ) -> SliceResult:
        """The result compared with chance, without an affine that is no better."""
        found = result.shift if result.affine is None else result.affine
        if found is None:
            return result
        here = scaled(compose(invert(offset), found), 1 / self.factor)
        result = replace(result, over_chance=over_chance(template, raw, here))
        if result.over_chance > 1 or result.affine is None:
            return result
        reason = f"correlation {result.metric:.3f} after the affine registration, as by chance"
        log.warning("slice %d: %s", result.z, reason)
        result = replace(result, affine=None, metric=result.start, reason=reason)
        return self.judge(result, template, raw, offset)

    def keep_intermediates(self, folder: Path, name: str, template: Image, shifted: Image) -> None:
        """Write the template and the shifted slice, as the original does."""
        for kind, image in (("refs", template), ("sift", shifted)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            write_slice(folder / kind / name, image, self.config.output.compression)

    def match_prealigned(self, z: int, raw: Image, offset: Matrix) -> Matrix | None:
        """Translation of raw onto its own pre-aligned slice: what the pre-alignment did to it."""
        own = self.window.get(z)
        if own is None:
            return None
        fixed, moving = self.matcher.smooth(own), self.matcher.smooth(raw)
        try:
            found = self.matcher(fixed, moving)
        except RegistrationError:
            return None
        if self.matcher.quality(fixed, moving, translation(found.x, found.y)) < PREALIGNED_SCORE:
            return None
        return compose(offset, self.whole_pixels(found))
