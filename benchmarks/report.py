"""Seconds, memory and size of the report of a long stack: `python benchmarks/report.py [SLICES]`.

The run folder is made up: slices.csv, transforms, run.json, journal lines of thumbnails and pairs.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from amst_hpc.config import Config
from amst_hpc.job.journal import encode
from amst_hpc.pair_result import PairResult
from amst_hpc.quality.report import write_report
from amst_hpc.quality.thumbnails import ThumbnailWriter
from amst_hpc.settings import to_toml
from amst_hpc.slice_result import COLUMNS
from amst_hpc.transform import compose, invert, translation


def make_run(folder: Path, slices: int, size: int = 2048, ranks: int = 64) -> Path:
    """The files of a run of `slices` slices of `size` px; every 97th fell back, and the pairs
    that begin there failed. OUT.h5.
    """
    random = np.random.default_rng(1)
    run = folder / "long.amst"
    run.mkdir()
    with (run / "slices.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for z in range(slices):
            status = "translation" if z % 97 == 50 else "affine"
            x, y = random.normal(0, 8, 2).round()
            scores = [200 + z % 40, 0.93, 0.95, 0.02, 0.01, 0.1, 1.7]
            row = [z, f"slice_{z:05d}.tif", status, x, y, *scores, z * ranks // slices, "0:0 H200"]
            reason = "elastix: too few samples" if status != "affine" else ""
            table.writerow([*row, reason, 4, 0.4, 0.3 + 0.1 * (z % 7)])
    matrices = np.tile(np.eye(2, 3), (slices, 1, 1)) + random.normal(0, 1e-3, (slices, 2, 3))
    (run / "transforms.json").write_text(json.dumps(matrices.tolist()))
    (run / "config.toml").write_text(to_toml(Config()))
    facts = {
        "amst_hpc": "0", "versions": {}, "python": "3", "raw": "raw", "prealigned": "pre",
        "shape_zyx": [slices, size, size], "dtype": "uint8", "ranks": ranks, "writer": "funnel",
        "devices": ["0:0 H200"],
        "seconds_per_rank": [{"start": 9, "register": 150, "write": 30, "total": 190}] * ranks,
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(facts))
    _make_thumbnails(run / "thumbnails", slices, size, random)
    _make_pairs(run / "journal", matrices, random)
    return folder / "long.h5"


def _make_thumbnails(folder: Path, slices: int, size: int, random: np.random.Generator) -> None:
    with ThumbnailWriter(folder, "0001-00000", "register"):
        pass
    texture = random.integers(60, 200, (size // 8, size // 8)).repeat(8, 0).repeat(8, 1)
    grey = {"grey": texture[:12, :12].ravel().tolist()}
    for stack, jitter in (("raw", 4.0), ("prealigned", 1.5), ("aligned", 0.2)):
        work = "write" if stack == "aligned" else "register"
        with (folder / f"0001-00000.{work}.log").open("ab") as file:
            for z in range(slices):
                y, x = random.normal(0, jitter, 2)
                line = np.roll(texture[z % size], round(x)).astype(np.uint8)
                record = ThumbnailWriter.record(stack, z, (line, line))
                record |= grey if stack == "aligned" else {}
                file.write(encode(record | {"step": [y, x, 0.9]}))


def _make_pairs(folder: Path, matrices: np.ndarray, random: np.random.Generator) -> None:
    folder.mkdir()
    with (folder / "0001-00000.pair.log").open("wb") as file:
        for z, m in enumerate(matrices):
            for k in (1, 2):
                if z + k == len(matrices):
                    break
                pair = PairResult(z, k, reason="correlation 0.021, as by chance")
                if z % 97 != 50:
                    x, y = random.normal(0, 0.05 * k, 2)
                    off = compose(compose(matrices[z + k], translation(x, y)), invert(m))
                    pair = PairResult(z, k, off, 0.01 * k, 0.5, 0.9)
                file.write(encode(pair.to_record() | {"key": ""}))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as name:
        out = make_run(Path(name), count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        path = write_report(out)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"report of {count:,} slices: {seconds:.1f} s, {path.stat().st_size / 1e6:.1f} MB")
        print(f"peak memory of the process: {peak / 1e6:.2f} GB ({before / 1e6:.2f} GB before)")
        if len(sys.argv) > 2:
            Path(sys.argv[2]).write_bytes(path.read_bytes())
