"""What tests of several rooms share."""

import warnings

import pytest

from amst_hpc.opencl import devices as opencl
from amst_hpc.opencl.kernels import Kernels


@pytest.fixture(scope="module")
def kernels(opencl_ready):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Kernels(opencl.open_device("cpu", 0)[0])
