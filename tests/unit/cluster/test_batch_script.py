"""The batch scripts in slurm/ are what the program writes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from amst_hpc.cluster.batch_script import examples, spans

CHECKOUT = Path(__file__).resolve().parents[3]


REFRESH = (
    "from pathlib import Path; from amst_hpc.cluster.batch_script import examples; "
    "[Path('slurm', name).write_text(text) for name, text in examples().items()]"
)


@pytest.mark.parametrize("name", ["align", "array", "blocks", "merge"])
def test_the_files_in_slurm_are_what_submit_writes(name: str) -> None:
    path = CHECKOUT / "slurm" / f"{name}.sbatch"
    assert path.read_text() == examples()[path.name], f"python -c {REFRESH!r}"
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["align", "blocks"])
@pytest.mark.parametrize("given", ["", "my pre"])
def test_without_prealigned_the_step_is_told_so(tmp_path: Path, kind: str, given: str) -> None:
    """The words of the step, as the shell hands them over."""
    (tmp_path / "step").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\n')
    (tmp_path / "step").chmod(0o755)
    text = re.sub(r"(?m)^MPI=.*$", "MPI=()", examples()[f"{kind}.sbatch"])
    text = re.sub(r"(?m)^AMST=.*$", f'AMST=("{tmp_path}/step")', text)
    text = re.sub(r"(?m)^PREALIGNED=''", f"PREALIGNED='{given}'", text)
    known = os.environ | {"SLURM_ARRAY_TASK_ID": "1"}
    subprocess.run(["bash", "-c", text], env=known, check=True, capture_output=True)
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:4] == ["align", "raw", given or "--prealign", "aligned.h5"]


def test_arrays_hold_everything_once() -> None:
    assert [list(span) for span in spans(5, 2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("kind", ["align", "array", "blocks", "merge"])
@pytest.mark.parametrize(
    ("code", "restarts", "left", "requeued"),
    [
        (0, 0, 0, False),
        (1, 0, 1, True),
        (1, 5, 1, False),
        (2, 0, 2, False),
        (3, 0, 0, False),
        (4, 0, 4, False),  # --strict
        (75, 9, 75, True),
        (139, 0, 139, True),
    ],
)
def test_what_goes_back_into_the_queue(
    tmp_path: Path, kind: str, code: int, restarts: int, left: int, requeued: bool
) -> None:
    """The script itself, with a program that ends with `code` and Slurm's commands stood in for."""
    stands = {"squeue": "echo RUNNING", "scontrol": f'echo "$@" > {tmp_path}/asked'}
    for name, line in (stands | {"step": f"exit {code}"}).items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    text = re.sub(r"(?m)^MPI=.*$", "MPI=()", examples()[f"{kind}.sbatch"])
    text = re.sub(r"(?m)^AMST=.*$", f'AMST=("{tmp_path}/step")', text)
    known = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts), "SLURM_ARRAY_TASK_ID": "1"}
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | known
    done = subprocess.run(["bash", "-c", text], env=environ, check=False, capture_output=True)
    assert done.returncode == left, done.stderr
    asked = tmp_path / "asked"
    assert (asked.read_text().split() if asked.exists() else []) == ["requeue", "7"] * requeued
