"""Between the passes: each raw slice is registered to its raw neighbours and to what the
pre-alignment made of it.

The ranks share the slices out; a slice is read and prepared once on its rank. A result depends on
the two slices, on what the first pass found for them, and on filters that are measured at the same
places of the stack whatever the ranks, blocks and range.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from amst_hpc.config import Config
from amst_hpc.geometry import split
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError, Stack, fit_to
from amst_hpc.job.journal import Journal
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt
from amst_hpc.opencl.gauss_newton import open_equations
from amst_hpc.pair_result import PairResult
from amst_hpc.parallel.communicator import Communicator, on_all_ranks
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.registration.coherence import (
    LARGEST,
    RadialFilter,
    gaussian,
    matched_filter,
    spectra,
)
from amst_hpc.registration.neighbours import Equations, Neighbours, Prepared, seen
from amst_hpc.registration.normal_equations import HostEquations
from amst_hpc.registration.template import is_blank
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Image, Matrix, compose, invert, translation

log = logging.getLogger(__name__)

PLACES = 16  # of the stack, where the filters are measured
Keys = list[tuple[int, int]]


def pair_slices(
    inputs: Inputs,
    found: Sequence[SliceResult],
    config: Config,
    attempt: Attempt,
    comm: Communicator,
    stop: StopRequest,
) -> tuple[list[PairResult], float]:
    """Register the pairs of the slices of `inputs` that the journal does not hold; collective.

    found : results of the first pass, on rank 0, of all these slices and of those after them that
    their pairs reach. Returns all pairs, on rank 0, and the seconds of this rank. Raises `Stopped`.
    """
    if not config.neighbours.enabled:
        return [], 0.0
    began = time.monotonic()
    starts = comm.bcast({s.z: _own(s) for s in found if not s.blank} if comm.rank == 0 else None)
    earlier = attempt.paired(range(inputs.depth)) if comm.rank == 0 else {}
    if attempt.retry:
        earlier = {key: pair for key, pair in earlier.items() if pair.matrix is not None}
    done: set[tuple[int, int]] = comm.bcast(set(earlier))
    wanted = [
        (z, k)
        for z in inputs.select
        for k in range(config.neighbours.reach + 1)
        if z in starts and z + k in starts
    ]
    missing = [key for key in wanted if key not in done]
    mine: list[PairResult] = []
    if missing:
        pairer = Pairer(inputs, config, comm, starts)
        zs = sorted({z for z, _ in missing})
        share = {zs[i] for i in split(len(zs), comm.size)[comm.rank]}
        tally = Tally(comm)
        with (
            attempt.open_journal(comm.rank, "pair") as journal,
            ProgressMeter("neighbours", len(zs), 0, comm.rank == 0) as meter,
        ):
            for pairs in pairer.share([key for key in missing if key[0] in share], journal, stop):
                mine += pairs
                tally.add(fell_back=any(pair.matrix is None for pair in pairs))
                if meter.due():
                    meter.update(tally.totals()[0], "")
            journal.sync()
            tally.finish(lambda: None)
            meter.update(tally.totals()[0], "")
    stop.raise_together(comm, "registration of neighbours")
    gathered = earlier | {(p.z, p.k): p for part in comm.gather(mine) or [] for p in part}
    return [gathered[key] for key in wanted if key in gathered], time.monotonic() - began


def _own(s: SliceResult) -> Matrix | None:
    """The best that the first pass found for a slice by itself."""
    return next((m for m in (s.affine, s.shift, s.prealigned) if m is not None), None)


class Pairer:
    """The pairs of one rank."""

    def __init__(
        self,
        inputs: Inputs,
        config: Config,
        comm: Communicator,
        starts: Mapping[int, Matrix | None],
    ) -> None:
        """Opens the device and measures the filters; collective."""
        self.inputs, self.starts = inputs, starts
        local_rank, _ = local_place(comm)
        opened = on_all_ranks(comm, lambda: open_equations(config.coarse.device, local_rank))
        self.equations: Equations = opened[0] if opened else HostEquations()
        self.on_gpu = bool(opened and opened[1])
        reach = range(1, config.neighbours.reach + 1)
        filters = measure_filters(inputs, reach, comm, self.equations)
        self.neighbours = Neighbours(self.equations, self.on_gpu, filters)
        self.ready: dict[int, tuple[Prepared, Matrix] | None] = {}

    def share(self, keys: Keys, journal: Journal, stop: StopRequest) -> Iterator[list[PairResult]]:
        """Results of each slice's pairs, in the journal; ends early when asked to."""
        for z in sorted({z for z, _ in keys}):
            if stop:
                return
            self.ready = {i: ready for i, ready in self.ready.items() if i >= z}
            pairs = [pair for k in (k for i, k in keys if i == z) if (pair := self.register(z, k))]
            for pair in pairs:
                journal.write(pair.to_record(), durable=False)
            yield pairs

    def register(self, z: int, k: int) -> PairResult | None:
        """The pair (z, z + k); None where a slice cannot be read."""
        try:
            return self._register(z, k)
        except SliceError as error:
            log.warning("slice %d has no pair with slice %d: %s", z, z + k, error)
        except Exception as error:  # pyopencl's errors have no common class
            if isinstance(self.equations, HostEquations):
                raise
            log.warning("neighbours on the OpenCL device failed (%s); on with the host", error)
            self.equations = HostEquations()
            self.neighbours = Neighbours(self.equations, False, self.neighbours.filters)
            self.ready = {}
            return self.register(z, k)
        return None

    def _register(self, z: int, k: int) -> PairResult | None:
        own = self._prepared(z)
        if own is None:
            return None
        fixed, offset = own
        start = self.starts[z]
        if k == 0:
            image = self.inputs.prealigned.read(z)
            if is_blank(image) or image.shape != self.inputs.shape:
                return None
            target = self.neighbours.prepare(image, coarse_alone=True)
            begin = compose(invert(offset), start) if start is not None else None
            found = self.neighbours.register(target, fixed, PairResult(z, 0), begin)
            return _moved(found, offset, translation(0, 0))
        other = self._prepared(z + k)
        if other is None:
            return None
        moving, shift = other
        begin, last = None, self.starts[z + k]
        if start is not None and last is not None:
            begin = compose(compose(invert(shift), last), compose(invert(start), offset))
        found = self.neighbours.register(fixed, moving, PairResult(z, k), begin)
        return _moved(found, shift, invert(offset))

    def _prepared(self, z: int) -> tuple[Prepared, Matrix] | None:
        if z not in self.ready:
            name = self.inputs.raw.names[z]
            raw, offset = fit_to(self.inputs.raw.read(z), self.inputs.shape, name)
            ready = None if is_blank(raw) else (self.neighbours.prepare(raw), offset)
            self.ready[z] = ready
        return self.ready[z]


