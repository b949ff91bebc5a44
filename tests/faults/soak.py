"""Many registrations in one process: the memory must not grow, and no thread or file be left over.

soak.py [REGISTRATIONS]      2000 unless told; small real slices, about five minutes
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import psutil
from scipy import ndimage

from amst_hpc.config import Coarse, Refine
from amst_hpc.median import median_templates
from amst_hpc.registration.coarse import Matcher
from amst_hpc.registration.elastix import make_refine

GROWTH = 0.05
WARM_UP = 200


def make_slices(count: int, size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    scene = ndimage.gaussian_filter(rng.normal(size=(size + 32, size + 32)), 2)
    scene = np.clip(scene / scene.std() * 45 + 128, 1, 255)
    corners = rng.integers(0, 32, (count, 2))
    noisy = [scene[y : y + size, x : x + size] + rng.normal(0, 6, (size, size)) for y, x in corners]
    return [np.clip(image, 1, 255).astype(np.uint8) for image in noisy]


def soak(registrations: int = 2000, size: int = 96) -> tuple[float, float]:
    """Memory (RSS, MB) after WARM_UP registrations and after all."""
    slices = make_slices(16, size)
    matcher, refine = Matcher(Coarse(method="xcorr"), 0), make_refine(Refine())
    process, early = psutil.Process(), 0.0
    for n in range(registrations):
        template = median_templates([slices[:15]])[0]
        raw = slices[n % len(slices)]
        shift = matcher(matcher.smooth(slices[(n + 1) % len(slices)]), matcher.smooth(raw))
        refine(slices[(n + 1) % len(slices)], raw, (shift.x, shift.y))
        del template
        if n + 1 == min(WARM_UP, registrations // 2):
            early = process.memory_info().rss / 1e6
    return early, process.memory_info().rss / 1e6


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    before, after = soak(count)
    growth = after / before - 1
    files, threads = len(list(Path("/proc/self/fd").iterdir())), psutil.Process().num_threads()
    print(
        f"{count} registrations: {before:.0f} MB early, {after:.0f} MB at the end ({growth:+.1%})"
    )
    print(f"{files} open files, {threads} threads")
    sys.exit(growth >= GROWTH)
