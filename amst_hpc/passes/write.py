"""The second pass: raw is resampled once with the settled transforms, written layer by layer."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.bdv.file import make_target, sync
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.geometry import Layout, layer_depth, make_layout, split
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError
from amst_hpc.images.tiff_output import is_whole, write_slice
from amst_hpc.job.journal import Journal, records
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Run, forget_output, view_path
from amst_hpc.opencl.resampling import Resampler, make_resampler
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.signals import Stopped, StopRequest
from amst_hpc.quality.thumbnails import ThumbnailWriter
from amst_hpc.registration.fallback import Decision
from amst_hpc.transform import resample

log = logging.getLogger(__name__)


Slice = NDArray[np.integer]


USUAL_RANKS = 64  # that layers are made for


def write_output(run: Run, decisions: Sequence[Decision], stop: StopRequest) -> None:
    """Write the aligned stack in the format of the configuration; collective. Raises `Stopped`."""
    began = time.monotonic()
    if run.config.coarse.method == "sift":
        run.resampler = make_resampler(run.config.coarse.device, local_place(run.comm)[0])
    if run.config.output.format == "tif":
        _write_tiffs(run, decisions, stop)
    else:
        _write_bdv(run, decisions, stop)
    run.timings["write"] = time.monotonic() - began


def aligned_slice(
    inputs: Inputs, z: int, decision: Decision, resampler: Resampler = resample
) -> Slice:
    """Slice z of raw, resampled once, (y, x) of the output.

    Black where there is no transform. Raises OSError if a slice that was registered cannot be
    read any more: the job ends, and goes on when the slice is back.
    """
    if decision.matrix is None:
        return np.zeros(inputs.shape, inputs.dtype)
    try:
        return resampler(inputs.raw.read(z), decision.matrix, inputs.shape)
    except SliceError as error:
        raise OSError(errno.EIO, f"was registered, but cannot be read now: {error}") from None


def _write_tiffs(run: Run, decisions: Sequence[Decision], stop: StopRequest) -> None:
    """A folder of TIFF slices with the names of raw; slices that are there and whole are kept."""
    inputs, comm, out = run.inputs, run.comm, run.job.out
    out.mkdir(exist_ok=True)
    share = split(len(inputs.select), comm.size)[comm.rank]
    with (
        ThumbnailWriter(run.thumbnails, run.attempt, comm.rank, "write") as keeper,
        ProgressMeter("write", len(share), 0, comm.rank == 0) as meter,
    ):
        for done, i in enumerate(share):
            if stop:
                break
            z = inputs.select[i]
            path = out / inputs.raw.names[z]
            if not is_whole(path, inputs.shape, np.dtype(inputs.dtype)):
                aligned = aligned_slice(inputs, z, decisions[i], run.resampler)
                write_slice(path, aligned, run.config.output.compression)
                keeper.keep("aligned", z, aligned)
            if meter.due():
                meter.update(done)
    if any(comm.allgather(bool(stop))):
        raise Stopped("writing")


def plan_layout(run: Run) -> Layout:
    """Layers, levels and chunks: of the stack alone, the same for every number of ranks."""
    inputs, output = run.inputs, run.config.output
    shape = (len(inputs.select), *inputs.shape)
    layer = layer_depth(shape, inputs.slice_bytes, USUAL_RANKS, output)
    return make_layout(shape, layer, output)


def check_layer(run: Run) -> None:
    """Raises `InputError` for mipmap factors or a layer that cannot be."""
    shape, output = (len(run.inputs.select), *run.inputs.shape), run.config.output
    layer_depth(shape, 1, 1, output)


def _write_bdv(run: Run, decisions: Sequence[Decision], stop: StopRequest) -> None:
    """Each round, every rank makes one layer and all write theirs together.

    Closed, the file gets its name. The file grows in the run folder. It is continued only if it was
    closed in good order, else made anew.
    """
    comm = run.comm
    layout = plan_layout(run)
    written = comm.bcast(_written_layers(run) if comm.rank == 0 else None)
    missing = [n for n in range(len(layout.layers)) if n not in written]
    if not missing and run.job.out.exists():
        return
    if comm.rank == 0:
        view_path(run.job, run.config).unlink(missing_ok=True)
    with Journal(run.journal, run.attempt, comm.rank, "write") as journal:
        journal.write({"kind": "begun", "layer_depth": layout.layer})
        journal.sync()
        dtype, output = run.inputs.dtype, run.config.output
        target = make_target(run.partial, layout, dtype, output, append=bool(written))
        with (
            BdvWriter(target, comm) as out,
            ThumbnailWriter(run.thumbnails, run.attempt, comm.rank, "write") as keeper,
            ProgressMeter(
                "write", layout.shape[0], len(written) * layout.layer, comm.rank == 0
            ) as meter,
        ):
            for done, layer in _rounds(missing, comm):
                if any(comm.allgather(bool(stop))):
                    break
                block = (
                    None if layer is None else _make_layer(run, layout, layer, decisions, keeper)
                )
                checksums = [c.tolist() for c in out.write(layer, block)]
                if layer is not None:
                    journal.write(
                        {"kind": "layer", "layer": layer, "checksums": checksums}, durable=False
                    )
                if meter.due():
                    meter.update(min(layout.shape[0], (len(written) + done) * layout.layer))
        journal.write({"kind": "closed"})
    if any(comm.allgather(bool(stop))):
        raise Stopped("writing")
    if comm.rank == 0:
        sync(run.partial)
        run.partial.replace(run.job.out)


def _rounds(missing: Sequence[int], comm: Any) -> Iterator[tuple[int, int | None]]:
    """The layer of this rank in each round, and how many all ranks have done before it.

    None: nothing left.
    """
    share = [missing[i] for i in split(len(missing), comm.size)[comm.rank]]
    for turn in range(-(-len(missing) // comm.size)):
        yield min(turn * comm.size, len(missing)), share[turn] if turn < len(share) else None


def _make_layer(
    run: Run, layout: Layout, layer: int, decisions: Sequence[Decision], keeper: ThumbnailWriter
) -> Slice:
    """The aligned slices of a layer, (z, y, x)."""
    slices = layout.layers[layer]
    block = np.empty((len(slices), *run.inputs.shape), run.inputs.dtype)
    for place, i in enumerate(slices):
        z = run.inputs.select[i]
        block[place] = aligned_slice(run.inputs, z, decisions[i], run.resampler)
        keeper.keep("aligned", z, block[place])
    return block


def _written_layers(run: Run) -> set[int]:
    """Layers that the file holds, if every rank that wrote it closed it in good order.

    Else it is made anew.
    """
    logs = sorted(run.journal.glob("*.write.log"))
    found = [list(records(run.journal, path.name)) for path in logs]
    sound = run.partial.exists() or run.job.out.exists()
    if sound and found and all(part and part[-1]["kind"] == "closed" for part in found):
        return {r["layer"] for part in found for r in part if r["kind"] == "layer"}
    forget_output(run)
    return set()
