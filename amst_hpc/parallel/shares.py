"""Work shared out while it is done: a rank that is sooner done takes more of it.

Each rank begins in a region of its own, which it takes from the front, so that what it has read
serves its next slices. A rank without any left takes the later half of the longest region. Runs
are short at first, until it is seen how fast a rank is, and towards the end, those of slow ranks
more so, that all end together (weighted factoring: Hummel, Schonberg, Flynn, CACM 35(8), 1992;
Hummel et al., SPAA 1996).

Rank 0 keeps the table and answers in a thread. Messages, not one-sided memory: Open MPI 4 makes no
window over TCP for a program with threads, and elsewhere rank 0 must call MPI to let the others in.
elastix holds Python's lock, and with it that thread, for seconds: so a rank asks for its next run
when it begins one, and waits for no answer. A run of one item is large (a layer), and nothing holds
the lock for long meanwhile: of these nobody has one that is not begun.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from amst_hpc.geometry import share_of, split
from amst_hpc.parallel.communicator import Communicator, threads_allowed

T = TypeVar("T")

POLL_SECONDS = 0.005


class Regions:
    """Places 0 to count - 1 that nobody has taken yet, a range for each rank."""

    def __init__(self, count: int, ranks: int) -> None:
        self.of_rank = split(count, ranks)
        self.given = [0] * ranks
        self._lock = threading.Lock()

    def take(self, rank: int, most: int) -> range:
        """The next run of a rank, up to `most` places; empty: the rest is done without it."""
        with self._lock:
            length = self._length(rank, most)
            if length and not self.of_rank[rank]:
                self._take_over(rank)
            mine = self.of_rank[rank][:length]
            self.of_rank[rank] = self.of_rank[rank][length:]
            self.given[rank] += len(mine)
            return mine

    def _length(self, rank: int, most: int) -> int:
        """Half of what this rank, as fast as it has been, would do of the rest, and for no longer
        than the fastest takes for `most`. 0: faster ranks will have done the rest before it has
        done one.
        """
        left, ranks = sum(map(len, self.of_rank)), len(self.of_rank)
        if ranks == 1 or not left:
            return min(left, most)
        mine, fastest = self.given[rank] + 1, max(self.given) + 1
        share = left * mine / (sum(self.given) + ranks)
        if share < 1 and 2 * mine < fastest:
            return 0
        return min(mine, math.ceil(share / 2), math.ceil(most * mine / fastest))

    def _take_over(self, rank: int) -> None:
        """The later half of the longest region becomes that of this rank."""
        behind = max(range(len(self.of_rank)), key=lambda other: len(self.of_rank[other]))
        region = self.of_rank[behind]
        middle = region.start + len(region) // 2
        self.of_rank[behind] = range(region.start, middle)
        self.of_rank[rank] = range(middle, region.stop)


class _Desk:
    """On rank 0: answers the ranks that ask for a run, until all have left."""

    def __init__(self, comm: Communicator, regions: Regions, most: int) -> None:
        self._comm, self._regions, self._most = comm, regions, most
        self._here = set(range(1, comm.size))
        self._sent: dict[int, Any] = {}
        self._one = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="shares", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._here and not self._closed:
            self.answer()
            time.sleep(POLL_SECONDS)

    def answer(self) -> None:
        """Answer all that have asked by now."""
        with self._one:
            while self._comm.iprobe():
                rank, more = self._comm.recv()
                if rank in self._sent:
                    self._sent.pop(rank).wait()  # it has arrived, or the rank would not speak
                if more:
                    run = self._regions.take(rank, self._most)
                    self._sent[rank] = self._comm.isend((run.start, run.stop), dest=rank)
                else:
                    self._here.discard(rank)

    def close(self, wait: bool) -> None:
        """Returns when the thread has ended; it goes on until all ranks have left if `wait`."""
        self._closed = not wait
        self._thread.join()


class Shares(Generic[T]):
    """Iterated on each rank, gives the runs of `items` that this rank is to do.

    All ranks together get each item once. Every rank must leave the `with` block; if one leaves
    early (a stop), there are items that nobody gets. Where MPI allows no threads, the shares are
    equal.
    """

    def __init__(self, comm: Communicator, items: Sequence[T], most: int = 1) -> None:
        """Collective. items : the same on every rank; most : length of a run."""
        alone = comm.size == 1 or not comm.bcast(threads_allowed())
        self._items, self._most, self._rank = items, most, 0 if alone else comm.rank
        self._ahead = most > 1
        if alone:
            self._items = share_of(items, comm.size, comm.rank)
        self._regions = Regions(len(self._items), 1 if alone else comm.size)
        self._comm: Any = None if alone else comm.Dup()
        self._next: range | None = None  # None: not known yet
        self._asked: Any = None
        self._desk: _Desk | None = None
        if self._comm is not None and not self._rank:
            self._desk = _Desk(self._comm, self._regions, most)

    def __enter__(self) -> Self:
        return self

    def __iter__(self) -> Iterator[Sequence[T]]:
        self._ask()
        while run := self._items_of(self._answer()):
            if self._ahead:
                self._ask()
            yield run
            if not self._ahead:
                self._ask()

    def coming(self) -> Sequence[T]:
        """The run after this one; empty while it is not known, and at the end."""
        self._look()
        return self._items_of(self._next or range(0)) if self._ahead else []

    def _items_of(self, run: range) -> Sequence[T]:
        return self._items[run.start : run.stop]

    def _ask(self) -> None:
        self._next = None
        if self._rank:
            self._asked = self._comm.isend((self._rank, True), dest=0)

    def _look(self) -> None:
        """The answer, if it is there."""
        if self._desk:
            self._desk.answer()
        if self._next is not None:
            return
        if not self._rank:
            self._next = self._regions.take(0, self._most)
        elif self._asked and self._comm.iprobe(source=0):
            self._next = range(*self._comm.recv(source=0))
            self._asked.wait()

    def _answer(self) -> range:
        self._look()
        while self._next is None:
            time.sleep(POLL_SECONDS)
            self._look()
        return self._next

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._desk:
            self._desk.close(wait=kind is None)
        if self._comm is None or kind is not None:
            return  # the others are ended
        if self._rank:
            if self._asked:
                self._answer()
            self._comm.send((self._rank, False), dest=0)
        self._comm.Free()
