"""How one slice fits the next: the shift between them in a few areas, and their correlation.

The shift is that of the content: `following(p + shift)` lies on `this(p)`, (y, x) px. Both slices
are smoothed by the caller. What keeps the figures honest, each measured on ground truth:

* the correlation is not phase-normalised and the areas are windowed. Normalised, frame-fixed noise
  and area borders hold the peak at zero, and a stack that was only interpolated looks aligned;
* tissue moves from slice to slice too, but slowly over z: `jitter` is the shift without its slow
  part;
* an area that cannot be measured (black, constant, no match) is counted apart and enters no mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.correlation import pearson
from amst_hpc.transform import FloatImage

ROUNDS = 2  # the second looks where the first found the content: large shifts are not pulled to 0
BLACK = 0.1  # of an area: more without content, and it cannot be measured
LARGEST_SHIFT = 0.4  # of an area
LEAST_CORRELATION = 0.1
TISSUE_SIGMA = 3.0  # slices: what is slower is the tissue
Area = tuple[int, int, int, int]  # y0, y1, x0, x1
Measure = Callable[[FloatImage, FloatImage], tuple[float, float]]


class Slice(Protocol):
    """A smoothed slice (y, x): an array, or one of which only parts were read."""

    @property
    def shape(self) -> Any:
        """(y, x) px."""

    def __getitem__(self, place: tuple[slice, slice], /) -> Any:
        """A part, (y, x) float32."""


class NoMatchError(Exception):
    """An area that cannot be measured; the message says why."""


@dataclass(frozen=True)
class Pair:
    """Slices z and z+1: shift (y, x) px, median of the areas; `length` its mean length in the
    areas, px; correlation as they stand and with the shift undone.

    `reason` if the pair failed: the numbers are nan then.
    """

    z: int
    y: float = float("nan")
    x: float = float("nan")
    length: float = float("nan")
    ncc: float = float("nan")
    ncc_best: float = float("nan")
    areas: int = 0
    areas_failed: int = 0
    reason: str = ""


def measure_pair(
    z: int,
    this: Slice | None,
    following: Slice | None,
    areas: Sequence[Area],
    measure: Measure,
) -> Pair:
    """The pair of slices z and z+1, both smoothed (y, x)."""
    if this is None or following is None:
        return Pair(z, areas_failed=len(areas), reason="a slice cannot be read")
    if this.shape != following.shape:
        sizes = f"{this.shape} and {following.shape}"
        return Pair(z, areas_failed=len(areas), reason=f"sizes {sizes} (y, x) differ")
    found, reason = [], ""
    for area in areas:
        try:
            found.append(measure_area(this, following, area, measure))
        except NoMatchError as error:
            reason = reason or str(error)
    failed = len(areas) - len(found)
    if not found:
        return Pair(z, areas_failed=failed, reason=reason)
    values = np.array(found)
    y, x = np.median(values[:, :2], axis=0)
    length = np.hypot(values[:, 0], values[:, 1]).mean()
    ncc, best = values[:, 2:].mean(axis=0)
    return Pair(z, float(y), float(x), float(length), float(ncc), float(best), len(found), failed)


def measure_area(
    this: Slice, following: Slice, area: Area, measure: Measure
) -> tuple[float, float, float, float]:
    """Shift (y, x) px, correlation, correlation with the shift undone. Raises `NoMatchError`."""
    y0, y1, x0, x1 = area
    fixed, moving = this[y0:y1, x0:x1], following[y0:y1, x0:x1]
    _require_content(fixed, moving)
    ncc = pearson(fixed, moving)
    shift, at, cut = np.zeros(2), np.zeros(2, int), moving
    for _ in range(ROUNDS):
        shift = at + np.array(measure(fixed, cut))
        if (
            not np.isfinite(shift).all()
            or (np.abs(shift) > LARGEST_SHIFT * np.array(cut.shape)).any()
        ):
            raise NoMatchError("no match within the area")
        whole = np.rint(shift).astype(int)
        whole = np.clip(whole, (-y0, -x0), (this.shape[0] - y1, this.shape[1] - x1))
        if (whole == at).all():
            break
        at = whole
        cut = following[y0 + at[0] : y1 + at[0], x0 + at[1] : x1 + at[1]]
        _require_content(fixed, cut)
    best = pearson(fixed, ndimage.shift(cut, at - shift, order=3, mode="nearest"))
    if best < max(LEAST_CORRELATION, ncc - LEAST_CORRELATION):
        raise NoMatchError(f"no match (correlation {best:.2f})")
    return float(shift[0]), float(shift[1]), ncc, max(best, ncc)


def _require_content(*images: FloatImage) -> None:
    for image in images:
        if float(np.mean(image <= 0)) > BLACK:
            raise NoMatchError("black")
        if float(np.ptp(image)) == 0:
            raise NoMatchError("constant")


def low_pass(shifts: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Slow part of (z, yx) shifts about their median;

    gaussian in z, gaps bridged. All nan if nothing is known.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(shifts).all(axis=1))
    if not known.any():
        return np.full(shifts.shape, np.nan)
    centred = np.where(known[:, None], shifts - np.median(shifts[known], axis=0), 0.0)
    weight = ndimage.gaussian_filter1d(known.astype(np.float64), sigma, mode="constant")
    slow = ndimage.gaussian_filter1d(centred, sigma, axis=0, mode="constant")
    return np.asarray(slow / np.maximum(weight, 1e-12)[:, None])


def jitter(shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, yx) shifts between slices without their slow part over z, px; nan where unknown."""
    if not np.isfinite(shifts).any():
        return shifts
    return np.asarray(shifts - np.nanmedian(shifts, axis=0) - low_pass(shifts, TISSUE_SIGMA))
