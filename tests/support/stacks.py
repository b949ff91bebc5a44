"""Small stacks of synthetic tissue with known truth, and readers that are not the program's."""

import json
from pathlib import Path

import h5py
import npy2bdv
import numpy as np
import tifffile
from jobs import transforms
from scipy import ndimage

from amst_hpc.synthetic.stack import make_demo, residual

DEPTH, SHAPE = 24, (144, 160)


def make_tissue(folder: Path) -> Path:
    """raw/ and pre/, 24 slices of 144x160 px (y, x) each, and truth.json: a demo less some rows."""
    make_demo(folder, DEPTH, SHAPE[1], seed=2)
    (folder / "prealigned").rename(folder / "pre")
    for path in folder.glob("*/slice_*.tif"):
        tifffile.imwrite(path, tifffile.imread(path)[: SHAPE[0]])
    return folder


def inputs(folder: Path) -> tuple[Path, Path]:
    return folder / "raw", folder / "pre"


def save_stack(folder: Path, images) -> Path:
    """The images as slices that are named as those of a demo."""
    folder.mkdir()
    for z, image in enumerate(images):
        tifffile.imwrite(folder / f"slice_{z:05d}.tif", image)
    return folder


def save_noise(depth: int, dtype: type, high: int) -> None:
    """raw/ and pre/ in the working folder: the same `depth` slices of 37x45, 1 to `high` - 1."""
    rng = np.random.default_rng(1)
    for folder in ("raw", "pre"):
        Path(folder).mkdir()
    for z in range(depth):
        image = rng.integers(1, high, (37, 45), dtype)
        for folder in ("raw", "pre"):
            tifffile.imwrite(f"{folder}/{z:03d}.tif", image)


def read_stack(folder: Path) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])


def read_cells(out: Path, level: int = 0) -> np.ndarray:
    with h5py.File(out, "r") as file:
        return file[f"t00000/s00/{level}/cells"][()]


def error_px(truth: Path, out: Path, shape: tuple[int, int] = SHAPE) -> float:
    """The residual of a run against the truth.json of its stack; shape : (y, x) of raw.

    Where the run has a canvas of its own, its pixel (0, 0) is the pixel `offset_xy` of raw.
    """
    facts = json.loads((out.with_suffix(".amst") / "run.json").read_text())
    back = np.eye(3)
    back[:2, 2] = -np.array(facts.get("canvas", {}).get("offset_xy", (0, 0)))
    found = [None if m is None else (np.array(m) @ back).tolist() for m in transforms(out)]
    return residual(found, json.loads((truth / "truth.json").read_text())["raw"], shape)


def resampled(image, matrix, shape):
    """Independent of the program: cubic spline at `matrix` p, 0 outside, clipped."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    m = np.array(matrix)
    at = [m[1, 0] * x + m[1, 1] * y + m[1, 2], m[0, 0] * x + m[0, 1] * y + m[0, 2]]
    spline = ndimage.spline_filter(image.astype(np.float64), 3, mode="mirror")
    found = ndimage.map_coordinates(spline, at, order=3, mode="constant", prefilter=False)
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(found), limits.min, limits.max)


def check_output(out, raw, shape=None):
    """npy2bdv and h5py see the same volume, and it is raw under the transforms that stand beside.

    Truth for the pixels is a resampling of the test's own; float32 rounding may cost a grey value.
    shape : (y, x) of the output, where it is not that of raw.
    """
    editor = npy2bdv.BdvEditor(str(out.with_suffix(".xml")), mode="r")
    volume = editor.read_view()
    editor._file_object_h5.close()
    with h5py.File(out, "r") as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][()], volume)
        assert file["s00"].attrs["dataType"] == raw.dtype.name.encode()
    assert volume.shape == (len(raw), *(shape or raw.shape[1:]))
    assert volume.dtype == raw.dtype
    for image, source, matrix in zip(volume, raw, transforms(out), strict=True):
        if matrix is None:
            assert not image.any()
            continue
        away = np.abs(image.astype(float) - resampled(source, matrix, image.shape))
        assert (away > (1 if raw.dtype == np.uint8 else 3)).mean() < 1e-3
