"""The real volumes, displaced by known transforms."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

FIB25 = "fib25_medulla_250x250x250_isotropic.tif"
LUCCHI = "lucchi_hippocampus_96x768x768_5nm.tif"
MakeGroundTruth = Callable[[str, str, str], Path]


@pytest.fixture(scope="session")
def fib25_dev(make_ground_truth: MakeGroundTruth) -> Path:
    """96 slices of 176x176, the harder one: few pixels."""
    options = "--nz 96 --z0 40 --fov 176 176 --drift 8 --jitter-sd 2.5 --seed 11"
    return make_ground_truth("fib25_dev", FIB25, options)


@pytest.fixture(scope="session")
def lucchi_dev(make_ground_truth: MakeGroundTruth) -> Path:
    """64 slices of 512x512 with noise, curtains, two blank slices and a partial one."""
    options = "--nz 64 --z0 8 --fov 512 512 --seed 12 --artefacts full"
    return make_ground_truth("lucchi_dev", LUCCHI, options)


@pytest.fixture(scope="session")
def mosaic_dev(
    make_ground_truth: MakeGroundTruth, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """96 slices of 600x800: tiles of both FIB-25 volumes."""
    volume = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    sources = [str(shared / "data" / name) for name in (FIB25, FIB25.replace("250x", "2_250x", 1))]
    tool = str(shared / "tools" / "make_mosaic.py")
    subprocess.run([sys.executable, tool, str(volume), *sources], check=True)
    options = "--nz 96 --z0 8 --fov 600 800 --seed 31"
    return make_ground_truth("mosaic_dev", str(volume), options)


@pytest.fixture(scope="session")
def fib25_drift(make_ground_truth: MakeGroundTruth) -> Path:
    """100 slices of 176x176 whose pre-alignment drifts by 10 px in x."""
    options = "--nz 100 --z0 40 --fov 176 176 --drift 8 --jitter-sd 2.5 --seed 21"
    folder = make_ground_truth("fib25_drift", FIB25, options)
    truth = json.loads((folder / "truth.json").read_text())
    for s in truth["slices"]:
        path, away = folder / "pre" / f"slice_{s['index']:05d}.tif", round(s["index"] / 10)
        moved = np.roll(tifffile.imread(path), -away, axis=1)
        tifffile.imwrite(path, moved, photometric="minisblack")
        s["pre_shift_xy"][0] += away
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture(scope="session")
def clean_and_spoilt(make_ground_truth: MakeGroundTruth, shared: Path) -> tuple[Path, Path]:
    """60 slices of 400x400, and a copy: 14, 37 black, 22 partial, 30 of other tissue, 45 as 44."""
    options = "--nz 60 --z0 20 --fov 400 400 --seed 71"
    clean = make_ground_truth("clean", LUCCHI, options)
    spoilt = Path(shutil.copytree(clean, clean.with_name("spoilt")))
    other = tifffile.imread(shared / "data" / FIB25)[50, :200, :200].repeat(2, 0).repeat(2, 1)
    for folder in (spoilt / "raw", spoilt / "pre"):
        paths = sorted(folder.glob("*.tif"))
        images = [tifffile.imread(path) for path in paths]
        images[14] = images[37] = images[14] * 0
        images[22][240:] = 0
        images[30], images[45] = other, images[44]
        for z in (14, 22, 30, 37, 45):
            tifffile.imwrite(paths[z], images[z], photometric="minisblack")
    return clean, spoilt


@pytest.fixture(scope="session")
def lucchi_small(make_ground_truth: MakeGroundTruth) -> Path:
    """20 slices of 200x216 (y, x), no artefacts."""
    return make_ground_truth("lucchi_small", LUCCHI, "--nz 20 --z0 38 --fov 200 216 --seed 3")
