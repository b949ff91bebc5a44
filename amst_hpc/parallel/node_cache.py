"""What was compiled on this node is kept there between runs.

A process compiles into a scratch folder of its own: compilers' caches collide where processes share
them, and a compiler that is killed leaves half an entry. What is complete goes as one archive, put
in place whole, into a folder of the user on the node's own disk; later processes unpack it. A
folder of somebody else, or an archive that is damaged, counts as none.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE = 120.0  # s that a process waits for another one to compile
KEPT = 30 * 86400.0  # s
NOT_KEPT = ("cuda", "pytools", "vendors")  # files of many processes, paths of one
SCRATCH = "AMST_HPC_SCRATCH"  # the variable that names the scratch folder of this process


def node_folder() -> Path | None:
    """The user's folder on this node's disk; None where it is not his alone."""
    path = Path(tempfile.gettempdir()) / f"amst_hpc-kernels-{os.getuid()}-{platform.node()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        log.debug("nothing is kept on this node: %s", error)
        return None
    alone = found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700
    return path if alone and stat.S_ISDIR(found.st_mode) else None


def use_scratch(scratch: Path) -> None:
    """What libraries of this process compile or look up for later goes there."""
    for variable in (SCRATCH, "XDG_CACHE_HOME"):
        os.environ[variable] = str(scratch)


@contextmanager
def kept_on_node(*key: str) -> Iterator[bool]:
    """What was made in the scratch folder under `key` on this node is there again: True; else
    False, and what the block makes is kept unless it raises.

    Waits while another process makes the same.
    """
    folder, scratch = node_folder(), Path(os.environ.get(SCRATCH, ""))
    if folder is None or SCRATCH not in os.environ:
        yield False
        return
    digest = hashlib.sha256("\0".join((*key, _processor())).encode())
    archive = folder / f"{digest.hexdigest()[:32]}.zip"
    with ExitStack() as stack:
        there = _unpack(archive, scratch)
        if not there:
            stack.enter_context(_turn(archive.with_suffix(".lock")))
            there = _unpack(archive, scratch)
        if there:
            stack.close()
        before = _files(scratch)
        yield there
        if not there:
            _pack(archive, scratch, _files(scratch) - before)


def _processor() -> str:
    """What compilers for a processor look at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _files(scratch: Path) -> set[Path]:
    """Those that can be kept, relative to `scratch`."""
    found = (path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file())
    return {path for path in found if path.parts[0] not in NOT_KEPT and path.name != "lock"}


def _unpack(archive: Path, scratch: Path) -> bool:
    """True if it was there and whole."""
    try:
        with zipfile.ZipFile(archive) as file:
            if file.testzip() is not None:
                return False
            file.extractall(scratch)
    except FileNotFoundError:
        return False
    except Exception as error:  # damaged ones raise what the damage makes of them
        log.debug("%s is not used: %s", archive, error)
        return False
    return True


def _pack(archive: Path, scratch: Path, files: set[Path]) -> None:
    part = archive.with_suffix(f".{os.getpid()}")
    try:
        with zipfile.ZipFile(part, "w") as file:
            for path in sorted(files):
                file.write(scratch / path, path)
        part.replace(archive)
        for old in archive.parent.glob("*.*"):
            if old.stat().st_mtime < time.time() - KEPT:
                old.unlink()
    except (OSError, ValueError) as error:  # ValueError: a date that zip cannot write
        log.debug("not kept on this node: %s", error)
        part.unlink(missing_ok=True)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process after the other; a lock is gone with its process, and not waited for for ever."""
    try:
        file = path.open("w")
    except OSError as error:
        log.debug("no lock on this node: %s", error)
        yield
        return
    with file:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield
