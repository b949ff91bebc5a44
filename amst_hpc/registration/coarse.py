"""The coarse step: the whole-pixel translation of a raw slice to its template.

`raw(p + shift)` lies on `template(p)`; shift is (x, y) in whole pixels of both. SIFT
(silx on OpenCL) or phase correlation (XCORR) look at both images smoothed and averaged down, as in
the original program. Their estimate is not taken as it is: SIFT's keypoint list changes from run to
run, so the final whole pixel is the nearest local maximum of the correlation of the two smoothed
images, which is the same from every start nearby.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage

from amst_hpc.averaging import average_down
from amst_hpc.config import Coarse, InputError
from amst_hpc.content import content, filled
from amst_hpc.median import median_templates
from amst_hpc.opencl.devices import candidates, find_devices, ranks_sharing, runs_without_crash
from amst_hpc.opencl.sift import Sift
from amst_hpc.registration.correlation import (
    nearest_peak,
    phase_correlation,
    quality,
)
from amst_hpc.registration.device_images import DeviceImage, OnDevice, make_device_images
from amst_hpc.slice_result import Estimate, RegistrationError
from amst_hpc.transform import FloatImage, Image, Matrix

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGEST_SHIFT = 0.75
LARGEST_WINDOW = 41  # slices in one median kernel
SIFT_BYTES = 80  # per pixel that SIFT sees: silx' images, keypoints and descriptors
MEMORY_PART = 0.9
DEVICE_IMAGES = 5  # float32 images of full size that are alive at once


@dataclass(frozen=True)
class Shift:
    """The result: whole pixels, and where between them `top` the correlation is highest;
    `estimate` before settling, px, and the `method` that gave it.
    """

    x: int
    y: int
    top: tuple[float, float]
    estimate: tuple[float, float]
    matches: int
    method: str


Estimator = Callable[[FloatImage, FloatImage], Estimate]
Smoother = Callable[[Image, float], FloatImage]


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
        f"from {__name__} import Coarse, Matcher\n"
        f"Matcher({config!r}, {local_rank}).warm_up({shape!r})"
    )
    if runs_without_crash(statement, devices[0]):
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
        self.estimate: Estimator = phase_correlation
        self.on_device: OnDevice | None = None
        self.fallback_devices = [config.device, "cpu"] if config.method == "sift" else []
        if config.method == "sift":
            try:
                self._use_sift(config.device)
            except InputError:
                raise
            except Exception as error:  # none computes, or silx cannot work with what is there
                self._use_xcorr()
                self.note = f"no OpenCL device for SIFT ({error}): XCORR is used instead"

    def _use_sift(self, device: str, fresh: bool = False) -> None:
        sift = Sift(device, self.local_rank, fresh)
        self.estimate, self.device, self.on_device = (
            sift,
            sift.device,
            make_device_images(sift, self.config),
        )

    def _use_xcorr(self) -> None:
        self.estimate, self.device, self.method = phase_correlation, "CPU", "xcorr"
        self.on_device = None

    def _recover(self, error: Exception) -> None:
        """After an OpenCL error: a new context on the device, then CPU OpenCL, then XCORR."""
        failed = self.device
        while self.fallback_devices:
            try:
                self._use_sift(self.fallback_devices.pop(0), fresh=True)
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
            except RegistrationError:
                raise
            except Exception as error:  # pyopencl's and silx' errors have no common class
                if self.method != "sift":
                    raise
                self._recover(error)

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile kernels and take memory for slices of this shape (y, x), before the first one."""
        grain = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        blobs = self.smooth(self.smoother(grain, 2.0).astype(np.uint8))
        with contextlib.suppress(RegistrationError):
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
            self.fallback_devices = ["cpu"]
            self._recover(
                MemoryError(
                    f"{sharing} ranks need {need * sharing / 1e9:.1f} GB on it, "
                    f"it has {memory / 1e9:.1f} GB"
                )
            )

    def templates(self, windows: Sequence[Sequence[Image]]) -> list[Image]:
        """The median along z of each window, on the device where there is one; see `median`."""

        def make() -> list[Image]:
            small = max(map(len, windows), default=0) <= LARGEST_WINDOW
            if self.on_device and small:
                return self.on_device.templates(windows)
            return median_templates(windows)

        return self._guarded(make)

    def smooth(self, image: Image) -> Smooth:
        """The slice as the coarse step sees it, (y, x) float32, full size, on its device.

        NaN where it has no content, which takes no part in the smoothing.
        """
        if self.on_device:
            return self._guarded(lambda: self._on_device(image))
        mask = content(image)
        if mask is None:
            return self._gaussian(image)
        weight = np.maximum(self._gaussian(mask.astype(np.uint8)), 1e-3)
        inside = self._gaussian(np.where(mask, image, image.dtype.type(0)))
        return np.where(mask, inside / weight, np.float32(np.nan))

    def _gaussian(self, image: Image) -> FloatImage:
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

        Raises `RegistrationError`.
        """
        if fixed.shape != moving.shape:
            raise RegistrationError(f"shapes {fixed.shape} and {moving.shape} differ")
        if self.method == "none":
            return Shift(0, 0, (0.0, 0.0), (0.0, 0.0), 0, "none")
        return self._guarded(lambda: self._match(self._here(fixed), self._here(moving)))

    def _match(self, fixed: Any, moving: Any) -> Shift:
        factor, shape = self.config.downsample, fixed.shape
        average = self.on_device.average_down if self.on_device else average_down
        small = average(fixed, factor), average(moving, factor)
        seen = small if self.method != "sift" else map(_without_gaps, small, (fixed, moving))
        try:
            found = self.estimate(*seen)
        except RegistrationError:
            if self.method != "sift":
                raise
            # its correlation tells later if that is any good
            found = phase_correlation(*(a if isinstance(a, np.ndarray) else a.get() for a in small))
        x, y = found.shift[0] * factor, found.shift[1] * factor
        if max(abs(x) / shape[1], abs(y) / shape[0]) > LARGEST_SHIFT:
            raise RegistrationError(f"shift ({x:.1f}, {y:.1f}) px is as large as the slice")
        find_peak = self.on_device.nearest_peak if self.on_device else nearest_peak
        peak = find_peak(fixed, moving, round(x), round(y))
        return Shift(*peak, (x, y), found.matches, "sift" if found.matches else "xcorr")

    def quality(self, fixed: Smooth, moving: Smooth, matrix: Matrix) -> float:
        """Correlation of `fixed(p)` and `moving(M p)`, both from `smooth`; see `quality`."""

        def measure() -> float:
            score = self.on_device.quality if self.on_device else quality
            return score(self._here(fixed), self._here(moving), matrix)

        return self._guarded(measure)


def _without_gaps(small: Any, image: Smooth) -> Any:
    """The image averaged down, as SIFT sees it: no edge where its content ends."""
    if isinstance(image, np.ndarray):
        return filled(small)
    return small if image.whole else filled(small.get())


Smooth = FloatImage | DeviceImage
