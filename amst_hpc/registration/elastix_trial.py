"""Parameters of elastix that are not the defaults, tried before the job: names, values, one run.

elastix takes a name that it does not know without a word, and finds a wrong component or a count
that fills the memory when the first slice is registered.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import ndimage

from amst_hpc.config import InputError, Refine
from amst_hpc.registration.elastix import elastix_parameters, make_refine
from amst_hpc.transform import Image

NAMES = frozenset(
    """
    ASGDParameterEstimationMethod AutomaticParameterEstimation AutomaticScalesEstimation
    AutomaticTransformInitialization AutomaticTransformInitializationMethod
    BSplineInterpolationOrder CenterOfGravityUsesLowerThreshold CenterOfRotation
    CenterOfRotationPoint CheckNumberOfSamples CompressResultImage
    ComputePyramidImagesPerResolution ConditionNumber DefaultPixelValue ErodeFixedMask ErodeMask
    ErodeMovingMask ExactMetricEveryXIterations ExactMetricSampleGridSpacing
    FinalBSplineInterpolationOrder FiniteDifferencePerturbation
    FixedImageBSplineInterpolationOrder FixedImageDimension FixedImagePyramid
    FixedImagePyramidRescaleSchedule FixedImagePyramidSchedule FixedImagePyramidSmoothingSchedule
    FixedInternalImagePixelType FixedKernelBSplineOrder FixedLimitRangeRatio
    GenerateLineSearchIterations GradientMagnitudeTolerance HowToCombineTransforms
    ITKTransformOutputFileNameExtension ImagePyramidRescaleSchedule ImagePyramidSchedule
    ImagePyramidSmoothingSchedule ImagePyramidUseShrinkImageFilter ImageSampler
    InitialTransformParametersFileName Interpolator JacobianTerms LBFGSMemory LBFGSUpdateAccuracy
    LineSearchGradientTolerance LineSearchValueTolerance LowerThresholdForCenterGravityFixed
    LowerThresholdForCenterGravityMoving MaximumDeviation MaximumDisplacementEstimationMethod
    MaximumNumberOfIterations MaximumNumberOfLineSearchIterations MaximumNumberOfSamplingAttempts
    MaximumStepLength Metric MetricRelativeWeight MetricUse MetricWeight MinimumDeviation
    MinimumGradientMagnitude MinimumStepLength MovingImageDerivativeScales MovingImageDimension
    MovingImagePyramid MovingImagePyramidRescaleSchedule MovingImagePyramidSchedule
    MovingImagePyramidSmoothingSchedule MovingInternalImagePixelType MovingKernelBSplineOrder
    MovingLimitRangeRatio NewSamplesEveryIteration NumAdditionalSamplesFixed
    NumSamplesLastDimension NumberOfBandStructureSamples NumberOfFixedHistogramBins
    NumberOfGradientMeasurements NumberOfHistogramBins NumberOfInnerLoopSamples
    NumberOfJacobianMeasurements NumberOfMovingHistogramBins NumberOfParents NumberOfPerturbations
    NumberOfResolutions NumberOfSamplesForCenteredTransformInitialization
    NumberOfSamplesForExactGradient NumberOfSamplesForPrecondition NumberOfSpatialSamples
    Optimizer OutputTransformParameterFileFormat PopulationSize PositionToleranceMax
    PositionToleranceMin RandomSeed RecombinationWeightsPreset ReducedDimensionIndex Registration
    RegularizationKappa RelaxationFactor RequiredRatioOfValidSamples ResampleInterpolator
    Resampler ResultImageFormat ResultImageName ResultImagePixelType SP_A SP_a SP_alpha SP_c
    SP_gamma SampleGridSpacing SampleLastDimensionRandomly SampleRegionSize
    ScaleGradientWithRespectToMovingImageOrientation Scales SearchDirection ShowExactMetricValue
    SigmoidInitialTime SigmoidMax SigmoidMin SigmoidScaleFactor StepLength StepTolerance
    StopIfWolfeNotSatisfied SubtractMean Transform UpdateBDPeriod UseAdaptiveStepSizes
    UseBinaryFormatForTransformationParameters UseConstantStep UseCovarianceMatrixAdaptation
    UseDecayingSigma UseDirectionCosines UseFastAndLowMemoryVersion UseFiniteDifferenceDerivative
    UseJacobianPreconditioning UseMovingImageDerivativeScales UseMultiThreadingForMetrics
    UseNoiseCompensation UseNormalization UseRandomSampleRegion UseRelativeWeights ValueTolerance
    WriteITKCompositeTransform WriteIterationInfo WritePyramidImagesAfterEachResolution
    WriteResultImage WriteResultImageAfterEachIteration WriteResultImageAfterEachResolution
    WriteTransformParametersEachIteration WriteTransformParametersEachResolution
    """.split()  # noqa: SIM905
)
"""Of the manual of elastix 5, for linear transforms; of `Metric0Weight` without the number.

