"""The batch scripts in slurm/ are what the program writes."""

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


def test_arrays_hold_everything_once() -> None:
    assert [list(span) for span in spans(5, 2)] == [[0, 1], [2, 3], [4]]
