"""`amst-hpc`, slower and with a fault inside: the variable FAULTS holds a JSON object.

register, compare, pair, make, write : seconds to wait before each slice, each pair of raw alone,
each other pair, before each layer is made, and before it is stored.
slow : [rank, times]; this rank waits so many times as long.
crash : the slice at which elastix is made to die of SIGSEGV.
sync : seconds after which layers that were written are put on disk.
written : a file that gets the number of each layer that is begun to be stored.
kill : "module:function" of the program; who calls it gets SIGKILL.
hidden : [rank, end]; this rank does not see a file whose path ends so.
"""

import errno
import importlib
import json
import os
import signal
import time
from pathlib import Path

from amst_hpc.bdv.direct import DirectFile
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.cli.app import main
from amst_hpc.ome_zarr.writing import ShardedFolder
from amst_hpc.passes import pair, prealign, register, write
from amst_hpc.passes.aligned import AlignedStack

FAULTS = json.loads(os.environ.get("FAULTS", "{}"))
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def slow(function, work):
    """`function`, FAULTS[work] seconds later."""
    rank, times = FAULTS.get("slow", (0, 1))
    seconds = FAULTS.get(work, 0) * (times if rank == RANK else 1)

    def wrapped(*args, **kwargs):
        time.sleep(seconds)
        return function(*args, **kwargs)

    return wrapped


def dying(make):
    """A maker of backends that die at slice FAULTS["crash"], as a fault in the library would."""
    find_affine = register.Registrar.find_affine

    def spy(self, result, *args, **kwargs):
        os.environ["SLICE_IN_HAND"] = str(result.z)
        return find_affine(self, result, *args, **kwargs)

    register.Registrar.find_affine = spy

    def wrapped(*settings):
        backend = make(*settings)

        def refine(template, raw, shift):
            if os.environ["SLICE_IN_HAND"] == str(FAULTS["crash"]):
                os.kill(os.getpid(), signal.SIGSEGV)
            return backend(template, raw, shift)

        return refine

    return wrapped


def noted(write_layer, path):
    """`write_layer` that leaves a word of each layer before it is written."""

    def wrapped(self, layer, levels):
        with path.open("a") as file:
            file.write(f"{layer}\n")
        return write_layer(self, layer, levels)

    return wrapped


def deadly(place):
    """Put SIGKILL in the place of "module:function"."""
    module, name = place.split(":")
    setattr(importlib.import_module(module), name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def hide(rank, end):
    """What ends on `end` is not there for one rank, as on a node with another file system."""
    if rank != RANK:
        return
    for method in ("stat", "open"):
        found = getattr(Path, method)

        def missing(self, *args, found=found, **options):
            if str(self).endswith(end):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
            return found(self, *args, **options)

        setattr(Path, method, missing)


if __name__ == "__main__":
    register.Registrar.register = slow(register.Registrar.register, "register")
    prealign.Comparer.register = slow(prealign.Comparer.register, "compare")
    pair.Pairer.register = slow(pair.Pairer.register, "pair")
    AlignedStack.make_layer = slow(AlignedStack.make_layer, "make")
    BdvWriter.write = slow(BdvWriter.write, "write")
    DirectFile.write_layer = slow(DirectFile.write_layer, "write")
    ShardedFolder.write_layer = slow(ShardedFolder.write_layer, "write")
    if "written" in FAULTS:
        DirectFile.write_layer = noted(DirectFile.write_layer, Path(FAULTS["written"]))
    write.SYNC_SECONDS = FAULTS.get("sync", write.SYNC_SECONDS)
    if "crash" in FAULTS:
        register.make_refine = dying(register.make_refine)
    if "kill" in FAULTS:
        deadly(FAULTS["kill"])
    if "hidden" in FAULTS:
        hide(*FAULTS["hidden"])
    main()
