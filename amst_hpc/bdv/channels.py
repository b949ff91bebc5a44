"""Several stacks in one BigDataViewer XML, each in a file of its own.

An XML names one HDF5 file. That is `OUT.setups.h5`, a small file of links: its setup 0 is the
setup 0 of OUT.h5, its setup 1 that of the first further file, and so on. No voxel is moved, and
OUT.h5 is not touched. Links are relative: the files can be moved together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py

from amst_hpc.bdv.file import LIBVER, sync
from amst_hpc.bdv.metadata import Channel, master_path


def write_master(h5_path: Path, channels: Sequence[Channel]) -> None:
    """The file of links beside OUT.h5; whole or not at all. Raises OSError."""
    master = master_path(h5_path)
    partial = master.with_name(f".{master.name}.part")
    with h5py.File(partial, "w", libver=LIBVER, locking=False) as file:
        for setup, target in [(0, h5_path), *((c.setup, c.file) for c in channels)]:
            name = os.path.relpath(target.absolute(), master.absolute().parent)
            file[f"s{setup:02d}"] = h5py.ExternalLink(name, "s00")
            file[f"t00000/s{setup:02d}"] = h5py.ExternalLink(name, "t00000/s00")
    sync(partial)
    partial.replace(master)
