"""Commands that align: align, task, merge, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amst_hpc.cli.options import (
    EXIT_FELL_BACK,
    EXIT_STRICT,
    ConfigOption,
    CropOption,
    DeviceOption,
    MismatchOption,
    OverridesOption,
    OverwriteOption,
    PrealignedArgument,
    PrealignOption,
    RangeOption,
    RawArgument,
    SetOption,
    end,
    errors,
    name_canvas,
    name_stacks,
    named,
    output_file,
    parse_block,
    parse_range,
    ranks,
    say,
    settings,
    start_logging,
)


def align(
    raw: RawArgument,
    prealigned: PrealignedArgument = None,
    out: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT.h5",
            help="the BigDataViewer file to make (OUT.ome.zarr for ome-zarr, a folder for tif)",
        ),
    ] = None,
    prealign: PrealignOption = False,
    canvas: Annotated[
        str | None,
        typer.Option("--canvas", help="with --prealign, the same as --set prealign.canvas=..."),
    ] = None,
    crop: CropOption = False,
    config: ConfigOption = None,
    changes: SetOption = None,
    range_: RangeOption = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="the middle 200 slices, at most 1024 px: a quick look")
    ] = False,
    block: Annotated[
        str | None,
        typer.Option("--block", metavar="I/N", help="the next step of block I of N (see merge)"),
    ] = None,
    output_format: Annotated[str | None, typer.Option(help="bdv, ome-zarr or tif")] = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
    allow_count_mismatch: MismatchOption = False,
    overrides: OverridesOption = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="register again the slices that fell back")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="a slice that falls back is an error: exit 4 and the list, nothing written "
            "(all stays registered; without --strict the same line writes it)",
        ),
    ] = False,
) -> None:
    """Align RAW to the median template of PREALIGNED or, with --prealign, of its own slices
    moved by whole pixels (RAW OUT.h5 --prealign).
    The same line again continues a job that ended early.
    """
    with ranks() as comm:
        from amst_hpc import pipeline
        from amst_hpc.images.pairing import Job
        from amst_hpc.parallel.communicator import on_all_ranks

        stacks = (raw, prealigned, out)
        names = on_all_ranks(
            comm, lambda: name_stacks(stacks, ("RAW", "PREALIGNED", "OUT.h5"), prealign)
        )
        options = {
            "output.format": output_format,
            "coarse.device": device,
            "prealign.canvas": on_all_ranks(comm, lambda: name_canvas(prealign, crop, canvas)),
        }
        loaded = on_all_ranks(comm, lambda: settings(config, changes, options))
        job = Job(
            names[0],
            names[1],
            named(Path(names[2])),
            parse_range(range_),
            overwrite,
            allow_count_mismatch,
            strict=strict,
            retry=retry,
            overrides=overrides,
        )
        if preview:
            from amst_hpc.images.pairing import prepare_preview

            job, loaded = prepare_preview(job, loaded, comm)
        place = on_all_ranks(comm, lambda: parse_block(block))
        outcome = pipeline.align(job, loaded, comm, place)
    report_outcome(outcome, comm)


def report_outcome(outcome: Any, comm: Any) -> None:
    """The summary of a `Outcome` on rank 0, the report and the exit code."""
    if comm.rank == 0:
        say(outcome.summary(), err=outcome.refused)
    code = EXIT_STRICT if outcome.refused else EXIT_FELL_BACK if outcome.fallen_back else 0
    end(comm, code, outcome.report)


def task(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="a table, see submit")],
    number: Annotated[int, typer.Argument(metavar="N", help="its N-th stack, from 1")],
    config: ConfigOption = None,
    changes: SetOption = None,
) -> None:
    """Align one stack of a manifest: what each task of a job array runs."""
    with ranks() as comm:
        from amst_hpc import pipeline
        from amst_hpc.cluster.manifest import pick_entry
        from amst_hpc.parallel.communicator import on_all_ranks

        entry = on_all_ranks(comm, lambda: pick_entry(manifest, number))
        loaded = on_all_ranks(comm, lambda: entry.settings(config, changes or []))
        outcome = pipeline.align(entry.job(), loaded, comm)
    report_outcome(outcome, comm)


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="as in align --block")],
) -> None:
    """The step after each array of `align --block`: place the slices of raw alone (--prealign);
    settle the transforms of the stack, so that the same commands can write it; complete the file
    when they have.
    """
    with ranks() as comm:
        from amst_hpc import pipeline

        outcome = pipeline.merge(output_file(out), comm)
    report_outcome(outcome, comm)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="where to put the stacks")] = Path(
        "amst_demo"
    ),
    ranks_: Annotated[int, typer.Option("--ranks", help="MPI ranks to align on")] = 2,
) -> None:
    """Make a small synthetic FIB-SEM stack with known displacements, align it from its raw slices
    alone and say how well that went.
    """
    with errors():
        start_logging(0, 1)
        from amst_hpc.synthetic.demo import run_demo

        code, lines = run_demo(folder, ranks_)
    for line in lines:
        say(line)
    raise typer.Exit(code)
