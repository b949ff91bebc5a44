"""The pictures of the report. The only home of matplotlib.

Figures are laid out in CSS pixels for a page of `WIDTH` and drawn at twice that, so they are sharp
on every screen. Colours are Okabe and Ito's, which colour-blind people can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.quality.run_results import STACKS, RunResults, applied, step_jitter, suspects
from amst_hpc.slice_result import STAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 1160  # css px
SHARP = 2  # drawn pixels per css px
MARGIN, GAP, TOP, BOTTOM = 52, 14, 26, 34  # css px around the pictures of a reslice
RUN = 320  # slices shown one by one; a longer stack is also shown whole, thinned out
COLUMN = (WIDTH - MARGIN - 2 * GAP - 12) // 3 * SHARP  # drawn px
LEAST_SPAN = 178  # px of a slice that a reslice shows at least
TALLEST = 900  # drawn px
BARS = 48  # ranks that have a bar of their own
OVERVIEW = 400  # drawn px, of each stack in the view of the whole
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
COLOURS = {"raw": ORANGE, "prealigned": SKY, "aligned": BLUE}


def _figure(height: float, width: float = WIDTH) -> Figure:
    """A white figure of css px."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 100, height / 100), facecolor="white")


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
    stacks = _stacks(found, plane)
    if not stacks:
        return None
    run = shown_run(found)
    length = next(iter(stacks.values())).shape[1]
    aspect = _z_aspect(found, plane)
    deepest = int(TALLEST / aspect / (run.stop - run.start))
    dot = int(np.clip(min(COLUMN // min(length, LEAST_SPAN), deepest), 2, 10))
    row = max(1, round(dot * aspect))
    first, span = _middle(length, COLUMN // dot)
    rows = min(run.stop - run.start, TALLEST // row)
    wide, high = span * dot / SHARP, rows * row / SHARP
    figure = _figure(TOP + high + BOTTOM)
    limits = _contrast(stacks)
    for place, (name, lines) in enumerate(stacks.items()):
        left = MARGIN + place * (COLUMN / SHARP + GAP)
        axes = _axes(figure, left, BOTTOM, wide, high)
        part = lines[run.start : run.start + rows, first : first + span]
        z0 = found.index[run.start]
        extent = (first, first + span, z0 + rows, z0)
        _show(axes, part, limits, extent)
        axes.set_title(f"{plane.upper()}  {STACKS[name]}", fontsize=11, loc="left", pad=5)
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
    stacks = _stacks(found, "xz")
    if not stacks:
        return None
    count, room = len(found.index), (WIDTH - MARGIN - 18) * SHARP
    dot = max(1, room // count)
    columns = min(count, room)
    length = next(iter(stacks.values())).shape[1]
    across = dot / _z_aspect(found, "xz") * columns / count  # drawn px per px in x
    first, span = _middle(length, int(OVERVIEW / across))
    z_picks = np.linspace(0, count - 1, columns).round().astype(int)
    x_picks = first + np.linspace(0, span - 1, max(1, round(span * across))).round().astype(int)
    wide, high = columns * dot / SHARP, len(x_picks) / SHARP
    figure = _figure(3 * (TOP + high) + BOTTOM)
    limits = _contrast(stacks)
    for place, (name, lines) in enumerate(stacks.items()):
        axes = _axes(figure, MARGIN, BOTTOM + (2 - place) * (TOP + high), wide, high)
        part = lines[z_picks][:, x_picks].T
        z0 = found.index[0]
        _show(axes, part, limits, (z0, z0 + count, first + span, first))
        axes.set_title(f"XZ  {STACKS[name]}", fontsize=11, loc="left", pad=8)
        axes.set_ylabel("x, px", fontsize=9)
        _mark(axes, found)
        axes.set_xlim(z0, z0 + count)
        if place < 2:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("slice", fontsize=9, labelpad=1)
    return figure


def _stacks(found: RunResults, plane: str) -> dict[str, NDArray[np.generic]]:
    return {
        name: getattr(found.thumbnails[name], plane) for name in STACKS if name in found.thumbnails
    }


def _z_aspect(found: RunResults, plane: str) -> float:
    """How much longer a voxel is in z than along the line, averaged-down lines considered."""
    z, y, x = found.voxel_size_nm or (1.0, 1.0, 1.0)
    axis = 1 if plane == "xz" else 0
    length = getattr(next(iter(found.thumbnails.values())), plane).shape[1]
    return float(z / ((x, y)[1 - axis] * (found.shape[axis] // length)))


def _middle(length: int, most: int) -> tuple[int, int]:
    """First and number of the at most `most` central ones of `length`."""
    span = min(length, most)
    return (length - span) // 2, span


def _contrast(stacks: dict[str, NDArray[np.generic]]) -> tuple[float, float]:
    lines = np.asarray(stacks.get("aligned", next(iter(stacks.values()))))
    values = lines[lines > 0]
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values[:: max(1, len(values) // 1_000_000)], (0.5, 99.5))
    return float(low), float(max(high, low + 1))


def _axes(figure: Figure, left: float, bottom: float, wide: float, high: float) -> Axes:
    """Axes at css px of a figure, so that a picture in them keeps its pixels."""
    width, height = figure.get_figwidth() * 100, figure.get_figheight() * 100
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    axes.tick_params(labelsize=8, length=3)
    return axes


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


def _mark(axes: Axes, found: RunResults, label: bool = False) -> None:
    """Flagged slices: triangles along the upper edge."""
    flagged = list(found.flagged)
    if not flagged:
        return
    axes.plot(
        flagged, [1.0] * len(flagged), linestyle="", marker="v", markersize=6, color=VERMILLION,
        transform=axes.get_xaxis_transform(), clip_on=False, zorder=5,
        label="fell back" if label else "",
    )  # fmt: skip


def _ends(found: RunResults) -> tuple[float, float]:
    """The first and the last slice, with some room."""
    room = max(0.5, 0.01 * len(found.index))
    return found.index[0] - room, found.index[-1] + room


def _curves(
    found: RunResults, titles: Sequence[str], high: float = 150
) -> tuple[Figure, list[Axes]]:
    """Panels one above the other over the slices, `high` css px each."""
    count = len(titles)
    figure = _figure(count * (high + TOP + 6) + BOTTOM + 10)
    panels = []
    for i in range(count):
        bottom = BOTTOM + 10 + (count - 1 - i) * (high + TOP + 6)
        axes = _axes(figure, MARGIN + 8, bottom, WIDTH - MARGIN - 24, high)
        axes.set_title(titles[i], fontsize=10.5, loc="left", pad=9)
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlim(*_ends(found))
        axes.tick_params(labelbottom=i == count - 1)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        panels.append(axes)
    panels[-1].set_xlabel("slice", fontsize=9)
    return figure, panels


def _legend(axes: Axes) -> None:
    """Above the panel at the right, where no curve is."""
    legend = axes.legend(
        fontsize=9, ncols=6, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.985),
        borderpad=0.1, handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip
    for line in legend.get_lines():
        line.set_linewidth(2)


def draw_steps(found: RunResults) -> Figure | None:
    """How far the content jumps from slice to slice, before and after."""
    if not found.thumbnails:
        return None
    titles = (
        "Jump from the slice before, px (logarithmic)",
        "in x, px",
        "in y, px",
    )
    figure, panels = _curves(found, titles)
    z = np.array(found.index)
    thin = 0.9 if len(z) < 1000 else 0.5
    largest = 0.0
    for name in STACKS:
        kept = found.thumbnails.get(name)
        if kept is None:
            continue
        steps = step_jitter(kept)
        style: dict[str, Any] = {"color": COLOURS[name], "linewidth": thin, "label": STACKS[name]}
        panels[0].plot(z, np.maximum(np.hypot(*steps.T), 0.01), **style)
        for axes, values in ((panels[1], steps[:, 1]), (panels[2], steps[:, 0])):
            axes.plot(z, values, **style)
        if np.isfinite(steps).any():
            largest = max(largest, float(np.nanpercentile(np.abs(steps), 99.5)))
    panels[0].set_yscale("log")
    for i, axes in enumerate(panels):
        _mark(axes, found, label=i == 0)
        if i and largest:
            axes.set_ylim(-1.3 * largest, 1.3 * largest)
    _legend(panels[0])
    return figure


def draw_applied(found: RunResults) -> Figure:
    """Translation, rotation, scale and shear that were applied."""
    titles = (
        "Applied translation at the middle of the slice, px",
        "rotation, degrees",
        "scale - 1, per cent",
        "shear, per cent",
    )
    figure, panels = _curves(found, titles, 120)
    done, z = applied(found.matrices, found.shape), np.array(found.index)
    thin = 0.9 if len(z) < 1000 else 0.5
    plans = (
        (panels[0], (("x", BLUE, "x"), ("y", ORANGE, "y"))),
        (panels[1], (("rotation", BLUE, ""),)),
        (panels[2], (("scale_x", BLUE, "x"), ("scale_y", ORANGE, "y"))),
        (panels[3], (("shear", BLUE, ""),)),
    )
    for axes, curves in plans:
        for key, colour, label in curves:
            axes.plot(z, done[key], color=colour, linewidth=thin, label=label or None)
        _mark(axes, found, label=axes is panels[0])
    _legend(panels[0])
    _legend(panels[2])
    return figure


def draw_scores(found: RunResults) -> Figure:
    """SIFT matches and the correlation with the template."""
    titles = ("Matched keypoints (SIFT; 0: cross-correlation)", "Correlation with the template")
    figure, panels = _curves(found, titles, 130)
    z = np.array(found.index)
    thin = 0.9 if len(z) < 1000 else 0.5
    panels[0].plot(z, found.curve("matches"), color=GREEN, linewidth=thin)
    panels[0].set_ylim(bottom=0)
    panels[1].plot(z, found.curve("start"), color=ORANGE, linewidth=thin, label="after the shift")
    panels[1].plot(
        z, found.curve("metric"), color=BLUE, linewidth=thin, label="after the affine step"
    )
    for i, axes in enumerate(panels):
        _mark(axes, found, label=i == 1)
    _legend(panels[1])
    return figure


def draw_times(found: RunResults) -> Figure:
    """Seconds per slice by stage, and of each rank by pass."""
    ranks = found.run["seconds_per_rank"]
    high = max(90.0, 16.0 * len(ranks)) if len(ranks) <= BARS else 220.0
    figure = _figure(TOP + high + BOTTOM + 10)
    left = _axes(figure, 76, BOTTOM + 10, 400, high)
    right = _axes(figure, 590, BOTTOM + 10, WIDTH - 606, high)
    _draw_stages(left, found)
    _draw_ranks(right, ranks)
    for axes in (left, right):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def _draw_stages(axes: Axes, found: RunResults) -> None:
    """Seconds per slice in each stage, mean."""
    means = [float(np.nan_to_num(np.nanmean(_known(found.seconds(s))))) for s in STAGES]
    axes.barh(range(len(STAGES)), means, color=BLUE, height=0.6)
    axes.set_yticks(range(len(STAGES)), STAGES, fontsize=9)
    for i, mean in enumerate(means):
        axes.annotate(
            f"{mean:.3f}", (mean, i), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=9,
        )  # fmt: skip
    axes.set_xlim(0, 1.15 * max(*means, 1e-3))
    axes.invert_yaxis()
    axes.set_title("Seconds per slice, mean", fontsize=10.5, loc="left")


def _draw_ranks(axes: Axes, ranks: Sequence[Mapping[str, float]]) -> None:
    """Seconds of each rank in each pass: bars, or areas where there are too many."""
    bars = len(ranks) <= BARS
    start, place = np.zeros(len(ranks)), np.arange(len(ranks))
    for name, colour in (("start", PURPLE), ("register", BLUE), ("write", GREEN)):
        values = np.array([part.get(name, 0.0) for part in ranks])
        if bars:
            axes.barh(place, values, left=start, color=colour, label=name, height=0.7)
        else:
            axes.fill_between(place, start, start + values, color=colour, label=name, linewidth=0)
        start = start + values
    axes.set_title("Seconds per rank", fontsize=10.5, loc="left")
    if bars:
        axes.set_ylabel("rank", fontsize=9)
        axes.invert_yaxis()
        axes.set_yticks(place if len(ranks) < 16 else place[::4])
    else:
        axes.set_xlabel("rank", fontsize=9)
    _legend(axes)


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The finite ones; a 0 where there are none."""
    known = values[np.isfinite(values)]
    return known if len(known) else np.zeros(1)
