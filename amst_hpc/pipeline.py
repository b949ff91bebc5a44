"""The main job, `align`: raw slices and their coarse pre-alignment in, a BigDataViewer file out.

Two passes. Each rank first registers its share of the slices (template, coarse, refine); every
result is in the journal before it counts. When all are there, the transforms are settled for the
whole stack at once (`ladder`), and the ranks resample raw once, layer by layer, and write the
layers collectively. Resampling is cheap and registration is not: so the file that a crash leaves is
simply written again, bad slices are judged against the whole stack, and a restart with another
number of ranks gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc.bdv.writer import choose_writer
from amst_hpc.config import Config
from amst_hpc.images.pairing import Job, open_inputs
from amst_hpc.job.failures import recording_failure, refuse_fruitless_restart
from amst_hpc.job.journal import next_attempt
from amst_hpc.job.run_folder import Run, open_run, read_registered, view_path
from amst_hpc.opencl.devices import check_device, prepare
from amst_hpc.parallel.communicator import on_all_ranks
from amst_hpc.parallel.node import cores_per_rank, local_place, scratch_folder
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.passes.products import finish, list_slices
from amst_hpc.passes.register import register_missing
from amst_hpc.passes.write import check_layer, write_output
from amst_hpc.quality.report import try_report
from amst_hpc.registration.elastix import check_refine
from amst_hpc.registration.fallback import Decision, Registered, decide


@dataclass(frozen=True)
class Outcome:
    """What a run did: per slice of `select` its decision, and the file to open.

    strict : a slice that fell back is an error.
    """

    decisions: list[Decision]
    first: int
    view: Path
    strict: bool = False

    @property
    def fallen_back(self) -> list[int]:
        """Slices that stand on a lower rung than `affine`."""
        return [self.first + i for i, d in enumerate(self.decisions) if d.status != "affine"]

    @property
    def refused(self) -> bool:
        """True if nothing was written because a slice fell back."""
        return self.strict and bool(self.fallen_back)

    def summary(self) -> str:
        """What to tell the user at the end."""
        written = f"{len(self.decisions)} slices written: open {self.view}"
        if self.refused:
            written = f"--strict: {len(self.decisions)} slices registered, nothing written"
        lines = [written]
        if self.fallen_back:
            shown = [f"{z} ({self.decisions[z - self.first].status})" for z in self.fallen_back]
            more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
            lines.append(
                f"{len(shown)} of them not by affine registration: {', '.join(shown[:20])}{more}"
            )
        return "\n".join(lines)


def align(job: Job, config: Config, comm: Any) -> Outcome:
    """Align a stack (Hennies et al., Sci Rep 10, 2004 (2020)); collective over `comm`.

    Raises `InputError` (on every rank, before anything is written) and `Stopped`.
    """
    with recording_failure(job.out, comm):
        on_all_ranks(comm, lambda: refuse_fruitless_restart(job.out) if comm.rank == 0 else None)
        return _align(job, config, comm)


def _align(job: Job, config: Config, comm: Any) -> Outcome:
    began = time.monotonic()
    inputs = open_inputs(job, config, comm)
    run = Run(job, config, inputs, comm)
    with ready_tools(run):
        on_all_ranks(comm, lambda: open_run(run) if comm.rank == 0 else None)
        run.attempt = comm.bcast(next_attempt(run.journal) if comm.rank == 0 else None)
        with StopRequest(run.folder / "stop") as stop:
            register_missing(run, stop)
            found = comm.bcast(read_registered(run) if comm.rank == 0 else None)
            decisions = decide([as_registered(found[z]) for z in inputs.select], inputs.shape)
            outcome = Outcome(decisions, inputs.select.start, view_path(job, config), job.strict)
            if outcome.refused:
                on_all_ranks(comm, lambda: list_slices(run, decisions, found))
                return outcome
            write_output(run, decisions, stop)
    run.timings["total"] = time.monotonic() - began
    timings = comm.gather(run.timings)
    if comm.rank == 0:
        finish(run, decisions, found, timings)
        if config.output.report:
            try_report(job.out)
    comm.Barrier()
    return outcome


@contextmanager
def ready_tools(run: Run) -> Iterator[None]:
    """Makes OpenCL ready and checks all that the settings name, before anything is written.

    Raises `InputError` for a device, program, elastix parameter or writer that is not there.
    """
    config, comm = run.config, run.comm
    local_rank, local_size = local_place(comm)
    with scratch_folder(local_rank) as scratch:
        prepare(scratch, cores_per_rank(local_size))

        def check() -> None:
            if config.coarse.method == "sift":
                check_device(config.coarse.device)
            check_refine(config.refine)
            if config.output.format == "bdv":
                choose_writer(config.output, comm.size)
                check_layer(run)

        on_all_ranks(comm, check)
        yield


def as_registered(record: Mapping[str, Any]) -> Registered:
    """A journal record as the ladder takes it."""
    matrix, shift, prealigned = (
        None if record[key] is None else np.array(record[key])
        for key in ("matrix", "shift", "prealigned")
    )
    start, metric = (
        float("nan") if record[key] is None else record[key] for key in ("start", "metric")
    )
    return Registered(
        record["z"], record["blank"], matrix, shift, prealigned, start, metric, record["reason"]
    )
