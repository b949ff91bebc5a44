"""The affine registration of a raw slice to its template without elastix.

The Gauss-Newton of `neighbours`, on slices averaged down to some 500 px of their shorter side and
smoothed by 1 px: a template is smooth, more detail makes it no better (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from amst_hpc.pair_result import PairResult
from amst_hpc.registration.equations import open_equations
from amst_hpc.registration.neighbours import Neighbours, leave_device
from amst_hpc.slice_result import RegistrationError
from amst_hpc.transform import Image, Matrix, translation

SIDE = 512  # px of the shorter side
COARSE_ALONE = 0  # the k of a pair that is not between two raw slices


class GaussNewton:
    """On the rank's OpenCL device, on the host where there is none."""

    def __init__(self, device: str, local_rank: int) -> None:
        """device : as `coarse.device`. Raises `InputError` for one that does not exist."""
        self.neighbours = Neighbours(open_equations(device, local_rank), {}, SIDE)

    def __call__(self, template: Image, raw: Image, shift: tuple[int, int]) -> Matrix:
        """See `elastix`; raises `RegistrationError`. A device that fails is left for the host."""
        try:
            found = self._register(template, raw, shift)
        except Exception as error:  # pyopencl's errors have no common class
            self.neighbours = leave_device(self.neighbours, error)
            found = self._register(template, raw, shift)
        if found.matrix is None:
            raise RegistrationError(f"Gauss-Newton: {found.reason}")
        return found.matrix

    def _register(self, template: Image, raw: Image, shift: tuple[int, int]) -> PairResult:
        fixed, moving = (
            self.neighbours.prepare(image, coarse_alone=True) for image in (template, raw)
        )
        pair = PairResult(0, COARSE_ALONE)
        return self.neighbours.register(fixed, moving, pair, translation(*shift))
