"""The second pass: raw is resampled once with the settled transforms, written layer by layer."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from amst_hpc.bdv.file import make_target, sync
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.config import Config, Output
from amst_hpc.geometry import Layout, layer_depth, make_layout, split
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError
from amst_hpc.images.tiff_output import is_whole, write_slice
from amst_hpc.job.journal import records
from amst_hpc.job.progress import ProgressMeter
from amst_hpc.job.run_folder import Attempt, view_path
from amst_hpc.opencl.resampling import Resampler, make_resampler
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.quality.thumbnails import ThumbnailWriter
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Image, resample

USUAL_RANKS = 64  # that layers are made for


@dataclass(frozen=True)
class AlignedStack:
    """The aligned stack, made slice by slice: raw, resampled once.

    results : of the slices `inputs.select`, with their transforms.
    """

    inputs: Inputs
    results: Sequence[SliceResult]
    resampler: Resampler = resample

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return (len(self.results), *self.inputs.shape)

    def slice(self, i: int) -> Image:
        """Slice i of the output, (y, x); black where there is no transform.

        Raises OSError if a slice that was registered cannot be read any more: the job ends, and
        goes on when the slice is back.
        """
        inputs, result = self.inputs, self.results[i]
        if result.transform is None:
            return np.zeros(inputs.shape, inputs.dtype)
        try:
            return self.resampler(inputs.raw.read(result.z), result.transform, inputs.shape)
        except SliceError as error:
            raise OSError(errno.EIO, f"was registered, but cannot be read now: {error}") from None

    def layer(self, slices: range, thumbnails: ThumbnailWriter | None = None) -> Image:
        """These slices of the output, (z, y, x)."""
        block = np.empty((len(slices), *self.inputs.shape), self.inputs.dtype)
        for place, i in enumerate(slices):
            block[place] = self.slice(i)
            if thumbnails:
                thumbnails.add("aligned", self.results[i].z, block[place])
        return block


def write_output(
    aligned: AlignedStack, config: Config, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """Write the aligned stack in the format of the configuration; collective. Raises `Stopped`."""
    write = _write_tiffs if config.output.format == "tif" else _write_bdv
    write(aligned, config.output, attempt, comm, stop)


def open_resampler(config: Config, comm: Communicator) -> Resampler:
    """`transform.resample`, or its twin on the rank's GPU."""
    if config.coarse.method != "sift":
        return resample
    return make_resampler(config.coarse.device, local_place(comm)[0])


def _write_tiffs(
    aligned: AlignedStack, output: Output, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """A folder of TIFF slices with the names of raw; slices that are there and whole are kept."""
    attempt.out.mkdir(exist_ok=True)
    share = split(len(aligned.results), comm.size)[comm.rank]
    shape, dtype = aligned.inputs.shape, np.dtype(aligned.inputs.dtype)
    with (
        ThumbnailWriter(attempt.thumbnails, attempt.number, comm.rank, "write") as thumbnails,
        ProgressMeter("write", len(share), 0, comm.rank == 0) as meter,
    ):
        for done, i in enumerate(share):
            if stop:
                break
            path = attempt.out / aligned.results[i].file
            if not is_whole(path, shape, dtype):
                image = aligned.layer(range(i, i + 1), thumbnails)[0]
                write_slice(path, image, output.compression)
            if meter.due():
                meter.update(done)
    stop.raise_together(comm, "writing")


def plan_layout(inputs: Inputs, output: Output) -> Layout:
    """Layers, levels and chunks: of the stack alone, the same for every number of ranks."""
    shape = (len(inputs.select), *inputs.shape)
    layer = layer_depth(shape, inputs.slice_bytes, USUAL_RANKS, output)
    return make_layout(shape, layer, output)


def check_layer(inputs: Inputs, output: Output) -> None:
    """Raises `InputError` for mipmap factors or a layer that cannot be."""
    layer_depth((len(inputs.select), *inputs.shape), 1, 1, output)


def _write_bdv(
    aligned: AlignedStack, output: Output, attempt: Attempt, comm: Communicator, stop: StopRequest
) -> None:
    """Each round, every rank makes one layer and all write theirs together."""
    layout = plan_layout(aligned.inputs, output)
    written = comm.bcast(_written_layers(attempt) if comm.rank == 0 else None)
    missing = [n for n in range(len(layout.layers)) if n not in written]
    if not missing and attempt.out.exists():
        return
    if comm.rank == 0:
        view_path(attempt.out, output).unlink(missing_ok=True)
    with attempt.open_journal(comm.rank, "write") as journal:
        journal.write({"kind": "begun", "layer_depth": layout.layer})
        journal.sync()
        total, dtype = layout.shape[0], aligned.inputs.dtype
        target = make_target(attempt.partial, layout, dtype, output, append=bool(written))
        with (
            BdvWriter(target, comm) as out,
            ThumbnailWriter(attempt.thumbnails, attempt.number, comm.rank, "write") as thumbnails,
            ProgressMeter("write", total, len(written) * layout.layer, comm.rank == 0) as meter,
        ):
            for done, layer in _rounds(missing, comm):
                if any(comm.allgather(bool(stop))):
                    break
                if layer is None:
                    out.write(None, None)
                else:
                    block = aligned.layer(layout.layers[layer], thumbnails)
                    sums = [c.tolist() for c in out.write(layer, block)]
                    record = {"kind": "layer", "layer": layer, "checksums": sums}
                    journal.write(record, durable=False)
                if meter.due():
                    meter.update(min(total, (len(written) + done) * layout.layer))
        journal.write({"kind": "closed"})
    stop.raise_together(comm, "writing")
    if comm.rank == 0:
        sync(attempt.partial)
        attempt.partial.replace(attempt.out)


def _rounds(missing: Sequence[int], comm: Communicator) -> Iterator[tuple[int, int | None]]:
    """The layer of this rank in each round, and how many all ranks have done before it.

    None: nothing left.
    """
    share = [missing[i] for i in split(len(missing), comm.size)[comm.rank]]
    for turn in range(-(-len(missing) // comm.size)):
        yield min(turn * comm.size, len(missing)), share[turn] if turn < len(share) else None


def _written_layers(attempt: Attempt) -> set[int]:
    """Layers that the file holds, if every rank that wrote it closed it in good order.

    Else it is made anew.
    """
    logs = sorted(attempt.journal.glob("*.write.log"))
    found = [list(records(attempt.journal, path.name)) for path in logs]
    sound = attempt.partial.exists() or attempt.out.exists()
    if sound and found and all(part and part[-1]["kind"] == "closed" for part in found):
        return {r["layer"] for part in found for r in part if r["kind"] == "layer"}
    attempt.forget_output()
    return set()
