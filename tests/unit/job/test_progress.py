"""Progress in a batch log: a line with rate and time left, nothing where it is not shown."""

import logging

import pytest

from amst_hpc.job import progress
from amst_hpc.job.progress import ProgressMeter


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_line_has_rate_and_time_left(clock, caplog):
    caplog.set_level(logging.INFO, "amst_hpc")
    with ProgressMeter("register", 100, 20, True) as meter:
        assert not meter.due()
        clock[0] += progress.LINE_SECONDS + 1
        assert meter.due()
        meter.update(52, "2 fell back")
        assert not meter.due()
    said = "register: 52 of 100 slices, 2.00 per second, 0:24 left, 2 fell back"
    assert lines(caplog) == [said]


def test_the_last_line_has_no_time_left(clock, caplog):
    caplog.set_level(logging.INFO, "amst_hpc")
    with ProgressMeter("write", 10, 0, True) as meter:
        clock[0] += 5
        meter.update(10)
    assert lines(caplog) == ["write: 10 of 10 slices, 2.00 per second"]


@pytest.mark.parametrize(("total", "shown"), [(10, False), (0, True)])
def test_nothing_is_said_where_there_is_nothing_to_show(clock, caplog, total, shown):
    caplog.set_level(logging.INFO, "amst_hpc")
    with ProgressMeter("write", total, 0, shown) as meter:
        clock[0] += 60
        assert not meter.due()
        meter.update(5)
    assert lines(caplog) == []
