"""Slices are read and decoded in a thread before they are asked for.

Reading and the decoders (imagecodecs, HDF5) leave Python's lock, so that the caller computes
meanwhile. An error is raised where its slice is asked for.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Self

from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import Header, Stack
from amst_hpc.transform import Image

AHEAD_BYTES = 2**28
"""Of the slices of a stack that are read ahead; at least one slice."""


def slices_ahead(slice_bytes: int) -> int:
    """How many slices of a stack are read ahead at most."""
    return max(1, AHEAD_BYTES // slice_bytes)


class ReadAhead:
    """A stack that is told which slices are wanted next."""

    def __init__(self, stack: Stack, slice_bytes: int) -> None:
        self._stack, self._most = stack, slices_ahead(slice_bytes)
        self.source, self.names = stack.source, stack.names
        self.files, self.numbers = stack.files, stack.numbers
        self._reading: dict[int, Future[Image]] = {}
        self._one = threading.Lock()  # a file that stays open has one position
        self._thread = ThreadPoolExecutor(1, "reading")

    def __enter__(self) -> Self:
        return self

    def expect(self, slices: Iterable[int]) -> None:
        """These are wanted next, in this order: as many as may be held are read.

        What was read and is not among them is let go.
        """
        wanted = list(islice(slices, self._most))
        for z in self._reading.keys() - set(wanted):
            self._reading.pop(z).cancel()
        for z in wanted:
            if z not in self._reading:
                self._reading[z] = self._thread.submit(self._read, z)

    def _read(self, z: int) -> Image:
        with self._one:
            return self._stack.read(z)

    def header(self, z: int) -> Header:
        """See `Stack`."""
        return self._stack.header(z)

    def read(self, z: int) -> Image:
        """See `Stack`."""
        begun = self._reading.pop(z, None)
        if begun is None or begun.cancel():  # its turn has not come
            return self._read(z)
        return begun.result()

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return self._stack.is_constant(z)

    def stamp(self, z: int) -> str:
        """See `Stack`."""
        return self._stack.stamp(z)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._reading.clear()


class InputsAhead:
    """Both stacks of a job, read ahead."""

    def __init__(self, inputs: Inputs) -> None:
        self.raw = ReadAhead(inputs.raw, inputs.slice_bytes)
        self.prealigned = ReadAhead(inputs.prealigned, inputs.slice_bytes)
        self.inputs = dataclasses.replace(inputs, raw=self.raw, prealigned=self.prealigned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.raw.__exit__(*raised)
        self.prealigned.__exit__(*raised)
