"""The command that applies the transforms of a finished run: apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amst_hpc.cli.options import (
    EXIT_FELL_BACK,
    ConfigOption,
    DeviceOption,
    SetOption,
    end,
    named,
    parse_range,
    ranks,
    say,
    settings,
)


def apply(
    run: Annotated[
        Path,
        typer.Argument(metavar="OUT.h5", help="of a finished align (or OUT.xml, OME-Zarr, folder)"),
    ],
    other: Annotated[
        str,
        typer.Argument(metavar="OTHER_RAW", help="another stack of the same slices, as for align"),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OTHER.h5",
            help="the BigDataViewer file to make (OTHER.ome.zarr for OME-Zarr, a folder for tif)",
        ),
    ],
    config: ConfigOption = None,
    changes: SetOption = None,
    scale: Annotated[
        float,
        typer.Option("--scale", metavar="S", help="pixels of OTHER_RAW in y and x for one of RAW"),
    ] = 1.0,
    nearest: Annotated[
        bool,
        typer.Option("--nearest", help="OTHER_RAW holds labels: no other value is made of them"),
    ] = False,
    add_to: Annotated[
        Path | None,
        typer.Option("--add-to", metavar="OUT.xml", help="have it show both stacks"),
    ] = None,
    channel: Annotated[
        str, typer.Option("--channel", metavar="NAME", help="in OUT.xml (OTHER)")
    ] = "",
    range_: Annotated[
        str | None, typer.Option("--range", metavar="A:B", help="only slices A to B-1 of RAW")
    ] = None,
    output_format: Annotated[
        str | None, typer.Option(help="bdv, tif or ome-zarr (if OTHER ends in .zarr)")
    ] = None,
    device: DeviceOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="start anew where OTHER.h5 exists")
    ] = False,
    allow_count_mismatch: Annotated[
        bool,
        typer.Option("--allow-count-mismatch", help="slices that OTHER_RAW lacks stay black"),
    ] = False,
) -> None:
    """Apply the transforms of a finished run to another stack of the same slices: another detector,
    labels, full resolution. The same line again continues a job that ended early.
    """
    with ranks() as comm:
        from amst_hpc import apply as application
        from amst_hpc.images.pairing import Job
        from amst_hpc.parallel.communicator import on_all_ranks, on_rank_0
        from amst_hpc.passes.counterpart import Application

        job = on_all_ranks(
            comm,
            lambda: Job(
                other, other, named(out), parse_range(range_), overwrite, allow_count_mismatch
            ),
        )
        task = on_all_ranks(
            comm, lambda: Application(named(run), job, scale, nearest, add_to, channel)
        )
        finished = on_rank_0(comm, lambda: application.find_finished(task.run))
        options = {"output.format": output_format, "coarse.device": device}
        base = application.inherited(finished, scale, job.out)
        loaded = on_all_ranks(comm, lambda: settings(config, changes, options, base))
        outcome = application.apply(task, finished, loaded, comm)
    if comm.rank == 0:
        say(outcome.summary())
    end(comm, EXIT_FELL_BACK if outcome.unreadable else 0, outcome.report)
