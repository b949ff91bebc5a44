"""Slurm's commands: send a script, ask for states. Everything here works, with less to say, where
Slurm is not.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from amst_hpc.config import InputError

USUAL_ARRAY_SIZE = 1001
TaskId = tuple[str, str]
"""Job number and array task, "" for a job that is no array."""


def _output(command: Sequence[str]) -> str:
    """What a command prints; empty if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def largest_array() -> int:
    """The most tasks of one array, counted from 1: the cluster's MaxArraySize less one."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _output(["scontrol", "show", "config"]))
    return max(1, (int(found[1]) if found else USUAL_ARRAY_SIZE) - 1)


def queued() -> dict[TaskId, str] | None:
    """State of each of the user's jobs that waits or runs; None where there is no Slurm.

    Raises `InputError` if Slurm does not answer: that is not an empty queue.
    """
    user = f"--user={os.getuid()}"
    command = ["squeue", user, "--noheader", "--array", "--format=%F|%K|%T|."]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"squeue: no answer ({error}); try again later") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"squeue: no answer ({said}); try again later")
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {(job, "" if task == "N/A" else task): state for job, task, state, _ in rows}


def ended(place: TaskId) -> str:
    """The state in which a job ended, as sacct has it; empty where it does not know."""
    job, task = place
    name = f"{job}_{task}" if task else job
    text = _output(["sacct", "-X", "-n", "-P", "-j", name, "--format=State"])
    return (text.strip().splitlines() or [""])[-1]


def test(script: Path) -> str:
    """Have Slurm look at a script without sending it; what it says. Raises `InputError` if it
    refuses.
    """
    return _sbatch(["--test-only", str(script)], script)


def send(script: Path, dependency: str) -> str:
    """Send a script; the job number. Raises `InputError` if Slurm refuses."""
    waits = [f"--dependency={dependency}"] if dependency else []
    return _sbatch(["--parsable", *waits, str(script)], script).split(";")[0]


def _sbatch(options: Sequence[str], script: Path) -> str:
    try:
        done = subprocess.run(["sbatch", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"sbatch: cannot be run ({error.strerror})") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"{script}: Slurm refuses it: {said}")
    return (done.stdout or done.stderr).strip()
