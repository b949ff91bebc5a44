"""Another stack of the same slices, under their numbers in RAW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amst_hpc.images.stack import Header, SliceError, Stack
from amst_hpc.transform import Image


class PairedStack:
    """A stack that is asked for slices by their numbers in RAW, and lacks some of them."""

    numbers: list[int] | None

    def __init__(self, stack: Stack, places: Mapping[int, int], names: Sequence[str]) -> None:
        """places : in `stack`, by number in RAW. names : of all slices of RAW; they stand for those
        that `stack` lacks.
        """
        self.stack, self.places = stack, places
        self.source, self.files, self.numbers = stack.source, stack.files, stack.numbers
        found = ((places.get(z), name) for z, name in enumerate(names))
        self.names = [name if i is None else stack.names[i] for i, name in found]

    def header(self, z: int) -> Header:
        """See `Stack`."""
        return self.stack.header(self._place(z))

    def read(self, z: int) -> Image:
        """See `Stack`."""
        return self.stack.read(self._place(z))

    def is_constant(self, z: int) -> bool:
        """See `Stack`."""
        return self.stack.is_constant(self._place(z))

    def stamp(self, z: int) -> str:
        """See `Stack`; empty where there is no such slice."""
        return self.stack.stamp(self.places[z]) if z in self.places else ""

    def _place(self, z: int) -> int:
        if z not in self.places:
            raise SliceError(f"{self.source}: has no slice for {self.names[z]} of RAW")
        return self.places[z]
