"""How the growing file lies on the disks: in stripes on Lustre, its space kept where that can be.

Lustre gives a file its stripes when it is made, and keeps them when it is filled or renamed. The
advice for one large file that all nodes write is to use all OSTs (`lfs setstripe -c -1`): none lies
idle, and each gets an equal part of some terabytes. A small one is better left to its folder.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import re
import shutil
import subprocess
from pathlib import Path

from amst_hpc.bdv.file import Target

log = logging.getLogger(__name__)

MOUNTS = Path("/proc/mounts")
STRIPE_BYTES = 4 << 20
"""A write of the direct writer; the manual of Lustre advises 1 to 4 MiB."""
SMALL_BYTES = 1 << 30
"""Of full size; a smaller file is not put on all OSTs."""


def create_striped(path: Path, target: Target) -> None:
    """On Lustre, make an empty file for `target` with `output.stripes`, in place of an old one.

    Elsewhere, for a small file unless stripes are counted, or where `lfs` is not there or fails,
    none is made, and the file gets the stripes of its folder.
    """
    stripes = target.output.stripes
    small = math.prod(target.layout.shape) * target.stored.itemsize < SMALL_BYTES
    if stripes == 0 or (stripes < 0 and small) or not is_lustre(path):
        return
    program = shutil.which("lfs")
    if program is None:
        log.info("%s: no lfs on PATH, so the file has the stripes of its folder", path)
        return
    path.unlink(missing_ok=True)
    command = [program, "setstripe", "-c", str(stripes), "-S", str(STRIPE_BYTES), str(path)]
    try:
        subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "")).strip().splitlines() or [str(error)]
        log.warning("lfs setstripe: %s; the file has the stripes of its folder", said[-1])


def is_lustre(path: Path) -> bool:
    """Is a file there, or would it be, on Lustre?"""
    return file_system(path.parent.resolve(), MOUNTS.read_text(errors="replace")) == "lustre"


def file_system(folder: Path, mounts: str) -> str:
    """The type of the file system of a folder, absolute and without links.

    mounts : the text of /proc/mounts; the last one of a place covers those before.
    """
    longest, found = -1, ""
    for line in mounts.splitlines():
        _, place, kind = line.split(" ")[:3]
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)
        if len(place) >= longest and folder.is_relative_to(place):
            longest, found = len(place), kind
    return found


def allocate(descriptor: int, size: int) -> int:
    """Allocate the first `size` bytes of a file; the error number, 0 if it was done."""
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while call(descriptor, 0, 0, size) != 0:
        if (code := ctypes.get_errno()) != errno.EINTR:
            return code
    return 0
