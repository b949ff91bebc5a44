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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.config import Coarse, InputError
from amst_hpc.kernels import Kernels, gaussian_taps
from amst_hpc.opencl import candidates, find_devices, open_device, ranks_sharing, survives
from amst_hpc.template import median_templates
from amst_hpc.transform import Matrix, translation

log = logging.getLogger(__name__)

XCORR_SIGMA = 1.0
XCORR_UPSAMPLE = 100
SETTLE_PIXELS = 1 << 18
SETTLE_STEPS = 24
QUALITY_POINTS = 1 << 15
LARGEST_SHIFT = 0.75
OCTAVES = 3
LARGEST_WINDOW = 41  # slices in one median kernel
SIFT_BYTES = 80  # per pixel that SIFT sees: silx' images, keypoints and descriptors
DEVICE_IMAGES = 5  # float32 images of full size that are alive at once
MEMORY_PART = 0.9
KEYPOINTS = 2048
SMALLEST = 8

Image = NDArray[np.integer]
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
T = TypeVar("T")
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


def compile_kernels(config: Coarse, local_rank: int, shape: tuple[int, int]) -> Coarse:
    """Compile for slices of `shape` (y, x) on the CPU in another process: 140 MB less in this one.

    Returns the settings to go on with: XCORR where the driver crashes, which would end the job.
    """
    if config.method != "sift":
        return config
    devices = candidates(config.device, local_rank, find_devices())
    if not devices or devices[0].kind != "cpu":
        return config
    statement = (
        "from amst_hpc.coarse import Coarse, Matcher\n"
        f"Matcher({config!r}, {local_rank}).warm_up({shape!r})"
    )
    if survives(statement):
        return config
    log.warning("the driver of %s crashes: XCORR is used instead", devices[0])
    return replace(config, method="xcorr")


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
        self.on_device: OnDevice | None = None
        self.refuges = [config.device, "cpu"] if config.method == "sift" else []
        if config.method == "sift":
            try:
                self._use_sift(config.device)
            except InputError:
                raise
            except Exception as error:  # none computes, or silx cannot work with what is there
                self._use_xcorr()
                self.note = f"no OpenCL device for SIFT ({error}): XCORR is used instead"

    def _use_sift(self, device: str) -> None:
        sift = Sift(device, self.local_rank)
        self.estimate, self.device, self.on_device = sift, sift.device, sift.images(self.config)

    def _use_xcorr(self) -> None:
        self.estimate, self.device, self.method = _phase_correlation, "CPU", "xcorr"
        self.on_device = None

    def _recover(self, error: Exception) -> None:
        """After an OpenCL error: a new context on the device, then CPU OpenCL, then XCORR."""
        failed = self.device
        while self.refuges:
            try:
                self._use_sift(self.refuges.pop(0))
                break
            except Exception as next_error:  # no such device, or as broken as before
                log.warning("coarse: %s", next_error)
        else:
            self._use_xcorr()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning(
            "coarse: %s failed (%s); on with %s %s", failed, reason, self.method, self.device
        )

    def _guarded(self, work: Callable[[], T]) -> T:
        """The result of `work`; an OpenCL error moves the rank on and is not the slice's."""
        while True:
            try:
                return work()
            except CoarseError:
                raise
            except Exception as error:  # pyopencl's and silx' errors have no common class
                if self.method != "sift":
                    raise
                self._recover(error)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile kernels and take memory for slices of this shape (y, x), before the first one."""
        grain = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        blobs = self.smooth(self.smoother(grain, 2.0).astype(np.uint8))
        with contextlib.suppress(CoarseError):
            self(blobs, blobs)

    def share_memory(self, slice_bytes: int, pixels: int, radius: int, ranks_on_node: int) -> None:
        """Leave a GPU whose memory does not do for all the ranks that share it."""
        if not self.on_device:
            return
        sift = SIFT_BYTES * pixels / self.config.downsample**2
        need = sift + DEVICE_IMAGES * 4 * pixels + (2 * radius + 5) * slice_bytes
        sharing = ranks_sharing(ranks_on_node)
        memory = self.on_device.memory
        if need * sharing > MEMORY_PART * memory:
            self.refuges = ["cpu"]
            self._recover(
                MemoryError(
                    f"{sharing} ranks need {need * sharing / 1e9:.1f} GB on it, "
                    f"it has {memory / 1e9:.1f} GB"
                )
            )

    def templates(self, windows: Sequence[Sequence[Image]]) -> list[Image]:
        """The median along z of each window, on the device where there is one; see `template`."""

        def make() -> list[Image]:
            small = max(map(len, windows), default=0) <= LARGEST_WINDOW
            if self.on_device and small:
                return self.on_device.templates(windows)
            return median_templates(windows)

        return self._guarded(make)

    def smooth(self, image: Image) -> Smooth:
        """The slice as the coarse step sees it, (y, x) float32, full size, on its device."""
        if self.on_device:
            return self._guarded(lambda: self._on_device(image))
        sigma = self.config.sigma
        return self.smoother(image, sigma) if sigma else image.astype(np.float32)

    def _on_device(self, image: Image) -> Smooth:
        return self.on_device.smooth(image) if self.on_device else self.smooth(image)

    def _here(self, image: Smooth) -> Any:
        """A smoothed image where the rank works now: the device may have failed since."""
        if isinstance(image, np.ndarray) or image.place is self.on_device:
            return image
        return self.smooth(image.source)

    def __call__(self, fixed: Smooth, moving: Smooth) -> Shift:
        """The shift of a raw slice to its template, both from `smooth` and of one shape.

        Raises `CoarseError`.
        """
        if fixed.shape != moving.shape:
            raise CoarseError(f"shapes {fixed.shape} and {moving.shape} differ")
        if self.method == "none":
            return Shift(0, 0, (0.0, 0.0), 0)
        return self._guarded(lambda: self._match(self._here(fixed), self._here(moving)))

    def _match(self, fixed: Any, moving: Any) -> Shift:
        factor, shape = self.config.downsample, fixed.shape
        average = self.on_device.average_down if self.on_device else average_down
        small = average(fixed, factor), average(moving, factor)
        try:
            found = self.estimate(*small)
        except CoarseError:
            if self.method != "sift":
                raise
            # its correlation tells later if that is any good
            found = _phase_correlation(
                *(a if isinstance(a, np.ndarray) else a.get() for a in small)
            )
        x, y = found.shift[0] * factor, found.shift[1] * factor
        if max(abs(x) / shape[1], abs(y) / shape[0]) > LARGEST_SHIFT:
            raise CoarseError(f"shift ({x:.1f}, {y:.1f}) px is as large as the slice")
        climb = self.on_device.settle if self.on_device else settle
        return Shift(*climb(fixed, moving, round(x), round(y)), (x, y), found.matches)

    def quality(self, fixed: Smooth, moving: Smooth, matrix: Matrix) -> float:
        """Correlation of `fixed(p)` and `moving(M p)`, both from `smooth`; see `quality`."""

        def measure() -> float:
            score = self.on_device.quality if self.on_device else quality
            return score(self._here(fixed), self._here(moving), matrix)

        return self._guarded(measure)


@dataclass(frozen=True)
class DeviceImage:
    """A smoothed image in the memory of a device, and what it was made from."""

    source: Image
    pixels: Any
    place: OnDevice

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x)."""
        return self.source.shape


