"""Grey values of synthetic neural tissue.

The tissue is a weighted, anisotropic, warped 3-D Voronoi tessellation: a cell is where
``F_i(p) = sqrt((p - s_i)' A_i (p - s_i)) - w_i`` is the smallest, and the gap to the second
smallest over its slope is about the distance to the membrane in px. Mitochondria, vesicles,
synaptic densities and tubules are drawn into the cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Shape = tuple[int, int, int]  # z, y, x
BLOCK = 4  # voxels per axis that share their list of candidate cells
CANDIDATES = 6
CELL_PX = 40.0  # mean distance of cell centres
MEMBRANE_PX, MYELIN_PX = 1.5, 5.5  # sd of the dark profile on either side
VESICLE_GRID_PX = 8  # vesicles sit on a jittered grid of this pitch
MEAN_GREY = 140.0
STEEPEST, FLATTEST = 2.0, 0.8  # slope of the gap between two cells, per px, is held within


@dataclass(frozen=True)
class Tissue:
    """The cells of a volume.

    label : (z, y, x) number of the cell; wall : (z, y, x) distance to the membrane, px;
    axis : (cells, 3) unit vector along each cell, zyx.
    """

    label: np.ndarray
    wall: np.ndarray
    axis: np.ndarray


def smooth_field(shape: Shape, length_px: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random field, float32, mean 0, variance 1, smooth over `length_px`.

    White noise on a grid of that pitch, blended by a gaussian along each axis.
    """
    blends = []
    for n in shape:
        grid = np.arange(-3, n / length_px + 4) * length_px
        blend = np.exp(-0.5 * ((np.arange(n)[:, None] - grid) / length_px) ** 2)
        blends.append((blend / np.linalg.norm(blend, axis=1, keepdims=True)).astype(np.float32))
    along_z, along_y, along_x = blends
    noise = rng.standard_normal([blend.shape[1] for blend in blends], dtype=np.float32)
    return np.tensordot(along_z, along_y @ (noise @ along_x.T), 1)


def tissue_grey(shape: Shape, seed: int) -> np.ndarray:
    """Clean grey values (z, y, x), float32, before the microscope."""
    rng = np.random.default_rng([seed, 0])
    tissue = _grow_cells(shape, rng)
    cells = len(tissue.axis)
    shade = (182 + 9 * rng.normal(size=cells) - 22 * (rng.random(cells) < 0.2)).astype(np.float32)
    coat = np.where(rng.random(cells) < 0.02, MYELIN_PX, MEMBRANE_PX).astype(np.float32)
    synapse = smooth_field(shape, 14.0, rng)
    grey = (
        shade[tissue.label] + 9 * smooth_field(shape, 2.0, rng) + 5 * smooth_field(shape, 7.0, rng)
    )
    _draw_tubules(grey, tissue, rng)
    _draw_vesicles(grey, tissue, synapse, rng)
    _draw_mitochondria(grey, tissue, rng)
    density = 1 / (1 + np.exp(-8 * (synapse - 1.2)))  # where a membrane is a synapse
    width = coat[tissue.label] + 1.8 * density
    dark = np.exp(-0.5 * (tissue.wall / width) ** 2)
    grey += dark * (58 - 12 * density - grey)
    return np.asarray(grey + (MEAN_GREY - grey.mean()), np.float32)


def _grow_cells(shape: Shape, rng: np.random.Generator) -> Tissue:
    """Divide the volume into cells; see the module's description."""
    depth, rows, columns = full = _whole_blocks(shape)
    forms, reach, axis = _random_cells(full, rng)
    warp = [6 * smooth_field(full, 16.0, rng) + 1.3 * smooth_field(full, 5.0, rng) for _ in full]
    label, gap = np.empty(full, np.int32), np.empty(full, np.float32)
    for z in range(0, depth, BLOCK):
        slab = np.s_[z : z + BLOCK]
        place = np.ogrid[slab, :rows, :columns]
        points = [w[slab] + (p - n / 2) for w, p, n in zip(warp, place, full, strict=True)]
        blocks = [_to_blocks(p.astype(np.float32)) for p in points]
        nearest, distance = _two_nearest(_monomials(blocks), forms, reach)
        label[slab] = _from_blocks(nearest, rows, columns)
        gap[slab] = _from_blocks(distance, rows, columns)
    inside = tuple(np.s_[:n] for n in shape)
    return Tissue(label[inside], _distance(gap)[inside], axis)


