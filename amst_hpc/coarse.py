"""The coarse step: the whole-pixel translation of a raw slice to its template.

`raw(p + shift)` lies on `template(p)`; shift is (x, y) in whole pixels of the full image. SIFT
(silx on OpenCL) or phase correlation (XCORR) look at both images smoothed and averaged down, as in
the original program. Their estimate is not taken as it is: SIFT's keypoint list changes from run to
run, so the final whole pixel is the nearest local maximum of the correlation of the two smoothed
images, which is the same from every start nearby.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.config import Coarse, InputError
from amst_hpc.opencl import NoDeviceError, open_device
from amst_hpc.transform import Matrix

log = logging.getLogger(__name__)

XCORR_SIGMA = 1.0
XCORR_UPSAMPLE = 100
SETTLE_PIXELS = 1 << 18
SETTLE_STEPS = 24
QUALITY_POINTS = 1 << 15
LARGEST_SHIFT = 0.75
OCTAVES = 4
KEYPOINTS = 2048
SMALLEST = 8

Image = NDArray[np.generic]
Float = NDArray[np.float32]


class CoarseError(Exception):
    """No translation was found; the message says why."""


@dataclass(frozen=True)
class Estimate:
    """`shift` (x, y) in px of the images that were matched.

    `matches`: how many keypoints agreed on it (XCORR: 0).
    """

    shift: tuple[float, float]
    matches: int


@dataclass(frozen=True)
class Shift:
    """The result: whole pixels of the full image; `estimate` before settling, px."""

    x: int
    y: int
    estimate: tuple[float, float]
    matches: int


Estimator = Callable[[Float, Float], Estimate]
Smoother = Callable[[Image, float], Float]


def _smoother() -> Smoother:
    """vigra's gaussian where it imports, else scipy's.

    Same window and border: equal to rounding.
    """
    try:
        import vigra
    except ImportError:
        return lambda image, sigma: ndimage.gaussian_filter(
            image.astype(np.float32), sigma, truncate=3.0, mode="mirror"
        )
    return lambda image, sigma: np.asarray(vigra.gaussianSmoothing(image.astype(np.float32), sigma))


def average_down(image: Float, factor: int) -> Float:
    """Mean of factor x factor blocks; a rest at the right and below is left out."""
    if factor == 1:
        return np.ascontiguousarray(image)
    y, x = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: y * factor, : x * factor].reshape(y, factor, x * factor).sum(axis=1)
    return np.ascontiguousarray(
        blocks.reshape(y, x, factor).sum(axis=2) * np.float32(1 / factor**2)
    )


class Matcher:
    """The coarse step of one rank: built once, called per slice."""

    def __init__(self, config: Coarse, local_rank: int) -> None:
        """Opens the device. Raises `InputError` if `config.device` names none."""
        self.config, self.local_rank = config, local_rank
        self.smoother = _smoother()
        self.device = "CPU"
        self.method = config.method
        self.note = ""
        self.estimate: Estimator = _phase_correlation
        self.refuges = [config.device, "cpu"] if config.method == "sift" else []
        if config.method == "sift":
            try:
                self._use_sift(config.device)
            except (NoDeviceError, ImportError) as error:
                self._use_xcorr()
                self.note = f"no OpenCL device for SIFT ({error}): XCORR is used instead"

    def _use_sift(self, device: str) -> None:
        sift = Sift(device, self.local_rank)
        self.estimate, self.device = sift, sift.device

    def _use_xcorr(self) -> None:
        self.estimate, self.device, self.method = _phase_correlation, "CPU", "xcorr"

    def _recover(self, error: Exception) -> None:
        """After an OpenCL error: a new context on the device, then CPU OpenCL, then XCORR."""
        failed = self.device
        while self.refuges:
            try:
                self._use_sift(self.refuges.pop(0))
                break
            except (NoDeviceError, InputError) as next_error:
                log.warning("coarse: %s", next_error)
        else:
            self._use_xcorr()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning(
            "coarse: %s failed (%s); on with %s %s", failed, reason, self.method, self.device
        )

    def _estimate(self, fixed: Float, moving: Float) -> Estimate:
        """What the estimator finds; an OpenCL error moves the rank on and is not the slice's."""
        while True:
            try:
                return self.estimate(fixed, moving)
            except CoarseError:
                raise
            except Exception as error:  # pyopencl's and silx' errors have no common class
                if self.method != "sift":
                    raise
                self._recover(error)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile kernels and take memory for slices of this shape (y, x), before the first one."""
        grain = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        image = self.smoother(grain, 2.0)
        with contextlib.suppress(CoarseError):
            self(image, image)

    def smooth(self, image: Image) -> Float:
        """The slice as the coarse step sees it, (y, x) float32, full size."""
        return (
            self.smoother(image, self.config.sigma)
            if self.config.sigma
            else image.astype(np.float32)
        )

    def __call__(self, fixed: Float, moving: Float) -> Shift:
        """The shift of a raw slice to its template, both smoothed and of one shape.

        Raises `CoarseError`.
        """
        if fixed.shape != moving.shape:
            raise CoarseError(f"shapes {fixed.shape} and {moving.shape} differ")
        if self.method == "none":
            return Shift(0, 0, (0.0, 0.0), 0)
        factor = self.config.downsample
        found = self._estimate(average_down(fixed, factor), average_down(moving, factor))
        x, y = found.shift[0] * factor, found.shift[1] * factor
        if max(abs(x) / fixed.shape[1], abs(y) / fixed.shape[0]) > LARGEST_SHIFT:
            raise CoarseError(f"shift ({x:.1f}, {y:.1f}) px is as large as the slice")
        return Shift(*settle(fixed, moving, round(x), round(y)), (x, y), found.matches)


class Sift:
    """SIFT keypoints and matching on one OpenCL device; plans are kept until the shape changes."""

    def __init__(self, wanted: str, local_rank: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from silx.opencl import sift

            self.sift = sift
            self.context, device = open_device(wanted, local_rank)
            self.device = str(device)
            self.plan: Any = None
            self.match = sift.MatchPlan(ctx=self.context)

    def __call__(self, fixed: Float, moving: Float) -> Estimate:
        """Median displacement of matched keypoints (Hennies et al., Sci Rep 10, 2004 (2020))."""
        with warnings.catch_warnings():  # what compilers say of silx' kernels
            warnings.simplefilter("ignore")
            return self._estimate(fixed, moving)

    def _estimate(self, fixed: Float, moving: Float) -> Estimate:
        if self.plan is None or self.plan.shape != fixed.shape:
            self.plan = self._make_plan(fixed.shape)
        first, second = self.plan.keypoints(fixed), self.plan.keypoints(moving)
        second = second[:: max(1, len(second) // KEYPOINTS)].copy()
        if not len(first) or not len(second):
            raise CoarseError(f"SIFT found {len(first)} and {len(second)} keypoints")
        pairs = self.match(first, second)
        if pairs is None or not len(pairs):
            raise CoarseError(f"no match between {len(first)} and {len(second)} keypoints")
        dx, dy = (np.median(pairs[:, 1][axis] - pairs[:, 0][axis]) for axis in ("x", "y"))
        return Estimate((float(dx), float(dy)), len(pairs))

    def _make_plan(self, shape: tuple[int, ...]) -> Any:
        """A plan of silx without what it wastes.

        Where the device's work groups are smaller than silx wants, it looks for the range of the
        image in a single thread (on an H200 four fifths of the time); the finest octaves hold
        nearly all keypoints.
        """
        plan = self.sift.SiftPlan(shape=shape, dtype=np.float32, ctx=self.context)
        kernels = ("max_min_global_stage1", "max_min_global_stage2")
        while plan.red_size > min(plan.kernels_wg[name] for name in kernels):
            plan.red_size //= 2
        plan.octave_max = min(plan.octave_max, OCTAVES)
        return plan


def _phase_correlation(fixed: Float, moving: Float) -> Estimate:
    """XCORR of the original program: gaussian, sobel, phase correlation at 1/100 px."""
    from skimage.filters import sobel
    from skimage.registration import phase_cross_correlation

    edges = [sobel(ndimage.gaussian_filter(a, XCORR_SIGMA)) for a in (fixed, moving)]
    if not all(a.any() for a in edges):
        raise CoarseError("an image without any edge")
    shift = phase_cross_correlation(*edges, upsample_factor=XCORR_UPSAMPLE)[0]
    return Estimate((-float(shift[1]), -float(shift[0])), 0)


def settle(fixed: Float, moving: Float, x: int, y: int) -> tuple[int, int]:
    """From (x, y) uphill to the nearest local maximum of the correlation, whole pixels."""
    seen: dict[tuple[int, int], float] = {}

    def height(position: tuple[int, int]) -> float:
        if position not in seen:
            seen[position] = correlation(fixed, moving, *position)
        return seen[position]

    here = (x, y)
    for _ in range(SETTLE_STEPS):
        around = [(here[0] + dx, here[1] + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        best = max(around, key=height)
        if height(best) <= height(here):
            break
        here = best
    return here


def correlation(fixed: Float, moving: Float, x: int, y: int) -> float:
    """Correlation of `fixed(p)` and `moving(p + (x, y))` where both exist.

    On at most some 10^5 pixels.
    """
    height, width = fixed.shape
    y0, y1, x0, x1 = max(0, -y), min(height, height - y), max(0, -x), min(width, width - x)
    if y1 - y0 < SMALLEST or x1 - x0 < SMALLEST:
        return -1.0
    step = max(1, (height * width) // SETTLE_PIXELS)
    # the same rows of `fixed` whatever the shift, so that neighbouring shifts compare the same
    # pixels
    first = -(-y0 // step) * step
    return _coefficient(
        fixed[first:y1:step, x0:x1], moving[first + y : y1 + y : step, x0 + x : x1 + x]
    )


def quality(fixed: Float, moving: Float, matrix: Matrix) -> float:
    """Correlation of `fixed(p)` and `moving(M p)`, both smoothed.

    On a grid of points where both have content: zero areas (a border, a missing part of a slice)
    do not count. -1 where nothing is left to compare.
    """
    height, width = fixed.shape
    step = max(1, int(np.sqrt(height * width / QUALITY_POINTS)))
    y, x = np.mgrid[0:height:step, 0:width:step].reshape(2, -1)
    qx, qy = matrix[:, :2] @ np.stack([x, y]) + matrix[:, 2:]
    inside = (qx >= 0) & (qy >= 0) & (qx <= width - 1) & (qy <= height - 1)
    inside &= fixed[y, x] > 0
    inside[inside] = moving[np.rint(qy[inside]).astype(int), np.rint(qx[inside]).astype(int)] > 0
    if np.count_nonzero(inside) < SMALLEST**2:
        return -1.0
    values = ndimage.map_coordinates(moving, [qy[inside], qx[inside]], order=1)
    return _coefficient(fixed[y[inside], x[inside]], values)


def _coefficient(a: Float, b: Float) -> float:
    """Pearson's correlation coefficient; -1 if one of the two is constant."""
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0 else -1.0
