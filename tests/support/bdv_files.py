"""BigDataViewer files that one process writes, and the mipmaps they should hold."""

import numpy as np
from mpi4py import MPI

from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout

SHAPE = (13, 70, 75)
LAYER = 4


def stack(dtype, shape=SHAPE):
    """Noise on a ramp that spans the dtype: no two chunks alike, some of it compresses."""
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, np.iinfo(dtype).max - 16, int(np.prod(shape))).reshape(shape)
    return (ramp + rng.integers(0, 16, shape)).astype(dtype)


def reference(block, factors):
    """Block mean in float64, round half up, edges replicated."""
    missing = [(0, -n % f) for n, f in zip(block.shape, factors, strict=True)]
    padded = np.pad(block, missing, mode="edge").astype(np.float64)
    (fz, fy, fx), (z, y, x) = factors, padded.shape
    mean = padded.reshape(z // fz, fz, y // fy, fy, x // fx, fx).mean(axis=(1, 3, 5))
    return np.floor(mean + 0.5).astype(block.dtype)


def write(path, volume, output, layers=None, append=False):
    layout = make_layout(volume.shape, LAYER, output)
    target = make_target(path, layout, volume.dtype, output, append)
    wanted = range(len(layout.layers)) if layers is None else layers
    with BdvWriter(target, MPI.COMM_SELF) as writer:
        sums = {
            i: writer.write(i, volume[layout.layers[i].start : layout.layers[i].stop])
            for i in wanted
        }
    return layout, sums


def small(**settings):
    return Output(**({"chunk": 32, "levels": 3, "writer": "funnel"} | settings))
