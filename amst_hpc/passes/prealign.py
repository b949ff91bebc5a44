"""Raw alone: the ranks compare raw slices with those after them, and rank 0 places all of them.

What was found is in the journal before it counts: of each slice that was seen a checksum, of each
pair a key, a digest of the pixels it was found with.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from amst_hpc.config import Config
from amst_hpc.images.ahead import ReadAhead
from amst_hpc.images.moved import Canvas, lay_canvas
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator, on_all_ranks
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.shares import Shares
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.passes.filters import lacking, measure_filters, sampled
from amst_hpc.registration.equations import open_equations
from amst_hpc.registration.neighbours import Neighbours, Prepared, leave_device
from amst_hpc.registration.prealign import Placement, place
from amst_hpc.registration.template import is_blank
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Matrix, compose, displacement, invert

log = logging.getLogger(__name__)
NEAR = 2  # distances of pairs at full detail, or as many as `neighbours.reach`
FAR = (4, 8)  # at the coarse scales alone
RUN = 32  # slices that a rank takes at a time: it also reads those after them
NAMED = 5
Place = tuple[int, int]  # (z, k): raw slices z and z + k


@dataclass(frozen=True)
class Seen:
    """A raw slice as it was when it was compared."""

    z: int
    crc: int
    blank: bool


@dataclass(frozen=True)
class Comparison:
    """The pairs that begin in the slices `inputs.select`; `around` : the slices that count."""

    inputs: Inputs
    config: Config
    around: range

    @cached_property
    def near(self) -> range:
        """Distances of the pairs at full detail."""
        neighbours = self.config.neighbours
        return range(1, max(NEAR, neighbours.reach if neighbours.enabled else 0) + 1)

    @cached_property
    def steps(self) -> list[int]:
        """All distances."""
        return sorted({*self.near, *FAR})

    def places(self, seen: Mapping[int, Seen]) -> list[Place]:
        """All pairs of slices that are not known to be black, nor excluded, ascending."""
        good = [
            z
            for z in self.around
            if z not in self.inputs.excluded and not (z in seen and seen[z].blank)
        ]
        there, first = set(good), set(self.inputs.select) | set(self.around) - {*self.inputs.select}
        mine = [z for z in good if z in first]
        return [(z, k) for z in mine for k in self.steps if z + k in there]

    @cached_property
    def _lacking(self) -> str:
        """The slices that the filters go without: see `filters.lacking`."""
        return "\\n".join(lacking(self.inputs, len(self.near)))

    def key(self, first: Seen, second: Seen) -> str:
        """Changes when the pixels of its slices do, or the filters lack other slices."""
        text = f"{first.crc} {second.crc}\\n{self._lacking}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def split(
        self, attempt: Attempt
    ) -> tuple[dict[int, Seen], dict[Place, PairResult], list[Place]]:
        """What the journal holds of slices and of pairs, and the pairs that it does not."""
        seen = {z: Seen(z, crc, blank) for z, (crc, blank) in attempt.seen().items()}
        journal = attempt.paired(sampled(self.inputs.depth, len(self.near)), "prealign")
        places = self.places(seen)
        done = {
            (z, k): journal[z, k][1]
            for z, k in places
            if (z, k) in journal
            and z in seen
            and z + k in seen
            and journal[z, k][0] == self.key(seen[z], seen[z + k])
        }
        return seen, done, [p for p in places if p not in done]
'''.replace('\\\\n','\\n') if False else '')
