"""The aligned stack, made slice by slice: raw, resampled once with the settled transforms."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amst_hpc.config import Config
from amst_hpc.images.pairing import Inputs
from amst_hpc.images.stack import SliceError
from amst_hpc.opencl.resampling import Resampler, make_resampler
from amst_hpc.parallel.communicator import Communicator
from amst_hpc.parallel.node import local_place
from amst_hpc.parallel.signals import StopRequest
from amst_hpc.quality.thumbnails import ThumbnailWriter
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import Block, Image, resample


@dataclass(frozen=True)
class AlignedStack:
    """The output, computed when it is asked for.

    results : of the slices `inputs.select`, with their transforms.
    """

    inputs: Inputs
    results: Sequence[SliceResult]
    resampler: Resampler = resample

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

    def make_layer(
        self, slices: range, block: Block, thumbnails: ThumbnailWriter, stop: StopRequest
    ) -> Block | None:
        """These slices of the output in the first slices of `block`; None if asked to stop."""
        for place, i in enumerate(slices):
            if stop:
                return None
            block[place] = self.slice(i)
            thumbnails.add("aligned", self.results[i].z, block[place])
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
    """`transform.resample`, or its twin on the rank's GPU."""
    if config.coarse.method != "sift":
        return resample
    return make_resampler(config.coarse.device, local_place(comm)[0])
