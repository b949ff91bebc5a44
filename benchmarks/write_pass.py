"""The write pass alone, MB/s on all levels: `python benchmarks/write_pass.py FOLDER [RANKS ...]`.

Slices of 4096x4096 px (--edge), registration left out, so that raw is copied, averaged down and
written. Beside it `dd` and `cp` of as many bytes into the same folder. Ratios count, not seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from jobs import environment  # noqa: E402
from launch import find_mpirun  # noqa: E402

SETTINGS = (
    "coarse.method=none", "refine.backend=none", "output.report=false", "template.radius=1",
)  # fmt: skip


def make_raw(folder: Path, count: int, edge: int) -> None:
    folder.mkdir(parents=True)
    base = np.random.default_rng(0).integers(0, 255, (edge, edge), np.uint8)
    for z in range(count):
        tifffile.imwrite(folder / f"{z:04d}.tif", np.roll(base, 7 * z, 0))


def write(raw: Path, out: Path, ranks: int, *options: str) -> tuple[float, int]:
    """Seconds of the write pass and the size of the file."""
    shutil.rmtree(out.with_suffix(".amst"), ignore_errors=True)
    for path in out.parent.glob(f"{out.stem}.*"):
        path.unlink()
    changes = [word for option in (*SETTINGS, *options) for word in ("--set", option)]
    align = [sys.executable, "-m", "amst_hpc", "align", str(raw), str(raw), str(out)]
    command = [find_mpirun(), "-n", str(ranks), *align, *changes]
    subprocess.run(command, env=environment(), check=True, capture_output=True, cwd=ROOT)
    facts = json.loads((out.with_suffix(".amst") / "run.json").read_text())
    return max(part["write"] for part in facts["seconds_per_rank"]), out.stat().st_size


def timed(*command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("ranks", type=int, nargs="*", default=[1, 2])
    options.add_argument("--slices", type=int, default=64)
    options.add_argument("--edge", type=int, default=4096)
    given = options.parse_args()
    work = given.folder / "write_pass"
    make_raw(work / "raw", given.slices, given.edge)
    try:
        for ranks in given.ranks:
            for settings in ((), ('output.writer="funnel"',), ("output.compression=1",)):
                seconds, size = write(work / "raw", work / "out.h5", ranks, *settings)
                what = settings[0] if settings else "direct"
                print(f"{ranks:3d} ranks  {what:24s} {size / seconds / 1e6:7.0f} MB/s", flush=True)
                if not settings:
                    cp = timed("sh", "-c", f"cp {work}/out.h5 {work}/copy && sync {work}/copy")
                    print(
                        f"           cp and sync {size / cp / 1e6:.0f} MB/s: {seconds / cp:.2f} x"
                    )
                    (work / "copy").unlink()
        blocks = f"count={size >> 22}"
        dd = timed("dd", "if=/dev/zero", f"of={work}/copy", "bs=4M", blocks, "conv=fsync")
        print(f"dd conv=fsync {(size >> 22 << 22) / dd / 1e6:.0f} MB/s")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
