"""OME-Zarr folders: those of the writer, and such as other programs make."""

import dataclasses
from pathlib import Path

import numpy as np
import zarr
from direct_files import CASES, make_case

from amst_hpc.bdv.chunks import Checksums
from amst_hpc.bdv.file import Target
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.ome_zarr.folder import create_folder
from amst_hpc.ome_zarr.writing import ShardedFolder

NAMES = [name for name in CASES if "legacy" not in name]


def make_target(path: Path, name: str, compression: int = 0) -> tuple[Target, np.ndarray]:
    """The folder to write, laid out, and its volume: a case of `direct_files`."""
    target, volume = make_case(path, name)
    output = dataclasses.replace(target.output, format="ome-zarr", compression=compression)
    target = dataclasses.replace(target, output=output, token="0123456789abcdef")
    create_folder(target)
    return target, volume


def write(target: Target, volume: np.ndarray, layers: list[int]) -> dict[int, Checksums]:
    """Write layers, each of them through its own opening of the folder."""
    checksums = {}
    for layer in layers:
        slices = target.layout.layers[layer]
        with ShardedFolder(target) as folder:
            levels = pyramid(volume[slices.start : slices.stop], target.layout)
            checksums[layer] = folder.write_layer(layer, levels)
            folder.sync()
    return checksums


def read_level(folder: Path, level: int = 0) -> np.ndarray:
    """As zarr-python sees it."""
    return zarr.open_array(folder / str(level), mode="r")[...]


def save_image(
    folder: Path, volume: np.ndarray, axes: str = "zyx", version: str = "0.5", **options
) -> Path:
    """An OME-Zarr of one level that zarr-python writes."""
    kind = 3 if version == "0.5" else 2
    group = zarr.create_group(folder, zarr_format=kind, overwrite=True)
    chunks = (1,) * (volume.ndim - 3) + (2, 16, 20)
    array = group.create_array("full", **{"data": volume, "chunks": chunks, **options})
    del array
    units = {"z": "micrometer", "y": "nanometer", "x": "nanometer"}
    table = {
        "axes": [
            {"name": a, "type": "space", "unit": units[a]} if a in units else {"name": a}
            for a in axes
        ],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [0.02 if a == "z" else 4.0 for a in axes]}
                ],
            }
        ],
    }
    found = {"multiscales": [table if kind == 3 else {**table, "version": version}]}
    group.attrs.update({"ome": {"version": version, **found}} if kind == 3 else found)
    return folder
