"""The main job, `align`: raw slices and their coarse pre-alignment in, a BigDataViewer file out.

Two passes. Each rank first registers its share of the slices (template, coarse, refine); every
result is in the journal before it counts. When all are there, the transforms are settled for the
whole stack at once (`ladder`), and the ranks resample raw once, layer by layer, and write the
layers collectively. Resampling is cheap and registration is not: so the file that a crash leaves is
simply written again, bad slices are judged against the whole stack, and a restart with another
number of ranks gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc import __version__, bdv
from amst_hpc.attempts import give_up_if_useless, noting
from amst_hpc.config import Config
from amst_hpc.inputs import Job, open_inputs
from amst_hpc.journal import next_attempt, write_whole
from amst_hpc.ladder import Decision, Registered, decide
from amst_hpc.opencl import check_device, prepare
from amst_hpc.parallel import (
    StopRequest,
    cores_per_rank,
    local_place,
    scratch_folder,
    together,
)
from amst_hpc.refine import check_refine
from amst_hpc.register import register_missing
from amst_hpc.report import try_report
from amst_hpc.rundir import Run, open_run, read_registered, view_path
from amst_hpc.write import check_layer, write_output

LIBRARIES = (
    "numpy", "scipy", "h5py", "tifffile", "imagecodecs", "pybdv", "mpi4py", "silx",
    "pyopencl", "itk-elastix", "pyelastix",
)  # fmt: skip


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
    with noting(job.out, comm):
        together(comm, lambda: give_up_if_useless(job.out) if comm.rank == 0 else None)
        return _align(job, config, comm)


def _align(job: Job, config: Config, comm: Any) -> Outcome:
    began = time.monotonic()
    inputs = open_inputs(job, config, comm)
    run = Run(job, config, inputs, comm)
    with ready_tools(run):
        together(comm, lambda: open_run(run) if comm.rank == 0 else None)
        run.attempt = comm.bcast(next_attempt(run.journal) if comm.rank == 0 else None)
        with StopRequest(run.folder / "stop") as stop:
            register_missing(run, stop)
            found = comm.bcast(read_registered(run) if comm.rank == 0 else None)
            decisions = decide([as_registered(found[z]) for z in inputs.select], inputs.shape)
            outcome = Outcome(decisions, inputs.select.start, view_path(job, config), job.strict)
            if outcome.refused:
                together(comm, lambda: list_slices(run, decisions, found))
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
                bdv.choose_writer(config.output, comm.size)
                check_layer(run)

        together(comm, check)
        yield


def list_slices(
    run: Run, decisions: Sequence[Decision], found: Mapping[int, Mapping[str, Any]]
) -> None:
    """slices.csv alone (rank 0)."""
    if run.comm.rank == 0:
        write_whole(run.folder / "slices.csv", slices_csv(run, decisions, found))


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


def finish(
    run: Run,
    decisions: Sequence[Decision],
    found: Mapping[int, Mapping[str, Any]],
    timings: Sequence[Mapping[str, float]],
) -> None:
    """The files beside the output (rank 0).

    The XML comes last, when everything it stands for is there.
    """
    select, folder = run.inputs.select, run.folder
    transforms: list[Any] = [None] * run.inputs.depth
    for z, decision in zip(select, decisions, strict=True):
        transforms[z] = None if decision.matrix is None else decision.matrix.tolist()
    write_whole(folder / "transforms.json", json.dumps(transforms))
    write_whole(folder / "slices.csv", slices_csv(run, decisions, found))
    write_whole(
        folder / "run.json", json.dumps(describe_run(run, decisions, found, timings), indent=1)
    )
    if run.config.output.format == "bdv":
        view = view_path(run.job, run.config)
        bdv.write_settings(view.with_suffix(".settings.xml"), *bdv.contrast(run.job.out))
        bdv.write_xml(view, run.job.out, run.config.output.voxel_size_nm)


def slices_csv(
    run: Run, decisions: Sequence[Decision], found: Mapping[int, Mapping[str, Any]]
) -> str:
    """One line per slice of the job."""
    table = io.StringIO()
    stages = ("template", "read", "coarse", "refine")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["index", "file", "status", "shift_x", "shift_y", "matches", "metric_before", "metric"]
        + [f"seconds_{stage}" for stage in stages]
        + ["rank", "device", "reason"]
    )
    for z, decision in zip(run.inputs.select, decisions, strict=True):
        r = found[z]
        shift = ("", "") if r["shift"] is None else (r["shift"][0][2], r["shift"][1][2])
        scores = ["" if r[key] is None else f"{r[key]:.4f}" for key in ("start", "metric")]
        seconds = [r["seconds"].get(stage, "") for stage in stages]
        row = [z, run.inputs.raw.names[z], decision.status, *shift, r["matches"], *scores, *seconds]
        writer.writerow([*row, r["rank"], r["device"], decision.reason])
    return table.getvalue()


def describe_run(
    run: Run,
    decisions: Sequence[Decision],
    found: Mapping[int, Mapping[str, Any]],
    timings: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Versions, ranks, devices, timings and counts of the run."""
    counts: dict[str, int] = {}
    for decision in decisions:
        counts[decision.status] = counts.get(decision.status, 0) + 1
    return {
        "amst_hpc": __version__,
        "versions": {name: library_version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "raw": run.job.raw,
        "prealigned": run.job.prealigned,
        "shape_zyx": [len(run.inputs.select), *run.inputs.shape],
        "range": [run.inputs.select.start, run.inputs.select.stop],
        "dtype": run.inputs.dtype,
        "ranks": run.comm.size,
        "attempt": run.attempt,
        "preview": run.job.preview,
        "writer": bdv.choose_writer(run.config.output, run.comm.size),
        "devices": sorted({found[z]["device"] for z in run.inputs.select}),
        "slices": counts,
        "seconds_per_rank": [
            {key: round(value, 3) for key, value in part.items()} for part in timings
        ],
    }


def library_version(name: str) -> str:
    """Version of an installed package; empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
