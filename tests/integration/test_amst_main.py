"""The original's Python interface with all its defaults, on two MPI ranks."""

import pytest
from jobs import statuses
from stacks import error_px

from amst_hpc.api import amst_align, default_amst_params


@pytest.mark.slow
def test_the_originals_call_aligns_the_stack(tissue, tmp_path):
    out = tmp_path / "out"
    amst_align(tissue / "raw", tissue / "pre", out, **default_amst_params() | {"n_workers": 2})
    assert [p.name for p in sorted(out.glob("*.tif"))] == [
        p.name for p in sorted((tissue / "raw").glob("*.tif"))
    ]
    assert statuses(out) == ["affine"] * 24
    assert error_px(tissue, out) < 0.6
