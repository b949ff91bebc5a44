"""The files beside the output: transforms, the table of slices, facts of the run, XML."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from amst_hpc import __version__
from amst_hpc.bdv.file import contrast
from amst_hpc.bdv.metadata import write_settings, write_xml
from amst_hpc.bdv.writer import choose_writer
from amst_hpc.job.journal import write_whole
from amst_hpc.job.run_folder import Run, view_path
from amst_hpc.job.software import LIBRARIES, library_version
from amst_hpc.registration.fallback import Decision


def list_slices(
    run: Run, decisions: Sequence[Decision], found: Mapping[int, Mapping[str, Any]]
) -> None:
    """slices.csv alone (rank 0)."""
    if run.comm.rank == 0:
        write_whole(run.folder / "slices.csv", slices_csv(run, decisions, found))


def finish(
    run: Run,
    decisions: Sequence[Decision],
    found: Mapping[int, Mapping[str, Any]],
    timings: Sequence[Mapping[str, float]],
) -> None:
    """The files beside the output (rank 0).

    The XML comes last, when everything it stands for is there.
    """
    select, folder = run.inputs.select, run.folder
    transforms: list[Any] = [None] * run.inputs.depth
    for z, decision in zip(select, decisions, strict=True):
        transforms[z] = None if decision.matrix is None else decision.matrix.tolist()
    write_whole(folder / "transforms.json", json.dumps(transforms))
    write_whole(folder / "slices.csv", slices_csv(run, decisions, found))
    write_whole(
        folder / "run.json", json.dumps(describe_run(run, decisions, found, timings), indent=1)
    )
    if run.config.output.format == "bdv":
        view = view_path(run.job, run.config)
        write_settings(view.with_suffix(".settings.xml"), *contrast(run.job.out))
        write_xml(view, run.job.out, run.config.output.voxel_size_nm)


def slices_csv(
    run: Run, decisions: Sequence[Decision], found: Mapping[int, Mapping[str, Any]]
) -> str:
    """One line per slice of the job."""
    table = io.StringIO()
    stages = ("template", "read", "coarse", "refine")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["index", "file", "status", "shift_x", "shift_y", "matches", "metric_before", "metric"]
        + [f"seconds_{stage}" for stage in stages]
        + ["rank", "device", "reason"]
    )
    for z, decision in zip(run.inputs.select, decisions, strict=True):
        r = found[z]
        shift = ("", "") if r["shift"] is None else (r["shift"][0][2], r["shift"][1][2])
        scores = ["" if r[key] is None else f"{r[key]:.4f}" for key in ("start", "metric")]
        seconds = [r["seconds"].get(stage, "") for stage in stages]
        row = [z, run.inputs.raw.names[z], decision.status, *shift, r["matches"], *scores, *seconds]
        writer.writerow([*row, r["rank"], r["device"], decision.reason])
    return table.getvalue()


def describe_run(
    run: Run,
    decisions: Sequence[Decision],
    found: Mapping[int, Mapping[str, Any]],
    timings: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Versions, ranks, devices, timings and counts of the run."""
    counts: dict[str, int] = {}
    for decision in decisions:
        counts[decision.status] = counts.get(decision.status, 0) + 1
    return {
        "amst_hpc": __version__,
        "versions": {name: library_version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "raw": run.job.raw,
        "prealigned": run.job.prealigned,
        "shape_zyx": [len(run.inputs.select), *run.inputs.shape],
        "range": [run.inputs.select.start, run.inputs.select.stop],
        "dtype": run.inputs.dtype,
        "ranks": run.comm.size,
        "attempt": run.attempt,
        "preview": run.job.preview,
        "writer": choose_writer(run.config.output, run.comm.size),
        "devices": sorted({found[z]["device"] for z in run.inputs.select}),
        "slices": counts,
        "seconds_per_rank": [
            {key: round(value, 3) for key, value in part.items()} for part in timings
        ],
    }
