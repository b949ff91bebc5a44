"""Another stack, resampled with the transforms of a finished run."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError
from amst_hpc.passes.aligned import AlignedStack
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AppliedStack(AlignedStack):
    """The output, computed when it is asked for.

    stamps : of the raw slices, by number, at the start. unreadable : slices that this rank could
    not read, and why; they stay black.
    """

    stamps: Mapping[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def read(self, inputs: Inputs, result: SliceResult) -> Image | None:
        """A slice as it is; None where it cannot be read."""
        try:
            return inputs.raw.read(result.z)
        except SliceError as error:
            log.warning("slice %d is left black: %s", result.z, error)
            self.unreadable[result.z] = str(error)
            return None

    def key(self, slices: range) -> str:
        """See `AlignedStack`. A slice with another stamp is another one; what could not be read is
        never taken for written, so that the same command tries it again.
        """
        numbers = [self.results[i].z for i in slices]
        stamps = [self.stamps.get(z, "") for z in numbers]
        lacking = [z for z in numbers if z in self.unreadable]
        text = f"{super().key(slices)} {stamps} {lacking}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
