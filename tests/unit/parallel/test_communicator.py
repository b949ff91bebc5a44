"""How an error on one rank ends the job; one process."""

import logging
from dataclasses import dataclass, field

import pytest

from amst_hpc.config import InputError
from amst_hpc.parallel.communicator import guard, on_all_ranks
from amst_hpc.parallel.signals import Stopped


@dataclass
class Communicator:
    """One of `size` ranks; the others had nothing to complain about."""

    rank: int = 0
    size: int = 1
    aborted: list[int] = field(default_factory=list)

    def allgather(self, value):
        return [value] + [""] * (self.size - 1)

    def Abort(self, code):  # noqa: N802
        self.aborted.append(code)


def test_together_raises_what_any_rank_found():
    assert on_all_ranks(Communicator(size=3), lambda: 5) == 5

    def bad():
        raise InputError("slice 7: cut short")

    with pytest.raises(InputError, match="slice 7: cut short"):
        on_all_ranks(Communicator(size=3), bad)


@pytest.mark.parametrize("error", [InputError("bad"), Stopped("writing")])
def test_errors_that_all_ranks_share_pass_the_guard(error):
    comm = Communicator(size=3)
    with pytest.raises(type(error)), guard(comm):
        raise error
    assert not comm.aborted


def test_the_guard_ends_the_whole_job(caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comm = Communicator(rank=1, size=3)
    with guard(comm):
        raise RuntimeError("boom")
    assert comm.aborted == [1]
    assert "rank 1 of 3 failed" in caplog.text
    assert "RuntimeError: boom (an error of the program" in caplog.text
    assert "Traceback" not in caplog.text
    assert "boom" in next(tmp_path.iterdir()).read_text()


def test_a_single_process_exits_and_a_full_disk_is_one_line(caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(SystemExit) as ended, guard(Communicator()):
        raise OSError(28, "No space left on device", "out.h5")
    assert ended.value.code == 1
    assert "Traceback" not in caplog.text
    assert "No space left on device: 'out.h5'" in caplog.text
