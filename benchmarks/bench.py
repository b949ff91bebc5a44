"""`make bench`: speed, memory and accuracy, with the original's figures beside them.

    python benchmarks/bench.py [--slices 64] [--ranks 2]

The machine decides the absolute times, so ratios within one run count. Real
slices: the Lucchi volume of ../shared, displaced by ../shared/tools/make_gt.py (512x512, with
artefacts). The original (amst, pyelastix) took 2.0 s for such a slice on two idle cores, 1.6 s of
them elastix and transformix, and left 0.44 px.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("AMST_HPC_SHARED", ROOT.parent / "shared"))
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from launch import mpirun  # noqa: E402
from many_slices import measure  # noqa: E402

from amst_hpc.median import median_templates  # noqa: E402
from amst_hpc.parallel.launch import find_mpirun  # noqa: E402
from amst_hpc.registration.template import GROUP  # noqa: E402


def row(what: str, value: str, note: str = "") -> None:
    print(f"{what:<58}{value:>16}  {note}", flush=True)


def median_speed() -> None:
    """ms per output megapixel on one core."""
    rng = np.random.default_rng(0)
    for dtype, bound in ((np.uint8, 5), (np.uint16, 12)):
        limit = np.iinfo(dtype).max
        slices = [rng.integers(0, limit, (1024, 1024)).astype(dtype) for _ in range(15 + GROUP - 1)]
        windows = [slices[i : i + 15] for i in range(GROUP)]
        median_templates(windows)
        began = time.perf_counter()
        for _ in range(5):
            median_templates(windows)
        ours = (time.perf_counter() - began) / (5 * GROUP) * 1e3 / 1.048576
        began = time.perf_counter()
        np.median(np.stack([a[:128] for a in windows[0]]), axis=0)
        theirs = (time.perf_counter() - began) * 8 * 1e3 / 1.048576
        name = np.dtype(dtype).name
        row(
            f"template radius 7, {name}, ms per megapixel",
            f"{ours:.2f}",
            f"bound {bound}; np.median {theirs:.0f}",
        )


def make_truth(folder: Path, slices: int) -> Path:
    truth = folder / "gt"
    volume = SHARED / "data" / "lucchi_hippocampus_96x768x768_5nm.tif"
    tool = SHARED / "tools" / "make_gt.py"
    options = f"--nz {slices} --z0 8 --fov 512 512 --seed 12 --artefacts full".split()
    subprocess.run([sys.executable, tool, volume, truth, *options], check=True, capture_output=True)
    return truth


class Memory(threading.Thread):
    """Largest PSS of any process of the job, bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0, False

    def run(self) -> None:
        while not self.over:
            for process in psutil.Process().children(recursive=True):
                try:
                    if "amst_hpc" in " ".join(process.cmdline()) and "mpirun" not in process.name():
                        self.peak = max(self.peak, process.memory_full_info().pss)
                except psutil.Error:
                    continue
            time.sleep(0.25)


def align(truth: Path, out: Path, ranks: int, *options: str) -> tuple[dict, int]:
    """run.json of an alignment and its peak PSS per rank."""
    memory = Memory()
    memory.start()
    arguments = [
        "-m",
        "amst_hpc",
        "align",
        str(truth / "raw"),
        str(truth / "pre"),
        str(out),
        *options,
    ]
    done = mpirun(ranks, arguments, timeout=3600)
    memory.over = True
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    return json.loads((out.with_suffix(".amst") / "run.json").read_text()), memory.peak


def bare_elastix(truth: Path, count: int, processes: int) -> float:
    """Median seconds of one in-process registration, one thread, `processes` side by side."""
    script = str(Path(__file__).with_name("bare_elastix.py"))
    jobs = [
        subprocess.Popen(
            [sys.executable, script, str(truth), str(count)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    return float(np.mean([float(job.communicate()[0]) for job in jobs]))


def stage_seconds(csv: Path) -> dict[str, float]:
    table = np.genfromtxt(
        csv, delimiter=",", names=True, dtype=None, encoding="utf8", filling_values=0
    )
    return {
        stage: float(np.nansum(np.array(table[f"seconds_{stage}"], float))) / len(table)
        for stage in ("template", "read", "coarse", "refine")
    }


def whole_job(folder: Path, slices: int, ranks: int) -> None:
    truth = make_truth(folder, slices)
    for n in sorted({1, ranks}):
        bare = bare_elastix(truth, 20, n)
        run, pss = align(truth, folder / f"out{n}.h5", n)
        busiest = max(part["register"] for part in run["seconds_per_rank"])
        writing = max(part["write"] for part in run["seconds_per_rank"])
        per_slice = (busiest + writing) * n / slices
        row(f"bare elastix, {n} side by side, s per registration", f"{bare:.3f}")
        row(f"align on {n} ranks: wall s x ranks / slices", f"{per_slice:.3f}", "original 2.0")
        row("   ratio to bare elastix", f"{per_slice / bare:.2f}", "bound 1.6")
        for stage, seconds in stage_seconds(folder / f"out{n}.amst" / "slices.csv").items():
            row(f"   {stage}, s per slice", f"{seconds:.3f}")
        row(
            "   write (resample, compress, store), s x ranks per slice",
            f"{writing * n / slices:.3f}",
        )
        start = max(part["start"] for part in run["seconds_per_rank"])
        row("   start-up, s per rank", f"{start:.1f}", "libraries and OpenCL kernels, once")
        buffer = 64 * 512 * 512 * 8 / 7
        window = 18 * 512 * 512
        row(
            "   largest PSS of a rank, MB",
            f"{pss / 1e6:.0f}",
            f"bound {(buffer + window + 1.1e9) / 1e6:.0f}",
        )
    score = [sys.executable, str(SHARED / "tools" / "score_gt.py"), str(truth)]
    found = subprocess.run(
        [*score, str(folder / f"out{ranks}.amst" / "transforms.json")],
        check=True,
        capture_output=True,
        text=True,
    )
    smooth = json.loads(found.stdout)["smooth"]["mean"]
    row("error after alignment (smooth.mean), px", f"{smooth:.3f}", "original 0.44")
    transforms = [
        (folder / f"out{n}.amst" / "transforms.json").read_text() for n in sorted({1, ranks})
    ]
    row("same transforms on every number of ranks", str(len(set(transforms)) == 1))


def writers(folder: Path, ranks: int) -> None:
    """MB/s of full-size data, all levels and compression included."""
    script = str(Path(__file__).with_name("writers.py"))
    kinds = ["funnel"] + (["collective"] if h5py.get_config().mpi else [])
    for kind in kinds:
        for level in (1, 0):
            done = mpirun(ranks, [script, str(folder / "w.h5"), kind, str(level)], timeout=1800)
            if done.returncode:
                raise SystemExit(done.stderr)
            row(
                f"writer {kind}, gzip {level}, {ranks} ranks, MB/s",
                done.stdout.strip().splitlines()[-1],
            )
    if "collective" not in kinds:
        row("writer collective", "-", "this h5py has no MPI")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {find_mpirun()}, {time.strftime('%Y-%m-%d')}")
    median_speed()
    with tempfile.TemporaryDirectory() as name:
        for found in measure(Path(name), 3000, options.ranks):
            row(*found)
    with tempfile.TemporaryDirectory() as name:
        writers(Path(name), options.ranks)
        whole_job(Path(name), options.slices, options.ranks)


if __name__ == "__main__":
    main()
