"""The write pass alone, MB/s on all levels: `python benchmarks/write_pass.py FOLDER [RANKS ...]`.

Slices of 4096x4096 px (--edge), registration left out; raw is moved by half a pixel (--copied: not
at all), so that it is resampled, averaged down and written. Beside it the pass without its writing
(`layers alone`), and `dd` and `cp` of as many bytes into the same folder. Everything in turn,
--times times; the least counts, and ratios, not seconds. Bound on 2 cores: the pass <= 1.25 x of
cp and the layers alone together.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from jobs import environment  # noqa: E402

from amst_hpc.bdv.file import is_parallel  # noqa: E402
from amst_hpc.ome_zarr.folder import disk_bytes, remove  # noqa: E402
from amst_hpc.parallel.launch import find_mpirun  # noqa: E402

SETTINGS = (
    "coarse.method=none", "refine.backend=none", "output.report=false", "template.radius=1",
    "neighbours.enabled=false",
)  # fmt: skip
WRITERS = {
    "direct": (),
    "funnel": ('output.writer="funnel"',),
    "funnel, gzip": ("output.compression=1", 'output.writer="funnel"'),
    "ome-zarr": ('output.format="ome-zarr"',),
    "ome-zarr, zstd": ("output.compression=1", 'output.format="ome-zarr"'),
    "collective": ('output.writer="collective"',),
    "collective, gzip": ("output.compression=1", 'output.writer="collective"'),
}
ALONE = "layers alone"


def make_raw(folder: Path, count: int, edge: int) -> None:
    folder.mkdir(parents=True)
    base = np.random.default_rng(0).integers(0, 255, (edge, edge), np.uint8)
    for z in range(count):
        tifffile.imwrite(folder / f"{z:04d}.tif", np.roll(base, 7 * z, 0))


def write(work: Path, ranks: int, *options: str, module: tuple[str, ...] = ("-m", "amst_hpc")):
    """Seconds of the write pass and the size of the output."""
    zarr = any("ome-zarr" in option for option in options)
    raw, out = work / "raw", work / ("out.zarr" if zarr else "out.h5")
    for path in out.parent.glob(f"{out.stem}.*"):
        remove(path)
    changes = [word for option in (*SETTINGS, *options) for word in ("--set", option)]
    if (table := work / "moved.csv").exists():
        changes += ["--overrides", str(table)]
    align = [sys.executable, *module, "align", str(raw), str(raw), str(out)]
    command = [find_mpirun(), "-n", str(ranks), *align, *changes]
    subprocess.run(command, env=environment(), check=True, capture_output=True, cwd=ROOT)
    facts = json.loads((out.with_suffix(".amst") / "run.json").read_text())
    size = disk_bytes(out) if zarr else out.stat().st_size
    return max(part["write"] for part in facts["seconds_per_rank"]), size


def without_writing() -> None:
    """The command line, but that layers are thrown away when they are made."""
    from amst_hpc.bdv.chunks import chunk_grid
    from amst_hpc.bdv.direct import DirectFile
    from amst_hpc.cli.app import main

    def forget(self, *_layer):
        return [np.zeros(chunk_grid(level), np.uint32) for level in self.layout.levels]

    DirectFile.write_layer, DirectFile.sync = forget, lambda _: None
    main()


def timed(*command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def measure(work: Path, ranks: int, times: int) -> None:
    """One line for each writer, and for what it is compared with."""
    names = [name for name in WRITERS if is_parallel() or not name.startswith("collective")]
    least: dict[str, float] = {}
    sizes = {}
    for _ in range(times):
        for name in names:
            seconds, sizes[name] = write(work, ranks, *WRITERS[name])
            least[name] = min(seconds, least.get(name, seconds))
            if name == "direct":
                seconds = timed("sh", "-c", f"cp {work}/out.h5 {work}/copy && sync {work}/copy")
                least["cp"] = min(seconds, least.get("cp", seconds))
                (work / "copy").unlink()
        seconds, _ = write(work, ranks, module=(__file__, ALONE))
        least[ALONE] = min(seconds, least.get(ALONE, seconds))
    for name, seconds in least.items():
        size = sizes.get(name, sizes["direct"])
        print(f"{ranks:3d} ranks  {name:18s} {seconds:6.2f} s {size / seconds / 1e6:7.0f} MB/s")
    ratio = least["direct"] / (least["cp"] + least[ALONE])
    print(f"{ranks:3d} ranks  direct / (cp + {ALONE}) = {ratio:.2f}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("ranks", type=int, nargs="*", default=[1, 2])
    options.add_argument("--slices", type=int, default=64)
    options.add_argument("--edge", type=int, default=4096)
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--copied", action="store_true", help="nothing is resampled")
    given = options.parse_args()
    work = given.folder / "write_pass"
    make_raw(work / "raw", given.slices, given.edge)
    if not given.copied:
        rows = [f"{z},shift,0.5,0.5" for z in range(given.slices)]
        (work / "moved.csv").write_text("\n".join(["slice,action,x,y", *rows]))
    try:
        for ranks in given.ranks:
            measure(work, ranks, given.times)
        size = (work / "out.h5").stat().st_size >> 22
        flags = (f"of={work}/copy", "bs=4M", f"count={size}", "conv=fsync")
        print(f"dd conv=fsync {(size << 22) / timed('dd', 'if=/dev/zero', *flags) / 1e6:.0f} MB/s")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    if sys.argv[1:2] == [ALONE]:
        del sys.argv[1]
        without_writing()
    else:
        main()
