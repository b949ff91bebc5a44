"""`apply`: the transforms of a finished run on another stack of the same slices.

Another detector, labels, full resolution where a binned stack was registered. Nothing is
registered: the second pass of `align` alone, with its journal, so that the same line continues. The
output has a run folder of its own; OUT is read, and with `--add-to` gets another XML.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amst_hpc.bdv.metadata import Channel, master_path
from amst_hpc.cluster.status import read_status
from amst_hpc.config import FORMATS, Config, InputError
from amst_hpc.images.pairing import Inputs, describe_raw
from amst_hpc.job.changes import read_stamps
from amst_hpc.job.channels import add_channel, read_origin, transforms_digest
from amst_hpc.job.failures import recording_failure, refuse_fruitless_restart
from amst_hpc.job.finished_run import FinishedRun, find_run, read_run
from amst_hpc.job.lock import locked
from amst_hpc.job.room import find_place
from amst_hpc.job.run_folder import open_attempt, run_folder, view_path
from amst_hpc.opencl.devices import check_device
from amst_hpc.parallel.communicator import Communicator, on_all_ranks, on_rank_0
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.passes.aligned import open_resampler
from amst_hpc.passes.applied import AppliedStack
from amst_hpc.passes.counterpart import (
    MISSING,
    UNREADABLE,
    Application,
    find_late_changes,
    open_counterpart,
    reasons,
    shorten,
)
from amst_hpc.passes.products import write_products, write_view
from amst_hpc.pipeline import check_output, describe_ranks, ready_opencl, write_output
from amst_hpc.preflight.voxel_size import settle_voxel_size
from amst_hpc.quality.thumbnails import grey_range
from amst_hpc.settings import to_tree
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import resample_nearest

OWN = ("intermediates", "report")
"""Settings of the output that are not those of the run."""
OF_BDV = ("writer", "legacy")
"""Settings that OME-Zarr has not."""
BLACK = {
    "as in the run": "blank",
    "since OTHER_RAW lacks them": MISSING,
    "since they cannot be read": UNREADABLE,
}
"""Why slices have no voxels, and their status."""


@dataclass(frozen=True)
class Applied:
    """What became of each slice, and the file to open; report : see `Outcome`."""

    results: Sequence[SliceResult]
    view: Path
    report: Path | None = None

    @property
    def unreadable(self) -> list[SliceResult]:
        """Slices that could not be read; they are black."""
        return [r for r in self.results if r.status == UNREADABLE]

    def summary(self) -> str:
        """What to tell the user at the end."""
        lines = [f"{len(self.results)} slices written: open {self.view}"]
        for what, status in BLACK.items():
            if names := [r.file for r in self.results if r.status == status]:
                lines.append(f"{len(names)} of them are black, {what}: {shorten(names)}")
        return "\n".join(lines)


def find_finished(name: Path) -> FinishedRun:
    """The run that is named. Raises `InputError` where it is not finished."""
    out = find_run(name)
    status = read_status(out)
    if status.state != "done":
        raise InputError(
            f"OUT {out}: is not finished ({status.state}, {status.written} of {status.total} "
            "slices written); expected a finished run"
        )
    return read_run(out)


def inherited(run: FinishedRun, scale: float, out: Path) -> dict[str, dict[str, Any]]:
    """The settings that hold unless others are given: the device, and the layout of the output.

    The format is that which the ending of `out` says, the voxel size that of the pixels of
    OTHER_RAW.
    """
    tree = to_tree(run.config)
    zarr = out.suffix == FORMATS["ome-zarr"]
    left_out = (*OWN, *OF_BDV) if zarr else OWN
    output = {key: tree["output"][key] for key in tree["output"] if key not in left_out}
    output["format"] = "ome-zarr" if zarr else "bdv"
    if output["voxel_size_nm"]:
        z, y, x = output["voxel_size_nm"]
        output["voxel_size_nm"] = [z, y / scale, x / scale]
    return {"output": output | {"report": False}, "coarse": {"device": tree["coarse"]["device"]}}


def apply(task: Application, run: FinishedRun, config: Config, comm: Communicator) -> Applied:
    """Resample OTHER_RAW with the transforms of `run`; collective over `comm`.

    Raises `InputError` (on every rank, before anything is written) and `Stopped`.
    """
    job = on_all_ranks(comm, lambda: replace(task.job, out=find_place(task.job.out)))
    task = replace(task, job=job)
    on_all_ranks(comm, lambda: _refuse_places(task, run, config))
    with recording_failure(job.out, comm):
        on_rank_0(comm, lambda: refuse_fruitless_restart(job.out))
        began = time.monotonic()
        inputs, results = open_counterpart(task, run, config, comm)
        config, inputs = settle_voxel_size(job, config, inputs, comm)
        on_all_ranks(comm, lambda: check_output(config.output, inputs, comm))
        stamps = comm.bcast(inputs.looked.stamps)["raw"]
        with ready_opencl(comm), ExitStack() as held:
            on_all_ranks(comm, lambda: check_device(config.coarse.device))
            attempt = held.enter_context(open_attempt(job, config, inputs, comm))
            with StopRequest(attempt.stop_flag) as stop:
                resampler = resample_nearest if task.nearest else open_resampler(config, comm)
                stack = AppliedStack(inputs, results, resampler, task.nearest, stamps)
                write_output(stack, config.output, attempt, comm, stop)
            found = comm.allgather(stack.unreadable)
            results = reasons(results, {z: why for part in found for z, why in part.items()})
            now = read_stamps(inputs, comm)["raw"]
            if comm.rank == 0:
                find_late_changes(inputs.raw, stamps, now)
            seconds = {"total": time.monotonic() - began}
            facts = describe_ranks(config, attempt, comm, seconds) | describe_raw(inputs)
            facts |= _describe(task, run)
            on_rank_0(comm, lambda: write_products(job, config, inputs, results, facts))
            if task.add_to:
                on_rank_0(comm, lambda: _add(task, run, inputs))
    view = view_path(run.out if task.add_to else job.out, config.output)
    return Applied(results, view, job.out if config.output.report else None)


def _describe(task: Application, run: FinishedRun) -> dict[str, Any]:
    """What run.json says of the run whose transforms were applied."""
    applied: dict[str, Any] = {"out": str(run.out.resolve()), "transforms": run.digest}
    applied |= {"scale": task.scale, "nearest": task.nearest}
    x, y = read_origin(run.out)
    canvas = {"canvas": {"offset_xy": (task.scale * x, task.scale * y)}} if x or y else {}
    return {"prealigned": "", "applied": applied} | canvas


def _refuse_places(task: Application, run: FinishedRun, config: Config) -> None:
    """Raises `InputError` for an output in the place of the run, and for an XML of another."""
    of_run = (run.out, run.out.with_suffix(".xml"), master_path(run.out), run_folder(run.out))
    taken = {path.resolve() for path in of_run}
    place = task.job.out.resolve()
    if place in taken or run_folder(place) in taken or taken.intersection(place.parents):
        raise InputError(f"OUT {task.job.out}: is {run.out} or inside it; expected another")
    if task.add_to is None:
        return
    view = run.out.with_suffix(".xml")
    if run.config.output.format != "bdv":
        told = f"{run.out} has no XML; expected OUT of output.format = bdv with it"
        raise InputError(f"--add-to {task.add_to}: {told}")
    if task.add_to.resolve() != view.resolve():
        raise InputError(f"--add-to {task.add_to}: expected {view}, the XML of the run")
    if config.output.format != "bdv":
        raise InputError(f"--add-to {task.add_to}: expected output.format = bdv with it")


def _add(task: Application, run: FinishedRun, inputs: Inputs) -> None:
    """Have OUT.xml show the output, too (rank 0)."""
    with locked(run_folder(run.out)):
        if transforms_digest(run_folder(run.out)) != run.digest:
            told = f"got other transforms meanwhile; {task.add_to} is as before"
            raise InputError(f"OUT {run.out}: {told}")
        out = task.job.out
        name, grey = task.channel or out.stem, grey_range(run_folder(out) / "thumbnails")
        first = inputs.select.start - run.select.start
        channel = Channel(out, 0, name, grey, task.scale, first)
        add_channel(run.out, channel, run.select.start)
        write_view(run.out, run.config.output)
