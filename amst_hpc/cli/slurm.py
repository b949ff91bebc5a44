"""Commands for a Slurm cluster: submit, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from amst_hpc.cli.options import (
    ConfigOption,
    OverridesOption,
    PrealignOption,
    SetOption,
    errors,
    name_stacks,
    named,
    output_file,
    say,
)
from amst_hpc.config import InputError


def submit(
    job: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RAW [PREALIGNED] OUT.h5]", help="one stack, as for align"),
    ] = None,
    prealign: PrealignOption = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            help="many stacks: a .tsv or .csv with raw, prealigned (an empty cell: from raw alone) "
            "and output",
        ),
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
    overrides: OverridesOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="send; without it, only show")] = False,
) -> None:
    """Write Slurm batch scripts for a job and show them; --yes sends them."""
    with errors():
        from amst_hpc.cluster.site import load_site
        from amst_hpc.cluster.submit import Order, plan_manifest, plan_stack, send_plan
        from amst_hpc.images.pairing import Job

        place = load_site(site)
        at_once = place.throttle if throttle is None else throttle
        order = Order(place, config, tuple(changes or ()), at_once)
        if manifest is None and not job:
            raise InputError("submit: expected RAW PREALIGNED OUT.h5, or --manifest")
        if manifest is not None:
            _refuse_with_manifest(manifest, job, prealign, overrides)
            plan = plan_manifest(manifest, order)
        else:
            names = name_stacks(job or (), ("RAW", "PREALIGNED", "OUT.h5"), prealign)
            one = Job(names[0], names[1], named(Path(names[2])), overrides=overrides)
            plan = plan_stack(one, order, blocks)
        say(plan.show())
        lines = send_plan(plan) if yes and plan.scripts else []
    if plan.scripts and not yes:
        lines = ["", "Nothing was sent. Send it with --yes."]
    say("\n".join(lines))


def _refuse_with_manifest(
    manifest: Path, job: list[str] | None, prealign: bool, overrides: Path | None
) -> None:
    """Raises `InputError` for what is said of one stack."""
    if job:
        raise InputError(f"{' '.join(job)}: expected no stack with --manifest {manifest}")
    if prealign:
        raise InputError(
            "--prealign: expected none with --manifest; an empty cell of prealigned means raw alone"
        )
    if overrides is not None:
        raise InputError(f"--overrides {overrides}: expected none with --manifest")


def status(
    path: Annotated[
        Path, typer.Argument(metavar="OUT.h5|MANIFEST", help="what align or submit was given")
    ],
) -> None:
    """Show how far jobs are: slices registered and written, time left, reasons of failures."""
    with errors():
        from amst_hpc.cluster.status import show, table

        path = output_file(path)
        found = show(path)
    say(table(found, str(path), None if sys.stdout.isatty() else 160))
