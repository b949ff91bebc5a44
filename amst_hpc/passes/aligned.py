"""The aligned stack, made slice by slice: raw, resampled once with the settled transforms."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from amst_hpc.config import Config
from amst_hpc.images.ahead import ReadAhead
from amst_hpc.images.pairing import Inputs
from amst_hpc.opencl.resampling import Resampler, make_resampler
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.quality.thumbnails import ThumbnailWriter, look_at
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Block, Image, resample

AHEAD = 3  # slices of raw in hand: one is resampled, the next are read


@dataclass(frozen=True)
class AlignedStack:
    """The output, computed when it is asked for.

    results : of the slices `inputs.select`, with their transforms. labels : no value may be made
    that raw has not.
    """

    inputs: Inputs
    results: Sequence[SliceResult]
    resampler: Resampler = resample
    labels: bool = False

    def slices(self, wanted: Sequence[int]) -> Generator[Image, None, None]:
        """These slices of the output, (y, x), one after the other; black where there is no
        transform or no raw slice. Raw is read ahead. Raises what `read` does.
        """
        inputs, results = self.inputs, [self.results[i] for i in wanted]
        with ReadAhead(inputs.raw, inputs.slice_bytes) as raw:
            ahead = replace(inputs, raw=raw, canvas=None)  # it is resampled once, below
            for n, result in enumerate(results):
                raw.expect(r.z for r in results[n : n + AHEAD] if r.transform is not None)
                image = None if result.transform is None else self.read(ahead, result)
                if result.transform is None or image is None:
                    yield np.zeros(inputs.shape, inputs.dtype)
                else:
                    yield self.resampler(image, result.transform, inputs.shape)

    def read(self, inputs: Inputs, result: SliceResult) -> Image | None:
        """A raw slice as it is; None: it stays black.

        Raises OSError if it is not there any more as it was registered: see `Inputs.read_again`.
        """
        return inputs.read_again(result.z, result.crc)[0]

    def make_layer(
        self, slices: range, block: Block, thumbnails: ThumbnailWriter, stop: StopRequest
    ) -> Block:
        """These slices of the output in the first slices of `block`. Raises `LeaveOff`."""
        with closing(self.slices(slices)) as images:
            for place, i in enumerate(slices):
                stop.look()
                block[place] = next(images)
                thumbnails.add("aligned", self.results[i].z, look_at(block[place]))
        return block[: len(slices)]

    def new_block(self, slices: int) -> Block:
        """Memory for a layer; it is used again and again, since new pages are dear."""
        return np.empty((slices, *self.inputs.shape), self.inputs.dtype)

    def key(self, slices: range) -> str:
        """Changes when pixels or transform of these slices do: what was written is then stale."""
        digest = hashlib.sha256()
        for i in slices:
            transform, crc = self.results[i].transform, self.results[i].crc
            digest.update(str(crc).encode())
            digest.update(b"none" if transform is None else np.float64(transform).tobytes())
        return digest.hexdigest()[:16]


def open_resampler(config: Config, comm: Communicator) -> Resampler:
    """`transform.resample`, or its twin on the rank's device."""
    return make_resampler(config.coarse.device, local_place(comm)[0])
