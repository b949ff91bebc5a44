"""The folder of an OME-Zarr: laid out, known again, put in its place, and what of it is ours.

`create_folder` makes the arrays without any chunk. The group's own `zarr.json` is written last of
all: without it no reader sees an OME-Zarr.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

from amst_hpc.bdv.file import Target, raise_passing, sync
from amst_hpc.ome_zarr.metadata import METADATA, OUR_ID, array_metadata, read_json

TEMPORARY = "__lock"  # the end of the names under which tensorstore writes a file


def create_folder(target: Target) -> None:
    """The arrays of all levels; on disk on return. Raises OSError."""
    target.path.mkdir()
    for k, level in enumerate(target.layout.levels):
        place = target.path / str(k)
        place.mkdir()
        (place / METADATA).write_text(json.dumps(array_metadata(level, target), indent=1))
        for path in (place / METADATA, place):
            sync(path)
    sync(target.path)


def _tokens(folder: Path) -> dict[str, str]:
    """The token of each array in a folder that has one.

    Raises OSError where the file system is away (`PASSING_ERRORS`).
    """
    found = {}
    for path in sorted(folder.glob(f"[0-9]*/{METADATA}")):
        try:
            token = read_json(path)["attributes"][OUR_ID]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise_passing(error)
            continue
        found[path.parent.name] = str(token)
    return found


def read_token(folder: Path) -> str:
    """The token that the arrays were made with; empty where there is none.

    Raises OSError where the file system is away (`PASSING_ERRORS`).
    """
    return next(iter(_tokens(folder).values()), "")


def find_foreign(folder: Path) -> list[str]:
    """Names of what stands in a folder that this program has not written there.

    Empty for none, also where there is no folder.
    """
    if not folder.is_dir():
        return []
    ours = _tokens(folder)
    if ours:
        ours[METADATA] = ""
    return sorted(path.name for path in folder.iterdir() if path.name not in ours)


def find_fault(target: Target) -> str:
    """What in the arrays' metadata is not as `target` has it; empty if nothing is."""
    for k, level in enumerate(target.layout.levels):
        path = target.path / str(k) / METADATA
        try:
            found = read_json(path)
        except (OSError, ValueError) as error:
            raise_passing(error)
            return f"{k}/{METADATA} cannot be read ({error})"
        wanted = array_metadata(level, target)
        for key in wanted.keys() - {"attributes"}:
            if found.get(key) != wanted[key]:
                return f"{k}/{METADATA} has {key} {found.get(key)}, not {wanted[key]}"
    return ""


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed rank had begun to write. Nobody else may be writing."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(TEMPORARY):
                (Path(place) / name).unlink()


def put_in_place(folder: Path, out: Path, aside: Path) -> None:
    """`folder` gets the name `out`, and an older output of that name goes.

    aside : where that stands meanwhile, on the same file system. Raises OSError that names `out` if
    there is anything of somebody else's in it.
    """
    remove(aside)
    if out.exists():
        if names := find_foreign(out):
            reason = f"holds {', '.join(names[:4])}, which amst-hpc did not write there"
            raise OSError(errno.EEXIST, reason, str(out))
        out.replace(aside)
    folder.replace(out)
    sync(out.absolute().parent)
    remove(aside)


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; or it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def disk_bytes(folder: Path) -> int:
    """Space on the disk that the files in a folder take."""
    places = ((Path(place), names) for place, _, names in os.walk(folder))
    return sum(512 * (place / name).stat().st_blocks for place, names in places for name in names)
