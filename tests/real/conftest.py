"""The real volumes, displaced by known transforms."""

from collections.abc import Callable
from pathlib import Path

import pytest

FIB25 = "fib25_medulla_250x250x250_isotropic.tif"
LUCCHI = "lucchi_hippocampus_96x768x768_5nm.tif"
MakeGroundTruth = Callable[[str, str, str], Path]


@pytest.fixture(scope="session")
def fib25_dev(make_ground_truth: MakeGroundTruth) -> Path:
    """96 slices of 176x176, the harder one: few pixels."""
    options = "--nz 96 --z0 40 --fov 176 176 --drift 8 --jitter-sd 2.5 --seed 11"
    return make_ground_truth("fib25_dev", FIB25, options)


@pytest.fixture(scope="session")
def lucchi_dev(make_ground_truth: MakeGroundTruth) -> Path:
    """64 slices of 512x512 with noise, curtains, two blank slices and a partial one."""
    options = "--nz 64 --z0 8 --fov 512 512 --seed 12 --artefacts full"
    return make_ground_truth("lucchi_dev", LUCCHI, options)


@pytest.fixture(scope="session")
def lucchi_small(make_ground_truth: MakeGroundTruth) -> Path:
    """20 slices of 200x216 (y, x), no artefacts."""
    return make_ground_truth("lucchi_small", LUCCHI, "--nz 20 --z0 38 --fov 200 216 --seed 3")
