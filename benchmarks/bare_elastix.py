"""Median seconds of a bare in-process registration: `bare_elastix.py TRUTH COUNT` (see bench)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import itk
import numpy as np
import tifffile

from amst_hpc.config import Refine
from amst_hpc.registration.elastix import elastix_parameters

# The method's three resolutions, which the bounds were set with; ours has two (RESULTS.md).
THREE = {
    "NumberOfResolutions": ["3"],
    "ImagePyramidSchedule": ["8", "8", "3", "3", "1", "1"],
    "MaximumStepLength": ["4", "2", "1"],
}

truth, count = Path(sys.argv[1]), int(sys.argv[2])
itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
parameters = itk.ParameterObject.New()
affine = parameters.GetDefaultParameterMap("affine")
for name, values in {**elastix_parameters(Refine()), **THREE}.items():
    affine[name] = values
parameters.AddParameterMap(affine)
files = sorted((truth / "pre").glob("*.tif"))
window = [tifffile.imread(f) for f in files[:15]]
fixed = itk.image_from_array(np.median(window, axis=0).astype(np.float32))
moving = [itk.image_from_array(image.astype(np.float32)) for image in window]
image_type = itk.Image[itk.F, 2]
seconds = []
for i in range(count + 1):
    began = time.perf_counter()
    elastix = itk.ElastixRegistrationMethod[image_type, image_type].New(
        FixedImage=fixed,
        MovingImage=moving[i % len(moving)],
        ParameterObject=parameters,
        NumberOfThreads=1,
    )
    elastix.SetLogToConsole(False)
    elastix.UpdateLargestPossibleRegion()
    elastix.GetTransformParameterObject()
    seconds.append(time.perf_counter() - began)
print(np.median(seconds[1:]))
