"""Ranks that are bound to nothing share the cores of their cpuset."""

import os
from pathlib import Path

import pytest
from launch import mpirun

JOB = Path(__file__).with_name("cores_job.py")


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_share_a_cpuset(ranks):
    whole = os.sched_getaffinity(0)
    pair = set(sorted(whole)[:2])
    os.sched_setaffinity(0, pair)  # as taskset does; mpirun and its ranks inherit it
    try:
        done = mpirun(ranks, [JOB])
    finally:
        os.sched_setaffinity(0, whole)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([max(1, len(pair) // ranks)] * ranks)
