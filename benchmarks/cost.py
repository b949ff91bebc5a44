"""The cost model of this machine: `python benchmarks/cost.py [--cores N] [--edge PX]`.

Part of `make bench`. Seconds per slice and core = a + b x megapixels, stage by stage, fitted to
jobs of one rank on slices of 0.25, 1, 4 and 16 megapixels (noisy blobs, moved by some pixels), with
the default settings. The original took 1.9 s at 512x512, 2.3 s at 600x800, 5.0 s at 1340x1780.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from jobs import environment  # noqa: E402
from launch import find_mpirun  # noqa: E402

from amst_hpc.config import Config  # noqa: E402
from amst_hpc.preflight.estimate import estimate  # noqa: E402

EDGES = (512, 1024, 2048, 4096)
SLICES = 16
STAGES = ("template", "read", "coarse", "refine", "pair", "write")
ORIGINAL = (1.4, 1.5)  # a, b of the original, from its three sizes


def make_stack(folder: Path, edge: int) -> None:
    """raw/ and pre/ of one scene with noise of its own for each slice."""
    rng = np.random.default_rng(0)
    size = edge + 32
    scene = sum(
        s * ndimage.gaussian_filter(rng.normal(size=(size, size)).astype(np.float32), s)
        for s in (1.5, 3, 6, 12)
    )
    scene = 128 + 40 * scene / scene.std()
    for kind, most in (("raw", 9), ("pre", 1)):
        (folder / kind).mkdir(parents=True)
        for z in range(SLICES):
            y, x = 16 + rng.integers(-most, most + 1, 2)
            image = scene[y : y + edge, x : x + edge] + rng.normal(0, 6, (edge, edge))
            tifffile.imwrite(
                folder / kind / f"{z:04d}.tif", np.clip(image, 1, 255).astype(np.uint8)
            )


def seconds(folder: Path) -> dict[str, float]:
    """Per slice of a job on one rank, by stage; what a job does once is not counted twice."""
    out = folder / "out.h5"
    align = ["-m", "amst_hpc", "align", folder / "raw", folder / "pre", out]
    command = [find_mpirun(), "-n", "1", sys.executable, *align, "--set", "output.report=false"]
    subprocess.run(
        list(map(str, command)), env=environment(), check=True, capture_output=True, cwd=ROOT
    )
    run = json.loads((folder / "out.amst" / "run.json").read_text())["seconds_per_rank"][0]
    with (folder / "out.amst" / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {
        stage: sum(float(row[f"seconds_{stage}"] or 0) for row in rows) / len(rows)
        for stage in STAGES[:4]
    }
    return found | {stage: run[stage] / len(rows) for stage in STAGES[4:]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cores", type=int, default=os.cpu_count())
    options.add_argument("--edge", type=int, default=4096, help="of your slices, px")
    given = options.parse_args()
    megapixels = np.array([edge**2 / 1e6 for edge in EDGES])
    measured = []
    with tempfile.TemporaryDirectory() as name:
        for edge in EDGES:
            make_stack(Path(name) / str(edge), edge)
            measured.append(seconds(Path(name) / str(edge)))
    print(f"{'stage':10}" + "".join(f"{edge:>9}" for edge in EDGES) + "        a  b per megapixel")
    total = np.zeros(2)
    for stage in STAGES:
        row = np.array([part[stage] for part in measured])
        b, a = np.polyfit(megapixels, row, 1, w=1 / np.sqrt(megapixels))
        total += (a, b)
        print(f"{stage:10}" + "".join(f"{s:9.3f}" for s in row) + f"{a:9.3f} {b:9.4f}")
    sums = [sum(part.values()) for part in measured]
    print(f"{'all':10}" + "".join(f"{s:9.3f}" for s in sums) + f"{total[0]:9.3f} {total[1]:9.4f}")
    guessed = [estimate(SLICES, (edge, edge), "uint8", Config()).seconds / SLICES for edge in EDGES]
    print(f"{'check':10}" + "".join(f"{s:9.3f}" for s in guessed))
    mine = given.edge**2 / 1e6
    for name, (a, b) in (("here", total), ("the original", ORIGINAL)):
        rate = 3600 * mine * 1e6 / (a + b * mine) / 1e12
        print(
            f"{name}: {given.edge} px uint8, {rate:.4f} TB/h per core, "
            f"{rate * given.cores:.3f} on {given.cores}"
        )


if __name__ == "__main__":
    main()
