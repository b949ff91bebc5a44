"""SIFT keypoints and their matching on one OpenCL device (silx)."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from amst_hpc.opencl.compiling import compiled_once
from amst_hpc.opencl.devices import open_device
from amst_hpc.slice_result import Estimate, RegistrationError
from amst_hpc.software import library_version
from amst_hpc.transform import FloatImage

OCTAVES = 2
KEYPOINTS = 2048


class Sift:
    """SIFT keypoints and matching on one OpenCL device; plans are kept until the shape changes."""

    def __init__(self, wanted: str, local_rank: int, fresh: bool = False) -> None:
        """fresh : as `open_device`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from silx.opencl import sift

            self.sift = sift
            self.context, self.opened = open_device(wanted, local_rank, fresh)
            self.device = str(self.opened)
            self.plan: Any = None
            with self._compiled("match"):
                self.match = sift.MatchPlan(ctx=self.context)

    def __call__(self, fixed: FloatImage, moving: FloatImage) -> Estimate:
        """Median displacement of matched keypoints (Hennies et al., Sci Rep 10, 2004 (2020))."""
        with warnings.catch_warnings():  # what compilers say of silx' kernels
            warnings.simplefilter("ignore")
            return self._estimate(fixed, moving)

    def _estimate(self, fixed: FloatImage, moving: FloatImage) -> Estimate:
        if self.plan is None or self.plan.shape != fixed.shape:
            with self._compiled("plan"):
                self.plan = self._make_plan(fixed.shape)
        first, second = self.plan.keypoints(fixed), self.plan.keypoints(moving)
        second = second[:: max(1, len(second) // KEYPOINTS)].copy()
        if not len(first) or not len(second):
            raise RegistrationError(f"SIFT found {len(first)} and {len(second)} keypoints")
        pairs = self.match(first, second)
        if pairs is None or not len(pairs):
            raise RegistrationError(f"no match between {len(first)} and {len(second)} keypoints")
        dx, dy = (np.median(pairs[:, 1][axis] - pairs[:, 0][axis]) for axis in ("x", "y"))
        return Estimate((float(dx), float(dy)), len(pairs))

    def _compiled(self, name: str) -> AbstractContextManager[bool]:
        """Around what silx compiles."""
        return compiled_once(self.context.devices[0], name, library_version("silx"))

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
