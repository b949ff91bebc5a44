"""What a finished run has left: its transforms and the slices they belong to."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amst_hpc.config import Config, InputError
from amst_hpc.images.names import slice_numbers
from amst_hpc.job.channels import transforms_digest
from amst_hpc.job.room import find_place
from amst_hpc.job.run_folder import run_folder
from amst_hpc.settings import from_tree, read_toml
from amst_hpc.slice_result import SliceResult, from_csv

Yx = tuple[int, int]


@dataclass(frozen=True)
class FinishedRun:
    """A run that has made `out`.

    results : of its slices `select`, of `depth` that RAW has. shape : (y, x) of the output.
    raw_yx : size of its raw slices, and of those that are of another one. numbered : the names of
    the raw slices count them. digest : of the transforms.
    """

    out: Path
    results: Sequence[SliceResult]
    depth: int
    select: range
    shape: Yx
    raw_yx: Yx
    raw_yx_others: Mapping[int, Yx]
    numbered: bool
    config: Config
    digest: str

    def raw_size(self, z: int) -> Yx:
        """(y, x) of raw slice z."""
        return self.raw_yx_others.get(z, self.raw_yx)

    @property
    def numbers(self) -> list[int] | None:
        """Of its slices by their names in RAW, where these count them."""
        return slice_numbers([r.file for r in self.results]) if self.numbered else None


def find_run(name: Path) -> Path:
    """OUT of a run that is named by OUT.h5, OUT.xml, a folder of TIFF slices or OUT.amst.

    Raises `InputError`.
    """
    out = name.with_suffix(".h5") if name.suffix.lower() == ".xml" else name
    if name.suffix == ".amst" and name.is_dir():
        try:
            began = json.loads((name / "journal" / "fingerprint.json").read_text())
            out = name.absolute().with_name(began["out"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"OUT {name}: is no run folder ({error})") from None
    out = find_place(out)
    if not run_folder(out).is_dir():
        raise InputError(f"OUT {out}: {run_folder(out)} is not there; expected the output of align")
    return out


def read_run(out: Path) -> FinishedRun:
    """The run that has made `out`. Raises `InputError` where its files are damaged."""
    folder = run_folder(out)
    try:
        run: dict[str, Any] = json.loads((folder / "run.json").read_text())
        transforms = json.loads((folder / "transforms.json").read_text())
        results = from_csv((folder / "slices.csv").read_text(), transforms)
        _, height, width = run["shape_zyx"]
        start, stop = run["range"]
        raw_y, raw_x = run.get("raw_yx", (height, width))  # a run of an older version lacks it
        others = {int(z): (y, x) for z, (y, x) in run.get("raw_yx_others", {}).items()}
        if [r.z for r in results] != [*range(start, stop)]:
            raise ValueError("slices.csv does not hold the slices of run.json")
        return FinishedRun(
            out=out,
            results=results,
            depth=len(transforms),
            select=range(start, stop),
            shape=(height, width),
            raw_yx=(raw_y, raw_x),
            raw_yx_others=others,
            numbered=run.get("raw_numbered", True),
            config=from_tree(read_toml(folder / "config.toml")),
            digest=transforms_digest(folder),
        )
    except (OSError, ValueError, LookupError, TypeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"OUT {out}: {folder} cannot be read ({error})") from None
