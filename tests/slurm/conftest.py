"""A real Slurm of two nodes on this machine, for the whole session.

To be run with the environment whose h5py is parallel (`.venv-mpi`); srun starts the ranks through
PMIx.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
from cluster import CHECKOUT, LEVELS, ONE_MACHINE, PROGRAM, Cluster, run


@pytest.fixture(scope="session")
def cluster(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not h5py.get_config().mpi:
        pytest.fail("the collective writer is tested, and this h5py has no MPI; use .venv-mpi")
    folder = tmp_path_factory.mktemp("slurm")
    tool = str(shared / "tools/slurm-cluster")
    # Output to a file: the daemons keep what they inherit open, and a pipe would never end.
    with (folder / "up.out").open("w") as out:
        subprocess.run([tool, "up", str(folder)], stdout=out, stderr=out, check=True, timeout=300)
    os.environ |= ONE_MACHINE | {"SLURM_CONF": str(folder / "etc/slurm.conf")}
    os.environ["PYTHONPATH"] = str(CHECKOUT)
    made = Cluster(folder)
    try:
        made.wait(
            lambda: (
                "idle" in made.ask("sinfo", "-h", "-N", "-o", "%T")
                and made.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"]
            ),
            "two idle nodes",
            60,
        )
        yield made
    finally:
        run(["scancel", "--me"], folder)
        subprocess.run([tool, "down", str(folder)], check=True, timeout=60)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site file of that Slurm."""
    path = tmp_path_factory.mktemp("site") / "site.toml"
    path.write_text(
        "nodes = 2\nranks_per_node = 2\nmemory_gb_per_node = 8\nhours = 0.5\nsignal_seconds = 30\n"
        f'command = "{" ".join(PROGRAM)}"\n'
    )
    return path


@pytest.fixture(scope="session")
def reference(cluster: Cluster, fib25_small: Path, mpirun: str) -> Path:
    """What `mpirun -n 1` makes of the stack."""
    out = fib25_small / "reference.h5"
    command = [mpirun, "-n", "1", *PROGRAM, "align", "raw", "pre", out.name, *LEVELS]
    done = run(command, fib25_small)
    assert done.returncode == 0, done.stderr
    return out
