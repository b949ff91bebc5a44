"""The second pass into a BigDataViewer file or OME-Zarr: by layers, each on all mipmap levels.

With the direct writer, and for OME-Zarr, every rank writes its own bytes: the next layer is made
while a thread stores the last one; a layer is in the journal when it is on disk. A stop is heard
between the steps of a layer, of a large one (`LARGE_LAYER`) also while it is stored. The other
writers go in rounds: all ranks store a layer each together while they make the next one. A file
that these did not close in good order is made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import cycle

from amst_hpc.averaging import go_on
from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.direct import DirectFile
from amst_hpc.bdv.file import sync
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.overlap import StoringThread
from amst_hpc.bdv.writer import INDEPENDENT, BdvWriter
from amst_hpc.geometry import layers_in_hand, share_of
from amst_hpc.job.journal import FORGOTTEN, Journal
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt
from amst_hpc.ome_zarr.writing import ShardedFolder
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.shares import Shares
from amst_hpc.parallel.signals import LeaveOff, StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.passes.aligned import AlignedStack
from amst_hpc.passes.file_plan import FilePlan, begin_writing
from amst_hpc.quality.thumbnails import ThumbnailWriter
from amst_hpc.transform import Block

SYNC_SECONDS = 2.0
"""Layers that were written longer ago are on disk, and in the journal."""


def write_layers(
    aligned: AlignedStack, plan: FilePlan, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """Write the missing layers, shared out over the ranks; collective. Raises `Stopped`."""
    if plan.missing:
        write = _write_direct if plan.writer in INDEPENDENT else _write_rounds
        write(aligned, plan, attempt, comm, stop)
    stop.raise_together(comm, "writing")


class _Recorder:
    """Stores layers, and puts them into the journal when they are on disk; in one thread."""

    def __init__(
        self,
        file: DirectFile | ShardedFolder,
        checksums: ChecksumFile,
        journal: Journal,
        aligned: AlignedStack,
    ) -> None:
        self.file, self.checksums, self.journal, self.aligned = file, checksums, journal, aligned
        self.pending: list[int] = []
        self.synced = time.monotonic()

    def store(self, layer: int, levels: list[Block]) -> None:
        """Write a layer on all levels; one that is left off does not count, whatever was there."""
        try:
            checksums = self.file.write_layer(layer, levels)
        except LeaveOff:
            self.journal.write({"kind": FORGOTTEN, "layers": [layer]})
            raise
        self.checksums.write(layer, checksums)
        self.pending.append(layer)
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        """All that was stored counts when this returns; what was left off needs no disk."""
        if not self.pending:
            return
        self.file.sync()
        self.checksums.sync()
        for layer in self.pending:
            self.journal.write(_record(self.aligned, self.file.layout.layers[layer], layer), False)
        self.journal.sync()
        self.pending, self.synced = [], time.monotonic()


def _record(aligned: AlignedStack, slices: range, layer: int) -> dict[str, object]:
    return {"kind": "layer", "layer": layer, "key": aligned.key(slices)}


def _open_file(plan: FilePlan, between: Callable[[], None]) -> DirectFile | ShardedFolder:
    if plan.writer == "shards":
        return ShardedFolder(plan.target, between)
    return DirectFile(plan.target.path, plan.layout, plan.addresses, between)


def _write_direct(
    aligned: AlignedStack, plan: FilePlan, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    target, layout = plan.target, plan.layout
    present = len(layout.layers) - len(plan.missing)
    in_hand = layers_in_hand(layout.layer * aligned.inputs.slice_bytes)
    tally = Tally(comm)
    with (
        attempt.open_journal(comm.rank, "write") as journal,
        _open_file(plan, stop.look if in_hand == 1 else go_on) as file,
        ChecksumFile(attempt.checksums, layout, write=True) as checksums,
        ThumbnailWriter(attempt.thumbnails, attempt.name(comm.rank), "write") as thumbnails,
        ProgressMeter("write", layout.shape[0], present * layout.layer, comm.rank == 0) as meter,
        Shares(comm, plan.missing) as shares,
    ):

        def show() -> None:
            if meter.due():
                meter.update(min(layout.shape[0], (present + tally.totals()[0]) * layout.layer))

        begin_writing(plan, journal)
        recorder = _Recorder(file, checksums, journal, aligned)
        blocks = cycle([aligned.new_block(layout.layer) for _ in range(in_hand)])
        with StoringThread(recorder.store) as thread, suppress(LeaveOff):
            for (layer,) in shares:
                slices = layout.layers[layer]
                block = aligned.make_layer(slices, next(blocks), thumbnails, stop)
                levels = pyramid(block, layout, target.labels, stop.look)
                stop.look()
                thread.put(layer, [level.view(target.stored) for level in levels])
                if in_hand == 1:
                    thread.wait()
                tally.add(fell_back=False)
                show()
        recorder.flush()
        tally.finish(show)


def _write_rounds(
    aligned: AlignedStack, plan: FilePlan, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """Each round, every rank makes one layer and all write theirs together."""
    target, layout = plan.target, plan.layout
    present, total = len(layout.layers) - len(plan.missing), layout.shape[0]
    with attempt.open_journal(comm.rank, "write") as journal:
        begin_writing(plan, journal)
        # one layer is made while the other is stored
        blocks = cycle([aligned.new_block(layout.layer) for _ in range(2)])
        with (
            BdvWriter(target, comm) as out,
            ChecksumFile(attempt.checksums, layout, write=True) as checksums,
            ThumbnailWriter(attempt.thumbnails, attempt.name(comm.rank), "write") as thumbnails,
            ProgressMeter(
                "write", layout.shape[0], present * layout.layer, comm.rank == 0
            ) as meter,
        ):
            for done, layer in _rounds(plan.missing, comm):
                block = None
                with suppress(LeaveOff):
                    if layer is not None:
                        block = aligned.make_layer(
                            layout.layers[layer], next(blocks), thumbnails, stop
                        )
                if any(comm.allgather(bool(stop))):
                    break
                sums = out.write(layer, block)
                if layer is not None:
                    checksums.write(layer, sums)
                    journal.write(_record(aligned, layout.layers[layer], layer), durable=False)
                if meter.due():
                    meter.update(min(total, (present + done) * layout.layer))
            checksums.sync()
        sync(target.path)  # each rank what it has written
        journal.write({"kind": "closed"})


def _rounds(missing: Sequence[int], comm: Communicator) -> Iterator[tuple[int, int | None]]:
    """The layer of this rank in each round, and how many all ranks have done before it.

    None: nothing left.
    """
    share = share_of(missing, comm.size, comm.rank)
    for turn in range(-(-len(missing) // comm.size)):
        yield min(turn * comm.size, len(missing)), share[turn] if turn < len(share) else None
