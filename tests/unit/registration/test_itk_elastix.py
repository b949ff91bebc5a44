"""elastix without the rest of itk finds the same."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
from scipy import ndimage
from amst_hpc.config import Refine
from amst_hpc.registration.elastix import make_refine
if "whole" in sys.argv:  # the modules by their own names are not there
    for name in ("elxParameterObjectPython", "itkElastixRegistrationMethodPython"):
        sys.modules[f"itk.{name}"] = None
    import itk.support.base as base  # they are needed all the same, by the loader of itk
    load = base.itk_load_swig_module
    def wrapped(name, namespace=None):
        for key in [k for k, v in sys.modules.items() if v is None and k.startswith("itk.")]:
            del sys.modules[key]
        return load(name, namespace)
    base.itk_load_swig_module = wrapped
    import itk.support.lazy as lazy
    lazy.base.itk_load_swig_module = wrapped
noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(150, 170)), 2)
image = np.clip(noise / noise.std() * 40 + 128, 1, 255).astype(np.uint8)
moved = np.roll(image, (3, -5), (0, 1))
moved[:30] = 0
matrix = make_refine(Refine())(image, moved, (-5, 3))
filters = [m for m in sys.modules if m.startswith("itk.ITKImageIntensity")]
print(matrix.tolist(), len(filters) > 0)
"""


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rsplit(maxsplit=1)


@pytest.mark.slow
def test_the_filters_of_itk_are_not_loaded_and_the_result_is_the_same():
    matrix, filters = run()
    assert filters == "False"
    same, filters = run("whole")
    assert filters == "True"
    assert matrix == same
