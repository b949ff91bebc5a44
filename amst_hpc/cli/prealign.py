"""The command that places raw slices and writes them: prealign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amst_hpc.cli.align import report_outcome
from amst_hpc.cli.options import (
    ConfigOption,
    CropOption,
    DeviceOption,
    OverwriteOption,
    RangeOption,
    RawArgument,
    SetOption,
    name_canvas,
    named,
    parse_range,
    ranks,
    settings,
)
from amst_hpc.config import FORMATS, InputError

OF_FILES = (".h5", ".hdf5", ".xml", ".n5", ".zarr", ".tif", ".tiff")
"""Endings that no folder of slices is meant by."""


def prealign(
    raw: RawArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="a folder of TIFF slices to make, or OUT.h5 (BigDataViewer), OUT.zarr",
        ),
    ],
    canvas: Annotated[
        str | None, typer.Option("--canvas", help="the same as --set prealign.canvas=...")
    ] = None,
    crop: CropOption = False,
    config: ConfigOption = None,
    changes: SetOption = None,
    range_: RangeOption = None,
    output_format: Annotated[
        str | None, typer.Option(help="bdv, tif or ome-zarr (otherwise as OUT ends)")
    ] = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Lay the slices of RAW on each other and write them, to look at or for other programs; align
    does as much by itself (--prealign). The same line again continues a job that ended early.
    """
    with ranks() as comm:
        from amst_hpc import pipeline
        from amst_hpc.images.pairing import Job
        from amst_hpc.parallel.communicator import on_all_ranks

        by_name = on_all_ranks(comm, lambda: output_format or find_format(out))
        options = {
            "output.format": by_name,
            "coarse.device": device,
            "prealign.canvas": on_all_ranks(comm, lambda: name_canvas(True, crop, canvas)),
        }
        loaded = on_all_ranks(comm, lambda: settings(config, changes, options))
        place = on_all_ranks(comm, lambda: named(out))
        job = Job(raw, "", place, parse_range(range_), overwrite, placing=True)
        outcome = pipeline.align(job, loaded, comm)
    report_outcome(outcome, comm)


def find_format(out: Path) -> str:
    """The format that the ending of OUT says. Raises `InputError`."""
    for kind, suffix in FORMATS.items():
        if suffix and suffix == out.suffix:
            return kind
    if out.suffix.lower() in OF_FILES:
        raise InputError(
            f"OUT {out}: expected a folder for TIFF slices, OUT.h5 or OUT.zarr "
            "(--output-format tif makes a folder of any name)"
        )
    return "tif"
