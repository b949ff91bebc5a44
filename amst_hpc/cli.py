"""The command line: each command parses, builds a `Config` and calls one function."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from amst_hpc import __version__
from amst_hpc.config import Config, InputError, load_config, to_toml

EXIT_FAILED, EXIT_INPUT, EXIT_FELL_BACK = 1, 2, 3

log = logging.getLogger(__name__)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Align FIB-SEM image stacks to their median smoothed template (AMST), "
    "on one machine or a cluster.",
)

RawArgument = Annotated[
    str, typer.Argument(metavar="RAW", help="folder, glob or multi-page TIFF, or file.h5:/dataset")
]
PrealignedArgument = Annotated[
    str, typer.Argument(metavar="PREALIGNED", help="the coarsely pre-aligned stack")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="settings (TOML); see amst-hpc config")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change one setting")
]
MismatchOption = Annotated[
    bool, typer.Option("--allow-count-mismatch", help="align the slices that both stacks have")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="the same as --set coarse.device=...")
]


def tell(error: Exception | str) -> None:
    """One line on stderr, whatever the names in it hold."""
    typer.echo(f"amst-hpc: {' '.join(str(error).splitlines())}", err=True)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """A fault of the user's is one line and exit 2."""
    try:
        yield
    except InputError as error:
        tell(error)
        raise typer.Exit(EXIT_INPUT) from None


@contextlib.contextmanager
def ranks(copies: bool = False) -> Iterator[Any]:
    """The communicator of a command that runs under mpirun.

    What goes wrong becomes one line and an exit code.
    """
    from amst_hpc.parallel import EX_TEMPFAIL, Stopped, guard, stop_at_once, world

    stop_at_once()
    with errors():
        comm = world(copies)
    start_logging(comm.rank, comm.size)
    try:
        with guard(comm):
            yield comm
    except InputError as error:
        if comm.rank == 0:
            tell(error)
        raise typer.Exit(EXIT_INPUT) from None
    except Stopped as stopped:
        log.info("stopped in good order during %s; the same command continues", stopped)
        raise typer.Exit(EX_TEMPFAIL) from None


def start_logging(rank: int, size: int) -> None:
    """INFO from rank 0, warnings from all; each line says which rank speaks."""
    tag = f"rank {rank}: " if size > 1 else ""
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format=f"%(asctime)s {tag}%(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    logging.getLogger("amst_hpc").setLevel(logging.INFO if rank == 0 else logging.WARNING)


def settings(
    config: Path | None, changes: list[str] | None, options: Mapping[str, str | None]
) -> Config:
    """The configuration from --config, --set and options that are short for a --set."""
    short = [f'{key}="{value}"' for key, value in options.items() if value is not None]
    return load_config(config, [*(changes or []), *short])


def block_number(text: str) -> tuple[int, int]:
    """`I/N`, I from 1 to N."""
    first, slash, last = text.partition("/")
    if slash and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last):
        return (int(first), int(last))
    raise InputError(f"--block {text}: expected I/N with I from 1 to N")


def slice_range(text: str | None) -> tuple[int | None, int | None]:
    """`A:B` as in Python, either may be missing."""
    if text is None:
        return (None, None)
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdigit() for part in (first, last)):
        raise InputError(f"--range {text}: expected A:B, two slice numbers")
    return (int(first) if first else None, int(last) if last else None)


