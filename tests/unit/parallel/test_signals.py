"""How a job is asked to stop."""

import os
import signal

import pytest

from amst_hpc.parallel.signals import StopRequest


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
