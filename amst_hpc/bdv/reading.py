"""Reads a dataset of an HDF5 file, slices at a time."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from amst_hpc.bdv.metadata import cells
from amst_hpc.transform import Block


class VolumeReader:
    """A (z, y, x) dataset; 16 bits that were stored as int16 (`output.legacy`) come as uint16."""

    def __init__(self, path: Path, dataset: str = "") -> None:
        """dataset : its name; empty: BigDataViewer's first setup, full size.

        Raises OSError if the file is not readable HDF5, LookupError if it has no such dataset.
        """
        name = dataset or cells(0)
        file = h5py.File(path, "r")
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            names: list[str] = []
            file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None)
            file.close()
            raise LookupError(f"no dataset /{name}; it holds {', '.join(names[:6]) or 'none'}")
        self._file, self._dataset = file, found
        self.name = name
        self.shape: tuple[int, ...] = found.shape
        self.dtype = np.dtype(np.uint16) if found.dtype == np.int16 else found.dtype

        self.chunk_depth: int = found.chunks[0] if found.chunks else 1

    def read_into(self, block: Block, start: int) -> None:
        """Fill `block` (z, y, x), of dtype `dtype`, with the slices from `start` on.

        Raises OSError.
        """
        stored = block.view(self._dataset.dtype)
        self._dataset.read_direct(stored, np.s_[start : start + len(block)])
