"""What the registration of two raw slices with each other found; see `registration.neighbours`.

Pair (z, z + k): `raw_z(p) ~ gain raw_{z+k}(D p) + bias`, D the matrix, a 2x3 pull-back. k = 0 is
raw slice z onto its own pre-aligned slice: `prealigned_z(p) ~ gain raw_z(D p) + bias`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.transform import Matrix


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class PairResult:
    """Slices z and z + k.

    matrix : None where nothing plausible was found; `reason` says why. covariance : (6, 6), px^2,
    of (tx, ax, bx, ty, ay, by), the displacement at the centre of the slice and its change per half
    width and half height. residual : 1 - correlation of the two filtered images at the result,
    where both are valid. overlap : the part of slice z that is.
    """

    z: int
    k: int
    matrix: Matrix | None
    covariance: NDArray[np.float64]
    residual: float
    gain: float
    overlap: float
    reason: str = ""

    def to_record(self) -> dict[str, Any]:
        """A line of the journal."""
        return {
            "kind": "pair",
            "z": self.z,
            "k": self.k,
            "matrix": None if self.matrix is None else self.matrix.tolist(),
            "covariance": self.covariance.tolist(),
            "residual": self.residual,
            "gain": self.gain,
            "overlap": self.overlap,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PairResult:
        """What `to_record` wrote."""
        matrix = record["matrix"]
        return cls(
            z=record["z"],
            k=record["k"],
            matrix=None if matrix is None else np.array(matrix, np.float64),
            covariance=np.array(record["covariance"], np.float64),
            residual=record["residual"],
            gain=record["gain"],
            overlap=record["overlap"],
            reason=record["reason"],
        )