A parameter file may hold others.
"""

COUNTS = {
    "Bins": (1, 1024),
    "Resolutions": (1, 16),
    "SpatialSamples": (1, 1_000_000),
    "Iterations": (1, 1_000_000),
    "": (0, 1_000_000),
}
"""Least and largest `NumberOf...` and `MaximumNumberOf...`, by the end of the name."""
TRIAL = {"Iterations": 2, "Samples": 5000, "Measurements": 100}
"""What these are cut to, for the trial."""
SMALLEST, WIDEST = 128, 2048  # px, of the images of the trial


def try_elastix(config: Refine) -> None:
    """Register a small image to itself once, where the parameters are not the defaults.

    Raises `InputError` for names, values and counts that cannot be, and for what elastix refuses.
    """
    if config.backend not in ("itk", "pyelastix"):
        return
    parameters = elastix_parameters(config)
    usual = elastix_parameters(Refine())
    if parameters == usual:
        return
    for name in config.elastix:
        if re.sub("[0-9]+", "", name) not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f"; expected one like {near[0]}" if near else ""
            raise InputError(f"refine.elastix.{name}: no parameter of elastix by its manual{hint}")
    for name, values in parameters.items():
        _check_numbers(name, values)
    few = dict(config.elastix)
    for name, values in parameters.items():
        most = next((n for end, n in TRIAL.items() if name.endswith(end)), 0)
        if most and name.startswith(("NumberOf", "MaximumNumberOf")):
            few[name] = [min(int(float(text)), most) for text in values]
    image = _texture(_width(parameters))
    try:
        make_refine(replace(config, elastix=few))(image, image, (0, 0))
    except InputError:
        raise
    except Exception as error:  # whatever elastix makes of them, no slice would be registered
        changed = ", ".join([n for n in parameters if parameters[n] != usual.get(n)][:6])
        reason = "" if "Internal elastix error" in str(error) else f" ({error})"
        raise InputError(
            f"refine.elastix: elastix registers nothing with this {changed}{reason}"
        ) from None


def _check_numbers(name: str, values: list[str]) -> None:
    """Raises `InputError` for a number that is none, and a count without bounds."""
    least, most = next(bounds for end, bounds in COUNTS.items() if name.endswith(end))
    is_count = name.startswith(("NumberOf", "MaximumNumberOf"))
    for text in values:
        try:
            value = float(text)
        except ValueError:
            if is_count:
                raise InputError(f"refine.elastix.{name} = {text}: expected a number") from None
            continue
        if not math.isfinite(value):
            raise InputError(f"refine.elastix.{name} = {text}: expected a finite number")
        if is_count and not least <= value <= most:
            raise InputError(f"refine.elastix.{name} = {text}: expected {least} to {most}")


def _width(parameters: Mapping[str, list[str]]) -> int:
    """Of an image that is wide enough for the coarsest level of the pyramid and the sampler."""
    levels = _largest(parameters, "NumberOfResolutions", 1)
    schedules = [name for name in parameters if name.endswith("PyramidSchedule")]
    factor = max((_largest(parameters, name, 1) for name in schedules), default=2 ** (levels - 1))
    grid = _largest(parameters, "SampleGridSpacing", 1)
    region = _largest(parameters, "SampleRegionSize", 1)
    return int(min(max(SMALLEST, 32 * factor, 16 * grid, 2 * region), WIDEST))


def _largest(parameters: Mapping[str, list[str]], name: str, default: float) -> float:
    """The largest number of a parameter; `default` where there is none."""
    texts = parameters.get(name, [])
    found = [float(text) for text in texts if re.fullmatch(r"[0-9.]+(e[0-9]+)?", text)]
    return max(found, default=default)


def _texture(width: int) -> Image:
    """Smooth noise, uint8."""
    noise = np.random.default_rng(1).normal(size=(width, width))
    smooth = ndimage.gaussian_filter(noise, 3)
    return np.asarray(np.clip(128 + 300 * smooth, 0, 255), np.uint8)
