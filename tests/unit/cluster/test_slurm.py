"""What Slurm says of its queue, and that silence is no empty queue."""

from pathlib import Path

import pytest

from amst_hpc.cluster import slurm
from amst_hpc.config import InputError


def test_a_queue_that_does_not_answer_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.queued() is None
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'Socket timed out' >&2; exit 1\n")
    squeue.chmod(0o755)
    with pytest.raises(InputError, match="Socket timed out"):
        slurm.queued()
    squeue.write_text("#!/bin/sh\necho '7|N/A|RUNNING|.'; echo '8|2|PENDING|.'\n")
    assert slurm.queued() == {("7", ""): "RUNNING", ("8", "2"): "PENDING"}
