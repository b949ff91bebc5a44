"""Commands after a job: verify, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amst_hpc.cli.options import (
    EXIT_FAILED,
    check_out,
    errors,
    output_file,
    parse_area,
    parse_range,
    parse_voxel_size,
    ranks,
    say,
    tell,
)


def verify(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.h5", help="a finished BigDataViewer file, or its XML; or OME-Zarr"
        ),
    ],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="have the damaged layers written again by the next align"),
    ] = False,
) -> None:
    """Read back every chunk of every level and compare it with the checksums taken when it was
    written; check the tables, attributes and the XML. Exit 1 and one line per damaged layer.
    """
    with ranks() as comm:
        from amst_hpc.quality.verify import verify_output

        report = verify_output(output_file(out), comm, repair)
    if comm.rank == 0:
        say(report.summary)
        for fault in report.faults:
            tell(fault)
        if report.next_step:
            say(report.next_step, err=True)
    if report.faults:
        raise typer.Exit(EXIT_FAILED)


def evaluate(
    stacks: Annotated[
        list[str],
        typer.Argument(metavar="STACK...", help="as for align, or an aligned OUT.h5, OUT.xml"),
    ],
    reference: Annotated[
        str, typer.Option("--reference", help="measure slow drift against it: the pre-alignment")
    ] = "",
    area: Annotated[
        str | None, typer.Option("--area", metavar="Y0:Y1,X0:X1", help="one area, no grid")
    ] = None,
    grid: Annotated[int, typer.Option("--grid", help="areas along y and along x")] = 3,
    sigma: Annotated[float, typer.Option("--sigma", help="gaussian smoothing, px")] = 1.5,
    method: Annotated[str, typer.Option("--method", help="phase or sift")] = "phase",
    range_: Annotated[
        str | None, typer.Option("--range", metavar="A:B", help="only slices A to B-1")
    ] = None,
    voxel_size_nm: Annotated[
        str, typer.Option("--voxel-size-nm", metavar="Z,Y,X", help="default: as the files say")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="NAME", help="write NAME.csv and NAME.json")
    ] = None,
) -> None:
    """Measure how well adjacent slices fit, in each STACK; pairs that fail are counted apart."""
    with ranks() as comm:
        from amst_hpc.parallel.communicator import on_all_ranks
        from amst_hpc.quality import evaluate as evaluation
        from amst_hpc.quality import figures

        on_all_ranks(comm, lambda: check_out(out))
        wanted = on_all_ranks(
            comm,
            lambda: evaluation.EvaluationOptions(
                tuple(stacks),
                reference,
                parse_area(area),
                grid,
                sigma,
                method,
                parse_range(range_),
                parse_voxel_size(voxel_size_nm),
            ),
        )
        found = evaluation.evaluate(wanted, comm)
        if comm.rank == 0 and out is not None:
            figures.write_files(found, out)
    if comm.rank == 0:
        for line in figures.to_lines(found):
            say(line)


def report(out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="of an align")]) -> None:
    """Draw OUT.amst/report.html again, from what the alignment has kept."""
    with errors():
        from amst_hpc.job.lock import locked
        from amst_hpc.job.room import find_place
        from amst_hpc.job.run_folder import run_folder
        from amst_hpc.quality.report import write_report

        out = find_place(output_file(out))
        with locked(run_folder(out)):
            path = write_report(out)
    say(path)
