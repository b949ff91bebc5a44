"""Speed on a GPU machine, and equality with the CPU path: `python benchmarks/gpu.py [--ranks 16]`.

Synthetic slices (blobs of many sizes, noise) stand in for real ones; times are medians, from host
memory to host memory, transfers included. The original makes a new SIFT plan per slice; silx as it
is takes 96 ms for a slice of 2048x2048 averaged down 2x2 on one H200.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from amst_hpc.config import Coarse  # noqa: E402
from amst_hpc.median import median_templates  # noqa: E402
from amst_hpc.opencl import devices as opencl  # noqa: E402
from amst_hpc.opencl.resampling import make_resampler  # noqa: E402
from amst_hpc.registration.coarse import Matcher  # noqa: E402
from amst_hpc.transform import resample  # noqa: E402

SHIFT = (7, -12)


def row(what: str, value: str, note: str = "") -> None:
    print(f"{what:<62}{value:>12}  {note}", flush=True)


def scene(size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size), np.float32)
    for sigma in (1.5, 3, 6, 12, 25):
        image += sigma * ndimage.gaussian_filter(
            rng.normal(size=image.shape).astype(np.float32), sigma
        )
    return 128 + 40 * image / image.std()


def pair(size: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed + 1)
    fixed = scene(size, seed)
    moving = np.roll(fixed, SHIFT[::-1], (0, 1))
    return [
        np.clip(a + rng.normal(0, 6, a.shape), 0, 255).astype(np.uint8) for a in (fixed, moving)
    ]


def median_ms(work: Callable[[], Any], repeats: int = 12) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1e3


def coarse_step(matcher: Matcher, fixed: np.ndarray, moving: np.ndarray) -> tuple[int, int]:
    found = matcher(matcher.smooth(fixed), matcher.smooth(moving))
    return found.x, found.y


def one_rank(matcher: Matcher) -> None:
    row("device", "", matcher.device)
    for size, bound in ((2048, 50), (4096, 120)):
        images = pair(size)
        ms = median_ms(lambda images=images: coarse_step(matcher, *images))
        row(
            f"coarse step {size}x{size}, ms",
            f"{ms:.1f}",
            f"bound {bound}; shift {coarse_step(matcher, *images)}",
        )
        smooth = [matcher.smooth(a) for a in images]
        parts = {
            "smooth both": lambda images=images: [
                matcher.smooth(a).pixels.queue.finish() for a in images
            ],
            "nearest_peak": lambda smooth=smooth: matcher.on_device.nearest_peak(*smooth, *SHIFT),
        }
        for name, work in parts.items():
            row(f"   {name}, ms", f"{median_ms(work):.1f}")
    rng = np.random.default_rng(0)
    base = pair(4096)[0]
    window = [np.roll(base, k, 1) ^ rng.integers(0, 4, dtype=np.uint8) for k in range(40)]
    start = iter(range(20))

    def template() -> list[np.ndarray]:  # one new slice each time, as in a run
        i = next(start)
        return matcher.on_device.templates([window[i : i + 15]])

    row("template 4096x4096 radius 7, ms", f"{median_ms(template):.1f}", "bound 5")
    found = matcher.on_device.templates([window[:15]])[0]
    exact = bool((found == median_templates([window[:15]])[0]).all())
    row("   equal to the host's", str(exact))
    matrix = np.array([[1.001, 0.0007, 3.3], [-0.0006, 0.999, -5.7]])
    there = make_resampler(matcher.config.device, 0)
    ms = median_ms(lambda: there(base, matrix, base.shape))
    row("resampling 4096x4096, ms", f"{ms:.1f}", "bound 10")
    away = np.abs(there(base, matrix, base.shape).astype(int) - resample(base, matrix, base.shape))
    row(
        "   largest and mean difference to the host, grey values",
        f"{away.max()}, {away.mean():.5f}",
    )


def rank(arguments: tuple[int, int, str, float, float]) -> float:
    """Coarse steps per second of one rank between two moments."""
    number, size, device, begin, seconds = arguments
    folder = tempfile.mkdtemp()
    opencl.prepare(Path(folder), 1)
    matcher = Matcher(Coarse(device=device), number)
    images = pair(size, number)
    coarse_step(matcher, *images)
    time.sleep(max(0.0, begin - time.time()))
    done = 0
    while time.time() < begin + seconds:
        coarse_step(matcher, *images)
        done += 1
    return done / seconds


def many_ranks(most: int, device: str) -> None:
    for ranks in sorted({1, 2, 4, most}):
        with get_context("spawn").Pool(ranks) as pool:
            begin = time.time() + 12 + 0.8 * ranks
            jobs = [(k, 2048, device, begin, 6.0) for k in range(ranks)]
            rates = pool.map(rank, jobs, chunksize=1)
        row(f"{ranks} ranks together, coarse steps 2048x2048 per second", f"{sum(rates):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--device", default="gpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        opencl.prepare(Path(folder), 4)
        for device in opencl.find_devices():
            print(device)
        one_rank(Matcher(Coarse(device=options.device), 0))
        many_ranks(options.ranks, options.device)


if __name__ == "__main__":
    main()
