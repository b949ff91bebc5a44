"""Stacks that OUT.xml shows beside OUT.h5: `OUT.amst/channels.json`.

`apply --add-to` adds them. They stay when OUT.xml is written again, as long as they lie over it:
one that was made with other transforms than those of now, or that is gone, is left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amst_hpc.bdv.metadata import Channel
from amst_hpc.config import InputError
from amst_hpc.job.journal import write_whole
from amst_hpc.job.run_folder import run_folder

log = logging.getLogger(__name__)
REGISTRY = "channels.json"


def transforms_digest(folder: Path) -> str:
    """Of `OUT.amst/transforms.json`. Raises OSError."""
    return hashlib.sha256((folder / "transforms.json").read_bytes()).hexdigest()[:16]


def read_channels(out: Path) -> list[Channel]:
    """Those that were added. Raises `InputError` where the list is damaged."""
    folder = run_folder(out)
    try:
        start = int(json.loads((folder / "run.json").read_text())["range"][0])
        return [_channel(out, entry, start) for entry in _entries(folder)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"OUT {out}: {folder / REGISTRY} is damaged ({error})") from None


def read_origin(out: Path) -> Sequence[float]:
    """The pixel (x, y) of RAW that the output begins with. Raises `InputError`."""
    path = run_folder(out) / "run.json"
    try:
        x, y = json.loads(path.read_text()).get("canvas", {}).get("offset_xy", (0, 0))
        return float(x), float(y)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"OUT {out}: {path} is damaged ({error})") from None


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / REGISTRY
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def _channel(out: Path, entry: dict[str, Any], start: int) -> Channel:
    """start : the slice of RAW that OUT begins with."""
    low, high = entry["grey"]
    file = Path(os.path.normpath(out.parent / entry["file"]))
    first = entry["first"] - start
    return Channel(file, entry["setup"], entry["name"], (low, high), entry["scale"], first)


def add_channel(out: Path, channel: Channel, start: int) -> None:
    """Add one, or put it in the place of the one of the same file; its `setup` does not count.

    start : the slice of RAW that OUT begins with.
    """
    folder = run_folder(out)
    name = os.path.relpath(channel.file.absolute(), out.absolute().parent)
    entries = {entry["file"]: entry for entry in _entries(folder)}
    free = 1 + max((entry["setup"] for entry in entries.values()), default=0)
    entries[name] = {
        "file": name,
        "setup": entries[name]["setup"] if name in entries else free,
        "name": channel.name,
        "grey": channel.grey,
        "scale": channel.scale,
        "first": channel.first + start,
        "transforms": transforms_digest(folder),
    }
    write_whole(folder / REGISTRY, json.dumps([*entries.values()], indent=1))


def keep_current(out: Path) -> Sequence[Channel]:
    """The channels that lie over OUT as it is now; the others are forgotten, and named."""
    folder = run_folder(out)
    entries, now = _entries(folder), transforms_digest(folder)
    kept = [e for e in entries if e["transforms"] == now and (out.parent / e["file"]).is_file()]
    for entry in entries:
        if entry not in kept:
            why = "is gone" if entry["transforms"] == now else "was made with other transforms"
            log.warning("%s %s: OUT.xml does not show it any more", entry["file"], why)
    if kept != entries:
        write_whole(folder / REGISTRY, json.dumps(kept, indent=1))
    return read_channels(out) if kept else []
