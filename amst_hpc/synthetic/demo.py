"""`amst-hpc demo`: the whole program on a stack whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from amst_hpc.config import InputError
from amst_hpc.parallel.launch import launch, launched
from amst_hpc.synthetic.stack import Matrix, make_demo, residual
from amst_hpc.transform import compose, translation

DEPTH, SIZE = 48, 384
VOXEL_NM = 5
LESS = "less the place of the stack and its slow bend, which nobody knows from raw alone"


def run_demo(folder: Path, ranks: int) -> tuple[int, list[str]]:
    """Make the stack in `folder` and align it, from raw alone, on `ranks` ranks.

    Returns the exit code of the alignment and the lines to print.
    """
    if ranks < 1:
        raise InputError(f"--ranks {ranks}: expected at least 1")
    if launched():
        raise InputError("demo: starts mpirun itself; expected to be run without it")
    try:
        truth = make_demo(folder, DEPTH, SIZE)
    except OSError as error:
        raise InputError(f"DIR {folder}: cannot be written ({error.strerror})") from None
    out = folder / "aligned.h5"
    voxel = f"output.voxel_size_nm=[{VOXEL_NM}, {VOXEL_NM}, {VOXEL_NM}]"
    stacks = [str(folder / "raw"), str(out), "--prealign"]
    code = launch(ranks, ["align", *stacks, "--set", voxel, "--overwrite"])
    if code not in (0, 3):
        return code, [f"the alignment ended with exit code {code}"]
    shape = (SIZE, SIZE)
    known = {
        "raw": [translation(0, 0).tolist()] * DEPTH,
        "aligned": _found(folder / "aligned.amst"),
    }
    errors = [f"{residual(m, truth.raw, shape):.2f} px {name}" for name, m in known.items()]
    return code, [
        f"mean residual displacement: {', '.join(errors)} ({LESS})",
        f"how it went, in pictures: {folder / 'aligned.amst' / 'report.html'}",
        f"open in BigDataViewer or Fiji: {out.with_suffix('.xml')}",
    ]


def _found(run: Path) -> list[Matrix | None]:
    """The transforms that a run has found, in the frame of raw: its canvas begins elsewhere."""
    x, y = json.loads((run / "run.json").read_text())["canvas"]["offset_xy"]
    found = json.loads((run / "transforms.json").read_text())
    return [m and compose(np.array(m), translation(-x, -y)).tolist() for m in found]
