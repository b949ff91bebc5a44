"""The figures of an evaluation: statistics, CSV, JSON, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.config import InputError
from amst_hpc.quality.adjacent import Pair, jitter

COLUMNS = (
    "stack", "z", "shift_y", "shift_x", "shift", "ncc", "ncc_best", "areas", "areas_failed",
    "drift_y", "drift_x", "reason",
)  # fmt: skip


def _shifts(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return np.array([(p.y, p.x) for p in pairs])


def ncc_jumps(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """|correlation - mean of the pairs before and after|; nan where one of the three is missing."""
    ncc = np.array([p.ncc for p in pairs])
    return np.asarray(np.abs(ncc[1:-1] - (ncc[:-2] + ncc[2:]) / 2))


def statistics(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float | None]:
    """Mean, median, std, max and 95 % of the finite values; None where there are none."""
    finite = np.array(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    names: dict[str, Callable[[NDArray[np.float64]], Any]] = {
        "mean": np.mean,
        "median": np.median,
        "std": np.std,
        "max": np.max,
        "p95": lambda v: np.percentile(v, 95),
    }
    return {n: round(float(f(finite)), 5) if len(finite) else None for n, f in names.items()}


def summarise(found: Evaluation) -> dict[str, Any]:
    """The figures of a stack: statistics over the measured pairs, and what failed."""
    failed = [p for p in found.pairs if p.reason]
    ncc = np.array([p.ncc for p in found.pairs])
    loss = np.array([p.ncc_best for p in found.pairs]) - ncc
    figures: dict[str, Any] = {
        "stack": found.source,
        "pairs": len(found.pairs),
        "pairs_failed": len(failed),
        "failed": [{"z": p.z, "reason": p.reason} for p in failed],
        "areas_failed": sum(p.areas_failed for p in found.pairs),
        "jitter_px": statistics(np.hypot(*jitter(_shifts(found.pairs)).T)),
        "shift_px": statistics([p.length for p in found.pairs]),
        "ncc": statistics(ncc) | {"min": _least(ncc)},
        "ncc_jump": statistics(ncc_jumps(found.pairs)),
        "ncc_loss": statistics(loss),
    }
    if found.drift is not None:
        figures["drift_px"] = statistics(np.hypot(*found.drift.T))
    if found.voxel_size_nm:
        figures["voxel_size_nm"] = list(found.voxel_size_nm)
        _, y, x = found.voxel_size_nm
        figures["jitter_nm"] = statistics(np.hypot(*(jitter(_shifts(found.pairs)) * (y, x)).T))
        figures["shift_nm"] = statistics(np.hypot(*(_shifts(found.pairs) * (y, x)).T))
        if found.drift is not None:
            figures["drift_nm"] = statistics(np.hypot(*(found.drift * (y, x)).T))
    return figures


def _least(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return round(float(finite.min()), 5) if len(finite) else None


def write_files(evaluations: Sequence[Evaluation], name: Path) -> None:
    """NAME.csv and NAME.json. Raises `InputError` where they cannot be written."""
    for suffix, text in ((".csv", to_csv(evaluations)), (".json", to_json(evaluations))):
        path = name.with_name(name.name + suffix)
        try:
            path.write_text(text)
        except OSError as error:
            raise InputError(f"--out {path}: cannot be written ({error.strerror})") from None


def to_json(evaluations: Sequence[Evaluation]) -> str:
    """All figures."""
    return json.dumps([summarise(found) for found in evaluations], indent=1)


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """One line per stack and pair; empty cells where a pair failed."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for found in evaluations:
        for p in found.pairs:
            drift = (float("nan"),) * 2 if found.drift is None else found.drift[p.z - found.first]
            values = [_cell(v) for v in (p.y, p.x, p.length, p.ncc, p.ncc_best)]
            row = [found.source, p.z, *values, p.areas, p.areas_failed]
            writer.writerow([*row, *(_cell(float(v)) for v in drift), p.reason])
    return table.getvalue()


def _cell(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def to_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """A table for the terminal: what fails and jitters, first."""
    columns = ("failed", "jitter", "median", "95 %", "max", "shift", "ncc", "jump", "drift")
    lines = [f"{'between adjacent slices, px':<32}" + "".join(f"{name:>9}" for name in columns)]
    for found in evaluations:
        figures = summarise(found)
        cells = [f"{figures['pairs_failed']}/{figures['pairs']}"]
        values = [figures["jitter_px"][key] for key in ("mean", "median", "p95", "max")]
        values += [figures[key]["mean"] for key in ("shift_px", "ncc", "ncc_jump")]
        values.append(figures["drift_px"]["mean"] if "drift_px" in figures else None)
        cells += ["-" if v is None else f"{v:.3f}" for v in values]
        lines.append(f"{found.source[-31:]:<32}" + "".join(f"{cell:>9}" for cell in cells))
    for found in evaluations:
        if found.voxel_size_nm:
            nm = summarise(found)["jitter_nm"]
            lines.append(f"{found.source}: jitter {nm['mean']} nm, 95 % {nm['p95']} nm")
    return lines


@dataclass(frozen=True)
class Evaluation:
    """The figures of one stack; `drift` (z, yx) px against the reference, nan if not measured."""

    source: str
    first: int
    pairs: list[Pair]
    drift: NDArray[np.float64] | None
    voxel_size_nm: tuple[float, ...]
