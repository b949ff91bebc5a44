"""The parameters that elastix gets unless they are set otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ELASTIX: Mapping[str, Any] = MappingProxyType(
    {
        "Transform": "AffineTransform",
        "Metric": "AdvancedMattesMutualInformation",
        "NumberOfHistogramBins": 32,
        "Optimizer": "AdaptiveStochasticGradientDescent",
        "AutomaticScalesEstimation": False,
        "MaximumNumberOfIterations": 100,
        "MaximumStepLength": 1,
        "NumberOfResolutions": 1,
        "ImagePyramidSchedule": [1, 1],
        "FixedImagePyramid": "FixedSmoothingImagePyramid",
        "MovingImagePyramid": "MovingSmoothingImagePyramid",
        "ImageSampler": "RandomCoordinate",
        "NumberOfSpatialSamples": 2048,
        "NewSamplesEveryIteration": True,
        "NumberOfSamplesForExactGradient": 4096,
        "Interpolator": "LinearInterpolator",
        "RandomSeed": 1,
    }
)
"""Affine parameters of Hennies et al., Sci Rep 10, 2004 (2020), one resolution for its three, since
the coarse step has settled the whole pixel: as exact in a third of the time
(benchmarks/RESULTS.md). What is not named here is elastix' own default.
"""

FAR: Mapping[str, Any] = MappingProxyType(
    {
        "MaximumNumberOfIterations": 200,
        "MaximumStepLength": [4, 1],
        "NumberOfResolutions": 2,
        "ImagePyramidSchedule": [4, 4, 1, 1],
    }
)
"""What takes the place of `ELASTIX` for a slice that is turned or stretched by several pixels."""
