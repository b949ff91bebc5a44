"""Reslices of the report: raw, pre-aligned and aligned side by side, along the whole stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from amst_hpc.content import content
from amst_hpc.quality.plots import (
    BOTTOM,
    MARGIN,
    SHARP,
    TOP,
    VERMILLION,
    WIDTH,
    mark_flagged,
    new_axes,
    new_figure,
)
from amst_hpc.quality.run_results import RunResults, suspects
from amst_hpc.quality.thumbnails import Thumbnails

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 14  # css px between the pictures
RUN = 320  # slices shown one by one; a longer stack is also shown whole, thinned out
COLUMN = (WIDTH - MARGIN - 2 * GAP - 12) // 3 * SHARP  # drawn px
LEAST_SPAN = 178  # px of a slice that a reslice shows at least
TALLEST = 900  # drawn px
OVERVIEW = 400  # drawn px, of each stack in the view of the whole


def shown_run(found: RunResults) -> slice:
    """The slices that are shown one by one: all, or a run around the first that stands out."""
    count = len(found.index)
    if count <= RUN:
        return slice(0, count)
    notable = [*suspects(found), *found.flagged]
    middle = found.index.index(notable[0]) if notable else count // 2
    first = int(np.clip(middle - RUN // 2, 0, count - RUN))
    return slice(first, first + RUN)


def draw_reslices(found: RunResults, plane: str) -> Figure | None:
    """Raw, pre-aligned and aligned side by side, z downwards, every pixel to scale."""
    stacks = _stacks(found)
    if not stacks:
        return None
    run = shown_run(found)
    length = next(iter(stacks.values())).sizes[plane]
    aspect = _z_aspect(found, plane)
    deepest = int(TALLEST / aspect / (run.stop - run.start))
    dot = int(np.clip(min(COLUMN // min(length, LEAST_SPAN), deepest), 2, 10))
    row = max(1, round(dot * aspect))
    first, span = _middle(length, COLUMN // dot)
    rows = min(run.stop - run.start, TALLEST // row)
    wide, high = span * dot / SHARP, rows * row / SHARP
    figure = new_figure(TOP + high + BOTTOM)
    limits = _contrast(stacks, plane)
    for place, (name, kept) in enumerate(stacks.items()):
        left = MARGIN + place * (COLUMN / SHARP + GAP)
        axes = new_axes(figure, left, BOTTOM, wide, high)
        lines = kept.lines(plane, range(run.start, run.start + rows))
        part = lines[:, first : first + span]
        z0 = found.index[run.start]
        extent = (first, first + span, z0 + rows, z0)
        _show(axes, part, limits, extent)
        axes.set_title(f"{plane.upper()}  {found.stacks[name]}", fontsize=11, loc="left", pad=5)
        axes.set_xlabel(f"{plane[0]}, px", fontsize=9, labelpad=1)
        axes.locator_params(axis="x", nbins=5, prune="both")
        if place == 0:
            axes.set_ylabel("slice", fontsize=9)
        else:
            axes.set_yticklabels([])
        marks = [z + 0.5 for z in found.flagged if z0 <= z < z0 + rows]
        axes.plot(
            [first + span + 4 / dot] * len(marks), marks, linestyle="", marker="<", markersize=6,
            color=VERMILLION, clip_on=False,
        )  # fmt: skip
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
    return figure


def draw_overview(found: RunResults) -> Figure | None:
    """The whole stack, z to the right, one above the other, thinned out evenly (never averaged)."""
    stacks = _stacks(found)
    if not stacks:
        return None
    count, room = len(found.index), (WIDTH - MARGIN - 18) * SHARP
    dot = max(1, room // count)
    columns = min(count, room)
    length = next(iter(stacks.values())).sizes["xz"]
    across = dot / _z_aspect(found, "xz") * columns / count  # drawn px per px in x
    first, span = _middle(length, int(OVERVIEW / across))
    z_picks = np.linspace(0, count - 1, columns).round().astype(int)
    x_picks = first + np.linspace(0, span - 1, max(1, round(span * across))).round().astype(int)
    wide, high = columns * dot / SHARP, len(x_picks) / SHARP
    figure = new_figure(3 * (TOP + high) + BOTTOM)
    limits = _contrast(stacks, "xz")
    for place, (name, kept) in enumerate(stacks.items()):
        axes = new_axes(figure, MARGIN, BOTTOM + (2 - place) * (TOP + high), wide, high)
        part = kept.lines("xz", z_picks.tolist())[:, x_picks].T
        z0 = found.index[0]
        _show(axes, part, limits, (z0, z0 + count, first + span, first))
        axes.set_title(f"XZ  {found.stacks[name]}", fontsize=11, loc="left", pad=8)
        axes.set_ylabel("x, px", fontsize=9)
        mark_flagged(axes, found)
        axes.set_xlim(z0, z0 + count)
        if place < 2:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("slice", fontsize=9, labelpad=1)
    return figure


def _stacks(found: RunResults) -> dict[str, Thumbnails]:
    return {name: found.thumbnails[name] for name in found.stacks if name in found.thumbnails}


def _z_aspect(found: RunResults, plane: str) -> float:
    """How much longer a voxel is in z than along the line, averaged-down lines considered."""
    z, y, x = found.voxel_size_nm or (1.0, 1.0, 1.0)
    axis = 1 if plane == "xz" else 0
    length = next(iter(found.thumbnails.values())).sizes[plane]
    return float(z / ((x, y)[1 - axis] * (found.shape[axis] // length)))


def _middle(length: int, most: int) -> tuple[int, int]:
    """First and number of the at most `most` central ones of `length`."""
    span = min(length, most)
    return (length - span) // 2, span


def _contrast(stacks: dict[str, Thumbnails], plane: str) -> tuple[float, float]:
    """Of at most `RUN` slices, evenly spread."""
    kept = stacks.get("aligned", next(iter(stacks.values())))
    count = len(kept.places)
    rows = np.linspace(0, count - 1, min(count, RUN)).round().astype(int)
    lines = np.asarray(kept.lines(plane, rows.tolist()))
    mask = content(lines)
    values = lines[lines > 0 if mask is None else mask & (lines > 0)]
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(max(high, low + 1))


def _show(
    axes: Axes,
    image: NDArray[np.generic],
    limits: tuple[float, float],
    extent: tuple[float, float, float, float],
) -> None:
    axes.imshow(
        np.asarray(image), cmap="gray", vmin=limits[0], vmax=limits[1], extent=extent,
        interpolation="nearest", aspect="auto",
    )  # fmt: skip
