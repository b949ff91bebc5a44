"""Run by test_bdv_mpi.py on several ranks: writes, or continues, files layer by layer.

Argument: a JSON list of jobs: path and source (.npy) of the stack, the fields of Output, the layer
depth, the layers to write, whether to append, whether the last rank fails after its first layer,
the bytes that fit on the disk (0: enough), and what stands for /proc/mounts. Rank 0 leaves the
checksums of all layers beside each file.
"""

import json
import pickle
import resource
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
from mpi4py import MPI

from amst_hpc.bdv import storage
from amst_hpc.bdv.direct import DirectFile, create_file, read_addresses
from amst_hpc.bdv.file import Target, make_target
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.writer import BdvWriter, choose_writer
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout, split


class DirectWriter:
    """The direct writer with the methods of `BdvWriter`."""

    def __init__(self, target: Target, comm: MPI.Comm) -> None:
        find = read_addresses if target.append else create_file
        addresses = comm.bcast(find(target) if comm.rank == 0 else None)
        self.target, self.file = target, DirectFile(target.path, target.layout, addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, layer: int | None, block: Any) -> Any:
        """Only what there is."""
        if layer is None:
            return []
        levels = pyramid(block, self.target.layout)
        return self.file.write_layer(layer, [level.view(self.target.stored) for level in levels])


def write_file(job: dict[str, Any], comm: MPI.Comm) -> None:
    stack = np.load(job["source"], mmap_mode="r")
    output = Output(**job["output"])
    layout = make_layout(stack.shape, job["layer"], output)
    shares = split(len(job["layers"]), comm.size)
    mine = [job["layers"][i] for i in shares[comm.rank]]
    checksums = {}
    if job["disk"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["disk"], job["disk"]))
    storage.MOUNTS = Path(job["mounts"])
    path = Path(job["path"])
    target = make_target(path, layout, stack.dtype, output, append=job["append"])
    kind = DirectWriter if choose_writer(output, comm.size) == "direct" else BdvWriter
    with kind(target, comm) as writer:
        for turn in range(max(map(len, shares))):
            layer = mine[turn] if turn < len(mine) else None
            slices = None if layer is None else layout.layers[layer]
            block = None if slices is None else stack[slices.start : slices.stop]
            written = writer.write(layer, block)
            if layer is not None:
                checksums[layer] = written
            if job["fail"] and comm.rank == comm.size - 1:
                raise RuntimeError("the last rank fails")
    gathered = comm.gather(checksums)
    if gathered is not None:
        merged = {layer: sums for part in gathered for layer, sums in part.items()}
        Path(f"{path}.crc").write_bytes(pickle.dumps(merged))


def main(jobs: list[dict[str, Any]]) -> None:
    try:
        for job in jobs:
            write_file(job, MPI.COMM_WORLD)
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(7)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
