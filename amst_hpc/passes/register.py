"""The first pass: each rank registers its share of the slices, one journal record per slice."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.geometry import split
from amst_hpc.images.stack import SliceError, fit_to
from amst_hpc.images.tiff_output import write_slice
from amst_hpc.job.journal import Journal, crashed_slices
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Run, read_registered
from amst_hpc.parallel.communicator import on_all_ranks
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.signals import Stopped, StopRequest
from amst_hpc.quality.thumbnails import ThumbnailWriter
from amst_hpc.registration.coarse import Matcher, compile_kernels
from amst_hpc.registration.elastix import make_refine
from amst_hpc.registration.template import groups, is_blank, window
from amst_hpc.slice_result import RegistrationError
from amst_hpc.transform import Matrix, compose, shift_whole, translation

log = logging.getLogger(__name__)


Slice = NDArray[np.integer]


CRASHES_ALLOWED = 1


PREALIGNED_BELOW = 0.6


PREALIGNED_SCORE = 0.8


def register_missing(run: Run, stop: StopRequest) -> None:
    """Register the slices that the journal does not hold, an equal share on each rank.

    Raises `Stopped`.
    """
    comm, select = run.comm, run.inputs.select
    plan = (set(read_registered(run)), crashed_slices(run.journal)) if comm.rank == 0 else None
    done, crashes = comm.bcast(plan)
    missing = [z for z in select if z not in done]
    if comm.rank == 0 and done:
        log.info("%d of %d slices are registered already", len(done), len(select))
    if missing:
        share = split(len(missing), comm.size)[comm.rank]
        mine = [missing[i] for i in share]
        with (
            Journal(run.journal, run.attempt, comm.rank, "register") as journal,
            ThumbnailWriter(run.thumbnails, run.attempt, comm.rank, "register") as keeper,
        ):
            began = time.monotonic()
            registrar = on_all_ranks(comm, lambda: Registrar(run, journal, keeper))
            started = time.monotonic()
            with ProgressMeter("register", len(select), len(done), comm.rank == 0) as meter:
                for record in registrar.register(mine, crashes, stop):
                    journal.write(record)
                    if meter.due():
                        tell(meter, run)
                journal.sync()
                run.timings |= {
                    "start": started - began,
                    "register": time.monotonic() - started,
                }
                comm.Barrier()
                if comm.rank == 0:
                    tell(meter, run)
    if any(comm.allgather(bool(stop))):
        raise Stopped("registration")


def tell(meter: ProgressMeter, run: Run) -> None:
    """Show how many slices are registered, and how many of them not as they should be."""
    found = read_registered(run)
    faults = sum(bool(record["reason"]) for record in found.values())
    meter.update(len(found), f"{faults} fell back" if faults else "")


class Registrar:
    """Template, coarse and refine of one rank, built once."""

    def __init__(self, run: Run, journal: Journal, keeper: ThumbnailWriter) -> None:
        config, inputs = run.config, run.inputs
        self.run, self.journal, self.keeper = run, journal, keeper
        rank_on_node, ranks_on_node = local_place(run.comm)
        coarse = compile_kernels(config.coarse, rank_on_node, inputs.shape)
        self.matcher = Matcher(coarse, rank_on_node)
        pixels = inputs.shape[0] * inputs.shape[1]
        self.matcher.share_memory(inputs.slice_bytes, pixels, config.template.radius, ranks_on_node)
        self.matcher.warm_up(inputs.shape)
        self.refine = make_refine(config.refine)
        self.window: dict[int, Slice | None] = {}
        if self.matcher.note:
            log.warning("%s", self.matcher.note)
        if self.run.comm.rank == 0:
            log.info(
                "coarse: %s on %s; refine: %s",
                self.matcher.method,
                self.matcher.device,
                config.refine.backend,
            )

    def register(
        self, mine: Sequence[int], crashes: dict[int, int], stop: StopRequest
    ) -> Iterator[dict[str, Any]]:
        """Records of the slices `mine`, ascending; ends early when asked to stop."""
        for group in groups(mine):
            began = time.monotonic()
            templates = self.templates(group)
            seconds = (time.monotonic() - began) / len(group)
            for z, template in zip(group, templates, strict=True):
                if stop:
                    return
                self.journal.write({"kind": "start", "z": z}, durable=False)
                crashed = crashes.get(z, 0) > CRASHES_ALLOWED
                record = self.one(z, template, crashed)
                record["seconds"] = {"template": round(seconds, 4), **record["seconds"]}
                yield record

    def templates(self, group: Sequence[int]) -> list[Slice | None]:
        """The template of each slice of a group; each pre-aligned slice is read once."""
        depth, radius = self.run.inputs.depth, self.run.config.template.radius
        needed = sorted({i for z in group for i in window(z, depth, radius)})
        self.window = {
            i: self.window[i] if i in self.window else self.read_prealigned(i) for i in needed
        }
        windows = [
            [s for i in window(z, depth, radius) if (s := self.window[i]) is not None]
            for z in group
        ]
        full = [w for w in windows if w]
        made = iter(self.matcher.templates(full)) if full else iter(())
        return [next(made) if w else None for w in windows]

    def read_prealigned(self, z: int) -> Slice | None:
        """A pre-aligned slice, None if black or unreadable: the template goes without it."""
        try:
            image = self.run.inputs.prealigned.read(z)
        except SliceError as error:
            log.warning("left out of the templates: %s", error)
            return None
        return None if is_blank(image) else image

    def one(self, z: int, template: Slice | None, crashed: bool) -> dict[str, Any]:
        """Register one slice; whatever goes wrong with it is in the record."""
        clock = Clock()
        record: dict[str, Any] = {
            "kind": "slice", "z": z, "blank": False, "matrix": None, "shift": None,
            "prealigned": None, "matches": 0, "start": None, "metric": None, "reason": "",
            "rank": self.run.comm.rank, "device": self.matcher.device,
        }  # fmt: skip
        try:
            raw, offset = fit_to(
                self.run.inputs.raw.read(z), self.run.inputs.shape, self.run.inputs.raw.names[z]
            )
            self.keeper.keep("raw", z, raw)
            if (own := self.window.get(z)) is not None:
                self.keeper.keep("prealigned", z, own)
            clock.lap("read")
            if is_blank(raw):
                return record | {
                    "blank": True,
                    "reason": "black or constant slice",
                    "seconds": clock.laps,
                }
            if template is None:
                raise RegistrationError("no pre-aligned slice around it can be used")
            self.match(record, template, raw, offset, crashed, clock)
        except SliceError as error:
            log.warning("slice %d is left black: %s", z, error)
            return record | {"blank": True, "reason": str(error), "seconds": clock.laps}
        except RegistrationError as error:
            record["reason"] = str(error)
            log.warning("slice %d: %s", z, error)
        if record["shift"] is None or record["start"] < PREALIGNED_BELOW:
            record["prealigned"] = self.match_prealigned(z, raw, offset)
            clock.lap("coarse")
        return record | {"seconds": clock.laps}

    def match(
        self,
        record: dict[str, Any],
        template: Slice,
        raw: Slice,
        offset: Matrix,
        crashed: bool,
        clock: Clock,
    ) -> None:
        """Coarse and refine; fills the record as far as it comes.

        Raises `RegistrationError`, `RegistrationError`.
        """
        fixed, moving = self.matcher.smooth(template), self.matcher.smooth(raw)
        shift = self.matcher(fixed, moving)
        clock.lap("coarse")
        coarse = translation(shift.x, shift.y)
        if self.run.config.output.intermediates:
            self.keep(record["z"], template, shift_whole(raw, shift.x, shift.y, raw.shape))
        record |= {
            "shift": compose(offset, coarse).tolist(),
            "matches": shift.matches,
            "device": self.matcher.device,
        }
        record["start"] = record["metric"] = self.matcher.quality(fixed, moving, coarse)
        if crashed:
            raise RegistrationError("elastix crashed on this slice twice")
        matrix = self.refine(template, raw, (shift.x, shift.y))
        clock.lap("refine")
        record |= {
            "matrix": compose(offset, matrix).tolist(),
            "metric": self.matcher.quality(fixed, moving, matrix),
        }
        clock.lap("coarse")

    def keep(self, z: int, template: Slice, shifted: Slice) -> None:
        """Write the intermediate slices, as the original does."""
        for name, image in (("refs", template), ("sift", shifted)):
            folder = self.run.intermediates / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / self.run.inputs.raw.names[z]
            write_slice(path, image, self.run.config.output.compression)

    def match_prealigned(self, z: int, raw: Slice, offset: Matrix) -> list[list[float]] | None:
        """Translation of raw onto its own pre-aligned slice: what the pre-alignment did to it."""
        own = self.window.get(z)
        if own is None:
            return None
        fixed, moving = self.matcher.smooth(own), self.matcher.smooth(raw)
        try:
            shift = self.matcher(fixed, moving)
        except RegistrationError:
            return None
        found = translation(shift.x, shift.y)
        if self.matcher.quality(fixed, moving, found) < PREALIGNED_SCORE:
            return None
        matrix: list[list[float]] = compose(offset, found).tolist()
        return matrix


class Clock:
    """Seconds per stage of one slice."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to `stage`."""
        now = time.monotonic()
        self.laps[stage] = round(self.laps.get(stage, 0.0) + now - self.last, 4)
        self.last = now
