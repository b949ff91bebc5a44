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


@pytest.fixture(scope="session", autouse=True)
def first_of_all(opencl_ready):
    """Jobs that run in this process would leave pyopencl with a cache folder that they remove."""
