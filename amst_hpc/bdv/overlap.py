"""What is ready is stored in a thread while the caller makes the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class StoringThread:
    """Calls `store` with each layer (or a part of one) that is put in, in order, in one thread.

    What copies, checks and writes bytes leaves Python's lock (numpy, isal, os), so the caller
    computes meanwhile. What `store` raises, the next `put` raises, or leaving the `with` block.
    After another exception there, what waits is dropped.

    depth : layers that wait or are being stored; memory holds one more, the one being made.
    """

    def __init__(self, store: Callable[..., Any], depth: int = 1) -> None:
        self._store = store
        self._depth = depth
        self._pending: deque[Future[Any]] = deque()
        self._thread = ThreadPoolExecutor(1, "storing")

    def __enter__(self) -> Self:
        return self

    def put(self, *layer: Any) -> None:
        """Hand a layer over, which must not change any more; waits while `depth` are under way.

        layer : the arguments of `store`.
        """
        self._collect(self._depth - 1)
        self._pending.append(self._thread.submit(self._store, *layer))

    def wait(self) -> None:
        """Returns when all is stored that was put in. Raises what `store` raised."""
        self._collect(0)

    def _collect(self, left: int) -> None:
        """Wait until at most `left` layers are under way. Raises what `store` raised."""
        while self._pending and (len(self._pending) > left or self._pending[0].done()):
            self._pending.popleft().result()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.drop()

    def finish(self) -> None:
        """Everything is stored on return. Raises what `store` raised."""
        try:
            self._collect(0)
        finally:
            self.drop()

    def drop(self, wait: bool = True) -> None:
        """What waits is not stored; wait : return when the thread has ended."""
        self._thread.shutdown(wait, cancel_futures=True)
