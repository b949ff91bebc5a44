"""CPU seconds of a job of two slices of 512x512: `python benchmarks/start_up.py`.

Of all ranks and of what they start: first with no kernels kept on the node, then with those of the
first. `--at CHECKOUT` measures another version as well, in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from amst_hpc.parallel.launch import find_mpirun  # noqa: E402
from amst_hpc.synthetic.stack import make_demo  # noqa: E402


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(checkout: Path, folder: Path, ranks: int) -> str:
    began, wall = cpu_seconds(), time.monotonic()
    stacks = [folder / "raw", folder / "prealigned", folder / "out.h5"]
    command = [find_mpirun(), "--oversubscribe", "--allow-run-as-root", "-n", ranks]
    command += [sys.executable, "-m", "amst_hpc", "align", *stacks]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        [str(part) for part in (*command, "--range", "10:12", "--overwrite")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return f"{cpu_seconds() - began:6.1f} CPU s {time.monotonic() - wall:6.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--at", type=Path, action="append", default=[])
    options = parser.parse_args()
    for checkout in (*options.at, ROOT):
        with tempfile.TemporaryDirectory() as name:
            make_demo(Path(name), 24, 512, seed=2)
            (Path(name) / "tmp").mkdir()
            for when in ("first", "second", "third"):
                print(checkout.name, when, measure(checkout, Path(name), options.ranks), flush=True)


if __name__ == "__main__":
    main()
