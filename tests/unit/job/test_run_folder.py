"""What the run folder has kept of earlier starts."""

import pytest

from amst_hpc.images.headers import Looked
from amst_hpc.job.changes import Changes
from amst_hpc.job.run_folder import Attempt
from amst_hpc.pair_result import PairResult


@pytest.mark.parametrize(("sampled", "kept"), [({2, 9}, []), ({1, 9}, [(1, 1), (2, 1)])])
def test_pairs_are_forgotten_with_a_slice_that_all_depend_on(tmp_path, sampled, kept):
    attempt = Attempt(tmp_path / "out.h5", number=1)
    attempt.journal.mkdir(parents=True)
    with attempt.open_journal(0, "pair") as journal:
        for z in (1, 2):
            journal.write(PairResult(z, 1).to_record() | {"key": "a"})
    attempt.forget(Changes(Looked({}), raw=[2], slices=[2, 3]))
    assert [*attempt.paired(sampled)] == kept
    with Attempt(attempt.out, number=3).open_journal(0, "pair") as journal:
        journal.write(PairResult(2, 1).to_record() | {"key": "b"})
    assert attempt.paired(sampled)[2, 1][0] == "b"
