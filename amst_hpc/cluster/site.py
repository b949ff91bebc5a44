"""The site file: what a cluster wants to hear, said once (`~/.config/amst-hpc/site.toml`)."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amst_hpc.config import InputError
from amst_hpc.settings import read_toml

DEFAULT_SITE = Path("~/.config/amst-hpc/site.toml")


def _key(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Site:
    """A cluster. Give `container` or `command`, not both."""

    partition: str = _key("", "of Slurm; empty: the cluster's default")
    account: str = _key("", "whom Slurm bills; empty: none is named")
    nodes: int = _key(1, "the most for one job")
    ranks_per_node: int = _key(8, "the most MPI ranks on a node: its cores")
    memory_gb_per_node: float = _key(0.0, "memory of a node, GB (0: the cores are the limit)")
    gpus_per_node: int = _key(0, "GPUs to ask for on each node")
    hours: float = _key(24.0, "longest job of the partition")
    modules: tuple[str, ...] = _key((), "loaded with `module load` before the launch")
    container: str = _key("", "the image (.sif), run by Apptainer in place of `command`")
    container_options: tuple[str, ...] = _key((), 'of apptainer exec, such as "--nv"')
    command: str = _key("amst-hpc", "the program where there is no container")
    mpi: str = _key("srun --mpi=pmix", "the launch line")
    throttle: int = _key(0, "array tasks at a time (0: all)")
    signal_seconds: int = _key(120, "warning before the time limit, s")
    setup: tuple[str, ...] = _key((), "shell lines before the launch")
    directives: tuple[str, ...] = _key((), "more options of sbatch")

    @property
    def minutes(self) -> int:
        """Of the longest job; a minute at least, since no time is no limit to Slurm."""
        return math.ceil(round(self.hours * 60, 6))


def load_site(path: Path | None) -> Site:
    """The site file named, or the user's own; the defaults where there is none. Raises
    `InputError`.
    """
    place = (path or DEFAULT_SITE).expanduser()
    if path is None and not place.exists():
        return Site()
    try:
        tree = read_toml(place)
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
        good = (
            isinstance(value, types) and not isinstance(value, bool) and least <= value < math.inf
        )
        kind = f"a {'whole ' if types is int else ''}number of at least {least}"
        if key == "hours":
            good, kind = good and value > 0, "a number of hours > 0"
    if not good:
        raise InputError(f"{place}: {key} = {value!r}: expected {kind}")
    return tuple(value) if isinstance(default, tuple) else type(default)(value)
