#!/usr/bin/env python3
"""Milliseconds per slice of the registration with neighbours: prepared once, pairs k = 1 and 2.

    python benchmarks/neighbours.py [SIZE...] [--device cpu]

Upload included, start-up and compilation apart; medians of five; on a processor CPU time. The error
is the largest of a corner, px, on a synthetic pair with noise.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from amst_hpc.averaging import average_down
from amst_hpc.opencl.devices import prepare
from amst_hpc.pair_result import PairResult
from amst_hpc.registration.coherence import matched_filter, spectra
from amst_hpc.registration.equations import GpuEquations, HostEquations, open_equations
from amst_hpc.registration.neighbours import Neighbours, working_factor
from amst_hpc.transform import displacement, invert, small_affine, translation


def scene(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A slice twice, once more moved by a known affine, each with its own noise; the affine."""
    rng = np.random.default_rng(1)
    tissue = sum(ndimage.gaussian_filter(rng.normal(size=(size, size)), s) * s for s in (1.5, 4))
    tissue = tissue / tissue.std() * 30 + 128
    m = small_affine(np.array([1.2, 0.6, -0.5, -0.8, 0.4, 0.5]), tissue.shape)
    back = invert(m)
    moved = ndimage.affine_transform(tissue, back[::-1, 1::-1], back[::-1, 2], order=5)
    noisy = [a + rng.normal(size=a.shape) * 6 for a in (tissue, tissue, moved)]
    fixed, again, moving = (np.clip(np.rint(a), 1, 255).astype(np.uint8) for a in noisy)
    return fixed, again, moving, m


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=[512, 1024, 2048])
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), 1)
        equations = HostEquations() if asked.device == "host" else open_equations(asked.device, 0)
        print(type(equations).__name__, flush=True)
        on_gpu = isinstance(equations, GpuEquations)
        clock = time.perf_counter if on_gpu else time.process_time
        for size in asked.sizes:
            fixed, again, moving, m = scene(size)
            factor = working_factor(fixed.shape)
            seen_small = [average_down(image, factor) for image in (fixed, again)]
            kernel = matched_filter([spectra(*seen_small)], min(size // factor, 1024), factor > 1)
            place = Neighbours(equations, {1: kernel, 2: kernel})
            laps = []
            for _ in range(6):
                began = clock()
                a = place.prepare(fixed)
                if on_gpu:
                    equations.memory.queue.finish()
                ready = clock()
                b = place.prepare(moving)
                middle = clock()
                found = [place.register(a, b, PairResult(0, k), translation(1, -1)) for k in (1, 2)]
                laps.append((ready - began, clock() - middle))
            made, both = np.median(laps[1:], axis=0) * 1e3
            rest = displacement(found[0].matrix, fixed.shape) - displacement(m, fixed.shape)
            print(
                f"{size:6d}: prepare {made:7.1f} ms, two pairs {both:7.1f} ms, "
                f"together {made + both:7.1f} ms, error {np.abs(rest).max():.4f} px",
                flush=True,
            )


if __name__ == "__main__":
    main()
