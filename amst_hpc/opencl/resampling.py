"""The one resampling, on the rank's GPU where it has one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from amst_hpc.opencl.devices import NoDeviceError, find_devices, open_device
from amst_hpc.opencl.kernels import Kernels
from amst_hpc.transform import Image, Matrix, resample

log = logging.getLogger(__name__)

Resampler = Callable[[Image, Matrix, tuple[int, int]], Image]


def make_resampler(wanted: str, local_rank: int) -> Resampler:
    """`transform.resample`, on the rank's GPU where it has one.

    wanted : as `coarse.device`. An OpenCL error brings the rank back to the host, and is logged.
    """
    if not any(device.kind == "gpu" for device in find_devices()):
        return resample
    try:
        context, device = open_device(wanted, local_rank)
        if device.kind == "cpu":
            return resample
        kernels = Kernels(context)
    except (NoDeviceError, ImportError):
        return resample
    if not any(name.startswith("resample") for name in kernels.kernels):  # no float64
        return resample
    place: list[Resampler] = [kernels.resample]

    def resample_there(image: Image, m: Matrix, shape: tuple[int, int]) -> Image:
        try:
            return place[0](image, m, shape)
        except Exception as error:  # pyopencl's errors have no common class with its memory errors
            log.warning("resampling on %s failed (%s); on with the CPU", device, error)
            place[0] = resample
            return resample(image, m, shape)

    return resample_there
