"""Work of rank 0 alone: all get its result, and sleep meanwhile."""

from pathlib import Path

from launch import mpirun

JOB = Path(__file__).with_name("rank_0_job.py")


def test_ranks_that_wait_for_rank_0_leave_their_cores_to_others():
    done = mpirun(3, [JOB])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{(42, 'no', True)}"
