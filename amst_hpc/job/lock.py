"""The lock on an output: one job at a time writes it.

The lock is a file in `OUT.amst/lock/`, taken by a hard link (flufl.lock), which is atomic on NFS
and Lustre, too. Its holder shows a sign of life every `HEARTBEAT_SECONDS`; after `STALE_SECONDS`
without one, or when the holder's process on this machine is gone, the lock is anyone's. A holder
that finds its lock taken ends at once: a node that was lost and goes on cannot harm its successor.

A job of the whole output holds `job`; the tasks of an array, which write to different layers, hold
`block-N` each, and these and `job` exclude each other.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from flufl.lock import Lock, NotLockedError, TimeOutError

from amst_hpc.config import InputError
from amst_hpc.parallel.node import batch_job

log = logging.getLogger(__name__)
logging.getLogger("flufl.lock").setLevel(logging.CRITICAL)  # what it finds, is said here

STALE_SECONDS = 300.0
HEARTBEAT_SECONDS = 20.0
WAIT_SECONDS = 5.0
SLOP_SECONDS = 11.0  # flufl.lock's own allowance for clocks that differ, and one
BREAK_SECONDS = 10  # it takes to break a lock that has expired
GRACE_SECONDS = 1.0  # for the processes of a job that mpirun is ending
WHOLE = "job"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class OutputLock:
    """Held from `take` to `release`; on one rank of a job."""

    def __init__(self, folder: Path, block: int = 0, on_loss: Callable[[], Any] = os.abort) -> None:
        """folder : `OUT.amst`. block : of an array, from 1. on_loss : called when it was taken."""
        # a compiler of OpenCL changes the working folder of the process for a while
        self.folder = folder.absolute() / "lock"
        self.name = f"block-{block:04d}" if block else WHOLE
        self.on_loss = on_loss
        self._stop = threading.Event()
        self._lock: Lock | None = None
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Raises `InputError` that names the holder; a job of the same number is waited for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _make(self.folder / self.name)
        try:
            while not self._try():
                time.sleep(WAIT_SECONDS)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            log.warning("%s: this file system has no hard links: OUT is not locked", self.folder)
            return
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _try(self) -> bool:
        """True when it is ours. Raises `InputError` where another job holds it or a rival of it."""
        if self._lock is None:
            raise RuntimeError("take() makes the lock")
        rivals = [self.folder / self.name, *self._rivals()]
        try:
            self._lock.lock(timeout=0 if _is_held(rivals[0]) else BREAK_SECONDS)
        except TimeOutError:
            return self._refuse(rivals[0])
        (self.folder / f"{self.name}.json").write_text(json.dumps({"job": batch_job()}))
        for path in rivals[1:]:
            if _is_held(path):
                self._lock.unlock()
                return self._refuse(path)
        return True

    def _rivals(self) -> list[Path]:
        """The locks that exclude this one."""
        if self.name != WHOLE:
            return [self.folder / WHOLE]
        return [p for p in self.folder.glob("block-*") if "|" not in p.name and not p.suffix]

    def _refuse(self, path: Path) -> bool:
        """False for a holder that will be gone soon: one of the same Slurm job, from before a
        requeue, or one that is just being ended on this machine.
        """
        host, pid, job, quiet = _holder(path)
        if host == socket.getfqdn() and _ends_soon(pid):
            return False
        if job and job == batch_job():
            log.warning("%s is held by this job's last start on %s: waiting", path, host)
            return False
        number = f", job {job}" if job else ""
        raise InputError(
            f"OUT {self.folder.parent}: another job writes it (process {pid} on {host}{number}, "
            f"last sign of life {quiet:.0f} s ago); expected one at a time; a lock without a sign "
            f"of life is free after {STALE_SECONDS:.0f} s"
        )

    def _beat(self) -> None:
        """Signs of life, until released; if the lock was taken from us, nothing more is written."""
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if self._lock is not None:
                    self._lock.refresh()
            except NotLockedError:
                log.error("%s: another job has taken the lock: this one ends", self.folder)
                self.on_loss()
                return
            except OSError as error:  # the file system is away: it may come back in time
                log.warning("%s: no sign of life could be left (%s)", self.folder, error)

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        self._stop.set()
        if self._thread is not None and self._lock is not None:
            self._thread.join()
            with contextlib.suppress(NotLockedError, OSError):
                (self.folder / f"{self.name}.json").unlink(missing_ok=True)
                self._lock.unlock()
        self._thread = None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an output whose run folder is there. Raises `InputError`."""
    lock = OutputLock(folder)
    if folder.is_dir():
        lock.take()
    try:
        yield
    finally:
        lock.release()


def _make(path: Path) -> Lock:
    return Lock(str(path), lifetime=int(STALE_SECONDS))


def _is_held(path: Path) -> bool:
    """True if its holder may be alive."""
    _expire_dead(path)
    try:
        return time.time() < path.stat().st_mtime + SLOP_SECONDS
    except OSError:
        return False


def is_written(folder: Path) -> bool | None:
    """Whether a job that holds a lock of `folder` (OUT.amst) lives; None: there is no lock to tell.

    One on another machine lives while it shows signs of life.
    """
    locks = [p for p in (folder / "lock").glob("*") if "|" not in p.name and not p.suffix]
    return any(map(_is_alive, locks)) if locks else None


def _is_alive(path: Path) -> bool:
    host, pid, _, quiet = _holder(path)
    return not _is_gone(pid) if host == socket.getfqdn() else quiet < 3 * HEARTBEAT_SECONDS


def _expire_dead(path: Path) -> None:
    """Let a lock expire whose holder on this machine is gone.

    By the name that is the dead one's own: a lock that was taken meanwhile is not touched.
    """
    try:
        claim = Path(path.read_text().strip())
        host, pid, _ = _make(path).details
        if host == socket.getfqdn() and _is_gone(pid):
            os.utime(claim, (0, 0))
    except (OSError, NotLockedError):
        return


def _is_gone(pid: int) -> bool:
    """True if there is no such process on this machine, or but a zombie."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _ends_soon(pid: int) -> bool:
    """True if a process of this machine ends within `GRACE_SECONDS`, or is but a zombie."""
    try:
        if pid == os.getpid():
            return False
        psutil.Process(pid).wait(GRACE_SECONDS)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return _is_gone(pid)
    return True


def _holder(path: Path) -> tuple[str, int, str, float]:
    """Host, process, Slurm job, seconds since the last sign of life."""
    try:
        host, pid, _ = _make(path).details
        quiet = max(0.0, time.time() - path.stat().st_mtime + STALE_SECONDS)
    except (NotLockedError, OSError):
        host, pid, quiet = "?", 0, 0.0
    try:
        job = str(json.loads(path.with_name(f"{path.name}.json").read_text())["job"])
    except (OSError, ValueError, KeyError):
        job = ""
    return host, pid, job, quiet