Smooth = Float | DeviceImage


class OnDevice:
    """Smoothing and correlation on the OpenCL device: nothing but numbers comes back."""

    def __init__(self, context: Any, sigma: float, memory: int) -> None:
        """memory : bytes of the device, shared by all ranks on it."""
        self.kernels, self.memory = Kernels(context), memory
        self.taps = gaussian_taps(sigma) if sigma else np.ones(1, np.float32)
        self.uploaded: dict[int, tuple[Image, Any]] = {}

    def templates(self, windows: Sequence[Sequence[Image]]) -> list[Image]:
        """See `template.median_templates`; slices of the windows before stay on the device."""
        slices = {id(a): a for window in windows for a in window}
        for key in set(self.uploaded) - set(slices):
            del self.uploaded[key]
        for key, image in slices.items():
            if key not in self.uploaded or self.uploaded[key][0] is not image:
                self.uploaded[key] = (image, self.kernels.upload(image))
        return [self.kernels.median([self.uploaded[id(a)][1] for a in w]) for w in windows]

    def smooth(self, image: Image) -> DeviceImage:
        """The image uploaded and smoothed."""
        pixels = self.kernels.convolve(self.kernels.upload(image), self.taps)
        return DeviceImage(image, pixels, self)

    def average_down(self, image: DeviceImage, factor: int) -> Any:
        """See `average_down`; silx takes the result as it is."""
        small = self.kernels.average_down(image.pixels, factor)
        self.kernels.queue.finish()
        return small

    def settle(self, fixed: DeviceImage, moving: DeviceImage, x: int, y: int) -> tuple[int, int]:
        """See `settle`."""
        height, width = fixed.shape
        step = (max(1, (height * width) // SETTLE_PIXELS), 1)

        def heights(positions: Sequence[tuple[int, int]]) -> list[float]:
            shifts = [translation(*p) for p in positions]
            return self._correlations(fixed, moving, shifts, step, False)

        return climb(heights, (x, y))

    def quality(self, fixed: DeviceImage, moving: DeviceImage, matrix: Matrix) -> float:
        """See `quality`."""
        step = max(1, int(np.sqrt(fixed.source.size / QUALITY_POINTS)))
        return self._correlations(fixed, moving, [matrix], (step, step), True)[0]

    def _correlations(
        self,
        fixed: DeviceImage,
        moving: DeviceImage,
        matrices: list[Matrix],
        step: tuple[int, int],
        masked: bool,
    ) -> list[float]:
        usual = float(fixed.source[:: max(1, fixed.shape[0] // 32)].mean())
        return self.kernels.correlations(
            fixed.pixels, moving.pixels, matrices, step, masked, usual, SMALLEST**2
        )


class Sift:
    """SIFT keypoints and matching on one OpenCL device; plans are kept until the shape changes."""

    def __init__(self, wanted: str, local_rank: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from silx.opencl import sift

            self.sift = sift
            self.context, self.opened = open_device(wanted, local_rank)
            self.device = str(self.opened)
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

    def images(self, config: Coarse) -> OnDevice | None:
        """What else runs on this device; None on a CPU, where scipy is as fast."""
        if self.opened.kind == "cpu":
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return OnDevice(self.context, config.sigma, self.opened.memory)

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
    return climb(lambda positions: [correlation(fixed, moving, *p) for p in positions], (x, y))


def climb(
    heights: Callable[[Sequence[tuple[int, int]]], list[float]], start: tuple[int, int]
) -> tuple[int, int]:
    """The local maximum that `start` leads to; `heights` is asked for many positions at once."""
    seen: dict[tuple[int, int], float] = {}
    here = start
    for _ in range(SETTLE_STEPS):
        around = [(here[0] + dx, here[1] + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        new = [p for p in around if p not in seen]
        seen |= dict(zip(new, heights(new), strict=True)) if new else {}
        best = max(around, key=seen.__getitem__)
        if seen[best] <= seen[here]:
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
