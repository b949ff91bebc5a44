"""Collective writes take whole chunks."""

import numpy as np
import pytest
from bdv_files import SHAPE

from amst_hpc.bdv import collective
from amst_hpc.bdv.collective import write_regions
from amst_hpc.geometry import Level


@pytest.mark.parametrize("limit", [1, 32 * 32 * 4, 3 * 32 * 32 * 4, 10**9])
def test_collective_writes_take_whole_chunks_within_the_limit(monkeypatch, limit):
    monkeypatch.setattr(collective, "WRITE_BYTES", limit)
    regions = write_regions(Level((1, 1, 1), SHAPE, (4, 32, 32)), itemsize=1)
    seen = np.zeros(SHAPE[1:], int)
    for y, x in regions:
        seen[y.start : y.stop, x.start : x.stop] += 1
        assert y.start % 32 == x.start % 32 == 0
        assert 4 * len(y) * len(x) <= max(limit, 4 * 32 * 32)
    assert (seen == 1).all()
