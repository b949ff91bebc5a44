"""Layers are stored in a thread while the caller makes the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

Block = NDArray[Any]  # (z, y, x), uint8 or uint16

Store = Callable[[int, list[Block]], Any]


class StoringThread:
    """Calls `store(layer, levels)` for each layer that is put in, in order, in one thread.

    What copies, checks and writes bytes leaves Python's lock (numpy, isal, os), so the caller
    computes meanwhile. What `store` raises, the next `put` raises, or leaving the `with` block.
    After another exception there, layers that wait are dropped.

    depth : layers that wait or are being stored; memory holds one more, the one being made.
    """

    def __init__(self, store: Store, depth: int = 1) -> None:
        self._store = store
        self._depth = depth
        self._pending: deque[Future[Any]] = deque()
        self._thread = ThreadPoolExecutor(1, "storing")

    def __enter__(self) -> Self:
        return self

    def put(self, layer: int, levels: list[Block]) -> None:
        """Hand a layer over, which must not change any more; waits while `depth` are under way."""
        self._collect(self._depth - 1)
        self._pending.append(self._thread.submit(self._store, layer, levels))

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
        try:
            if kind is None:
                self._collect(0)
        finally:
            self._thread.shutdown(cancel_futures=True)
