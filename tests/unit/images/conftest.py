"""Volumes of both dtypes."""

import numpy as np
import pytest

DTYPES = ["uint8", "uint16"]


SHAPE = (5, 40, 52)


@pytest.fixture(params=DTYPES)
def volume(request):
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(request.param).max, SHAPE).astype(request.param)
