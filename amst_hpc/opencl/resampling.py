"""The one resampling, on the rank's OpenCL device."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from amst_hpc.config import InputError
from amst_hpc.opencl.devices import Device, NoDeviceError, open_device
from amst_hpc.opencl.kernels import Kernels
from amst_hpc.opencl.spline import ProcessorSpline
from amst_hpc.transform import Image, Matrix, resample

log = logging.getLogger(__name__)

Resampler = Callable[[Image, Matrix, tuple[int, int]], Image]


def make_resampler(wanted: str, local_rank: int) -> Resampler:
    """`transform.resample`, on the rank's device where there is one that computes.

    wanted : as `coarse.device`. An OpenCL error brings the rank back to the host, and is logged.
    """
    for fresh in (False, True):  # an earlier step may have spoilt the context
        try:
            context, device = open_device(wanted, local_rank, fresh)
        except (InputError, NoDeviceError, ImportError):
            return resample
        try:
            kind = Kernels if device.kind == "gpu" else ProcessorSpline
            there = kind(context).resample
            _prove(there)
            return _guarded(there, device)
        except Exception as error:  # pyopencl's errors have no common class with its memory errors
            fault = error
    log.warning("resampling does not compute on %s (%s); on with the host", device, fault)
    return resample


def _guarded(there: Resampler, device: Device) -> Resampler:
    """`there`; after an error `resample`."""
    place = [there]

    def resample_there(image: Image, m: Matrix, shape: tuple[int, int]) -> Image:
        try:
            return place[0](image, m, shape)
        except Exception as error:  # as above
            log.warning("resampling on %s failed (%s); on with the host", device, error)
            place[0] = resample
            return resample(image, m, shape)

    return resample_there


def _prove(there: Resampler) -> None:
    """Raises where a slice is not resampled as on the host."""
    matrix, shape = np.array([[0.99, 0.1, -1.3], [-0.1, 1.01, 2.6]]), (39, 45)
    for dtype in (np.uint8, np.uint16):
        grain = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 51), dtype)
        away = there(grain, matrix, shape).astype(int) - resample(grain, matrix, shape)
        if np.abs(away).max() > 1:
            raise RuntimeError(f"a test slice was {np.abs(away).max()} grey values off")
