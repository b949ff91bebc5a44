"""How a job is stopped: by a signal to any rank, in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

EX_TEMPFAIL = 75
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LOOK_SECONDS = 0.5
"""The flag is looked for no more often: on a shared file system, by every rank."""


class Stopped(Exception):
    """The job was asked to stop and did so in good order (exit code 75).

    The same command continues it.
    """


class LeaveOff(BaseException):
    """Raised between two steps of a rank that is asked to stop: its share of a pass ends there.

    It passes those who expect the errors of libraries. All ranks raise `Stopped` together, later.
    """


def stop_at_once() -> None:
    """Until a `StopRequest` takes over, and after it, a stop signal ends the rank, with exit 75.

    Nothing is in hand then: what is on disk is whole, and the same command continues.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(EX_TEMPFAIL))


def ignore_stops() -> None:
    """This process has nothing more to do: no stop signal changes how it ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # Python would take a handler away as it ends


def stop_by_error() -> None:
    """The first stop signal raises `Stopped` where this process is; later ones do nothing."""

    def stop(number: int, _frame: FrameType | None) -> None:
        ignore_stops()
        raise Stopped(signal.Signals(number).name)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Around a library that may set handlers of its own, unseen by Python: ours are put back."""
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in STOP_SIGNALS:
                if (handler := signal.getsignal(number)) is not None:
                    signal.signal(number, handler)


class StopRequest:
    """Set by SIGTERM, SIGUSR1 or SIGINT on any rank.

    Or by the file `flag` that a rank so told leaves for the others. Asking puts the handlers in
    place again: Intel's OpenCL sets its own as soon as a device is used, and they swallow all.
    """

    def __init__(self, flag: Path) -> None:
        self.flag = flag
        self.received = ""
        self._looked, self._flagged = -LOOK_SECONDS, False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._tell()

    def _tell(self) -> None:
        """At once: mpirun gives its ranks a second or less. The first to be told says so."""
        with contextlib.suppress(OSError):
            self.flag.touch(exist_ok=False)
            text = f"{self.received}: stops after the step in hand; the same command continues"
            os.write(sys.stderr.fileno(), f"{text}\n".encode())

    def __bool__(self) -> bool:
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in self._before:
                signal.signal(number, self._receive)
        if self.received:
            self._tell()
            return True
        now = time.monotonic()
        if not self._flagged and now - self._looked >= LOOK_SECONDS:
            self._looked, self._flagged = now, self.flag.exists()
        return self._flagged

    def look(self) -> None:
        """Between two steps, in any thread; raises `LeaveOff` if the job is to stop."""
        if self:
            raise LeaveOff

    def raise_together(self, comm: Any, during: str) -> None:
        """Raise `Stopped` on all ranks if any of them was told to stop; collective."""
        if any(comm.allgather(bool(self))):
            raise Stopped(during)