def _whole_blocks(shape: Shape) -> Shape:
    depth, rows, columns = (-(-n // BLOCK) * BLOCK for n in shape)
    return depth, rows, columns


def _to_blocks(slab: np.ndarray) -> np.ndarray:
    """(BLOCK, rows, columns) as (blocks, voxels of a block)."""
    _, rows, columns = slab.shape
    cut = slab.reshape(BLOCK, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return cut.transpose(1, 3, 0, 2, 4).reshape(-1, BLOCK**3)


def _from_blocks(blocks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The inverse of `_to_blocks`."""
    cut = blocks.reshape(rows // BLOCK, columns // BLOCK, BLOCK, BLOCK, BLOCK)
    return cut.transpose(2, 0, 3, 1, 4).reshape(BLOCK, rows, columns)


def _distance(gap: np.ndarray) -> np.ndarray:
    """Distance to the membrane, px, from the signed gap: its size over its slope.

    The sign makes the slope right at a membrane; further off it jumps where the second nearest cell
    becomes another one.
    """
    size = np.abs(gap)
    at_membrane, beyond = (sum(step**2 for step in np.gradient(field)) for field in (gap, size))
    slope = np.sqrt(np.where(size < STEEPEST, at_membrane, beyond))
    wall: np.ndarray = size / np.clip(slope, FLATTEST, STEEPEST)
    return wall


def _random_cells(
    shape: Shape, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quadratic forms (cells, 10) of `_monomials`, weights w (cells,) px, axes (cells, 3) zyx."""
    extent = np.array(shape) + 3 * CELL_PX
    n = int(extent.prod() / CELL_PX**3)
    seed = rng.uniform(-0.5, 0.5, (n, 3)) * extent
    axis = rng.normal(size=(n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    squeeze = 1 - rng.uniform(1.0, 3.0, n) ** -2
    form = np.eye(3) - squeeze[:, None, None] * axis[:, :, None] * axis[:, None, :]
    linear = -2 * np.einsum("nij,nj->ni", form, seed)
    constant = np.einsum("ni,nij,nj->n", seed, form, seed)
    mixed = 2 * form[:, (0, 0, 1), (1, 2, 2)]
    square = form[:, (0, 1, 2), (0, 1, 2)]
    forms = np.hstack([square, mixed, linear, constant[:, None]]).astype(np.float32)
    reach = np.where(rng.random(n) < 0.12, 24.0, rng.normal(0.0, 6.0, n)).astype(np.float32)
    return forms, reach, axis


def _monomials(points: list[np.ndarray]) -> np.ndarray:
    """z², y², x², zy, zx, yx, z, y, x, 1 of (blocks, voxels) points, as (blocks, 10, voxels)."""
    z, y, x = points
    return np.stack([z * z, y * y, x * x, z * y, z * x, y * x, z, y, x, np.ones_like(z)], axis=1)


def _two_nearest(
    monomials: np.ndarray, forms: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number of the nearest cell and the gap F2 - F1 to the second, px, (blocks, voxels) each.

    The gap has a sign that changes from one cell to the other, so that it is smooth across their
    membrane. Only the CANDIDATES cells nearest to the middle of a block are tried.
    """
    middle = monomials[:, :, monomials.shape[2] // 2]
    far = np.sqrt(np.maximum(middle @ forms.T, 0)) - reach
    chosen = np.argpartition(far, CANDIDATES, axis=1)[:, :CANDIDATES]
    distance = np.sqrt(np.maximum(forms[chosen] @ monomials, 0)) - reach[chosen][:, :, None]
    first = np.full_like(distance[:, 0], np.inf)
    second, label, other = first.copy(), np.zeros(first.shape, int), np.zeros(first.shape, int)
    for k in range(CANDIDATES):
        here = distance[:, k]
        cell = chosen[:, k, None]
        other = np.where(here < first, label, np.where(here < second, cell, other))
        label = np.where(here < first, cell, label)
        second = np.minimum(second, np.maximum(first, here))
        first = np.minimum(first, here)
    return label, np.where(label < other, second - first, first - second)


def _draw_tubules(grey: np.ndarray, tissue: Tissue, rng: np.random.Generator) -> None:
    """Reticulum: thin dark level sets of one random field where another and the cell leave room."""
    sheet = smooth_field(grey.shape, 9.0, rng)
    room = np.clip(2 * smooth_field(grey.shape, 16.0, rng) - 1, 0, 1)
    room *= np.clip((tissue.wall - 4) / 3, 0, 1)
    where = room > 0
    line = np.exp(-0.5 * (sheet[where] / 0.15) ** 2)
    grey[where] += 0.6 * room[where] * line * (80 - grey[where])


def _draw_vesicles(
    grey: np.ndarray, tissue: Tissue, synapse: np.ndarray, rng: np.random.Generator
) -> None:
    """Small dark shells crowding in some cells near synapses."""
    half = 4
    ball = np.sqrt((np.mgrid[-half : half + 1, -half : half + 1, -half : half + 1] ** 2).sum(0))
    stamps = [np.exp(-0.5 * ((ball - radius) / 1.1) ** 2) for radius in (1.6, 2.0, 2.4)]
    hosts = rng.random(len(tissue.axis)) < 0.5
    padded = np.pad(np.zeros_like(grey), half)
    pitch = VESICLE_GRID_PX
    points = np.indices([-(-n // pitch) for n in grey.shape]).reshape(3, -1).T * pitch
    points += rng.integers(0, pitch - 2, points.shape)
    points = points[(points < grey.shape).all(1)]
    z, y, x = points.T
    keep = hosts[tissue.label[z, y, x]] & (synapse[z, y, x] > -0.1) & (tissue.wall[z, y, x] > 4.5)
    for z0, y0, x0 in points[keep]:
        box = tuple(np.s_[p : p + 2 * half + 1] for p in (z0, y0, x0))
        np.maximum(padded[box], stamps[rng.integers(3)], out=padded[box])
    grey += padded[half:-half, half:-half, half:-half] * (100 - grey)


def _draw_mitochondria(grey: np.ndarray, tissue: Tissue, rng: np.random.Generator) -> None:
    """Dark bodies along roomy cells: outer membrane, matrix and lamellar cristae."""
    shape = np.array(grey.shape)
    tries = rng.integers(0, shape, (4000, 3))
    room = tissue.wall[tuple(tries.T)]
    wobble = smooth_field(grey.shape, 8.0, rng)
    taken: list[np.ndarray] = []
    for point in tries[np.argsort(-room)][: int((room > 11).sum())]:
        if all(np.linalg.norm(point - other) > 55 for other in taken):
            taken.append(point)
            _draw_mitochondrion(grey, tissue, wobble, point, rng)


def _draw_mitochondrion(
    grey: np.ndarray,
    tissue: Tissue,
    wobble: np.ndarray,
    centre: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """One body about `centre` (zyx); `depth` is the distance in px from its surface inwards."""
    radius, stretch = rng.uniform(9, 17), rng.uniform(1.5, 3.0)
    reach = int(radius * stretch) + 6
    box = tuple(
        np.s_[max(0, c - reach) : min(n, c + reach + 1)]
        for c, n in zip(centre, grey.shape, strict=True)
    )
    local = np.stack(np.broadcast_arrays(*np.ogrid[box]), axis=-1) - centre
    axis = tissue.axis[tissue.label[tuple(centre)]]
    along = local @ axis
    span = np.sqrt(np.maximum((local**2).sum(-1) - along**2 * (1 - stretch**-2), 0))
    depth = np.minimum(radius - span + 1.5 * wobble[box], tissue.wall[box] - 4)
    depth[tissue.label[box] != tissue.label[tuple(centre)]] = -9
    folds = np.cross(axis, rng.normal(size=3))
    wave = np.sin(
        2 * np.pi / 6.5 * (local @ (axis + folds)) / np.linalg.norm(axis + folds) + 3 * wobble[box]
    )
    body = 108 - 16 * wave - 40 * np.exp(-0.5 * ((depth - 1) / 1.1) ** 2)
    grey[box] += (body - grey[box]) / (1 + np.exp(-2.5 * depth))
