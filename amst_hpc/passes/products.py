"""The files beside the output: transforms, the table of slices, facts of the run, XML."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from amst_hpc import __version__
from amst_hpc.bdv.channels import write_master
from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.metadata import master_path, write_settings, write_xml
from amst_hpc.config import Config, Output
from amst_hpc.geometry import usual_layout
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.job.channels import keep_current, read_origin
from amst_hpc.job.journal import write_whole
from amst_hpc.job.room import seal_path, stem
from amst_hpc.job.run_folder import run_folder, view_path
from amst_hpc.ome_zarr.metadata import group_metadata
from amst_hpc.quality.thumbnails import grey_range
from amst_hpc.slice_result import SliceResult, to_csv
from amst_hpc.software import LIBRARIES, library_version


def write_products(
    job: Job,
    config: Config,
    inputs: Inputs,
    results: Sequence[SliceResult],
    facts: Mapping[str, Any],
) -> None:
    """Write them (rank 0); `facts` : of the run, for run.json.

    The XML comes last (of an OME-Zarr the metadata of its group), when everything it stands for is
    there.
    """
    folder = run_folder(job.out)
    transforms: list[Any] = [None] * inputs.depth
    for result in results:
        transforms[result.z] = None if result.transform is None else result.transform.tolist()
    write_whole(folder / "transforms.json", json.dumps(transforms))
    write_whole(folder / "slices.csv", to_csv(results))
    described = describe_run(job, inputs, results) | dict(facts)
    size = {"nm": config.output.voxel_size_nm, "from": inputs.voxel_source}
    described["voxel_size"] = size
    write_whole(folder / "run.json", json.dumps(described, indent=1))
    if config.output.format == "bdv":
        write_view(job.out, config.output)
    elif config.output.format == "ome-zarr":
        _write_group(job.out, inputs, config.output)


def _write_group(out: Path, inputs: Inputs, output: Output) -> None:
    """What makes the folder an OME-Zarr."""
    layout = usual_layout((len(inputs.select), *inputs.shape), inputs.slice_bytes, output)
    target = make_target(out, layout, inputs.dtype, output)
    target = replace(target, labels=bool(inputs.applied.get("nearest")))
    group = group_metadata(target, stem(out), grey_range(run_folder(out) / "thumbnails"))
    write_whole(seal_path(out), json.dumps(group, indent=1))


def write_view(out: Path, output: Output) -> None:
    """OUT.settings.xml and OUT.xml, with the stacks that were added to it."""
    view, channels = view_path(out, output), keep_current(out)
    if channels:
        write_master(out, channels)
    grey = grey_range(run_folder(out) / "thumbnails")
    write_settings(view.with_suffix(".settings.xml"), grey, channels)
    write_xml(view, out, output.voxel_size_nm, channels, read_origin(out))
    if not channels:
        master_path(out).unlink(missing_ok=True)


def describe_run(job: Job, inputs: Inputs, results: Sequence[SliceResult]) -> dict[str, Any]:
    """Versions, inputs, devices and counts of the run."""
    return {
        "amst_hpc": __version__,
        "versions": {name: library_version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "raw": job.raw,
        "prealigned": job.prealigned,
        "shape_zyx": [len(inputs.select), *inputs.shape],
        "range": [inputs.select.start, inputs.select.stop],
        "dtype": inputs.dtype,
        "preview": job.preview,
        "overrides": {override.z: str(override) for override in inputs.overrides},
        "devices": sorted({result.device for result in results}),
        "slices": Counter(result.status for result in results),
    }
