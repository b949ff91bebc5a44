"""Registration of two slices with each other: a translation on top of a start.

Pair (z, z + k): `raw_z(p) ~ raw_{z+k}(D p)`; see `pair_result`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from amst_hpc.pair_result import PairResult
from amst_hpc.registration.correlation import cross_correlation, quality
from amst_hpc.slice_result import RegistrationError
from amst_hpc.transform import FloatImage, Image, Matrix, compose, translation

SIGMA = 1.0
LEAST_CORRELATION = 0.4


class PairRegistration:
    """Made once per rank."""

    def prepare(self, image: Image) -> FloatImage:
        """What is needed of a (y, x) slice, made once for all its pairs."""
        smooth: FloatImage = ndimage.gaussian_filter(image.astype(np.float32), SIGMA)
        return smooth

    def register(
        self, place: tuple[int, int], fixed: FloatImage, moving: FloatImage, start: Matrix | None
    ) -> PairResult:
        """Pair `place` (z, k) from `start`; where nothing was found, the reason is in the result.

        `fixed`, `moving` : of `prepare`. The matrix is that of the two images given.
        """
        begin = translation(0, 0) if start is None else start
        yx, t = begin[::-1, 1::-1], begin[::-1, 2]
        moved = ndimage.affine_transform(moving, yx, t, fixed.shape, np.float32, order=1)
        covariance = np.eye(6)
        try:
            if not moved.any():
                raise RegistrationError("the start leaves nothing to compare")
            y, x = cross_correlation(fixed, moved)
            matrix = compose(begin, translation(x, y))
            score = quality(fixed, moving, matrix)
            if score < LEAST_CORRELATION:
                raise RegistrationError(f"correlation {score:.3f}")
        except RegistrationError as error:
            return PairResult(*place, None, covariance, 1.0, 1.0, 0.0, str(error))
        return PairResult(*place, matrix, covariance, 1 - score, 1.0, 1.0)
