"""`OUT.amst/report.html`: what a run did, in one file with its pictures inside.

Everything comes from `run_results`; the volume is not read.
"""

from __future__ import annotations

import base64
import html
import io
import logging
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from amst_hpc.job.journal import write_whole
from amst_hpc.job.run_folder import run_folder
from amst_hpc.quality.plots import (
    RUN,
    SHARP,
    draw_applied,
    draw_overview,
    draw_reslices,
    draw_scores,
    draw_steps,
    draw_times,
)
from amst_hpc.quality.run_results import RunResults, device_table, read_run_results, sentences

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
    """The report at the end of a run: no fault in drawing it may fail the run."""
    try:
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
            f"{note}raw: {found.run['raw']}   pre-aligned: {found.run['prealigned']}"
        ),
        "summary": "".join(f"<p>{html.escape(line)}</p>" for line in sentences(found)),
        "flagged": _flagged_table(found),
        "reslices": "".join(
            _picture(draw_reslices(found, plane), name)
            for plane, name in (("xz", "XZ reslices"), ("yz", "YZ reslices"))
        ),
        "overview": _picture(draw_overview(found), "XZ reslices, whole stack") if whole else "",
        "steps": _picture(draw_steps(found), "steps between slices"),
        "applied": _picture(draw_applied(found), "applied transform per slice"),
        "scores": _picture(draw_scores(found), "matches and correlation per slice"),
        "times": _picture(draw_times(found), "time per stage and rank"),
        "devices": _device_rows(found),
        "versions": _version_rows(found),
        "config": html.escape(found.config),
    }
    return PAGE.substitute(parts)


def _picture(figure: Figure | None, name: str) -> str:
    """An <img> with the figure inside it."""
    if figure is None:
        return "<p class='none'>No thumbnails were kept in this run.</p>"
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100 * SHARP)
    text = base64.b64encode(data.getvalue()).decode()
    width = round(figure.get_figwidth() * 100)
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


PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0; color: #1a1a1a; background: #fff; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid #ccc; }
p { margin: 0 0 8px; max-width: 80ch; }
.source, .note { color: #555; font-size: 14px; overflow-wrap: anywhere; max-width: none; }
.summary { margin: 16px 0; padding: 12px 16px; background: #f3f6f9; border-left: 4px solid #0072B2;
} img { display: block; max-width: 100%; height: auto; margin: 8px 0 16px; } table { border-
collapse: collapse; font-size: 14px; margin: 8px 0 16px; } th, td { text-align: left; padding: 3px
18px 3px 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; overflow-wrap: anywhere; } .flag
{ color: #A84800; font-weight: 600; } pre { font-size: 13px; line-height: 1.4; background: #f6f6f6;
padding: 12px; overflow-x: auto; } summary { cursor: pointer; font-weight: 600; } </style> </head>
<body> <main> <h1>$title</h1> <p class="source">$source</p> <div class="summary">$summary</div>

<h2>Before and after</h2>
<p class="note">Central row and column of every slice, slices downwards. A smooth membrane is good
alignment; fringes are jitter. Triangles mark slices that fell back.</p>
$reslices
$overview

<h2>Jumps from slice to slice</h2>
<p class="note">Shift of a patch in the middle of each slice against the slice before, without the
slow part that the tissue itself has. Gaps: not measured (black slices, the seams between
ranks).</p> $steps

<h2>Slices that fell back</h2>
$flagged

<h2>What was applied</h2>
<p class="note">Of raw, once. The middle of each slice moved by the translation.</p>
$applied

<h2>How well each slice was matched</h2>
$scores

<h2>Time and devices</h2>
$times
<table><tr><th>device of the coarse step</th><th>slices</th><th>seconds</th>
<th>share of the registration</th></tr>$devices</table>

<h2>Settings and versions</h2>
<table>$versions</table>
<details><summary>config.toml</summary><pre>$config</pre></details>
</main>
</body>
</html>
""")
