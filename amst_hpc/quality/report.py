"""`OUT.amst/report.html`: what a run did, in one file with its pictures inside.

Everything comes from `run_results`; the volume is not read. `report.html` beside this module is the
page, `plots` draws its pictures.
"""

from __future__ import annotations

import base64
import gc
import html
import io
import logging
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from amst_hpc.job.journal import write_whole
from amst_hpc.job.lock import locked
from amst_hpc.job.run_folder import run_folder
from amst_hpc.parallel.node import scratch_folder
from amst_hpc.parallel.node_cache import kept_on_node, use_scratch
from amst_hpc.parallel.signals import stop_by_error
from amst_hpc.quality.plots import (
    SHARP,
    draw_applied,
    draw_neighbours,
    draw_scores,
    draw_steps,
    draw_times,
)
from amst_hpc.quality.reslices import RUN, draw_overview, draw_reslices
from amst_hpc.quality.run_results import RunResults, device_table, read_run_results, sentences
from amst_hpc.software import library_version

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

ROWS = 25  # of the table of flagged slices


def write_report(out: Path) -> Path:
    """Draw the report of the run that made `out`. Raises `InputError` if there is none."""
    folder = run_folder(out)
    found = read_run_results(out, folder)
    path = folder / "report.html"
    write_whole(path, page(found))
    return path


def try_report(out: Path) -> None:
    """The report when a run is over: no fault in drawing it may fail the run, nor a stop signal."""
    try:
        with locked(run_folder(out)), scratch_folder(0) as scratch:
            use_scratch(scratch)
            stop_by_error()
            with kept_on_node("fonts", library_version("matplotlib"), sys.prefix):
                write_report(out)
    except Exception as error:  # whatever it is, the aligned stack is there and whole
        log.warning("the report could not be drawn (%s: %s)", type(error).__name__, error)


def page(found: RunResults) -> str:
    """The whole HTML file."""
    preview = found.run.get("preview")
    note = (
        f"Preview: {len(found.index)} slices, averaged down {preview}x{preview}. "
        if preview
        else ""
    )
    whole = len(found.index) > RUN
    parts = {
        "title": html.escape(f"{'Preview of ' if preview else ''}{found.out.name}"),
        "source": html.escape(
            f"{note}raw: {found.run['raw']}   pre-aligned: "
            f"{found.run['prealigned'] or 'from raw alone'}"
        ),
        "summary": "".join(f"<p>{html.escape(line)}</p>" for line in sentences(found)),
        "flagged": _flagged_table(found),
        "reslices": "".join(
            _picture(draw_reslices(found, plane), name)
            for plane, name in (("xz", "XZ reslices"), ("yz", "YZ reslices"))
        ),
        "overview": _picture(draw_overview(found), "XZ reslices, whole stack") if whole else "",
        "steps": _picture(draw_steps(found), "steps between slices"),
        "neighbours": _neighbours(found),
        "applied": _picture(draw_applied(found), "applied transform per slice"),
        "scores": _picture(draw_scores(found), "matches and correlation per slice"),
        "times": _picture(draw_times(found), "time per stage and rank"),
        "devices": _device_rows(found),
        "versions": _version_rows(found),
        "config": html.escape(found.config),
    }
    text = files("amst_hpc.quality").joinpath("report.html").read_text(encoding="utf-8")
    return Template(text).substitute(parts)


def _picture(figure: Figure | None, name: str) -> str:
    """An <img> with the figure inside it."""
    if figure is None:
        return "<p class='none'>No thumbnails were kept in this run.</p>"
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100 * SHARP)
    text = base64.b64encode(data.getvalue()).decode()
    width = round(figure.get_figwidth() * 100)
    del figure
    gc.collect()  # its parts name each other, and the pictures of them are large
    return f'<img alt="{name}" width="{width}" src="data:image/png;base64,{text}">'


def _flagged_table(found: RunResults) -> str:
    rows = list(found.flagged.values())
    if not rows:
        return "<p>No slice fell back.</p>"
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(text))}</td>" for text in (s.z, s.file))
        + f"<td class='flag'>{html.escape(s.status)}</td><td>{html.escape(s.reason)}</td></tr>"
        for s in rows[:ROWS]
    )  # fmt: skip
    more = f"<p>{len(rows) - ROWS:,} more in slices.csv.</p>" if len(rows) > ROWS else ""
    head = "<tr><th>slice</th><th>file</th><th>transform</th><th>why</th></tr>"
    return f"<table>{head}{lines}</table>{more}"


def _neighbours(found: RunResults) -> str:
    """The corrections, and the pairs that do not count."""
    if not found.pairs:
        return "<p>Slices were not registered to their neighbours in this run.</p>"
    rows, between = found.flagged_pairs, found.stacks["prealigned"]
    lines = "".join(
        f"<tr><td>{p.z}</td><td>{p.z + p.k if p.k else f'{p.z} {between}'}</td>"
        f"<td>{html.escape(p.fault)}</td></tr>"
        for p in rows[:ROWS]
    )
    head = "<tr><th>slice</th><th>and</th><th>why the pair does not count</th></tr>"
    table = f"<table>{head}{lines}</table>" if rows else "<p>Every pair counts.</p>"
    more = f"<p>And {len(rows) - ROWS:,} more.</p>" if len(rows) > ROWS else ""
    return _picture(draw_neighbours(found), "corrections and pairs") + table + more


def _device_rows(found: RunResults) -> str:
    return "".join(
        f"<tr><td>{html.escape(name)}</td><td>{slices:,}</td><td>{seconds:,.1f}</td>"
        f"<td>{share:.0%}</td></tr>"
        for name, slices, seconds, share in device_table(found)
    )


def _version_rows(found: RunResults) -> str:
    versions = {"amst-hpc": found.run["amst_hpc"], "python": found.run["python"]}
    versions |= {name: v for name, v in found.run["versions"].items() if v}
    facts = {
        "ranks": found.run["ranks"],
        "writer": found.run["writer"],
        "shape (z, y, x)": " x ".join(map(str, found.run["shape_zyx"])),
        "dtype": found.run["dtype"],
        "voxel size, nm (z, y, x)": " x ".join(f"{v:g}" for v in found.voxel_size_nm) or "not set",
    }
    return "".join(
        f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in (facts | versions).items()
    )
