"""Raw alone, with all that a long run does to it: `python benchmarks/raw_alone.py VOLUME OTHER`.

From an aligned VOLUME (120 slices or more, TIFF) 120 raw slices: jitter of 2.5 px and small affine
errors, jumps of 30 to 70 px that stay and two that do not, the stage moved by 300 px, a rotation of
2 degrees that stays, 2 black slices, 1 that is stored twice and 3 of OTHER tissue. Prints the error
of each usable slice, less what is smooth over 7 slices; bound: none above 2 px, the bad ones named.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from jobs import command_line, environment  # noqa: E402

from amst_hpc.transform import about, compose, corners, invert, translation  # noqa: E402

DEPTH, EDGE = 120, 6
STAY = {15: (42, -33), 40: (-55, 20), 60: (300, 0), 78: (-34, 61), 104: (30, -38)}
SINGLE = {27: (-48, 31), 90: (37, 52)}
TURNED, DEGREES = 85, 2.0
BLACK, TWICE, REPLACED = (20, 70), 33, (50, 51, 97)
SIGMA = 7.0
Yx = tuple[int, int]


def displacements(shape: Yx, rng: np.random.Generator) -> np.ndarray:
    """Pull-backs `true(p) = raw(M p)` of all slices, (n, 2, 3)."""
    middle, made, stage = (np.array(shape[::-1]) - 1) / 2, [], np.zeros(2)
    for z in range(DEPTH):
        stage = stage + STAY.get(z, (0, 0))
        shift = stage + SINGLE.get(z, (0, 0)) + np.clip(rng.normal(0, 2.5, 2), -7, 7)
        turn = np.radians(DEGREES) * (z >= TURNED) + rng.normal(0, 1e-3)
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        stretched = np.eye(2) + rng.normal(0, 2e-3, (2, 2)) * [[1, 0.5], [0, 1]]
        made.append(about(turned @ stretched, shift, middle))
    return np.array(made)


def make(volume: Path, other: Path, folder: Path, shape: Yx) -> np.ndarray:
    """Write the raw slices; returns the true pull-backs."""
    tissue, foreign = tifffile.imread(volume)[:DEPTH], tifffile.imread(other)
    rng = np.random.default_rng(7)
    truth = displacements(shape, rng)
    ends = (corners(shape) @ np.swapaxes(b := invert(truth), 1, 2)[:, :2]) + b[:, None, :, 2]
    low, high = ends.min(axis=(0, 1)), ends.max(axis=(0, 1))
    room = np.array(tissue.shape[:0:-1]) - 1 - 2 * EDGE
    if (high - low > room).any():
        sys.exit(f"{volume}: {high - low} px are needed, {room} are there; a smaller --shape")
    place = translation(*(EDGE + (room - (high - low)) / 2 - low))
    folder.mkdir(parents=True)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for z in range(DEPTH):
        m = compose(place, invert(truth[z]))
        at = np.einsum("ij,jyx->iyx", m[:, :2], np.stack([x, y])) + m[:, 2, None, None]
        raw = ndimage.map_coordinates(tissue[z].astype(float), at[::-1], order=3)
        raw = raw * (1 + 0.03 * rng.normal()) + rng.normal(0, 4, raw.shape)
        if z in BLACK:
            raw[:] = 0
        if z in REPLACED:
            raw = foreign[z % len(foreign), : shape[0], : shape[1]].astype(float)
        image = np.clip(np.rint(raw), 0, 255).astype(np.uint8)
        if z == TWICE:
            image = tifffile.imread(folder / f"raw_{z - 1:04d}.tif")
        tifffile.imwrite(folder / f"raw_{z:04d}.tif", image)
    return truth


def errors(found: list, truth: np.ndarray, shape: Yx) -> np.ndarray:
    """Mean displacement of the corners, px, less what is smooth in z; nan of the bad slices."""
    usable = [z for z in range(DEPTH) if z not in (*BLACK, TWICE, *REPLACED)]
    q, off = corners(shape), np.full((DEPTH, 4, 2), np.nan)
    for z in usable:
        m = compose(invert(truth[z]), np.array(found[z]))
        off[z] = q @ m[:, :2].T + m[:, 2] - q
    u = np.array(usable)[None] - np.array(usable)[:, None]
    weight = np.exp(-0.5 * (u / SIGMA) ** 2)
    s0, s1, s2 = ((weight * u**i).sum(1, keepdims=True) for i in range(3))
    smooth = np.tensordot(weight * (s2 - s1 * u) / (s0 * s2 - s1**2), off[usable], 1)
    error = np.full(DEPTH, np.nan)
    error[usable] = np.hypot(*np.moveaxis(off[usable] - smooth, -1, 0)).mean(-1)
    return error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--shape", type=int, nargs=2, default=(270, 700), help="y x of raw, px")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("options", nargs="*", help="of align, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = Path(scratch) / "raw", Path(scratch) / "out.h5"
        truth = make(given.volume, given.other, raw, given.shape)
        job = ["align", str(raw), str(out), "--prealign", *given.options]
        code = subprocess.run(
            command_line(given.ranks, job), env=environment(), check=False
        ).returncode
        run = out.with_suffix(".amst")
        found = json.loads((run / "transforms.json").read_text())
        rows = list(csv.DictReader((run / "slices.csv").open()))
        seconds = json.loads((run / "run.json").read_text())["seconds_per_rank"]
    error = errors([m or np.eye(2, 3).tolist() for m in found], truth, given.shape)
    print(f"exit code {code}; mean {np.nanmean(error):.3f}, largest {np.nanmax(error):.2f} px")
    print("above 2 px:", [int(z) for z in np.flatnonzero(error > 2)])
    print("not affine:", {int(r["index"]): r["status"] for r in rows if r["status"] != "affine"})
    parts = {key: sum(s.get(key, 0) for s in seconds) for key in ("compare", "total")}
    print(f"comparing raw: {parts['compare'] / (parts['total'] - parts['compare']):.2f} x the rest")


if __name__ == "__main__":
    main()
