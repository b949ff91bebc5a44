"""How a job is asked to stop."""

import os
import signal
import threading
import time

import pytest

from amst_hpc.parallel import signals
from amst_hpc.parallel.signals import LeaveOff, StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_asks_to_stop_and_tells_the_others(tmp_path, number):
    flag = tmp_path / "stop"
    before = signal.getsignal(number)
    with StopRequest(flag) as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert flag.exists(), "at once, before anyone asks"
        assert stop
        assert StopRequest(flag)
    assert signal.getsignal(number) is before


def test_a_library_that_takes_the_signals_does_not_keep_them(tmp_path):
    with StopRequest(tmp_path / "stop") as stop:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # as Intel's OpenCL does
        assert not stop
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop


def test_a_look_in_any_thread_leaves_off(tmp_path):
    raised = []

    def look():
        try:
            stop.look()
        except LeaveOff:
            raised.append(True)

    with StopRequest(tmp_path / "stop") as stop:
        stop.look()
        os.kill(os.getpid(), signal.SIGUSR1)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert raised


def test_the_flag_is_looked_for_now_and_then(tmp_path, monkeypatch):
    """By a rank that no signal reached."""
    monkeypatch.setattr(signals, "LOOK_SECONDS", 0.05)
    stop = StopRequest(tmp_path / "stop")
    assert not stop
    stop.flag.touch()
    assert not stop
    time.sleep(0.06)
    assert stop
    stop.flag.unlink()
    assert stop
