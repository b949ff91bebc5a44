"""What registration found for one slice, and what became of it.

A `SliceResult` is made by the rank that registers the slice, goes to rank 0 and into the journal,
gets its status and transform when the whole stack is known (`registration.fallback`), and is what
the report reads. Its forms outside the program stand here alone: a record of the journal (JSON)
and a line of `slices.csv`. Matrices are 2x3 pull-backs, see `transform`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amst_hpc.transform import Matrix, translation

STAGES = ("template", "read", "coarse", "refine")
NAN = float("nan")
BETWEEN = "; "  # in a cell of slices.csv that lists several
OVERRIDE = "override: "  # how the reason of a slice begins that a person has decided about
ASKED_FOR = ("affine", "placed")  # the status of a slice that did not fall back
COLUMNS = (
    "index", "file", "status", "shift_x", "shift_y", "matches", "metric_before", "metric",
    *(f"seconds_{stage}" for stage in STAGES), "rank", "device", "reason",
    "pairs", "pair_residual", "correction_px", "method", "over_chance", "missed", "left_out",
)  # fmt: skip


class RegistrationError(Exception):
    """A step found no registration of a slice; the message is its reason."""


@dataclass(frozen=True)
class Estimate:
    """`shift` (x, y) in px of the images that were matched.

    `matches`: how many keypoints agreed on it (XCORR: 0).
    """

    shift: tuple[float, float]
    matches: int


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class SliceResult:
    """Slice z of the raw stack; what is not known (yet) has its default.

    file : name of the raw slice. blank : black, constant or unreadable. shift : coarse translation.
    affine : by elastix. prealigned : translation onto its own pre-aligned slice, where one was
    needed. unreadable : blank because it cannot be read now. missed : pre-aligned slices that its
    template lacks because they cannot be read now; such a result is asked for again at the next
    start. start, metric : correlation with the template at `shift` and at `affine`. matches :
    keypoints that agreed on the shift. crc, crc_prealigned : CRC-32 of the pixels of raw and of its
    own pre-aligned slice. over_chance : likeness to the template at `affine`, or `shift` where
    there is none, over what chance reaches. method : what found the shift (sift, xcorr, none).
    reason : of the first failure, then why `status` is no better. seconds : by stage. status,
    transform : what is applied, None where the slice is blank.
    pairs : registrations with neighbours that hold it; pair_residual : their median residual;
    correction : how far they move its corners on the mean, px. left_out : excluded slices that its
    template is without. moved_by : see `Inputs.moved_by`.
    """

    z: int
    file: str = ""
    blank: bool = False
    unreadable: bool = False
    missed: Sequence[str] = ()
    left_out: Sequence[int] = ()
    method: str = ""
    shift: Matrix | None = None
    affine: Matrix | None = None
    prealigned: Matrix | None = None
    start: float = NAN
    metric: float = NAN
    over_chance: float = NAN
    matches: int = 0
    crc: int | None = None
    crc_prealigned: int | None = None
    reason: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    rank: int = 0
    device: str = ""
    status: str = ""
    transform: Matrix | None = None
    pairs: int = 0
    pair_residual: float = NAN
    correction: float = NAN
    moved_by: str = ""

    @property
    def provisional(self) -> bool:
        """True if something could not be read that may be there again."""
        return self.unreadable or bool(self.missed)

    @property
    def overridden(self) -> bool:
        """True if a person has decided what becomes of it."""
        return self.reason.startswith(OVERRIDE)

    @property
    def fell_back(self) -> bool:
        """True on a lower rung than was asked for."""
        return self.status not in ASKED_FOR and not self.overridden

    def to_record(self) -> dict[str, Any]:
        """A line of the journal: what registration found, and the decision where there is one."""
        return {
            "kind": "provisional" if self.provisional else "slice",
            "z": self.z,
            "file": self.file,
            "blank": self.blank,
            "unreadable": self.unreadable,
            "missed": list(self.missed),
            "left_out": list(self.left_out),
            "moved_by": self.moved_by,
            "matrix": _plain(self.affine),
            "shift": _plain(self.shift),
            "prealigned": _plain(self.prealigned),
            "method": self.method,
            "matches": self.matches,
            "crc": self.crc,
            "crc_prealigned": self.crc_prealigned,
            "start": None if np.isnan(self.start) else self.start,
            "metric": None if np.isnan(self.metric) else self.metric,
            "over_chance": None if np.isnan(self.over_chance) else self.over_chance,
            "reason": self.reason,
            "rank": self.rank,
            "device": self.device,
            "seconds": dict(self.seconds),
            "status": self.status,
            "transform": _plain(self.transform),
            "pairs": self.pairs,
            "pair_residual": None if np.isnan(self.pair_residual) else self.pair_residual,
            "correction": None if np.isnan(self.correction) else self.correction,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SliceResult:
        """What `to_record` wrote."""
        start, metric, over_chance, residual, correction = (
            NAN if (value := record.get(key)) is None else value
            for key in ("start", "metric", "over_chance", "pair_residual", "correction")
        )
        return cls(
            z=record["z"],
            file=record["file"],
            blank=record["blank"],
            unreadable=record["unreadable"],
            missed=record["missed"],
            left_out=record.get("left_out", ()),
            moved_by=record.get("moved_by", ""),
            shift=_matrix(record["shift"]),
            affine=_matrix(record["matrix"]),
            prealigned=_matrix(record["prealigned"]),
            start=start,
            metric=metric,
            over_chance=over_chance,
            method=record.get("method", ""),
            matches=record["matches"],
            crc=record.get("crc"),
            crc_prealigned=record.get("crc_prealigned"),
            reason=record["reason"],
            seconds=record["seconds"],
            rank=record["rank"],
            device=record["device"],
            status=record["status"],
            transform=_matrix(record["transform"]),
            pairs=record.get("pairs", 0),
            pair_residual=residual,
            correction=correction,
        )

    def to_row(self) -> list[Any]:
        """A line of slices.csv, in the order of `COLUMNS`."""
        shift = ("", "") if self.shift is None else (self.shift[0, 2], self.shift[1, 2])
        scores = ["" if np.isnan(v) else f"{v:.4f}" for v in (self.start, self.metric)]
        seconds = [self.seconds.get(stage, "") for stage in STAGES]
        row = [self.z, self.file, self.status, *map(str, shift), self.matches, *scores, *seconds]
        found = ["" if np.isnan(v) else f"{v:.4f}" for v in (self.pair_residual, self.correction)]
        chance = "" if np.isnan(self.over_chance) else f"{self.over_chance:.3g}"
        lacking = [BETWEEN.join(self.missed), BETWEEN.join(map(str, self.left_out))]
        row += [self.rank, self.device, self.reason, self.pairs, *found]
        return [*row, self.method, chance, *lacking]

    @classmethod
    def from_row(cls, row: Mapping[str, str], transform: Matrix | None) -> SliceResult:
        """A line of slices.csv with the transform that was applied; raises ValueError."""
        x, y = row["shift_x"], row["shift_y"]
        seconds = {stage: row[f"seconds_{stage}"] for stage in STAGES}
        return cls(
            z=int(row["index"]),
            file=row["file"],
            blank=row["status"] in ("blank", "unreadable"),
            unreadable=row["status"] == "unreadable",
            shift=translation(float(x), float(y)) if x and y else None,
            start=float(row["metric_before"] or NAN),
            metric=float(row["metric"] or NAN),
            matches=int(row["matches"]),
            reason=row["reason"],
            seconds={stage: float(value) for stage, value in seconds.items() if value},
            rank=int(row["rank"]),
            device=row["device"],
            status=row["status"],
            transform=transform,
            pairs=int(row.get("pairs") or 0),  # a table of an older version lacks columns
            pair_residual=float(row.get("pair_residual") or NAN),
            correction=float(row.get("correction_px") or NAN),
            method=row.get("method") or "",
            over_chance=float(row.get("over_chance") or NAN),
            missed=[name for name in (row.get("missed") or "").split(BETWEEN) if name],
            left_out=[int(z) for z in (row.get("left_out") or "").split(BETWEEN) if z],
        )


def to_csv(results: Iterable[SliceResult]) -> str:
    """slices.csv."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(result.to_row() for result in results)
    return table.getvalue()


def from_csv(text: str, transforms: Sequence[Any]) -> list[SliceResult]:
    """slices.csv with transforms.json (a matrix or null per slice of RAW).

    Raises ValueError or KeyError where one of them is damaged.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [SliceResult.from_row(row, _matrix(transforms[int(row["index"])])) for row in rows]


def _plain(matrix: Matrix | None) -> list[list[float]] | None:
    return None if matrix is None else matrix.tolist()


def _matrix(values: Any) -> Matrix | None:
    return None if values is None else np.array(values, dtype=np.float64)
