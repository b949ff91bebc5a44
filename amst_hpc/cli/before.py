"""Commands before a job: check, devices, config."""

from __future__ import annotations

import typer

from amst_hpc.cli.options import (
    EXIT_INPUT,
    ConfigOption,
    MismatchOption,
    PrealignedArgument,
    PrealignOption,
    RawArgument,
    SetOption,
    errors,
    name_stacks,
    ranks,
    say,
    settings,
)
from amst_hpc.settings import to_toml


def check(
    raw: RawArgument,
    prealigned: PrealignedArgument = None,
    prealign: PrealignOption = False,
    config: ConfigOption = None,
    changes: SetOption = None,
    allow_count_mismatch: MismatchOption = False,
) -> None:
    """Read the header of every slice before the job and compare a sample of both stacks; say what
    is wrong and what the job will need.
    """
    with errors():
        from amst_hpc.preflight.check import check_inputs

        names = name_stacks((raw, prealigned), ("RAW", "PREALIGNED"), prealign)
        loaded = settings(config, changes, {})
        report = check_inputs(names[0], names[1], loaded, allow_count_mismatch)
    for line in report.lines:
        say(line)
    for fault in report.faults:
        say(f"amst-hpc: {fault}", err=True)
    if report.faults:
        raise typer.Exit(EXIT_INPUT)


def devices() -> None:
    """Show the OpenCL devices as each rank would use them, and the MPI, HDF5 and elastix found."""
    with ranks(copies=True) as comm:
        from amst_hpc.preflight.devices import describe

        lines, fault = describe(comm)
    for line in lines:
        say(line)
    if fault:
        say(f"amst-hpc: {fault}", err=True)
        raise typer.Exit(EXIT_INPUT)


def show_config(config: ConfigOption = None, changes: SetOption = None) -> None:
    """Print the settings as TOML: the defaults, or those of --config and --set."""
    with errors():
        say(to_toml(settings(config, changes, {})), nl=False)
