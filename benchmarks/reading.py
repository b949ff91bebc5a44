#!/usr/bin/env python3
"""Reading: HDF5 in blocks of a chunk's depth, and slices that are read ahead.

    python benchmarks/reading.py [--size 2048] [--slices 64] [--folder DIR]

Blocks: CPU seconds per slice of a gzip file with chunks of 64 slices, read one by one and as the
program does. Ahead: seconds of a job on one rank, with and without, by turns, from compressed TIFF
(`waiting`: each slice comes 50 ms late, as from a busy server) and from that file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import tifffile
from scipy import ndimage

from amst_hpc.images.opening import open_stack

JOB = """
import sys, time
from amst_hpc.cli.app import main
from amst_hpc.images import ahead, tiff
how = sys.argv.pop(1)
if "off" in how:
    ahead.ReadAhead.expect = lambda self, slices: None
if "waiting" in how:
    read = tiff.TiffSeries.read
    tiff.TiffSeries.read = lambda self, z: (time.sleep(0.05), read(self, z))[1]
main()
"""


def write_stacks(folder: Path, size: int, depth: int) -> None:
    """raw and pre: TIFF slices (zlib), and gzip HDF5 with chunks of 64 slices."""
    rng = np.random.default_rng(1)
    one, two = (ndimage.gaussian_filter(rng.normal(size=(size, size)), 3) * 300 for _ in range(2))
    for part in ("raw", "pre"):
        (folder / part).mkdir()
        with h5py.File(folder / f"{part}.h5", "w") as file:
            volume = np.empty((depth, size, size), np.uint8)
            for z in range(depth):
                grey = 128 + np.cos(z / 20) * one + np.sin(z / 20) * two
                grey += rng.normal(size=grey.shape) * 4
                volume[z] = np.clip(grey if part == "pre" else np.roll(grey, z % 5, 1), 0, 255)
                path = folder / part / f"slice_{z:04d}.tif"
                tifffile.imwrite(path, volume[z], compression="zlib", rowsperstrip=64)
            chunks = (min(64, depth), 128, 128)
            file.create_dataset("a", data=volume, chunks=chunks, compression="gzip")


def time_blocks(source: str, depth: int) -> None:
    """A line: CPU seconds per slice, read one by one (of eight slices) and as the program does."""
    path, _, name = source.partition(":/")
    with h5py.File(path) as file:
        began = time.process_time()
        for z in range(0, depth, depth // 8):
            file[name][z]
        single = (time.process_time() - began) / len(range(0, depth, depth // 8))
    stack, began = open_stack(source, "RAW"), time.process_time()
    for z in range(depth):
        stack.read(z)
    block = (time.process_time() - began) / depth
    print(
        f"blocks: {single:.3f} -> {block:.4f} CPU s per slice, {single / block:.0f} times",
        flush=True,
    )


def time_job(how: str, inputs: list[str], folder: Path, refine: str) -> list[float]:
    """Seconds of one rank: register, pair, write."""
    out = folder / f"{how}.h5"
    keys = ("coarse.method=xcorr", f"refine.backend={refine}", "output.report=false")
    sets = [part for key in keys for part in ("--set", key)]
    command = [sys.executable, "-c", JOB, how, "align", *inputs, str(out), "--overwrite", *sets]
    subprocess.run(command, check=True, capture_output=True)
    facts = json.loads((folder / f"{how}.amst/run.json").read_text())["seconds_per_rank"][0]
    return [facts[key] for key in ("register", "pair", "write")]


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--refine", nargs="*", default=["none", "gauss-newton"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_stacks(folder, asked.size, asked.slices)
        tiffs = [str(folder / part) for part in ("raw", "pre")]
        files = [f"{folder / part}.h5:/a" for part in ("raw", "pre")]
        time_blocks(files[0], asked.slices)
        for refine in asked.refine:
            for case, inputs in (("", tiffs), ("waiting", tiffs), ("", files)):
                rounds = [
                    [time_job(case + how, inputs, folder, refine) for how in ("off", "on")]
                    for _ in range(asked.rounds)
                ]
                off, on = np.median(rounds, axis=0) / asked.slices
                what = case or ("HDF5" if inputs is files else "TIFF")
                print(f"{refine} {what}: register, pair, write, s per slice")
                print(
                    "  ",
                    *(f"{a:.3f} -> {b:.3f}," for a, b in zip(off, on, strict=True)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
