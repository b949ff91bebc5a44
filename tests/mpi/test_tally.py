"""Rank 0 knows how far all ranks are while they work, and exactly when they are done."""

from pathlib import Path

import pytest
from launch import mpirun

JOB = Path(__file__).with_name("tally_job.py")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_sum_is_exact_and_grows_meanwhile(ranks):
    done = mpirun(ranks, [JOB])
    assert done.returncode == 0, done.stderr
    total = sum(3 * rank + 1 for rank in range(ranks))
    growing = int(ranks > 1)
    found, steps, in_order = done.stdout.rsplit(maxsplit=2)
    assert (found, in_order) == (str((total, ranks)), "True")
    assert int(steps) > growing or not growing
