"""The demo stack is displaced by the truth it names, and the residual reads what was put in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from amst_hpc.config import InputError
from amst_hpc.synthetic.stack import DemoTruth, Matrix, make_demo, residual

DEPTH, SIZE = 13, 160
IDENTITY: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoTruth]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, make_demo(folder, DEPTH, SIZE)


def read(folder: Path) -> np.ndarray:
    return np.stack([tifffile.imread(file) for file in sorted(folder.glob("slice_*.tif"))])


def pull_back(stack: np.ndarray, matrices: Sequence[Matrix]) -> np.ndarray:
    """aligned(p) = raw(M p); scipy counts yx."""
    warped = []
    for image, matrix in zip(stack.astype(float), np.array(matrices), strict=True):
        swapped, offset = matrix[::-1, 1::-1], matrix[::-1, 2]
        warped.append(ndimage.affine_transform(image, swapped, offset, order=3))
    return np.array(warped)


def neighbour_ncc(stack: np.ndarray) -> float:
    inner = [ndimage.gaussian_filter(image.astype(float), 1.5)[30:-30, 30:-30] for image in stack]
    pairs = pairwise(inner)
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))


def white(sd: float, depth: int = 400) -> list[Matrix]:
    moves = np.random.default_rng(0).normal(0.0, sd, (depth, 2))
    return [[[1.0, 0.0, float(x)], [0.0, 1.0, float(y)]] for x, y in moves]


def test_slices_are_whole_grey_images(demo: tuple[Path, DemoTruth]) -> None:
    for name in ("raw", "prealigned"):
        stack = read(demo[0] / name)
        assert stack.shape == (DEPTH, SIZE, SIZE)
        assert stack.dtype == np.uint8
        assert 120 < stack.mean() < 160
        assert (stack == 0).mean() < 1e-3  # no padding


def test_truth_brings_raw_slices_back(demo: tuple[Path, DemoTruth]) -> None:
    folder, truth = demo
    raw = read(folder / "raw")
    before = neighbour_ncc(raw)
    coarse, fine = (neighbour_ncc(pull_back(raw, m)) for m in (truth.prealigned, truth.raw))
    assert before + 0.05 < coarse < fine
    assert fine > 0.93


def test_prealigned_is_raw_moved_by_whole_pixels(demo: tuple[Path, DemoTruth]) -> None:
    folder, truth = demo
    raw, prealigned = read(folder / "raw"), read(folder / "prealigned")
    for source, moved, matrix in zip(raw, prealigned, truth.prealigned, strict=True):
        (_, _, x), (_, _, y) = np.array(matrix).astype(int)
        inside = np.s_[max(0, -y) : SIZE - max(0, y), max(0, -x) : SIZE - max(0, x)]
        shifted = np.roll(source, (-y, -x), (0, 1))
        assert np.array_equal(shifted[inside], moved[inside])


def test_displacements_are_of_the_stated_size(demo: tuple[Path, DemoTruth]) -> None:
    _, truth = demo
    still = [IDENTITY] * DEPTH
    assert residual(still, truth.raw, (SIZE, SIZE)) > 1.8
    assert 0.6 < residual(truth.prealigned, truth.raw, (SIZE, SIZE)) < 1.8


def test_truth_file_holds_the_returned_matrices(demo: tuple[Path, DemoTruth]) -> None:
    folder, truth = demo
    assert DemoTruth(**json.loads((folder / "truth.json").read_text())) == truth


def test_same_seed_same_stack(demo: tuple[Path, DemoTruth], tmp_path: Path) -> None:
    folder, truth = demo
    assert make_demo(tmp_path, DEPTH, SIZE) == truth
    assert np.array_equal(read(tmp_path / "raw"), read(folder / "raw"))
    assert make_demo(tmp_path, 5, 64, seed=2).raw != truth.raw[:5]
    assert len(read(tmp_path / "raw")) == 5  # nothing left of the deeper demo


def test_foreign_slices_are_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "raw" / "slice_00000.tif"
    precious.parent.mkdir()
    precious.write_bytes(b"mine")
    with pytest.raises(InputError, match="not a demo"):
        make_demo(tmp_path, 5, 64)
    assert precious.read_bytes() == b"mine"


def test_too_small_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 slices"):
        make_demo(tmp_path, 1, 64)


def test_residual_of_the_truth_is_zero(demo: tuple[Path, DemoTruth]) -> None:
    _, truth = demo
    assert residual(truth.raw, truth.raw, (SIZE, SIZE)) == pytest.approx(0, abs=1e-9)


def test_residual_forgives_a_linear_drift_and_a_fixed_pose(demo: tuple[Path, DemoTruth]) -> None:
    _, truth = demo
    drift = np.array(truth.raw)
    linear = drift[:, :, :2]  # raw(M (p + d)): the gauge is on the side of the aligned frame
    move = np.stack([5 + 0.5 * np.arange(DEPTH), 3 - 0.2 * np.arange(DEPTH)], axis=1)
    drift[:, :, 2] += np.einsum("zij,zj->zi", linear, move)
    assert residual(drift.tolist(), truth.raw, (SIZE, SIZE)) == pytest.approx(0, abs=1e-9)


def test_residual_of_white_jitter_is_its_size() -> None:
    jitter = white(1 / np.sqrt(np.pi / 2))  # mean length of the moves: 1 px
    assert residual(jitter, [IDENTITY] * len(jitter), (99, 99)) == pytest.approx(0.96, abs=0.06)


def test_residual_of_one_moved_slice() -> None:
    moved: list[Matrix | None] = [IDENTITY] * 41
    moved[20] = [[1.0, 0.0, 3.0], [0.0, 1.0, 4.0]]
    weight = 1 / np.exp(-0.5 * (np.arange(-20, 21) / 7) ** 2).sum()
    # the moved slice keeps 1 - weight of its 5 px, and the others together take up as much
    expected = 5.0 * 2 * (1 - weight) / 41
    assert residual(moved, [IDENTITY] * 41, (50, 50)) == pytest.approx(expected, rel=0.05)


def test_residual_sees_a_scaling_error_at_the_corners() -> None:
    scales = 1 + 0.01 * (-1.0) ** np.arange(60)
    grown = [[[s, 0.0, 50 * (1 - s)], [0.0, s, 50 * (1 - s)]] for s in scales]
    expected = 0.01 * 50 * np.sqrt(2)
    assert residual(grown, [IDENTITY] * 60, (101, 101)) == pytest.approx(expected, rel=0.03)


def test_residual_leaves_out_missing_slices() -> None:
    holes: list[Matrix | None] = [None if z % 4 == 0 else IDENTITY for z in range(20)]
    assert residual(holes, [IDENTITY] * 20, (50, 50)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="three or more"):
        residual([None] * 20, [IDENTITY] * 20, (50, 50))
