"""Work of rank 0 alone: all get its result and sleep meanwhile, or have ended."""

from pathlib import Path

from launch import mpirun

JOB = Path(__file__).with_name("rank_0_job.py")


def test_ranks_that_wait_for_rank_0_leave_their_cores_to_others():
    done = mpirun(3, [JOB])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{(42, 'no', True)}"


def test_rank_0_goes_on_alone_and_its_exit_code_is_that_of_the_job():
    done = mpirun(3, [JOB.with_name("part_job.py")])
    assert done.stdout.strip() == "alone", done.stderr
    assert done.returncode == 3
