"""The main job, `align`: raw slices and their coarse pre-alignment in, a BigDataViewer file out.

Two passes. Each rank first registers its share of the slices (template, coarse, refine); every
result is in the journal before it counts. When all are there, the transforms are settled for the
whole stack at once (`registration.fallback`), and the ranks resample raw once, layer by layer, and
write the layers. Resampling is cheap and registration is not: so the file that a crash leaves is
simply written again, bad slices are judged against the whole stack, and a restart with another
number of ranks gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amst_hpc.bdv.writer import choose_writer
from amst_hpc.config import Config
from amst_hpc.images.pairing import Inputs, Job, open_inputs
from amst_hpc.job.failures import recording_failure, refuse_fruitless_restart
from amst_hpc.job.journal import write_whole
from amst_hpc.job.run_folder import Attempt, begin_attempt, view_path
from amst_hpc.opencl.devices import check_device, prepare
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0
from amst_hpc.parallel.node import cores_per_rank, local_place, scratch_folder
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.passes.merge import join_parts
from amst_hpc.passes.products import write_products
from amst_hpc.passes.register import register_slices
from amst_hpc.passes.write import AlignedStack, check_layer, open_resampler, write_output
from amst_hpc.quality.report import try_report
from amst_hpc.registration.elastix import check_refine
from amst_hpc.registration.fallback import choose_transforms
from amst_hpc.slice_result import SliceResult, to_csv


@dataclass(frozen=True)
class Outcome:
    """What a run did with each slice, and the file to open.

    strict : a slice that fell back is an error.
    """

    results: Sequence[SliceResult]
    view: Path
    strict: bool = False

    @property
    def fallen_back(self) -> list[SliceResult]:
        """Slices that stand on a lower rung than `affine`."""
        return [result for result in self.results if result.status != "affine"]

    @property
    def refused(self) -> bool:
        """True if nothing was written because a slice fell back."""
        return self.strict and bool(self.fallen_back)

    def summary(self) -> str:
        """What to tell the user at the end."""
        lines = [f"{len(self.results)} slices written: open {self.view}"]
        if self.refused:
            lines = [f"--strict: {len(self.results)} slices registered, nothing written"]
        if self.fallen_back:
            shown = [f"{result.z} ({result.status})" for result in self.fallen_back]
            more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
            lines.append(
                f"{len(shown)} of them not by affine registration: {', '.join(shown[:20])}{more}"
            )
        return "\n".join(lines)


def align(job: Job, config: Config, comm: Communicator) -> Outcome:
    """Align a stack (Hennies et al., Sci Rep 10, 2004 (2020)); collective over `comm`.

    Raises `InputError` (on every rank, before anything is written) and `Stopped`.
    """
    with recording_failure(job.out, comm):
        on_rank_0(comm, lambda: refuse_fruitless_restart(job.out))
        return _align(job, config, comm)


def _align(job: Job, config: Config, comm: Communicator) -> Outcome:
    began = time.monotonic()
    inputs = open_inputs(job, config, comm)
    with ready_tools(config, inputs, comm):
        attempt: Attempt = on_rank_0(comm, lambda: begin_attempt(job, config, inputs))
        with StopRequest(attempt.stop_flag) as stop:
            found, seconds = register_slices(inputs, config, attempt, comm, stop)
            results = on_rank_0(comm, lambda: choose_transforms(found, inputs.shape))
            outcome = Outcome(results, view_path(job.out, config.output), job.strict)
            if outcome.refused:
                table = attempt.folder / "slices.csv"
                on_rank_0(comm, lambda: write_whole(table, to_csv(results)))
                return outcome
            registered = time.monotonic()
            aligned = AlignedStack(inputs, results, open_resampler(config, comm))
            write_output(aligned, config, attempt, comm, stop)
    written = time.monotonic()
    seconds |= {"write": written - registered, "total": written - began}
    facts = describe_ranks(config, attempt, comm, seconds)
    if comm.rank == 0:
        write_products(job, config, inputs, results, facts)
        if config.output.report:
            try_report(job.out)
    comm.Barrier()
    return outcome


def describe_ranks(
    config: Config, attempt: Attempt, comm: Communicator, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What run.json says of the ranks; collective."""
    parts = comm.allgather({key: round(value, 3) for key, value in seconds.items()})
    return {
        "ranks": comm.size,
        "attempt": attempt.number,
        "writer": choose_writer(config.output, comm.size),
        "seconds_per_rank": parts,
    }


@contextmanager
def ready_tools(config: Config, inputs: Inputs, comm: Communicator) -> Iterator[None]:
    """Makes OpenCL ready and checks all that the settings name, before anything is written.

    Raises `InputError` for a device, program, elastix parameter or writer that is not there.
    """
    local_rank, local_size = local_place(comm)
    with scratch_folder(local_rank) as scratch:
        prepare(scratch, cores_per_rank(local_size))

        def check() -> None:
            if config.coarse.method == "sift":
                check_device(config.coarse.device)
            check_refine(config.refine)
            if config.output.format == "bdv":
                choose_writer(config.output, comm.size)
                check_layer(inputs, config.output)

        on_all_ranks(comm, check)
        yield


def merge(out: Path, comm: Communicator, link: bool = False, overwrite: bool = False) -> Outcome:
    """Join the parts of a stack that was aligned in blocks; see `passes.merge`.

    Raises `InputError`.
    """
    with recording_failure(out, comm):
        config, results = join_parts(out, comm, link, overwrite)
    return Outcome(results, view_path(out, config.output))
