"""The start of a job on many small slices: `python benchmarks/many_slices.py`.

From the command to the first slice, seconds; and how many files of the job the busiest rank opens
before its first slice (counted by strace, where it is installed), at the first start and when the
job is continued.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from launch import JOB_ENVIRONMENT  # noqa: E402

from amst_hpc.parallel.launch import find_mpirun  # noqa: E402

SIZE = 64  # px
PERIOD = 200  # slices
SETTINGS = ("coarse.method=none", "refine.backend=none", "output.report=false")


def make_stacks(folder: Path, slices: int) -> None:
    """raw/ and pre/ of smooth noise, each slice moved by up to 2 px."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(PERIOD, SIZE + 32, SIZE + 32)).astype(np.float32)
    volume = ndimage.gaussian_filter(noise, (2, 1.5, 1.5), mode="wrap")
    volume = ((volume - volume.min()) / np.ptp(volume) * 255).astype(np.uint8)
    for name, most in (("raw", 2), ("pre", 1)):
        (folder / name).mkdir()
        for z in range(slices):
            y, x = 16 + rng.integers(-most, most + 1, 2)
            tifffile.imwrite(
                folder / name / f"s_{z:05d}.tif", volume[z % PERIOD, y : y + SIZE, x : x + SIZE]
            )


def start(folder: Path, ranks: int, wrapper: list[str]) -> float:
    """Seconds until all ranks have begun their first slices; the job is ended then."""
    command = [find_mpirun(), "-n", str(ranks), *wrapper, sys.executable, "-m", "amst_hpc", "align"]
    command += [folder / "raw", folder / "pre", folder / "out.h5"]
    for setting in SETTINGS:
        command += ["--set", setting]
    journal = folder / "out.amst" / "journal"
    before = {path.name for path in journal.glob("*.register.log")}
    environment = {**os.environ, **JOB_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        job = subprocess.Popen(list(map(str, command)), env=environment, stdout=log, stderr=log)
        try:
            while job.poll() is None:
                logs = [p for p in journal.glob("*.register.log") if p.name not in before]
                if len(logs) == ranks and all(path.stat().st_size for path in logs):
                    return time.monotonic() - began
                time.sleep(0.05)
        finally:
            job.terminate()
            job.wait()
    raise SystemExit((folder / "log").read_text())


def count_opens(folder: Path) -> int:
    """Of the files of the job by the busiest rank, before the first record of a slice."""
    most = 0
    for trace in folder.glob("trace.*"):
        found = re.findall(r'openat\([^"]*"([^"]*)"[^)]*\)? *(?:=|<unf)', trace.read_text())
        names = [name for name in found if str(folder) in name]
        until = next((i for i, n in enumerate(names) if n.endswith(".register.log")), len(names))
        most = max(most, until)
        trace.unlink()
    return most


def measure(folder: Path, slices: int, ranks: int) -> list[tuple[str, str, str]]:
    """Rows of a table: what, value, note."""
    make_stacks(folder, slices)
    bound = 2 * slices // ranks + 100
    rows = []
    for when in ("first start", "continued"):
        name = f"{slices} slices, {ranks} ranks, {when}"
        if strace := shutil.which("strace"):
            trace = f'exec {strace} -f -e trace=openat -o {folder}/trace.$$ "$@"'
            start(folder, ranks, ["sh", "-c", trace, "sh"])
            opens = str(count_opens(folder))
        else:
            opens = "no strace"
        if when == "first start":
            shutil.rmtree(folder / "out.amst", ignore_errors=True)
        seconds = start(folder, ranks, [])
        rows.append((f"{name}: s to the first slice", f"{seconds:.1f}", "bound 15 for 30,000 on 8"))
        rows.append((f"{name}: files opened per rank", opens, f"bound {bound}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=30_000)
    parser.add_argument("--ranks", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for what, value, note in measure(Path(name), options.slices, options.ranks):
            print(f"{what:<70}{value:>10}  {note}", flush=True)


if __name__ == "__main__":
    main()
