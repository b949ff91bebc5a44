"""The normal equations of Gauss-Newton between two filtered slices, on the host.

What `opencl/gauss_newton.cl` computes, for machines without an OpenCL device; see there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amst_hpc.averaging import average_down
from amst_hpc.opencl.gauss_newton import MARGIN, TILE, Photometry, Tiles
from amst_hpc.transform import FloatImage, Image, Matrix

UPPER = np.triu_indices(8)
Floats = NDArray[np.float64]
Images = tuple[FloatImage, FloatImage]


def across(width: int) -> int:
    """How many tiles lie side by side."""
    return -(-width // TILE)


class HostEquations:
    """The interface of `opencl.gauss_newton.DeviceEquations`."""

    def keep(self, coefficients: FloatImage) -> FloatImage:
        """The coefficients as they are."""
        return coefficients

    def average_down(self, image: Image, factor: int) -> FloatImage:
        """See `averaging.average_down`."""
        return average_down(image, factor)

    def sums(self, pair: Images, m: Matrix, light: Photometry, tiles: Tiles) -> Floats:
        """Sums of each tile, (n, 48).

        pair : cubic B-spline coefficients of the fixed and the moving image, NaN where a pixel does
        not count. light : gain, bias and 1 / (residual that counts a quarter), 0: all count
        alike. tiles : numbers of tiles of 64 x 64 px, row by row.
        """
        return np.array([_tile(pair, m, light, int(t)) for t in tiles])


def _basis(u: Floats) -> tuple[Floats, Floats]:
    """Weights and slopes of the four coefficients around a point, (4, ...) each."""
    v = 1 - u
    weights = [v**3 / 6, 2 / 3 - u * u * (2 - u) / 2, 2 / 3 - v * v * (2 - v) / 2, u**3 / 6]
    slopes = [-v * v / 2, u * (1.5 * u - 2), -v * (1.5 * v - 2), u * u / 2]
    return np.array(weights), np.array(slopes)


def _sample(c: FloatImage, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Value and slopes in x and y of a spline at points that lie inside by 2 px."""
    ix, iy = np.floor(x).astype(int), np.floor(y).astype(int)
    wx, dx = _basis(x - ix)
    wy, dy = _basis(y - iy)
    value, gx, gy = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for j in range(4):
        row = [c[iy - 1 + j, ix - 1 + i].astype(np.float64) for i in range(4)]
        along = sum(w * r for w, r in zip(wx, row, strict=True))
        value, gy = value + wy[j] * along, gy + dy[j] * along
        gx = gx + wy[j] * sum(d * r for d, r in zip(dx, row, strict=True))
    return value, gx, gy


def _tile(pair: Images, m: Matrix, light: Photometry, tile: int) -> Floats:
    fixed, moving = pair
    height, width = fixed.shape
    gain, bias, scale = light
    top, left = tile // across(width) * TILE, tile % across(width) * TILE
    ys = np.arange(max(top, MARGIN), min(top + TILE, height - MARGIN))
    xs = np.arange(max(left, MARGIN), min(left + TILE, width - MARGIN))
    y, x = (a.ravel().astype(np.float64) for a in np.meshgrid(ys, xs, indexing="ij"))
    qx, qy = m @ np.array([x, y, np.ones_like(x)])
    inside = (np.floor(qx) >= MARGIN) & (np.floor(qx) < width - 1 - MARGIN)
    inside &= (np.floor(qy) >= MARGIN) & (np.floor(qy) < height - 1 - MARGIN)
    x, y, qx, qy = x[inside], y[inside], qx[inside], qy[inside]
    f, fx, fy = _sample(fixed, x, y)
    r, rx, ry = _sample(moving, qx, qy)
    gx = 0.5 * (gain * (m[0, 0] * rx + m[1, 0] * ry) + fx)
    gy = 0.5 * (gain * (m[0, 1] * rx + m[1, 1] * ry) + fy)
    rest = f - (gain * r + bias)
    xi, eta = (x - 0.5 * (width - 1)) / (0.5 * width), (y - 0.5 * (height - 1)) / (0.5 * height)
    j = np.array([gx, gx * xi, gx * eta, gy, gy * xi, gy * eta, r, np.ones_like(r)])
    known = np.isfinite(rest) & np.isfinite(gx + gy)
    j, rest, f = j[:, known], rest[known], f[known]
    weight = 1 / (1 + (rest * scale) ** 2) ** 2
    matrix = (j * weight) @ j.T
    squares = rest**2
    ends = [(weight * squares).sum(), len(rest), squares.sum(), (f**2).sum()]
    return np.concatenate([matrix[UPPER], (j * weight) @ rest, ends])
