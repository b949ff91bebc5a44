"""The curves of the report, and what all its pictures share.

Figures are laid out in CSS pixels for a page of `WIDTH` and drawn at twice that, so they are sharp
on every screen. Colours are Okabe and Ito's, which colour-blind people can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.quality.run_results import RunResults, applied, step_jitter
from amst_hpc.registration.solve import PairFit
from amst_hpc.slice_result import STAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 1160  # css px
SHARP = 2  # drawn pixels per css px
MARGIN, TOP, BOTTOM = 52, 26, 34  # css px around pictures and curves
BARS = 48  # ranks that have a bar of their own
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
DISTANCES = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK)  # of pairs, k = 1, 2, ...
RANK_STEPS = (("start", PURPLE), ("register", BLUE), ("pair", ORANGE), ("write", GREEN))
COLOURS = {"raw": ORANGE, "prealigned": SKY, "aligned": BLUE}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A white figure of css px."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 100, height / 100), facecolor="white")


def new_axes(figure: Figure, left: float, bottom: float, wide: float, high: float) -> Axes:
    """Axes at css px of a figure, so that a picture in them keeps its pixels."""
    width, height = figure.get_figwidth() * 100, figure.get_figheight() * 100
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    axes.tick_params(labelsize=8, length=3)
    return axes


def plot_curve(axes: Axes, found: RunResults, values: NDArray[Any], **style: Any) -> None:
    """A value of each slice; of a long stack the least and the largest of each drawn pixel, which
    looks the same and is drawn in no time.
    """
    z, values = np.array(found.index, np.float64), np.asarray(values, np.float64)
    run = len(z) // (WIDTH * SHARP)
    if run > 1:
        ends = np.pad(values, (0, -len(z) % run), constant_values=np.nan).reshape(-1, run)
        known = np.isfinite(ends)
        low = np.where(known, ends, np.inf).min(axis=1)
        high = np.where(known, ends, -np.inf).max(axis=1)
        values = np.stack([low, high], axis=1).ravel()
        values[~np.isfinite(values)] = np.nan
        z = z[::run].repeat(2)
    axes.plot(z, values, linewidth=0.9 if len(found.index) < 1000 else 0.5, **style)


def mark_flagged(axes: Axes, found: RunResults, label: bool = False) -> None:
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
    figure = new_figure(count * (high + TOP + 6) + BOTTOM + 10)
    panels = []
    for i in range(count):
        bottom = BOTTOM + 10 + (count - 1 - i) * (high + TOP + 6)
        axes = new_axes(figure, MARGIN + 8, bottom, WIDTH - MARGIN - 24, high)
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


def _logarithmic(axes: Axes) -> None:
    """Whole decades along y, in plain numbers."""
    values = np.concatenate([line.get_ydata() for line in axes.get_lines()] or [[1.0]])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if len(values) else (0.1, 1.0)
    axes.set_yscale("log")
    axes.set_ylim(0.9 * 10 ** np.floor(np.log10(low)), 1.1 * 10 ** np.ceil(np.log10(high)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def draw_steps(found: RunResults) -> Figure | None:
    """How far the content jumps from slice to slice, before and after."""
    if all(step_jitter(found, name) is None for name in found.stacks):
        return None
    titles = (
        "Jump from the slice before, px (logarithmic)",
        "in x, px",
        "in y, px",
    )
    figure, panels = _curves(found, titles)
    largest = 0.0
    for name, told in found.stacks.items():
        steps = step_jitter(found, name)
        if steps is None:
            continue
        style: dict[str, Any] = {"color": COLOURS[name], "label": told}
        plot_curve(panels[0], found, np.maximum(np.hypot(*steps.T), 0.01), **style)
        for axes, values in ((panels[1], steps[:, 1]), (panels[2], steps[:, 0])):
            plot_curve(axes, found, values, **style)
        if np.isfinite(steps).any():
            largest = max(largest, float(np.nanpercentile(np.abs(steps), 99.5)))
    _logarithmic(panels[0])
    for i, axes in enumerate(panels):
        mark_flagged(axes, found, label=i == 0)
        if i and largest:
            axes.set_ylim(-1.3 * largest, 1.3 * largest)
    _legend(panels[0])
    return figure


def draw_neighbours(found: RunResults) -> Figure | None:
    """How far the neighbours moved each slice, and what is left of each pair."""
    if not found.pairs:
        return None
    titles = (
        "How far the neighbours moved the corners of the slice, mean, px",
        "How far each pair of slices z and z + k is off the aligned stack, px (logarithmic)",
    )
    figure, panels = _curves(found, titles)
    plot_curve(panels[0], found, found.curve("correction"), color=BLUE)
    panels[0].set_ylim(bottom=0)
    mark_flagged(panels[0], found)
    for k, colour in zip(sorted({p.k for p in found.pairs if p.k}), cycle(DISTANCES)):
        mine = [p for p in found.pairs if p.k == k and np.isfinite(p.residual)]
        _dots(panels[1], mine, marker=".", markersize=4, color=colour, label=f"k = {k}")
    far = [p for p in found.flagged_pairs if np.isfinite(p.residual)]
    style: dict[str, Any] = {"color": VERMILLION, "label": "does not count"}
    _dots(panels[1], far, marker="o", markersize=9, fillstyle="none", **style)
    _logarithmic(panels[1])
    lost = [p.z for p in found.flagged_pairs if not np.isfinite(p.residual)]
    style = {"color": VERMILLION, "label": "no result", "linestyle": "", "clip_on": False}
    edge = panels[1].get_xaxis_transform()
    panels[1].plot(lost, [0.0] * len(lost), marker="x", markersize=6, transform=edge, **style)
    _legend(panels[1])
    return figure


def _dots(axes: Axes, pairs: Sequence[PairFit], **style: Any) -> None:
    """The residual of each pair at its first slice."""
    axes.plot([p.z for p in pairs], [max(p.residual, 1e-3) for p in pairs], linestyle="", **style)


def draw_applied(found: RunResults) -> Figure:
    """Translation, rotation, scale and shear that were applied."""
    titles = (
        "Applied translation at the middle of the slice, px",
        "rotation, degrees",
        "scale - 1, per cent",
        "shear, per cent",
    )
    figure, panels = _curves(found, titles, 120)
    done = applied(found.matrices, found.shape)
    plans = (
        (panels[0], (("x", BLUE, "x"), ("y", ORANGE, "y"))),
        (panels[1], (("rotation", BLUE, ""),)),
        (panels[2], (("scale_x", BLUE, "x"), ("scale_y", ORANGE, "y"))),
        (panels[3], (("shear", BLUE, ""),)),
    )
    for axes, curves in plans:
        for key, colour, label in curves:
            plot_curve(axes, found, done[key], color=colour, label=label or None)
        mark_flagged(axes, found, label=axes is panels[0])
    _legend(panels[0])
    _legend(panels[2])
    return figure


def draw_scores(found: RunResults) -> Figure:
    """SIFT matches and the correlation with the template."""
    titles = ("Matched keypoints (SIFT; 0: cross-correlation)", "Correlation with the template")
    figure, panels = _curves(found, titles, 130)
    plot_curve(panels[0], found, found.curve("matches"), color=GREEN)
    panels[0].set_ylim(bottom=0)
    plot_curve(panels[1], found, found.curve("start"), color=ORANGE, label="after the shift")
    plot_curve(panels[1], found, found.curve("metric"), color=BLUE, label="after the affine step")
    for i, axes in enumerate(panels):
        mark_flagged(axes, found, label=i == 1)
    _legend(panels[1])
    return figure


def draw_times(found: RunResults) -> Figure:
    """Seconds per slice by stage, and of each rank by pass."""
    ranks = found.run["seconds_per_rank"]
    high = max(90.0, 16.0 * len(ranks)) if len(ranks) <= BARS else 220.0
    figure = new_figure(TOP + high + BOTTOM + 10)
    left = new_axes(figure, 76, BOTTOM + 10, 400, high)
    right = new_axes(figure, 590, BOTTOM + 10, WIDTH - 606, high)
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
    for name, colour in RANK_STEPS:
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