@app.command()
def align(
    raw: RawArgument,
    prealigned: PrealignedArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.h5", help="the BigDataViewer file to make (or a folder for tif)"
        ),
    ],
    config: ConfigOption = None,
    changes: SetOption = None,
    range_: Annotated[
        str | None, typer.Option("--range", metavar="A:B", help="only slices A to B-1")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="the middle 200 slices, at most 1024 px: a quick look")
    ] = False,
    block: Annotated[
        str | None,
        typer.Option("--block", metavar="I/N", help="block I of N, into OUT.parts/ (see merge)"),
    ] = None,
    output_format: Annotated[str | None, typer.Option(help="bdv or tif")] = None,
    device: DeviceOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="start anew where OUT exists")
    ] = False,
    allow_count_mismatch: MismatchOption = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="a slice that falls back is an error: exit 1 and the list, nothing written "
            "(all stays registered; without --strict the same line writes it)",
        ),
    ] = False,
) -> None:
    """Align RAW to the median template of PREALIGNED.
    The same line again continues a job that ended early.
    """
    with ranks() as comm:
        from amst_hpc import pipeline
        from amst_hpc.inputs import Job
        from amst_hpc.parallel import together

        options = {"output.format": output_format, "coarse.device": device}
        loaded = together(comm, lambda: settings(config, changes, options))
        job = Job(
            raw,
            prealigned,
            out,
            slice_range(range_),
            overwrite,
            allow_count_mismatch,
            strict=strict,
        )
        if preview:
            from amst_hpc.inputs import prepare_preview

            job, loaded = prepare_preview(job, loaded, comm)
        if block is not None:
            from amst_hpc.blocks import prepare_block

            place = together(comm, lambda: block_number(block))
            job, loaded = prepare_block(job, loaded, comm, *place)
        outcome = pipeline.align(job, loaded, comm)
    tell_outcome(outcome, comm)


def tell_outcome(outcome: Any, comm: Any) -> None:
    """The summary of a `pipeline.Outcome` on rank 0, and the exit code."""
    if comm.rank == 0:
        typer.echo(outcome.summary(), err=outcome.refused)
    if outcome.refused:
        raise typer.Exit(EXIT_FAILED)
    if outcome.fallen_back:
        raise typer.Exit(EXIT_FELL_BACK)


@app.command()
def task(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="a table, see submit")],
    number: Annotated[int, typer.Argument(metavar="N", help="its N-th stack, from 1")],
    config: ConfigOption = None,
    changes: SetOption = None,
) -> None:
    """Align one stack of a manifest: what each task of a job array runs."""
    with ranks() as comm:
        from amst_hpc import pipeline
        from amst_hpc.manifest import pick_entry
        from amst_hpc.parallel import together

        entry = together(comm, lambda: pick_entry(manifest, number))
        loaded = together(comm, lambda: entry.settings(config, changes or []))
        outcome = pipeline.align(entry.job(), loaded, comm)
    tell_outcome(outcome, comm)


@app.command()
def submit(
    job: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RAW PREALIGNED OUT.h5]", help="one stack, as for align"),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="many stacks: a .tsv or .csv with raw, prealigned, output"),
    ] = None,
    blocks: Annotated[
        int, typer.Option("--blocks", min=0, help="cut the stack into so many array tasks")
    ] = 0,
    site: Annotated[
        Path | None, typer.Option("--site", help="default: ~/.config/amst-hpc/site.toml")
    ] = None,
    throttle: Annotated[
        int | None, typer.Option("--throttle", min=0, help="array tasks at a time (0: all)")
    ] = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="send; without it, only show")] = False,
) -> None:
    """Write Slurm batch scripts for a job and show them; --yes sends them."""
    with errors():
        from amst_hpc.inputs import Job
        from amst_hpc.site import load_site
        from amst_hpc.submit import plan_manifest, plan_stack, send_plan, settings_options

        place = load_site(site)
        at_once = place.throttle if throttle is None else throttle
        options = settings_options(config, changes or [])
        if (manifest is None) != (job is not None and len(job) == 3):
            raise InputError("submit: expected RAW PREALIGNED OUT.h5, or --manifest")
        if manifest is not None:
            plan = plan_manifest(manifest, config, changes or [], options, place, at_once)
        else:
            raw, prealigned, out = job or []
            loaded = settings(config, changes, {})
            plan = plan_stack(
                Job(raw, prealigned, Path(out)), loaded, options, place, blocks, at_once
            )
        typer.echo(plan.show())
        lines = send_plan(plan) if yes and plan.scripts else []
    if plan.scripts and not yes:
        lines = ["", "Nothing was sent. Send it with --yes."]
    typer.echo("\n".join(lines))


@app.command()
def status(
    path: Annotated[
        Path, typer.Argument(metavar="OUT.h5|MANIFEST", help="what align or submit was given")
    ],
) -> None:
    """Show how far jobs are: slices registered and written, time left, reasons of failures."""
    with errors():
        from amst_hpc.status import show, table

        found = show(path)
    typer.echo(table(found, str(path), None if sys.stdout.isatty() else 160))


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="the file whose parts to join")],
    link: Annotated[
        bool, typer.Option("--link", help="read the parts where they are: no copies")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="start anew where OUT exists")
    ] = False,
) -> None:
    """Join the parts that `align --block` made in OUT.parts/."""
    with ranks() as comm:
        from amst_hpc.merge import merge as merge_parts

        outcome = merge_parts(out, comm, link, overwrite)
    tell_outcome(outcome, comm)


