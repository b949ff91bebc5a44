"""An image of an OME-Zarr, or an array of any Zarr, as a stack."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from amst_hpc.config import PASSING_ERRORS, InputError
from amst_hpc.images.chunked import ChunkedStack
from amst_hpc.images.stack import first_line
from amst_hpc.images.voxel_size import UNKNOWN, VoxelSize, accept
from amst_hpc.ome_zarr.reading import ZarrVolume


class ZarrStack(ChunkedStack):
    """The full size of an OME-Zarr image, or one of its levels."""

    def __init__(self, folder: Path, option: str) -> None:
        """Raises `InputError`."""
        try:
            volume = ZarrVolume(folder)
        except OSError as error:
            if error.errno in PASSING_ERRORS:
                raise
            raise InputError(f"{option} {first_line(error)}") from None
        except LookupError as error:
            raise InputError(f"{option} {folder}: {error.args[0]}") from None
        super().__init__(volume, str(volume.path), option)
        self.files = [volume.path]
        self._volume = volume
        self._stamped = (-1, "")  # the last slice that was asked for, and of its row of chunks

    @cached_property
    def voxel_size(self) -> VoxelSize:
        """By the scale of its level and the units of the axes."""
        size = self._volume.voxel_size_nm
        return accept(size, "OME-Zarr metadata") if size else UNKNOWN

    def stamp(self, z: int) -> str:
        """See `Stack`. Of the files of a row of chunks; from slice to slice of a row it is kept."""
        last, stamp = self._stamped
        if last != z - 1 or z % self._volume.row_depth == 0:
            stamp = self._volume.row_stamp(z // self._volume.row_depth)
        self._stamped = (z, stamp)
        return f"{self.files[0].name}:{stamp}#{z}"
