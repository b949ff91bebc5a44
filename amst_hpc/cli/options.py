"""What the commands share: their options, the communicator, errors as one line and a code."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from amst_hpc.config import PASSING_ERRORS, Config, InputError
from amst_hpc.settings import load_config

EXIT_FAILED, EXIT_INPUT, EXIT_FELL_BACK, EXIT_STRICT = 1, 2, 3, 4
log = logging.getLogger(__name__)
RawArgument = Annotated[
    str,
    typer.Argument(
        metavar="RAW", help="folder, glob or multi-page TIFF, file.h5:/dataset, OME-Zarr"
    ),
]
PrealignedArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[PREALIGNED]", help="the coarsely pre-aligned stack; none with --prealign"
    ),
]
PrealignOption = Annotated[
    bool, typer.Option("--prealign", help="make the pre-alignment from RAW alone")
]
CropOption = Annotated[bool, typer.Option("--crop", help="the same as --canvas crop")]
RangeOption = Annotated[
    str | None, typer.Option("--range", metavar="A:B", help="only slices A to B-1")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="start anew where OUT exists")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="settings (TOML); see amst-hpc config")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change one setting")
]
MismatchOption = Annotated[
    bool, typer.Option("--allow-count-mismatch", help="align the slices that both stacks have")
]
OverridesOption = Annotated[
    Path | None,
    typer.Option(
        "--overrides",
        metavar="FILE.csv",
        help="what you decide about single slices: a table of slice, action (exclude, shift, "
        "interpolate, blank), x, y",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="the same as --set coarse.device=...")
]


def say(text: object, err: bool = False, nl: bool = True) -> None:
    """To stdout or stderr. A reader that has gone (`| head -1`) is no fault of the command."""
    try:
        typer.echo(text, err=err, nl=nl)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if err else sys.stdout).fileno())


def tell(error: Exception | str) -> None:
    """One line on stderr, whatever the names in it hold."""
    say(f"amst-hpc: {' '.join(str(error).splitlines())}", err=True)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """A fault of the user's is one line and exit 2; so is a file that may not be opened."""
    try:
        yield
    except InputError as error:
        tell(error)
        raise typer.Exit(EXIT_INPUT) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            raise
        tell(f"{error.filename}: {error.strerror}")
        passing = error.errno in PASSING_ERRORS
        raise typer.Exit(EXIT_FAILED if passing else EXIT_INPUT) from None


@contextlib.contextmanager
def ranks(copies: bool = False) -> Iterator[Any]:
    """The communicator of a command that runs under mpirun.

    What goes wrong becomes one line and an exit code.
    """
    from amst_hpc.parallel.communicator import guard, world
    from amst_hpc.parallel.signals import EX_TEMPFAIL, Stopped, stop_at_once

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


def end(comm: Any, code: int, report: Path | None) -> None:
    """The job is done: the other ranks end, and rank 0 draws the report of that output before it
    ends with `code`, which is that of the job. A stop signal changes nothing of it.
    """
    from amst_hpc.parallel.communicator import part
    from amst_hpc.parallel.signals import ignore_stops

    ignore_stops()
    if not part(comm):
        raise typer.Exit
    if report is not None:
        from amst_hpc.quality.report import try_report

        try_report(report)
        ignore_stops()
    if code:
        raise typer.Exit(code)


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
    config: Path | None,
    changes: list[str] | None,
    options: Mapping[str, str | None],
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """The configuration from `base`, --config, --set and options that are short for a --set."""
    short = [f'{key}="{value}"' for key, value in options.items() if value is not None]
    return load_config(config, [*(changes or []), *short], base)


def name_stacks(given: Sequence[str | None], expected: Sequence[str], prealign: bool) -> list[str]:
    """The names of a command line as `expected` (RAW, PREALIGNED, OUT.h5); PREALIGNED is empty with
    --prealign. Raises `InputError` where one is missing or too many.
    """
    names = [name for name in given if name]
    wanted = [name for name in expected if not prealign or name != "PREALIGNED"]
    if len(names) == len(wanted):
        return [*names[:1], "", *names[1:]] if prealign else names
    fault = f"{' or '.join(wanted[1:] or wanted)} is missing"
    fault = "too many names" if len(names) > len(wanted) else fault
    option = " with --prealign" if prealign else ", or --prealign"
    raise InputError(
        f"{' '.join(names)}: {fault}; expected {' '.join(wanted)}{option}, which makes the "
        "pre-alignment from RAW alone"
    )


def name_canvas(prealign: bool, crop: bool, canvas: str | None) -> str | None:
    """What --crop or --canvas say; None for neither. Raises `InputError`."""
    if crop and canvas:
        raise InputError(f"--crop and --canvas {canvas}: expected one of them")
    if (crop or canvas) and not prealign:
        option = "--crop" if crop else f"--canvas {canvas}"
        raise InputError(f"{option}: expected with --prealign alone; PREALIGNED gives the canvas")
    return "crop" if crop else canvas


def named(out: Path) -> Path:
    """The same. Raises `InputError` for what has no name, such as /."""
    if out.name in ("", ".."):
        raise InputError(f"OUT {out}: expected the name of an output")
    return out


def check_out(name: Path | None) -> None:
    """Raises `InputError` where no NAME.csv can be written."""
    if name is not None and not os.access(named(name).absolute().parent, os.W_OK | os.X_OK):
        raise InputError(f"--out {name}: the folder is not there, or not writable")


def output_file(out: Path) -> Path:
    """OUT.h5, for OUT.xml too. Raises `InputError`."""
    return named(out).with_suffix(".h5") if out.suffix.lower() == ".xml" else named(out)


def _numbers(option: str, text: str, pattern: str, expected: str) -> list[int | None]:
    """The whole numbers of an option, as the groups of `pattern`; None for an empty one.

    Raises `InputError`.
    """
    found = re.fullmatch(pattern, text, re.ASCII)
    if found is None or any(len(number or "") > 9 for number in found.groups()):
        raise InputError(f"{option} {text}: expected {expected}")
    return [int(number) if number else None for number in found.groups()]


def parse_block(text: str | None) -> tuple[int, int] | None:
    """`I/N`, I from 1 to N. Raises `InputError`."""
    if text is None:
        return None
    expected = "I/N with I from 1 to N"
    block, blocks = (n or 0 for n in _numbers("--block", text, r"(\d+)/(\d+)", expected))
    if not 1 <= block <= blocks:
        raise InputError(f"--block {text}: expected {expected}")
    return block, blocks


def parse_range(text: str | None) -> tuple[int | None, int | None]:
    """`A:B` as in Python, either may be missing. Raises `InputError`."""
    if text is None:
        return (None, None)
    first, last = _numbers("--range", text, r"(\d*):(\d*)", "A:B, two slice numbers")
    return first, last


def parse_area(text: str | None) -> tuple[int, int, int, int] | None:
    """`Y0:Y1,X0:X1` in px. Raises `InputError`."""
    if text is None:
        return None
    pattern, expected = r"(\d+):(\d+), *(\d+):(\d+)", "Y0:Y1,X0:X1, four pixel numbers"
    y0, y1, x0, x1 = (n or 0 for n in _numbers("--area", text, pattern, expected))
    return y0, y1, x0, x1


def parse_voxel_size(text: str) -> tuple[float, ...]:
    """`Z,Y,X` in nm; empty for none. Raises `InputError`."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--voxel-size-nm {text}: expected three numbers, Z,Y,X") from None
