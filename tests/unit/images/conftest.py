"""Volumes of both dtypes, and TIFF files that do not stay open."""

import numpy as np
import pytest
import tifffile

DTYPES = ["uint8", "uint16"]


SHAPE = (5, 40, 52)


@pytest.fixture(autouse=True)
def close_files(monkeypatch):
    """Multi-page TIFFs stay open as long as their stack; closed here, whatever a test keeps."""
    opened = []

    def open_tiff(*args, **kwargs):
        opened.append(OPEN(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(tifffile, "TiffFile", open_tiff)
    yield
    for file in opened:
        file.close()


OPEN = tifffile.TiffFile


@pytest.fixture(params=DTYPES)
def volume(request):
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(request.param).max, SHAPE).astype(request.param)
