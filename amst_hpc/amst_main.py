"""The Python interface of the original program, for scripts written for its `amst_main`.

Same function names, keys and defaults; the aligned slices are TIFF files with the names of the raw
slices. The work is done by `amst-hpc align` on `n_workers` MPI ranks of this machine, so a run that
was cut off continues where it was.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from amst_hpc.config import InputError
from amst_hpc.job.journal import write_whole
from amst_hpc.parallel.launch import launch

Parameters = dict[str, Any]
IMAGE_FILE_KEYS = ("ResultImagePixelType", "ResultImageFormat", "WriteResultImage")


def default_elastix_params() -> Parameters:
    """elastix' defaults for affine registration (Parameters_Affine), as the original had them."""
    return {
        "FixedInternalImagePixelType": "float",
        "MovingInternalImagePixelType": "float",
        "UseDirectionCosines": True,
        "Registration": "MultiResolutionRegistration",
        "Interpolator": "BSplineInterpolator",
        "ResampleInterpolator": "FinalBSplineInterpolator",
        "Resampler": "DefaultResampler",
        "FixedImagePyramid": "FixedRecursiveImagePyramid",
        "MovingImagePyramid": "MovingRecursiveImagePyramid",
        "Optimizer": "AdaptiveStochasticGradientDescent",
        "Transform": "AffineTransform",
        "Metric": "AdvancedMattesMutualInformation",
        "AutomaticScalesEstimation": True,
        "AutomaticTransformInitialization": True,
        "HowToCombineTransforms": "Compose",
        "NumberOfHistogramBins": 32,
        "ErodeMask": False,
        "NumberOfResolutions": 4,
        "MaximumNumberOfIterations": 250,
        "NumberOfSpatialSamples": 2048,
        "NewSamplesEveryIteration": True,
        "ImageSampler": "Random",
        "BSplineInterpolationOrder": 1,
        "FinalBSplineInterpolationOrder": 3,
        "DefaultPixelValue": 0,
        "WriteResultImage": True,
        "ResultImagePixelType": "short",
        "ResultImageFormat": "mhd",
    }


def optimized_elastix_params() -> Parameters:
    """The parameters of Hennies et al., Sci Rep 10, 2004 (2020)."""
    return default_elastix_params() | {
        "NumberOfResolutions": 3,
        "ImagePyramidSchedule": [8, 8, 3, 3, 1, 1],
        "MaximumNumberOfIterations": 200,
        "AutomaticScalesEstimation": False,
        "MaximumStepLength": [4, 2, 1],
        "ImageSampler": "RandomCoordinate",
    }


def default_amst_params() -> Parameters:
    """The keyword arguments of `amst_align` with the original's recommended values."""
    return {
        "median_radius": 7,
        "elastix_params": optimized_elastix_params(),
        "coarse_alignment": "SIFT",
        "sift_sigma": 1.6,
        "sift_downsample": (2, 2),
        "n_workers": 8,
        "n_workers_sift": 1,
        "sift_devicetype": "GPU",
        "compute_range": slice(None),
        "verbose": False,
        "write_intermediates": False,
        "raw_pattern": "*.tif",
        "pre_pattern": "*.tif",
        "compression": 0,
    }


def amst_align(
    raw_folder: str | Path,
    pre_alignment_folder: str | Path | None,
    target_folder: str | Path,
    median_radius: int = 7,
    elastix_params: Mapping[str, Any] | None = None,
    coarse_alignment: str | None = "SIFT",
    sift_sigma: float | None = None,
    sift_downsample: Sequence[float] | float | None = None,
    n_workers: int = 8,
    n_workers_sift: int = 1,  # noqa: ARG001
    sift_devicetype: str | None = "GPU",
    compute_range: slice | None = slice(None),
    verbose: bool = False,  # noqa: ARG001
    write_intermediates: bool = False,
    raw_pattern: str = "*.tif",
    pre_pattern: str = "*.tif",
    compression: int | None = 0,
) -> None:
    """Align the TIFF slices of `raw_folder` into `target_folder`; parameters as in the original.

    pre_alignment_folder : None or empty: made from raw alone (`amst-hpc align --prealign`).
    n_workers : MPI ranks. n_workers_sift, verbose : accepted, without effect. sift_devicetype :
    'GPU' takes the GPUs of the machine where it has some and the CPU otherwise, 'CPU' the CPU.
    write_intermediates : the templates in `target_folder/refs`, the shifted slices in
    `target_folder/sift`. compression : zlib level of the TIFFs.
    Raises `InputError` for bad input, RuntimeError if the alignment failed. Slices that could not
    be registered are named in `target_folder.amst/slices.csv`.
    """
    tables = {
        "input": {"compare": False},
        "template": {"radius": _whole(median_radius)},
        "registration": {"working_size": 0},
        "coarse": {
            "method": {"SIFT": "sift", None: "none"}.get(coarse_alignment, "xcorr"),
            "sigma": float(sift_sigma or 0),
            "downsample": _one_factor(sift_downsample),
            "device": "cpu" if (sift_devicetype or "").upper() == "CPU" else "auto",
        },
        "refine": {
            "elastix": _elastix(
                optimized_elastix_params() if elastix_params is None else elastix_params
            )
        },
        "neighbours": {"enabled": False},
        "output": {
            "format": "tif",
            "compression": _whole(compression or 0),
            "intermediates": bool(write_intermediates),
        },
    }
    sources = [
        os.path.join(glob.escape(os.fspath(folder)), pattern)  # noqa: PTH118 (no .. resolved)
        for folder, pattern in ((raw_folder, raw_pattern), (pre_alignment_folder, pre_pattern))
        if folder
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        write_whole(config, tomlkit.dumps(_plain(tables)))
        options = ["--config", str(config), "--allow-count-mismatch"]
        options += ["--range", _range_text(compute_range, sources)]
        options += [] if pre_alignment_folder else ["--prealign"]
        code = launch(int(n_workers), ["align", *sources, str(target_folder), *options])
    if code == 2:
        raise InputError("amst_align: bad input, see the line above")
    if code not in (0, 3):
        raise RuntimeError(f"amst_align: the alignment ended with exit code {code}, see above")


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's own, tuples as lists; what is None is left out."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _whole(value: Any) -> Any:
    """2.0 as 2; anything else as it is."""
    plain = _plain(value)
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _one_factor(downsample: Any) -> Any:
    """The factor of `sift_downsample`, which the original gives per axis."""
    factors = {_whole(factor) for factor in np.atleast_1d(1 if downsample is None else downsample)}
    if len(factors) != 1:
        raise InputError(f"sift_downsample = {downsample}: expected the same factor for both axes")
    return factors.pop()


def _elastix(parameters: Mapping[str, Any]) -> Parameters:
    """Without the parameters of the result image, which is not made by elastix here."""
    return {name: value for name, value in parameters.items() if name not in IMAGE_FILE_KEYS}


def _range_text(part: slice | None, sources: Sequence[str]) -> str:
    """`--range` of a slice of the list of files that both stacks have, counted from the end where
    negative.
    """
    count = min(len(glob.glob(source)) for source in sources)  # noqa: PTH207 (as align does)
    start, stop, step = (slice(None) if part is None else part).indices(count)
    if step != 1:
        raise InputError(f"compute_range = {part}: expected a step of 1")
    return f"{start}:{stop}" if count else ":"
