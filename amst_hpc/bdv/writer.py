"""Writes a BigDataViewer HDF5 file layer by layer; which writer stores it is a setting."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from amst_hpc.bdv.chunks import Checksums
from amst_hpc.bdv.collective import CollectiveStore
from amst_hpc.bdv.file import Target, is_parallel, naming_errors
from amst_hpc.bdv.funnel import FunnelStore
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.storage import create_striped
from amst_hpc.config import InputError, Output
from amst_hpc.transform import Block

# HDF5's own gzip takes five times as long per rank as isal's, which one rank stores at 700 MB/s
COLLECTIVE_RANKS = 16


def choose_writer(output: Output, comm_size: int) -> str:
    """ "direct" (see `direct`), "collective" or "funnel" (see `BdvWriter`); "shards" for OME-Zarr.

    Raises `InputError` if collective is asked for and h5py has no MPI.
    """
    if output.format == "ome-zarr":
        return "shards"
    parallel = is_parallel()
    if output.writer == "collective" and not parallel:
        raise InputError(
            'output.writer = "collective": this h5py has no MPI; expected "funnel" or "auto"'
        )
    if output.writer == "auto":
        if output.compression == 0:
            return "direct"
        return "collective" if parallel and comm_size >= COLLECTIVE_RANKS else "funnel"
    return output.writer


INDEPENDENT = ("direct", "shards")
"""Writers with which each rank writes its layers for itself, at any time, also again."""


class LayerStore(Protocol):
    """Where `BdvWriter` puts the levels of a layer. `store` and `close` are collective."""

    def store(self, layer: int, levels: list[Block]) -> Checksums:
        """Write a layer on all levels; an idle rank hands in no levels."""

    def close(self) -> None:
        """Close the file; it is complete on return, for every rank."""

    def abandon(self) -> None:
        """After an exception: close what can be closed without the other ranks."""


STORES: dict[str, Callable[[Target, Any], LayerStore]] = {
    "collective": CollectiveStore,
    "funnel": FunnelStore,
}


class BdvWriter:
    """Writes a BigDataViewer HDF5 file layer by layer; entering, `write` and exit are collective.

    Both writers (`choose_writer`) give the same values. After an exception the file is unusable and
    the ranks must be aborted: no rank waits for the others in the exit.

    target : as `make_target` gives it. comm : a communicator with mpi4py's methods.
    Raises `InputError` if the writer is not available or the file does not open or suit.
    """

    def __init__(self, target: Target, comm: Any) -> None:
        self.target, self.comm = target, comm
        self._make_store = STORES[choose_writer(target.output, comm.size)]

    def __enter__(self) -> Self:
        if not self.target.append:
            if self.comm.rank == 0:
                create_striped(self.target.path, self.target)
            self.comm.Barrier()
        self._store = self._make_store(self.target, self.comm)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            with naming_errors(self.target.path):
                self._store.close()
        else:
            self._store.abandon()

    def write(self, layer: int | None, block: Block | None) -> Checksums:
        """Write one layer on all levels; every rank calls it equally often, idle ones with None.

        block : the slices of this layer, (z, y, x), in the dtype of the writer; it may change when
        the next one was written.
        Returns the CRC-32 of the uncompressed valid region of each chunk; [] on an idle rank.
        Raises OSError where the file cannot be written (funnel: on rank 0).
        """
        if layer is None or block is None:
            return self._put(0, [])
        layout, dtype = self.target.layout, self.target.dtype
        expected = (len(layout.layers[layer]), *layout.shape[1:])
        if block.shape != expected or block.dtype != dtype:
            found = f"{block.shape} {block.dtype}"
            raise ValueError(f"layer {layer} is {found}, expected {expected} {dtype}")
        made = pyramid(block, layout, self.target.labels)
        levels = [level.view(self.target.stored) for level in made]
        return self._put(layer, levels)

    def _put(self, layer: int, levels: list[Block]) -> Checksums:
        with naming_errors(self.target.path):
            return self._store.store(layer, levels)
