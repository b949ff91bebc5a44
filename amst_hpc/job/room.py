"""Whether there is a place for the output: not that of an input, and room on the disk."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Set
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from amst_hpc.bdv.direct import file_bytes
from amst_hpc.bdv.file import make_target
from amst_hpc.config import FORMATS, Config, InputError, Output
from amst_hpc.geometry import level_factors, usual_layout
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.ome_zarr.folder import disk_bytes, find_foreign, remove
from amst_hpc.ome_zarr.metadata import METADATA, folder_bytes

ZARR = FORMATS["ome-zarr"]
LONGEST_NAME = 230  # bytes; .NAME.failed-0001.PID and .NAME.settings.xml.part have 255 at most


def find_place(out: Path) -> Path:
    """Where the output is or will be: a link is followed.

    Raises `InputError` for a name that is too long, or a link in a circle.
    """
    _check_length(out)
    try:
        place = out.resolve() if out.is_symlink() else out
    except (OSError, RuntimeError):
        raise InputError(f"OUT {out}: is a link that leads nowhere") from None
    _check_length(place)
    return place


def stem(out: Path) -> str:
    """The name of an output without its ending; what stands beside it begins so."""
    return re.sub(r"(\.h5|(\.ome)?\.zarr)$", "", out.name)


def seal_path(out: Path) -> Path:
    """What is written last of all: the BigDataViewer XML, or what makes a folder an OME-Zarr."""
    return out / METADATA if out.suffix == ZARR else out.with_suffix(".xml")


def _check_length(out: Path) -> None:
    """What stands beside OUT has longer names."""
    length = len(os.fsencode(stem(out)))
    if length > LONGEST_NAME:
        raise InputError(
            f"OUT {out}: its name has {length} bytes without its ending, too long; "
            f"expected at most {LONGEST_NAME}"
        )


def refuse_inputs(job: Job, output: Output) -> None:
    """Raises `InputError` for an output that would take the place of an input, or stand in it, and
    for a folder in the place of a file.
    """
    if output.format == "bdv" and job.out.is_dir():
        raise InputError(f"OUT {job.out}: is a folder; expected a file")
    if output.format != "bdv" and job.out.is_file():
        raise InputError(f"OUT {job.out}: is a file; expected a folder")
    out = job.out.resolve()
    for source, option in ((job.raw, "RAW"), (job.prealigned, "PREALIGNED")):
        if not source:  # raw alone
            continue
        path = Path(source.partition(":/")[0])
        several = glob.has_magic(path.name) and not path.exists()
        place = (path.parent if several else path).resolve()
        taken = {out, out.with_suffix(".xml")} & {place, *_slices_behind(path, several)}
        around = output.format == "ome-zarr" and out in place.parents
        if taken or around or (place in out.parents and not several):
            raise InputError(f"OUT {job.out}: is {option} {source} or inside it; expected another")


def _slices_behind(path: Path, several: bool) -> set[Path]:
    """The folders of slices that are links; none of the others is looked at."""
    folder, pattern = (path.parent, path.name) if several else (path, "*")
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        links = [e.path for e in entries if e.is_symlink() and fnmatchcase(e.name, pattern)]
    return {Path(link).resolve().parent for link in links}


def refuse_foreign_folder(out: Path) -> None:
    """Raises `InputError` for an OME-Zarr in OUT's place that is not ours: it would be removed."""
    if names := find_foreign(out):
        raise InputError(
            f"OUT {out}: holds {', '.join(names[:4])}, which amst-hpc did not write there; "
            "expected another name, or that moved away"
        )


def empty(folder: Path, kept: Set[str]) -> None:
    """Remove what is in a folder; the journal last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "journal"):
        if path.name not in kept:
            remove(path)


def check_room(job: Job, config: Config, inputs: Inputs, partial: Path, continued: bool) -> None:
    """The folder exists and can be written, and the disk has room for the output.

    partial : the output while it grows. continued : what is there is of this job and settings.
    Raises `InputError`.
    """
    parent = job.out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"OUT {job.out}: the folder {parent} does not exist")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"OUT {job.out}: the folder {parent} is not writable")
    need, free = output_bytes(inputs, config), shutil.disk_usage(parent).free
    if partial.is_dir():  # of a try before: continued, or made anew in its place
        free += disk_bytes(partial)
    elif partial.exists():
        free += partial.stat().st_blocks * 512
    elif continued and job.out.exists() and config.output.format != "tif":  # complete
        return
    if config.output.format == "tif" and job.out.is_dir():
        # slices that are there already: kept, or written in their place
        paths = [job.out / inputs.raw.names[z] for z in inputs.select]
        there = [path.stat().st_size for path in paths if path.exists()]
        free += len(there) * inputs.slice_bytes if continued else sum(there)
    if need > free:
        raise InputError(
            f"OUT {job.out}: needs up to {need / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
        )


def output_bytes(inputs: Inputs, config: Config) -> int:
    """Size of the output, at most: uncompressed it is that of the file that is laid out.

    Compressed noise saves little.
    """
    full, shape = len(inputs.select) * inputs.slice_bytes, (len(inputs.select), *inputs.shape)
    if config.output.format == "tif":
        return full
    if config.output.compression:
        return int(full * sum(1 / np.prod(f) for f in level_factors(shape, config.output)))
    layout = usual_layout(shape, inputs.slice_bytes, config.output)
    of_format = folder_bytes if config.output.format == "ome-zarr" else file_bytes
    return of_format(make_target(Path(), layout, inputs.dtype, config.output))
