"""Files of the direct writer: every shape, dtype and layout that it treats in a way of its own."""

from pathlib import Path

import numpy as np

from amst_hpc.bdv.chunks import Checksums
from amst_hpc.bdv.direct import DirectFile, read_addresses
from amst_hpc.bdv.file import Target, make_target
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout

SHAPE, LAYER = (13, 70, 75), 4

CASES = {  # name: shape, layer, dtype, output
    "uint8": (SHAPE, LAYER, "uint8", {}),
    "uint16": (SHAPE, LAYER, "uint16", {}),
    "legacy": (SHAPE, LAYER, "uint16", {"legacy": True}),
    "sizes divide": ((8, 64, 128), 4, "uint8", {}),
    "anisotropic": (SHAPE, 8, "uint16", {"factors": ((1, 2, 2), (2, 3, 2), (4, 1, 1))}),
    "anisotropic legacy": ((29, 70, 75), 8, "uint16", {"factors": ((2, 1, 3),), "legacy": True}),
    "one level": (SHAPE, LAYER, "uint16", {"levels": 1}),
    "one chunk": ((3, 20, 30), 4, "uint8", {"levels": 1}),
    "one chunk a level": ((3, 20, 30), 4, "uint16", {}),
    "one chunk legacy": ((3, 20, 30), 4, "uint16", {"legacy": True}),
    "one chunk a layer": ((9, 20, 30), 4, "uint8", {}),
    "exactly one chunk": ((4, 32, 32), 4, "uint8", {"levels": 2}),
    "one slice": ((1, 70, 75), 8, "uint8", {}),
    "odd chunks": ((17, 211, 107), 8, "uint8", {"chunk": 25}),
    "many chunks": ((70, 150, 90), 1, "uint8", {"factors": ((1, 2, 2),), "chunk": 8}),
    "many chunks legacy": ((150, 320, 250), 2, "uint16", {"levels": 1, "legacy": True}),
    "broken chunks legacy": ((70, 50, 30), 1, "uint16", {"levels": 1, "chunk": 8, "legacy": True}),
}


def make_case(path: Path, name: str) -> tuple[Target, np.ndarray]:
    """The file to write and its volume: noise over the whole range of the dtype."""
    shape, layer, dtype, settings = CASES[name]
    output = Output(**{"chunk": 32, "levels": 3, "compression": 0, **settings})
    volume = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return make_target(path, make_layout(shape, layer, output), dtype, output, False), volume


def write(
    target: Target, volume: np.ndarray, layers: list[int] | None = None
) -> dict[int, Checksums]:
    """Write layers (all of them in order), each of them through its own opening of the file."""
    checksums = {}
    addresses = read_addresses(target)
    for layer in range(len(target.layout.layers)) if layers is None else layers:
        with DirectFile(target.path, target.layout, addresses) as file:
            slices = target.layout.layers[layer]
            levels = pyramid(volume[slices.start : slices.stop], target.layout)
            checksums[layer] = file.write_layer(layer, levels)
            file.sync()
    return checksums
