"""How far all ranks are, known to rank 0 while they work: nobody waits, no file is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from amst_hpc.parallel.communicator import Communicator, meet

TELL_SECONDS = 0.5
POLL_SECONDS = 0.02


class Tally:
    """The sum of what each rank has done and of what fell back; made and finished by all ranks."""

    def __init__(self, comm: Communicator) -> None:
        """Collective."""
        self.comm = comm.Dup() if comm.size > 1 else comm
        self.mine = (0, 0)
        self.of_rank: dict[int, tuple[int, int]] = {}
        self.working = set(range(1, comm.size)) if comm.rank == 0 else set[int]()
        self.sent: list[Any] = []
        self.told = time.monotonic()

    def add(self, fell_back: bool) -> None:
        """This rank has done one more."""
        self.mine = (self.mine[0] + 1, self.mine[1] + fell_back)
        if self.comm.rank and time.monotonic() - self.told > TELL_SECONDS:
            self._send(last=False)

    def _send(self, last: bool) -> None:
        self.told = time.monotonic()
        self.sent.append(self.comm.isend((self.comm.rank, self.mine, last), dest=0))

    def totals(self) -> tuple[int, int]:
        """Done and fallen back, of all ranks, as far as rank 0 has heard."""
        while self.working and self.comm.iprobe():
            rank, numbers, last = self.comm.recv()
            self.of_rank[rank] = numbers
            if last:
                self.working.discard(rank)
        everyone = [self.mine, *self.of_rank.values()]
        return sum(n for n, _ in everyone), sum(n for _, n in everyone)

    def finish(self, show: Callable[[], None]) -> None:
        """This rank is done and waits for the others; rank 0 goes on showing until they are."""
        if self.comm.rank:
            self._send(last=True)
            for request in self.sent:
                request.wait()
        self.totals()
        while self.working:
            show()
            time.sleep(POLL_SECONDS)
            self.totals()
        meet(self.comm)
        if self.comm.size > 1:
            self.comm.Free()
