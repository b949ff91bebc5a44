"""A small synthetic FIB-SEM stack with known displacements, and the error of an alignment of it.

Matrices are 2x3 ``[A | t]``, xy order, pixel centres at integers, pull-back:
``true(p) = raw(M p)``. With the padded clean slice ``V`` and its pad ``o`` a raw slice is
``raw(q) = V(M^-1 q + o)``, sampled once; noise comes after. ``prealigned(p) = raw(p + k)`` with
whole-pixel ``k``: the same pixels, from a wider view of the same slice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from amst_hpc.config import InputError
from amst_hpc.images.tiff_output import write_slice
from amst_hpc.synthetic.tissue import smooth_field, tissue_grey

Matrix = list[list[float]]
# motion of the slices
JITTER_PX, DRIFT_PX, PREALIGN_ERROR_PX = 2.5, 10.0, 1.0
ROTATION_RAD, SCALE, SHEAR = 1e-3, 2e-3, 1e-3
CLIP_SD = 3.0  # random numbers of the motion are clipped here, so that PAD_PX holds
PAD_PX = 28  # largest displacement plus the reach of the spline
NOISE_GREY, CURTAIN_GREY = 8.0, 7.0


@dataclass(frozen=True)
class DemoTruth:
    """Pull-back matrices from raw, one per slice: true, and those of the pre-aligned stack."""

    raw: list[Matrix]
    prealigned: list[Matrix]


def make_demo(folder: Path, depth: int = 48, size: int = 384, seed: int = 1) -> DemoTruth:
    """Write raw/, prealigned/ (uint8 TIFF slices of size x size px) and truth.json into `folder`.

    Raises InputError where depth or size is too small or `folder` holds slices that are not a demo.
    """
    if depth < 2 or size < 64:
        raise InputError(
            f"demo of {depth} slices of {size} px: expected at least 2 slices of 64 px"
        )
    _clear(folder)
    motion, grain = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    matrices = _displacements(depth, size, motion)
    centre = (size - 1) / 2
    shift = matrices @ [centre, centre, 1.0] - centre
    shift = np.rint(shift + _normal(motion, (depth, 2), PREALIGN_ERROR_PX)).astype(int)
    clean = _acquire(tissue_grey((depth, size + 2 * PAD_PX, size + 2 * PAD_PX), seed), grain)
    for z in range(depth):
        raw, prealigned = _sample(clean[z], matrices[z], shift[z], size, grain)
        write_slice(folder / "raw" / f"slice_{z:05d}.tif", raw, 0)
        write_slice(folder / "prealigned" / f"slice_{z:05d}.tif", prealigned, 0)
    whole = [[[1.0, 0.0, float(kx)], [0.0, 1.0, float(ky)]] for kx, ky in shift]
    truth = DemoTruth(matrices.tolist(), whole)
    (folder / "truth.json").write_text(json.dumps(asdict(truth)))
    return truth


def residual(
    estimated: Sequence[Matrix | None],
    truth: Sequence[Matrix],
    shape_yx: tuple[int, int],
    sigma: float = 7.0,
) -> float:
    """Mean displacement of the slice corners, px, that is not smooth in z.

    estimated, truth : one 2x3 pull-back matrix per slice; slices estimated as None are left out.
    sigma : width in slices of the local-linear gaussian regression taken off: nobody can know the
    pose of the sample or its slow bend. White errors read 0.96 of their size at the default.
    Raises ValueError with fewer than three estimated slices or lists of different length.
    """
    pairs = zip(estimated, truth, strict=True)
    found = [(z, e, t) for z, (e, t) in enumerate(pairs) if e is not None]
    if len(found) < 3:
        raise ValueError(f"residual of {len(found)} estimated slices: expected three or more")
    index = np.array([z for z, _, _ in found], float)
    height, width = shape_yx
    x, y = np.meshgrid([0.0, width - 1.0], [0.0, height - 1.0])
    corners = np.stack([x.ravel(), y.ravel(), np.ones(4)])
    error = np.array([(_inverse(t) @ _square(e) @ corners)[:2] - corners[:2] for _, e, t in found])
    u = index - index[:, None]  # row: distance of every slice from this one
    weight = np.exp(-0.5 * (u / sigma) ** 2)
    s0, s1, s2 = ((weight * u**power).sum(1, keepdims=True) for power in range(3))
    smoother = weight * (s2 - s1 * u) / (s0 * s2 - s1**2)
    rough = error - np.tensordot(smoother, error, 1)
    return float(np.hypot(rough[:, 0], rough[:, 1]).mean())


def _clear(folder: Path) -> None:
    """Make raw/ and prealigned/, emptied of the slices of an earlier demo."""
    for name in ("raw", "prealigned"):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()) and not (folder / "truth.json").exists():
            raise InputError(
                f"{target}: holds files that are not a demo: expected a new or empty folder"
            )
        for old in target.glob("slice_*.tif"):
            old.unlink()


def _square(matrix: Matrix | np.ndarray) -> np.ndarray:
    """The 3x3 homogeneous form of a 2x3 matrix."""
    return np.vstack([np.asarray(matrix, float), [0.0, 0.0, 1.0]])


def _inverse(matrix: Matrix | np.ndarray) -> np.ndarray:
    return np.linalg.inv(_square(matrix))


def _normal(rng: np.random.Generator, shape: tuple[int, ...], sd: float) -> np.ndarray:
    return sd * np.clip(rng.normal(size=shape), -CLIP_SD, CLIP_SD)


def _displacements(depth: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """True matrices (depth, 2, 3): jitter, slow drift and small affine parts about the centre."""
    walk = ndimage.gaussian_filter1d(rng.normal(size=(depth, 2)).cumsum(0), 4.0, axis=0)
    walk -= walk.mean(0)
    walk *= DRIFT_PX * rng.uniform(0.6, 1.0, 2) / np.abs(walk).max(0)
    move = walk + _normal(rng, (depth, 2), JITTER_PX)
    turn = _normal(rng, (depth,), ROTATION_RAD)
    rotation = np.moveaxis(
        np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]), 2, 0
    )
    stretch = np.tile(np.eye(2), (depth, 1, 1))
    stretch[:, (0, 1), (0, 1)] += _normal(rng, (depth, 2), SCALE)
    stretch[:, 0, 1] = _normal(rng, (depth,), SHEAR)
    linear = rotation @ stretch
    centre = np.full(2, (size - 1) / 2)
    return np.concatenate([linear, (move + centre - linear @ centre)[:, :, None]], axis=2)


def _sample(
    clean: np.ndarray, matrix: np.ndarray, shift: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A raw slice and its pre-aligned twin, (size, size) uint8 each, cut from one wider view."""
    first, last = np.minimum(0, shift), size + np.maximum(0, shift)
    pull = _inverse(matrix)
    swap = pull[1::-1, 1::-1]  # scipy counts yx
    offset = pull[:2] @ [*first, 1.0] + PAD_PX
    shape = tuple(last[::-1] - first[::-1])
    view = ndimage.affine_transform(
        clean, swap, offset[::-1], output_shape=shape, order=3, mode="mirror"
    )
    view += rng.normal(0.0, NOISE_GREY, shape)
    grey = np.clip(np.rint(view), 0, 255).astype(np.uint8)
    (x, y), (kx, ky) = -first, shift - first
    return grey[y : y + size, x : x + size], grey[ky : ky + size, kx : kx + size]


def _acquire(tissue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add curtaining, tied to the sample, and slow and slice-wise drift of the grey level."""
    depth, height, width = tissue.shape
    slow = smooth_field((depth, 1, 1), 12.0, rng)
    gain = 1.0 + 0.03 * slow + 0.01 * rng.normal(size=(depth, 1, 1))
    fresh = ndimage.gaussian_filter1d(rng.standard_t(4, size=(depth, 1, width)), 1.6, axis=2)
    stripes = ndimage.gaussian_filter1d(fresh, 2.0, axis=0)
    stripes *= CURTAIN_GREY / stripes.std()
    fade = np.linspace(0.4, 1.0, height)[:, None]  # curtains grow along the beam
    return np.asarray(tissue * gain + stripes * fade, np.float32)
