"""The libraries that results depend on, and their versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "numpy", "scipy", "h5py", "tifffile", "imagecodecs", "pybdv", "mpi4py", "silx",
    "pyopencl", "itk-elastix", "pyelastix", "tensorstore",
)  # fmt: skip


def library_version(name: str) -> str:
    """Version of an installed package; empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