def _moved(pair: PairResult, after: Matrix, before: Matrix) -> PairResult:
    """The pair between the slices as they are read, not as they were fitted to the canvas."""
    if pair.matrix is None:
        return pair
    return PairResult(**vars(pair) | {"matrix": compose(after, compose(pair.matrix, before))})


def measure_filters(
    inputs: Inputs, reach: Sequence[int], comm: Communicator, equations: Equations
) -> dict[int, RadialFilter]:
    """The filter for each distance of two slices, from places all over the stack; collective."""
    side = min(*inputs.shape, LARGEST)
    filters = {}
    for k in reach:
        places = np.unique(np.linspace(0, max(inputs.depth - 1 - k, 0), PLACES).astype(int))
        mine = [
            (int(z), _spectra_at(inputs.raw, int(z), k, equations))
            for z in places[comm.rank :: comm.size]
            if z + k < inputs.depth
        ]
        measured = sorted((item for part in comm.allgather(mine) for item in part), key=_place)
        pairs = [pair for _, pair in measured if pair is not None]
        filters[k] = matched_filter(pairs, side) if pairs else gaussian(1.0)
    return filters


def _place(item: tuple[int, Any]) -> int:
    return item[0]


def _spectra_at(raw: Stack, z: int, k: int, equations: Equations) -> Any:
    """See `coherence.spectra`; None where two slices tell nothing."""
    try:
        fixed, moving = (_middle(raw.read(i)) for i in (z, z + k))
    except SliceError:
        return None
    if fixed.shape != moving.shape or any(
        is_blank(a) or seen(a) is not None for a in (fixed, moving)
    ):
        return None
    smooth = Neighbours(equations, False, {k: gaussian(1.0)})
    found = smooth.register(smooth.prepare(fixed), smooth.prepare(moving), PairResult(z, k), None)
    if found.matrix is None:
        return None
    yx, shift = found.matrix[::-1, 1::-1], found.matrix[::-1, 2]
    moved = ndimage.affine_transform(
        moving.astype(np.float32), yx, shift, order=3, cval=np.nan, output=np.float32
    )
    floats = fixed.astype(np.float32)
    return spectra(floats, np.where(np.isfinite(moved), moved, floats.mean()))


def _middle(image: Image) -> Image:
    """The middle of a slice, which is all that the spectra need, with a margin for its shift."""
    y, x = (max(0, (n - LARGEST - 128) // 2) for n in image.shape)
    return image[y : image.shape[0] - y, x : image.shape[1] - x]
