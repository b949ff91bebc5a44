"""CPU time of resampling, by scipy and on the OpenCL device: `python benchmarks/resampling.py`.

One thread per rank. Process time, so that other work on the machine counts little; best of several.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu import pair  # noqa: E402

from amst_hpc.opencl import devices as opencl  # noqa: E402
from amst_hpc.opencl.resampling import make_resampler  # noqa: E402
from amst_hpc.transform import resample  # noqa: E402

MATRICES = {
    "usual": np.array([[1.001, 0.0007, 3.3], [-0.0006, 0.999, -5.7]]),
    "turned by 2 degrees": np.array([[0.99939, 0.0349, -15.0], [-0.0349, 0.99939, 20.0]]),
    "turned by 57 degrees": np.array([[0.54, 0.84, -15.0], [-0.84, 0.54, 200.0]]),
}


def best_of(ways: list[Callable[[], Any]], rounds: int = 5) -> list[float]:
    """CPU milliseconds of each way, in turn."""
    seconds = []
    for _ in range(rounds):
        for work in ways:
            began = time.process_time()
            work()
            seconds.append(time.process_time() - began)
    return [1e3 * min(seconds[i :: len(ways)]) for i in range(len(ways))]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        opencl.prepare(Path(folder), 1)
        there = make_resampler("auto", 0)
        for size in (1024, 2048, 4096):
            narrow = pair(size)[0]
            for image in (narrow, narrow.astype(np.uint16) * 257):
                for name, matrix in MATRICES.items():
                    here, device = best_of(
                        [
                            lambda image=image, m=matrix: resample(image, m, image.shape),
                            lambda image=image, m=matrix: there(image, m, image.shape),
                        ]
                    )
                    away = np.abs(
                        there(image, matrix, image.shape).astype(int)
                        - resample(image, matrix, image.shape)
                    )
                    print(
                        f"{size}x{size} {image.dtype} {name}: scipy {here:.0f} ms, device "
                        f"{device:.1f} ms ({device / (size / 1024) ** 2:.1f} per megapixel); "
                        f"largest difference {away.max()}, mean {away.mean():.6f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
