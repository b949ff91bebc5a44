"""What registration found for two raw slices, or for a raw slice and its own pre-aligned one.

Made by the rank that registers the pair, kept in the journal, joined with all others by
`registration.solve`. Matrices are 2x3 pull-backs, see `transform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amst_hpc.transform import Matrix


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class PairResult:
    """Raw slices z and z + k: `raw_z(p)` looks like `raw_{z+k}(matrix p)`.

    k = 0: `prealigned_z(p)` is `raw_z(matrix p)`, what the pre-alignment did to the slice. matrix :
    None where there is none, `reason` says why. tissue : px, size of the motion between both that
    no affine can follow, in the next higher modes (see `registration.neighbours`). correlation : of
    both filtered images at the result. overlap : part of the content that was compared. frame : y0,
    y1, x0, x1 of the content of the first slice, px; empty: all of it.
    """

    z: int
    k: int
    matrix: Matrix | None = None
    tissue: float = 0.0
    correlation: float = 0.0
    overlap: float = 0.0
    frame: Sequence[int] = ()
    reason: str = ""

    def to_record(self) -> dict[str, Any]:
        """A line of the journal."""
        matrix = None if self.matrix is None else self.matrix.tolist()
        return {"kind": "pair", **vars(self), "matrix": matrix}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PairResult:
        """What `to_record` wrote."""
        values = {key: value for key, value in record.items() if key not in ("kind", "key")}
        if values["matrix"] is not None:
            values["matrix"] = np.array(values["matrix"], dtype=np.float64)
        return cls(**values)
