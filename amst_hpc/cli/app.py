"""The command line: each command parses, builds a `Config` and calls one function."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from amst_hpc import __version__
from amst_hpc.cli.after import evaluate, report, verify
from amst_hpc.cli.align import align, demo, merge, task
from amst_hpc.cli.apply import apply
from amst_hpc.cli.before import check, devices, show_config
from amst_hpc.cli.options import EXIT_FAILED, EXIT_INPUT, say, tell
from amst_hpc.cli.prealign import prealign
from amst_hpc.cli.slurm import status, submit

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Align FIB-SEM image stacks to their median smoothed template (AMST), "
    "on one machine or a cluster.",
)
for command in (
    align, prealign, apply, task, submit, status, merge, check, verify, devices, demo, evaluate,
    report,
):  # fmt: skip
    app.command()(command)
app.command("config")(show_config)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"amst-hpc {__version__}")
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
    for argument in sys.argv[1:]:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            tell(f"{argument!r}: expected UTF-8")
            sys.exit(EXIT_INPUT)
    try:
        app()
    except Exception as error:
        from amst_hpc.parallel.crash import describe_error

        typer.echo(f"amst-hpc: {describe_error(error)}", err=True)
        sys.exit(EXIT_FAILED)
