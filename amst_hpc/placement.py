"""Where the slices of raw alone lie on each other, as pairs of them tell (`registration.prealign`).

Matrices are 2x3 pull-backs, see `transform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.transform import Matrix


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Placement:
    """transforms : (n, 2, 3), `placed(p) = raw(M p)`, of slices 0 to n - 1; those without `pairs`
    lie between their neighbours. pairs : how many hold each, (n,). residual : 1 - their median
    correlation, (n,). parts : first slices of the parts of the stack that no pair joins.
    """

    transforms: Matrix
    pairs: NDArray[np.intp]
    residual: NDArray[np.float64]
    parts: Sequence[int]

    def to_record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "transforms": self.transforms.tolist(),
            "pairs": self.pairs.tolist(),
            "residual": [None if np.isnan(v) else float(v) for v in self.residual],
            "parts": [int(z) for z in self.parts],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Placement:
        """What `to_record` made."""
        residual = [np.nan if v is None else v for v in record["residual"]]
        pairs = np.array(record["pairs"], int)
        return cls(np.array(record["transforms"]), pairs, np.array(residual), record["parts"])
