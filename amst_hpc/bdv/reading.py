"""Reads a dataset of an HDF5 file, slices at a time."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from amst_hpc.bdv.metadata import cells
from amst_hpc.bdv.sources import axis_order, element_size_nm, source_files, unwritten_chunks
from amst_hpc.transform import Block

VIEW = re.compile(r"/?t([0-9]{5,})/s([0-9]{2,})/[0-9]+/cells")


def list_views(path: Path) -> list[tuple[int, int]]:
    """(timepoint, setup) of each volume of a BigDataViewer file. Raises OSError."""
    with h5py.File(path, "r") as file:
        times = [t for t in file if re.fullmatch("t[0-9]{5,}", t)]
        names = [f"{t}/{s}/0/cells" for t in times for s in getattr(file.get(t), "keys", list)()]
        return [(int(m[1]), int(m[2])) for n in names if (m := VIEW.fullmatch(n)) and n in file]


def _is_legacy(dataset: h5py.Dataset) -> bool:
    """True for BigDataViewer's int16 of old, which holds the bits of uint16."""
    view = VIEW.fullmatch(dataset.name)
    if dataset.dtype != np.int16 or not view:
        return False
    said = (
        dataset.file[f"s{view[2]}"].attrs.get("dataType") if f"s{view[2]}" in dataset.file else None
    )
    return said not in ("int16", b"int16")


class VolumeReader:
    """A (z, y, x) dataset; BigDataViewer's int16 is uint16 unless it says otherwise."""

    def __init__(self, path: Path, dataset: str = "") -> None:
        """dataset : its name; empty: BigDataViewer's first setup, full size.

        Raises OSError if the file is not readable HDF5, LookupError if it has no such dataset, or
        not all of it.
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
        self.files = source_files(found)
        self.axes = axis_order(found)
        self.element_size_nm = element_size_nm(found)
        self.name = name
        self.shape: tuple[int, ...] = found.shape or ()  # None where it holds nothing
        self.dtype = np.dtype(np.uint16) if _is_legacy(found) else found.dtype
        self.chunk_depth: int = found.chunks[0] if found.chunks else 1

    def unwritten_chunks(self) -> tuple[int, int]:
        """See `sources.unwritten_chunks`."""
        return unwritten_chunks(self._dataset)

    def read_into(self, block: Block, start: int, corner: tuple[int, int] = (0, 0)) -> None:
        """Fill `block` (z, y, x), of dtype `dtype`, with the slices from `start` on.

        corner : (y, x) where it begins in each. Raises OSError.
        """
        begin = (start, *corner)
        place = tuple(slice(a, a + n) for a, n in zip(begin, block.shape, strict=True))
        self._dataset.read_direct(block.view(self._dataset.dtype), place)
