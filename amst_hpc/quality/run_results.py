"""What came of a run, from the files in `OUT.amst/`: numbers per slice, and what to say about them.

Nothing here reads the volume; `report` draws it.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.config import InputError
from amst_hpc.job.progress import duration
from amst_hpc.job.run_folder import Attempt
from amst_hpc.pair_result import PairResult
from amst_hpc.quality.adjacent import TISSUE_SIGMA, low_pass
from amst_hpc.quality.thumbnails import Thumbnails, read_thumbnails
from amst_hpc.registration.prealign import NEAR
from amst_hpc.registration.solve import PairFit, fit_pairs
from amst_hpc.slice_result import ASKED_FOR, STAGES, SliceResult, from_csv
from amst_hpc.transform import compose, translation

MEANINGS = {
    "affine": "registered in full",
    "neighbours": "placed by its raw neighbours",
    "apart": "no slice leads over the gap before it",
    "translation": "shifted by whole pixels only",
    "prealigned": "left as in the pre-alignment",
    "interpolated": "moved as its neighbours are",
    "copied": "moved as one neighbour is",
    "repeated": "the slice before once more, moved as that is",
    "excluded": "kept from the other slices, as was asked for",
    "shifted": "moved as was asked for",
    "blank": "left black",
    "unreadable": "cannot be read, left black",
}

IN_FULL = "registered in full (affine)"
SUSPECT_FACTOR = 4.0  # times the usual step between slices
SUSPECT_LEAST = 0.5  # px
NAMED = 12  # slices listed in a sentence
Float = NDArray[np.float64]


@dataclass(frozen=True)
class RunResults:
    """What a run did with each of its slices; `shape` (y, x) px. pairs : of neighbours."""

    out: Path
    slices: list[SliceResult]
    shape: tuple[int, int]
    run: dict[str, Any]
    config: str
    thumbnails: dict[str, Thumbnails]
    pairs: list[PairFit]

    @property
    def stacks(self) -> dict[str, str]:
        """What the stacks are called, by the names of their thumbnails."""
        between = "pre-aligned" if self.run["prealigned"] else self._placed
        last = self._placed if self.placing else "aligned"
        return {"raw": "raw", "prealigned": between, "aligned": last}

    @property
    def placing(self) -> bool:
        """The run has placed raw slices, and no more."""
        return any(s.status == "placed" for s in self.slices)

    @property
    def _placed(self) -> str:
        """Raw as the templates of raw alone have it."""
        how = tomllib.loads(self.config)["prealign"]["transform"]
        return "raw moved by whole pixels" if how == "translation" else f"raw moved ({how})"

    @cached_property
    def index(self) -> list[int]:
        """The numbers of the slices in RAW."""
        return [s.z for s in self.slices]

    def curve(self, value: str) -> Float:
        """A value of each slice: `matches`, `metric`, `correction`...; nan where not known."""
        return np.array([getattr(s, value) for s in self.slices], dtype=np.float64)

    def seconds(self, stage: str) -> Float:
        """Seconds that a stage took on each slice; nan where it was not reached."""
        return np.array([s.seconds.get(stage, np.nan) for s in self.slices])

    @property
    def matrices(self) -> Float:
        """(n, 2, 3) pull-back, nan where there is none."""
        nothing = np.full((2, 3), np.nan)
        found = [nothing if s.transform is None else s.transform for s in self.slices]
        return np.array(found).reshape(-1, 2, 3)

    @cached_property
    def flagged(self) -> dict[int, SliceResult]:
        """Slices that are not registered in full."""
        return {s.z: s for s in self.slices if s.status not in ASKED_FOR}

    @property
    def flagged_pairs(self) -> list[PairFit]:
        """Pairs that do not count, those without a result first, then the farthest off."""
        flagged = [pair for pair in self.pairs if pair.fault]
        return sorted(flagged, key=lambda p: -np.nan_to_num(p.residual, nan=np.inf))

    @property
    def voxel_size_nm(self) -> tuple[float, ...]:
        """z, y, x; empty where it is not known."""
        return tuple(tomllib.loads(self.config)["output"].get("voxel_size_nm", ()))


def read_run_results(out: Path, folder: Path) -> RunResults:
    """What the run that made `out` left in `folder`. Raises `InputError`."""
    try:
        run = json.loads((folder / "run.json").read_text())
        transforms = json.loads((folder / "transforms.json").read_text())
        slices = from_csv((folder / "slices.csv").read_text(), transforms)
        config = (folder / "config.toml").read_text()
        shape = (run["shape_zyx"][1], run["shape_zyx"][2])
        if not slices:
            raise ValueError("slices.csv holds no slices")
    except OSError as error:
        raise InputError(
            f"OUT {out}: {error.filename} cannot be read; expected the output of a finished align"
        ) from None
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"OUT {out}: {folder} is damaged ({error})") from None
    thumbnails = read_thumbnails(folder / "thumbnails", [s.z for s in slices])
    if "canvas" in run:
        pairs = _read_own_pairs(out, slices, run)
    else:
        pairs = _read_pairs(out, slices, shape, tomllib.loads(config).get("neighbours", {}))
    return RunResults(out, slices, shape, run, config, thumbnails, pairs)


def _read_pairs(
    out: Path, slices: Sequence[SliceResult], shape: tuple[int, int], settings: Mapping[str, Any]
) -> list[PairFit]:
    """The pairs of the journal that the run has used, beside its transforms."""
    if not settings.get("enabled"):
        return []
    found = [pair for _, pair in Attempt(out).paired().values()]
    return _fit(slices, [p for p in found if p.k <= settings["reach"]], shape)


def _read_own_pairs(
    out: Path, slices: Sequence[SliceResult], run: Mapping[str, Any]
) -> list[PairFit]:
    """The same of raw alone: near pairs, which are of its slices as they are."""
    x, y = run["canvas"]["offset_xy"]
    back = translation(-x, -y)
    slices = [
        s if s.transform is None else replace(s, transform=compose(s.transform, back))
        for s in slices
    ]
    height, width = run["raw_yx"]
    found = [pair for _, pair in Attempt(out).paired(work="prealign").values()]
    return _fit(slices, [p for p in found if p.k <= NEAR], (height, width))


def _fit(
    slices: Sequence[SliceResult], pairs: Sequence[PairResult], shape: tuple[int, int]
) -> list[PairFit]:
    """Those of slices that are there."""
    there = {s.z for s in slices if s.transform is not None and s.status != "repeated"}
    used = [p for p in pairs if {p.z, p.z + p.k} <= there]
    return fit_pairs(slices, sorted(used, key=lambda p: (p.z, p.k)), shape)


def applied(matrices: Float, shape: tuple[int, int]) -> dict[str, Float]:
    """What was done to each slice, (n,) each: at its middle the shift `x`, `y` px, then `rotation`
    degrees, `scale_x`, `scale_y` and `shear` per cent, of A = R [[sx, sh], [0, sy]].

    The signs are those of the aligned slice: where its content went.
    """
    a, t = matrices[:, :, :2], matrices[:, :, 2]
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    forward = np.full(a.shape, np.nan)
    known = np.isfinite(matrices).all(axis=(1, 2))
    forward[known] = np.linalg.inv(a[known])
    moved = np.einsum("nij,nj->ni", forward, centre - t) - centre
    angle = np.arctan2(forward[:, 1, 0], forward[:, 0, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    return {
        "x": moved[:, 0],
        "y": moved[:, 1],
        "rotation": np.degrees(angle),
        "scale_x": 100 * (np.hypot(forward[:, 0, 0], forward[:, 1, 0]) - 1),
        "scale_y": 100 * (cos * forward[:, 1, 1] - sin * forward[:, 0, 1] - 1),
        "shear": 100 * (cos * forward[:, 0, 1] + sin * forward[:, 1, 1]),
    }


def step_jitter(found: RunResults, stack: str) -> Float | None:
    """(n, yx) step from the slice before, without the slow part that the tissue has, px; None
    where nothing was kept.

    Slices that fell back do not tell what is slow.
    """
    kept = found.thumbnails.get(stack)
    if kept is None or not np.isfinite(kept.y).any():
        return None
    steps = np.stack([kept.y, kept.x], axis=1)
    fell = np.array([z in found.flagged for z in found.index])
    fell[1:] |= fell[:-1].copy()
    calm = np.where(fell[:, None], np.nan, steps)
    if not np.isfinite(calm).any():
        calm = steps
    return np.asarray(steps - np.nanmedian(calm, axis=0) - low_pass(calm, TISSUE_SIGMA))


def suspects(found: RunResults) -> list[int]:
    """Slices that are registered in full and still stand off their neighbours, the worst first."""
    steps = step_jitter(found, "aligned")
    if steps is None:
        return []
    length = np.hypot(*steps.T)
    limit = max(SUSPECT_LEAST, SUSPECT_FACTOR * float(np.nanmedian(length)))
    order = np.argsort(-np.nan_to_num(length))
    return [found.index[i] for i in order if length[i] > limit][:NAMED]


def sentences(found: RunResults) -> list[str]:
    """The result in words: what was done, what fell back, how steady it is, how long it took."""
    total, flagged = len(found.slices), found.flagged
    lines = [f"{total:,} slices of {found.shape[0]:,} x {found.shape[1]:,} px (y, x) were written."]
    full = "placed by their raw neighbours, as was asked for" if found.placing else IN_FULL
    if not flagged:
        lines.append(f"All of them are {full}; none fell back.")
    else:
        counts = Counter(s.status for s in flagged.values()).most_common()
        parts = [f"{n:,} {status} ({MEANINGS.get(status, status)})" for status, n in counts]
        lines.append(
            f"{total - len(flagged):,} are {full}. "
            f"{len(flagged):,} {'is' if len(flagged) == 1 else 'are'} not: {', '.join(parts)}."
        )
    lines += [_corrections(found), _steadiness(found)]
    worst = suspects(found)
    fell = [z for z, s in flagged.items() if s.fell_back]
    if fell or worst:
        named = ", ".join(str(z) for z in fell[:NAMED]) or "none"
        more = f" and {len(fell) - NAMED:,} more" if len(fell) > NAMED else ""
        lines.append(
            f"Where to look: slices {named}{more} (fell back)"
            + (f"; {', '.join(map(str, worst))} (a step to the slice before)." if worst else ".")
        )
    else:
        lines.append("No slice stands out.")
    lines.append(_duration(found))
    return [line for line in lines if line]


def _corrections(found: RunResults) -> str:
    moved = found.curve("correction")
    if not np.isfinite(moved).any():
        return ""
    middle, high = np.nanmedian(moved), np.nanpercentile(moved, 95)
    pairs, lost = sum(p.k > 0 for p in found.pairs), sum(p.k > 0 for p in found.flagged_pairs)
    return (
        f"{pairs:,} pairs of neighbours moved the corners of the slices by {middle:.2f} px (95 %: "
        f"{high:.2f}); {f'{lost:,} of the pairs did' if lost else 'all'} "
        f"{'not count' if lost else 'of the pairs counted'}."
    )


def _steadiness(found: RunResults) -> str:
    parts = []
    for stack, name in found.stacks.items():
        steps = step_jitter(found, stack)
        if steps is not None:
            length = np.hypot(*steps.T)
            middle, high = np.nanmedian(length), np.nanpercentile(length, 95)
            parts.append(f"{name} {middle:.2f} px (95 %: {high:.2f})")
    return (
        f"From slice to slice the content jumps by, in the middle of the slices: "
        f"{', '.join(parts)}; slow changes of the tissue left out."
        if parts
        else ""
    )


def _duration(found: RunResults) -> str:
    totals = [part.get("total", 0.0) for part in found.run["seconds_per_rank"]]
    ranks, blocks = found.run["ranks"], found.run.get("blocks", 0)
    on = f"{ranks} {'rank' if ranks == 1 else 'ranks'}"
    devices = ", ".join(found.run["devices"]) or "no device"
    if not any(totals):
        return ""
    if blocks:
        return (
            f"Its {blocks} blocks took {duration(sum(totals))} on {on} together, the slowest of "
            f"these {duration(max(totals))}: {devices}."
        )
    return (
        f"It took {duration(max(totals))} on {on} (the last run alone, if the job was continued): "
        f"{devices}."
    )


def device_table(found: RunResults) -> list[tuple[str, int, float, float]]:
    """Per device: slices, seconds of the coarse step in all, and its share of the registration."""
    stages = {stage: np.nan_to_num(found.seconds(stage)) for stage in STAGES}
    total = np.sum(list(stages.values()), axis=0)
    names = np.array([s.device for s in found.slices])
    table = []
    for name in dict.fromkeys(names.tolist()):
        mine = names == name
        coarse = float(stages["coarse"][mine].sum())
        share = coarse / max(1e-9, float(total[mine].sum()))
        table.append((str(name), int(mine.sum()), coarse, share))
    return table
