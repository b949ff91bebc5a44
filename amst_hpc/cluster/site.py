"""The site file: what a cluster wants to hear, said once (`~/.config/amst-hpc/site.toml`)."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amst_hpc.config import InputError

DEFAULT_SITE = Path("~/.config/amst-hpc/site.toml")


@dataclass(frozen=True)
class Site:
    """A cluster. Give `container` or `command`, not both.

    nodes : the most for one job. memory_gb_per_node : 0 where the cores are the limit. hours : the
    longest job of the partition. mpi : the launch line. throttle : array tasks at a time, 0: all.
    setup : shell lines before the launch. signal_seconds : warning before the time limit.
    directives : more options of sbatch.
    """

    partition: str = ""
    account: str = ""
    nodes: int = 1
    ranks_per_node: int = 8
    memory_gb_per_node: float = 0.0
    gpus_per_node: int = 0
    hours: float = 24.0
    modules: tuple[str, ...] = ()
    container: str = ""
    container_options: tuple[str, ...] = ()
    command: str = "amst-hpc"
    mpi: str = "srun --mpi=pmix"
    throttle: int = 0
    signal_seconds: int = 120
    setup: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()


def load_site(path: Path | None) -> Site:
    """The site file named, or the user's own; the defaults where there is none. Raises
    `InputError`.
    """
    place = (path or DEFAULT_SITE).expanduser()
    if path is None and not place.exists():
        return Site()
    try:
        tree = tomllib.loads(place.read_text())
    except OSError as error:
        raise InputError(f"--site {place}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--site {place}: not valid TOML ({error})") from None
    fields = {field.name: getattr(Site(), field.name) for field in dataclasses.fields(Site)}
    for key in tree:
        if key not in fields:
            raise InputError(f"{place}: {key}: no such key; expected {', '.join(fields)}")
    site = Site(**{key: _convert(place, key, fields[key], v) for key, v in tree.items()})
    if site.container and "command" in tree:
        raise InputError(f"{place}: container and command are both set; expected one of them")
    return site


def _convert(place: Path, key: str, default: Any, value: Any) -> Any:
    """`value` as the type of `default`. Raises `InputError`."""
    if isinstance(default, tuple):
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        kind = "a list of texts"
    elif isinstance(default, str):
        good, kind = isinstance(value, str), "text"
    else:
        least = 1 if key in ("nodes", "ranks_per_node") else 0
        types = int | float if isinstance(default, float) else int
        good = isinstance(value, types) and not isinstance(value, bool) and value >= least
        kind = f"a {'whole ' if types is int else ''}number of at least {least}"
    if not good:
        raise InputError(f"{place}: {key} = {value!r}: expected {kind}")
    return tuple(value) if isinstance(default, tuple) else type(default)(value)
