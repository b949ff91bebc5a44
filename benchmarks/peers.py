#!/usr/bin/env python3
"""Ours beside pystackreg and OpenCV's ECC on sets with true transforms: a table for each set.

    pip install pystackreg opencv-python-headless
    python benchmarks/peers.py [FOLDER...]

FOLDER : of ../shared/tools/make_gt.py; none: the three sets of tests/real are made.
Errors in px, by ../shared/tools/score_gt.py. `chain`: each raw slice to the one before it, as both
are mostly used; `template`: to the median of the pre-aligned slices, as AMST. AMST alone: ours with
`neighbours.enabled=false`. Black slices are left out for the others, which have no answer to them;
where one gives up, the identity is taken, and counted. CPU s per slice: of all threads, on one
rank; start-up apart (of ours: a job on FEW slices less). Ours reads and writes in this time, too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from amst_hpc.median import median_templates
from amst_hpc.registration.template import window
from amst_hpc.transform import Image, Matrix, compose

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("AMST_HPC_SHARED", ROOT.parent / "shared"))
FIB25 = "fib25_medulla_250x250x250_isotropic.tif"
FIB25_2 = "fib25_medulla_2_250x250x250_isotropic.tif"
LUCCHI = "lucchi_hippocampus_96x768x768_5nm.tif"
SETS = {
    "fib25_dev": (FIB25, "--nz 96 --z0 40 --fov 176 176 --drift 8 --jitter-sd 2.5 --seed 11"),
    "lucchi_dev": (LUCCHI, "--nz 64 --z0 8 --fov 512 512 --seed 12 --artefacts full"),
    "mosaic_dev": ("mosaic.tif", "--nz 96 --z0 8 --fov 600 800 --seed 31"),
}
COLUMNS = ("smooth", "largest", "adjacent", "const", "partial", "CPU s", "gave up")
FEW = 8
ECC_STEPS, ECC_GAIN, ECC_BLUR = 200, 1e-6, 5  # at most; of the correlation; px of the gaussian

Register = Callable[[Image, Image], Matrix]  # (fixed, moving): moving(M p) lies on fixed(p)
Result = tuple[list, float, int]  # transforms, CPU s per slice, how often it gave up


def stackreg() -> Register:
    """Thevenaz et al., IEEE Trans Image Process 7, 27 (1998), affine."""
    from pystackreg import StackReg

    tool = StackReg(StackReg.AFFINE)
    return lambda fixed, moving: tool.register(fixed, moving)[:2]


def ecc() -> Register:
    """Evangelidis and Psarakis, IEEE Trans PAMI 30, 1858 (2008), affine."""
    import cv2

    cv2.setNumThreads(1)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_GAIN)

    def register(fixed: Image, moving: Image) -> Matrix:
        begin = np.eye(2, 3, dtype=np.float32)
        try:
            return cv2.findTransformECC(
                fixed, moving, begin, cv2.MOTION_AFFINE, stop, None, ECC_BLUR
            )[1]
        except cv2.error as error:
            raise ArithmeticError(str(error)) from None

    return register


def run_peer(register: Register, truth: Path, chained: bool) -> Result:
    """A method of others on the raw slices of a set."""
    raw, pre = ([tifffile.imread(f) for f in sorted((truth / d).iterdir())] for d in ("raw", "pre"))
    register(raw[0], raw[1])  # start-up
    found: list = [None] * len(raw)
    failed, before, began = 0, None, time.process_time()
    for z in (z for z, image in enumerate(raw) if image.any()):
        if chained and before is None:
            fixed = raw[z]
        elif chained:
            fixed = raw[before]
        else:
            members = [pre[i] for i in window(z, len(pre), 7) if pre[i].any()]
            fixed = median_templates([members])[0]
        try:
            matrix = register(fixed, raw[z])
        except ArithmeticError:
            matrix, failed = np.eye(2, 3), failed + 1
        if chained and before is not None:
            matrix = compose(matrix, found[before])
        found[z], before = matrix, z
    seconds = time.process_time() - began
    return [None if m is None else m.tolist() for m in found], seconds / len(raw), failed


def align(truth: Path, out: Path, *options: str) -> float:
    """CPU seconds of a job on one rank."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "amst_hpc", "align", truth / "raw", truth / "pre", out]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_ours(truth: Path, *settings: str) -> Result:
    """`amst-hpc align` with changes to its defaults."""
    options = [part for s in ("output.report=false", *settings) for part in ("--set", s)]
    with tempfile.TemporaryDirectory() as name:
        few, whole = Path(name) / "few.h5", Path(name) / "whole.h5"
        start = align(truth, few, "--range", f"0:{FEW}", *options)
        seconds = align(truth, whole, *options) - start
        found = json.loads((whole.with_suffix(".amst") / "transforms.json").read_text())
    return found, seconds / (len(found) - FEW), 0


ALONE, NO_ELASTIX = "neighbours.enabled=false", "refine.backend=gauss-newton"
METHODS: dict[str, Callable[[Path], Result]] = {
    "amst_hpc": run_ours,
    "amst_hpc, gauss-newton": lambda truth: run_ours(truth, NO_ELASTIX),
    "AMST alone": lambda truth: run_ours(truth, ALONE),
    "AMST alone, gauss-newton": lambda truth: run_ours(truth, ALONE, NO_ELASTIX),
    "pystackreg, chain": lambda truth: run_peer(stackreg(), truth, True),
    "pystackreg, template": lambda truth: run_peer(stackreg(), truth, False),
    "OpenCV ECC, chain": lambda truth: run_peer(ecc(), truth, True),
    "OpenCV ECC, template": lambda truth: run_peer(ecc(), truth, False),
}


def row(truth: Path, method: str, result: Result) -> str:
    """A line of the table."""
    transforms, seconds, failed = result
    with tempfile.TemporaryDirectory() as name:
        est = Path(name) / "transforms.json"
        est.write_text(json.dumps(transforms))
        command = [sys.executable, SHARED / "tools" / "score_gt.py", truth, est]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    errors = [found[kind][what] for kind, what in (
        ("smooth", "mean"), ("smooth", "max"), ("adjacent", "mean"), ("const", "mean")
    )]  # fmt: skip
    partial = " ".join(f"{px:.2f}" for px in found["smooth_partial_slices"].values())
    cells = [method, *(f"{px:.3f}" for px in errors), partial or "-", f"{seconds:.2f}", str(failed)]
    return f"| {' | '.join(cells)} |"


def make_sets(folder: Path) -> list[Path]:
    """The sets of tests/real."""
    data, tools = SHARED / "data", SHARED / "tools"
    mosaic = [tools / "make_mosaic.py", folder / "mosaic.tif", data / FIB25, data / FIB25_2]
    subprocess.run([sys.executable, *mosaic], check=True)
    for name, (volume, options) in SETS.items():
        source = data / volume if (data / volume).is_file() else folder / volume
        command = [tools / "make_gt.py", source, folder / name, *options.split()]
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return [folder / name for name in SETS]


def main() -> None:
    """Print a table per set, a line when it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--only", default="", help="methods whose names hold this")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for truth in asked.folders or make_sets(Path(name)):
            print(f"\n| {truth.name} | {' | '.join(COLUMNS)} |")
            print("| --- " * (len(COLUMNS) + 1) + "|", flush=True)
            for method, measure in METHODS.items():
                if asked.only in method:
                    print(row(truth, method, measure(truth)), flush=True)


if __name__ == "__main__":
    main()
