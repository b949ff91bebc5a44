"""Jobs that are asked to stop at a chosen moment."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amst_hpc.parallel import signals
from amst_hpc.parallel.signals import StopRequest


class StopAtLook(StopRequest):
    """Another rank leaves the flag just before this one looks for the n-th time."""

    def __init__(self, flag: Path, n: int) -> None:
        super().__init__(flag)
        self.left = n

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.flag.touch()
        return super().__bool__()


class Acting:
    """A stack that does something as soon as its n-th slice is read; `seen` : the slices read."""

    def __init__(self, stack: Any, n: int, act: Callable[[], object]) -> None:
        self.stack, self.n, self.act = stack, n, act
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stack, name)

    def read(self, z: int) -> Any:
        self.seen.append(z)
        if len(self.seen) == self.n:
            self.act()
        return self.stack.read(z)


def signalled() -> None:
    """This process is told to stop."""
    os.kill(os.getpid(), signal.SIGUSR1)


def look_always(monkeypatch: Any) -> None:
    """The flag is looked for each time."""
    monkeypatch.setattr(signals, "LOOK_SECONDS", 0.0)