@app.command()
def check(
    raw: RawArgument,
    prealigned: PrealignedArgument,
    config: ConfigOption = None,
    changes: SetOption = None,
    allow_count_mismatch: MismatchOption = False,
) -> None:
    """Read the header of every slice before the job; say what is wrong and what the job
    will need.
    """
    with errors():
        from amst_hpc.check import check_inputs

        report = check_inputs(raw, prealigned, settings(config, changes, {}), allow_count_mismatch)
    for line in report.lines:
        typer.echo(line)
    for fault in report.faults:
        typer.echo(f"amst-hpc: {fault}", err=True)
    if report.faults:
        raise typer.Exit(EXIT_INPUT)


@app.command()
def verify(
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="a finished BigDataViewer file")],
) -> None:
    """Read back every chunk of every level and compare it with the checksums taken when it was
    written; check the tables, attributes and the XML. Exit 1 and one line per fault.
    """
    with errors():
        start_logging(0, 1)
        from amst_hpc.verify import verify_output

        report = verify_output(out)
    typer.echo(report.summary)
    for fault in report.faults:
        tell(fault)
    if report.faults:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def devices() -> None:
    """Show the OpenCL devices as each rank would use them, and the MPI, HDF5 and elastix found."""
    with ranks(copies=True) as comm:
        from amst_hpc.devices import describe

        lines, fault = describe(comm)
    for line in lines:
        typer.echo(line)
    if fault:
        typer.echo(f"amst-hpc: {fault}", err=True)
        raise typer.Exit(EXIT_INPUT)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="where to put the stacks")] = Path(
        "amst_demo"
    ),
    ranks_: Annotated[int, typer.Option("--ranks", help="MPI ranks to align on")] = 2,
) -> None:
    """Make a small synthetic FIB-SEM stack with known displacements, align it and say how
    well that went.
    """
    with errors():
        start_logging(0, 1)
        from amst_hpc.demo import run_demo

        code, lines = run_demo(folder, ranks_)
    for line in lines:
        typer.echo(line)
    raise typer.Exit(code)


@app.command()
def evaluate(
    stacks: Annotated[
        list[str], typer.Argument(metavar="STACK...", help="as for align, or an aligned OUT.xml")
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
        str, typer.Option("--voxel-size-nm", metavar="Z,Y,X", help="default: as in the XML")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="NAME", help="write NAME.csv and NAME.json")
    ] = None,
) -> None:
    """Measure how well adjacent slices fit, in each STACK; pairs that fail are counted apart."""
    with ranks() as comm:
        from amst_hpc import evaluate as evaluation
        from amst_hpc.parallel import together

        question = together(
            comm,
            lambda: evaluation.Question(
                tuple(stacks),
                reference,
                evaluation.parse_area(area),
                grid,
                sigma,
                method,
                slice_range(range_),
                evaluation.parse_voxel_size(voxel_size_nm),
            ),
        )
        found = evaluation.evaluate(question, comm)
        if comm.rank == 0 and out is not None:
            evaluation.write_files(found, out)
    if comm.rank == 0:
        for line in evaluation.to_lines(found):
            typer.echo(line)


@app.command()
def report(out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="of an align")]) -> None:
    """Draw OUT.amst/report.html again, from what the alignment has kept."""
    with errors():
        from amst_hpc.report import write_report

        path = write_report(out)
    typer.echo(path)


@app.command("config")
def show_config(config: ConfigOption = None, changes: SetOption = None) -> None:
    """Print the settings as TOML: the defaults, or those of --config and --set."""
    with errors():
        typer.echo(to_toml(settings(config, changes, {})), nl=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amst-hpc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")
    ] = False,
) -> None:
    """Align FIB-SEM image stacks to their median smoothed template (AMST)."""


def main() -> None:
    """The console script."""
    # One rank per core: a matrix library that starts a thread per core holds up the other ranks.
    # It looks when numpy is imported, which no command has done yet.
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    app()
