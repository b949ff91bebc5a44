"""The second pass into a folder of TIFF slices with the names of raw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np

from amst_hpc.config import Output
from amst_hpc.images.stack import checksum
from amst_hpc.images.tiff_output import is_whole, write_slice
from amst_hpc.job.journal import records
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt
from amst_hpc.parallel.communicator import Communicator, on_rank_0
from amst_hpc.parallel.shares import Shares
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.parallel.tally import Tally
from amst_hpc.passes.aligned import AlignedStack
from amst_hpc.quality.thumbnails import ThumbnailWriter, look_at
from amst_hpc.registration.template import RUN
from amst_hpc.transform import Image


def write_tiffs(
    aligned: AlignedStack, output: Output, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """Slices that this job has written as they would be written now, and that are whole, are kept.

    An older slice of the same name is there until the new one is; those of an earlier output that
    have no successor are removed when all are written.
    Raises `Stopped`, and OSError where a slice cannot be written.
    """
    attempt.out.mkdir(exist_ok=True)
    known = comm.bcast(_written(attempt) if comm.rank == 0 else None)
    shape, dtype = aligned.inputs.shape, np.dtype(aligned.inputs.dtype)
    total, tally = len(aligned.results), Tally(comm)
    with (
        attempt.open_journal(comm.rank, "write") as journal,
        ThumbnailWriter(attempt.thumbnails, attempt.name(comm.rank), "write") as thumbnails,
        ProgressMeter("write", total, 0, comm.rank == 0) as meter,
        Shares(comm, range(total), RUN) as shares,
    ):
        journal.write({"kind": "begun", "layer_depth": 1})

        def is_kept(i: int) -> bool:
            result, wanted = aligned.results[i], _key(aligned, i, output)
            key, crc = known.get(result.z, ("", 0))
            return key == wanted and is_whole(attempt.out / result.file, shape, dtype, crc)

        for i, image in _make(aligned, shares, is_kept, stop):
            if image is not None:
                result = aligned.results[i]
                write_slice(attempt.out / result.file, image, output.compression)
                thumbnails.add("aligned", result.z, look_at(image))
                record = {"kind": "layer", "layer": result.z, "key": _key(aligned, i, output)}
                journal.write(record | {"crc": checksum(image)})
            tally.add(fell_back=False)
            if meter.due():
                meter.update(tally.totals()[0])
        tally.finish(lambda: None)
    stop.raise_together(comm, "writing")
    on_rank_0(comm, lambda: attempt.remove_former({result.file for result in aligned.results}))


def _key(aligned: AlignedStack, i: int, output: Output) -> str:
    """Changes when slice i of the output would be written otherwise."""
    return f"{aligned.key(range(i, i + 1))}/{output.compression}"


def _make(
    aligned: AlignedStack, shares: Shares[int], is_kept: Callable[[int], bool], stop: StopRequest
) -> Iterator[tuple[int, Image | None]]:
    """The slices of this rank; None: it is kept as it is. Ends early when asked to."""
    for run in shares:
        kept = {i for i in run if is_kept(i)}
        with closing(aligned.slices([i for i in run if i not in kept])) as images:
            for i in run:
                if stop:
                    return
                yield i, None if i in kept else next(images)


def _written(attempt: Attempt) -> dict[int, tuple[str, int]]:
    """Key and checksum of each slice that was written; the last time counts."""
    found = records(attempt.journal, "*.write.log")
    return {r["layer"]: (r["key"], r.get("crc", 0)) for r in found if r["kind"] == "layer"}
