"""Pearson's correlation coefficient, of two arrays and of their sums.

One rule: -1.0 (`UNRELATED`) where one of the two is constant or too few values are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNRELATED = -1.0


def pearson(a: NDArray[Any], b: NDArray[Any], least: int = 1) -> float:
    """Of two arrays of one shape; `UNRELATED` where they hold NaN, or fewer than `least` values."""
    if a.size < least:
        return UNRELATED
    means = a.mean(dtype=np.float64), b.mean(dtype=np.float64)
    if not np.isfinite(means).all():
        return UNRELATED
    a, b = a - float(means[0]), b - float(means[1])  # float32 stays so
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0 else UNRELATED


def pearson_of_sums(sums: Sequence[float] | NDArray[np.float64], least: int = 1) -> float:
    """Of the sums of 1, a, b, a a, b b and a b over the values."""
    n, a, b, aa, bb, ab = sums
    if n < least:
        return UNRELATED
    spread = (aa - a * a / n) * (bb - b * b / n)
    return float((ab - a * b / n) / np.sqrt(spread)) if spread > 0 else UNRELATED
