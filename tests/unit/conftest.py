"""What tests of several rooms share."""

import tempfile
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


@pytest.fixture
def kernels_elsewhere(tmp_path, monkeypatch):
    """The folder where this node keeps compiled kernels; an empty one for the test."""
    from amst_hpc.parallel.node_cache import node_folder

    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    return node_folder()
