"""The batch scripts and `submit` on a real Slurm: many nodes, arrays, blocks, requeue, lost nodes,
GPUs.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cluster import (
    LEVELS,
    PROGRAM,
    Cluster,
    amst,
    assert_same,
    edited,
    registered,
    run,
)

pytestmark = pytest.mark.timeout(540)
COLLECTIVE = ("--set", "output.writer=collective")
SLOW = ("--set", "refine.elastix.MaximumNumberOfIterations=2500", "--set", "output.report=false")
QUICK = ("coarse.method=xcorr", "refine.backend=none", "output.report=false", "output.layer=4")
FAST = ["coarse.method\trefine.backend\toutput.report", "xcorr\tnone\tfalse"]


def sent_job(said: str) -> str:
    """The number of the first job that submit sent."""
    found = re.search(r"sent: job (\d+)", said)
    assert found, said
    return found[1]


def options(words: tuple[str, ...]) -> dict[str, str]:
    return {"OPTIONS=": f"OPTIONS=({' '.join(words)})"}


def align_on_two_nodes(folder: Path, name: str, program: Sequence[str], reference: Path) -> None:
    """align.sbatch for NAME.h5, two ranks on each node: equal to `reference`, written together."""
    script = folder / f"{name}.sbatch"
    edits = {
        "#SBATCH --ntasks-per-node=": "#SBATCH --ntasks-per-node=2",
        "RAW=": "RAW=raw", "PREALIGNED=": "PREALIGNED=pre", "OUT=": f"OUT={name}.h5",
    }  # fmt: skip
    script.write_text(edited("align.sbatch", edits | options((*LEVELS, *COLLECTIVE)), program))
    done = run(["sbatch", "-W", script.name], folder)
    logs = [path.read_text() for path in folder.glob("amst-align-*.log")]
    assert done.returncode == 0, logs
    facts = json.loads((folder / f"{name}.amst/run.json").read_text())
    assert (facts["ranks"], facts["writer"]) == (4, "collective")
    assert_same(folder / f"{name}.h5", reference)


def test_align_over_two_nodes(cluster: Cluster, fib25_small: Path, reference: Path) -> None:
    align_on_two_nodes(fib25_small, "nodes", PROGRAM, reference)


def test_align_in_the_container(
    cluster: Cluster,
    shared: Path,
    put_image: Callable[[Path], None],
    fib25_small: Path,
    reference: Path,
) -> None:
    """`srun --mpi=pmix apptainer exec`: as it stands in the script, but for the Apptainer."""
    put_image(fib25_small)
    program = ["bash", str(shared / "tools/apptainer"), "exec", "amst-hpc.sif", "amst-hpc"]
    align_on_two_nodes(fib25_small, "contained", program, reference)


@pytest.fixture
def five_stacks(fib25_small: Path, tmp_path: Path) -> Path:
    """A manifest of five stacks of 8 slices; the slice at place 3 of the third is cut short."""
    lines = [f"raw\tprealigned\toutput\t{FAST[0]}"]
    for n in range(1, 6):
        for kind in ("raw", "pre"):
            folder = tmp_path / f"{kind}{n}"
            folder.mkdir()
            for path in sorted((fib25_small / kind).glob("*.tif"))[n : n + 8]:
                shutil.copy(path, folder)
        lines.append(f"raw{n}\tpre{n}\tout{n}.h5\t{FAST[1]}")
    broken = broken_slice(tmp_path)
    shutil.copy(broken, tmp_path / "whole.tif")
    broken.write_bytes(broken.read_bytes()[:-2000])
    manifest = tmp_path / "stacks.tsv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def broken_slice(folder: Path) -> Path:
    return sorted((folder / "raw3").glob("*.tif"))[3]


def test_array_over_a_manifest(cluster: Cluster, five_stacks: Path, site: Path) -> None:
    folder = five_stacks.parent
    command = ("submit", "--manifest", "stacks.tsv", "--site", site, "--throttle", "2")
    assert "#SBATCH --array=1-5%2" in amst(folder, *command)
    assert not (folder / "stacks.slurm").exists(), "a dry run must write nothing"
    amst(folder, *command, "--yes")
    assert "0 of 5 stacks" in amst(folder, *command), "what is in the queue is not sent again"
    most = 0
    while cluster.states():
        most = max(most, sum(" RUNNING " in line for line in cluster.states()))
        time.sleep(0.5)
    assert most == 2
    said = amst(folder, "status", "stacks.tsv")
    name = broken_slice(folder).name
    assert "4 done" in said
    assert "1 failed" in said
    assert name in said.replace("\n", "")
    shutil.copy(folder / "whole.tif", broken_slice(folder))
    said = amst(folder, *command, "--yes")
    assert "1 of 5 stacks" in said
    assert "1 array tasks" in said
    cluster.wait_empty()
    assert "5 done" in amst(folder, "status", "stacks.tsv")
    assert "0 of 5 stacks" in amst(folder, *command)


def test_blocks_and_merge(cluster: Cluster, fib25_small: Path, reference: Path, site: Path) -> None:
    command = ("submit", "raw", "pre", "blocks.h5", "--blocks", "4", "--site", site, *LEVELS)
    said = amst(fib25_small, *command, "--yes")
    assert f"afterok:{sent_job(said)}" in said
    cluster.wait_empty()
    assert "1 done" in amst(fib25_small, "status", "blocks.h5")
    assert_same(fib25_small / "blocks.h5", reference)
    one, other = (fib25_small / f"{name}.amst" for name in ("blocks", "reference"))
    assert (one / "transforms.json").read_text() == (other / "transforms.json").read_text()
    before = (fib25_small / "blocks.h5").stat().st_mtime_ns
    amst(fib25_small, "merge", "blocks.h5")
    assert (fib25_small / "blocks.h5").stat().st_mtime_ns == before


def test_blocks_of_raw_alone(cluster: Cluster, fib25_small: Path, mpirun: str, site: Path) -> None:
    fast = [word for text in QUICK for word in ("--set", text)]
    command = [mpirun, "-n", "1", *PROGRAM, "align", "raw", "whole.h5", "--prealign", *fast]
    assert run(command, fib25_small).returncode in (0, 3)
    parts = ("submit", "raw", "parts.h5", "--prealign", "--blocks", "2", "--site", site, *fast)
    assert len(re.findall(r"sent: job", amst(fib25_small, *parts, "--yes"))) == 6
    cluster.wait_empty()
    assert "1 done" in amst(fib25_small, "status", "parts.h5")
    assert_same(fib25_small / "parts.h5", fib25_small / "whole.h5")


def test_time_limit(cluster: Cluster, fib25_small: Path) -> None:
    out = fib25_small / "limit.h5"
    # two minutes: the least that leaves the signal a minute to come in
    lines = {
        "#SBATCH --nodes": "#SBATCH --nodes=1", "#SBATCH --time=": "#SBATCH --time=2",
        "#SBATCH --signal": "#SBATCH --signal=B:USR1@30", "RAW=": "RAW=raw",
        "PREALIGNED=": "PREALIGNED=pre", "OUT=": "OUT=limit.h5",
        "#SBATCH --ntasks-per-node": "#SBATCH --ntasks-per-node=1",
    }  # fmt: skip
    slower = ("--set", "refine.elastix.MaximumNumberOfIterations=10000", *SLOW[2:])
    script = fib25_small / "limit.sbatch"
    script.write_text(edited("align.sbatch", lines | options(slower)))
    job = cluster.ask("sbatch", "--parsable", f"--chdir={fib25_small}", str(script))
    cluster.wait(lambda: not cluster.states(), "the end", 500)
    log = (fib25_small / f"amst-align-{job}.log").read_text()
    assert "exit code 75: back into the queue" in log
    assert "slices are registered already" in log
    assert registered(fib25_small / "limit.amst") == list(range(24))
    assert "1 done" in amst(fib25_small, "status", out.name)


def test_node_lost(cluster: Cluster, fib25_small: Path, site: Path) -> None:
    said = amst(fib25_small, "submit", "raw", "pre", "lost.h5", "--site", site, *SLOW, "--yes")
    journal = fib25_small / "lost.amst"
    cluster.wait(lambda: journal.is_dir() and len(registered(journal)) >= 4, "four slices")
    node = cluster.ask("squeue", "-h", "--format=%N")
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    # slurmd is still there and would bring the node back at once
    cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        before = len(registered(journal))
        assert before < 24
        cluster.wait_empty()
    finally:
        cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
    log = next((fib25_small / "lost.slurm").glob(f"*-{sent_job(said)}.log")).read_text()
    assert "NODE FAILURE" in log.upper()
    assert registered(journal) == list(range(24))
    assert "1 done" in amst(fib25_small, "status", "lost.h5")


def test_a_step_that_dies_is_not_started_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    script = edited("merge.sbatch", {"OUT=": "OUT=none.h5"}, ["false"])
    path = tmp_path / "dies.sbatch"
    path.write_text(script.replace("TRIES=5", "TRIES=1"))
    job = cluster.ask("sbatch", "--parsable", f"--chdir={tmp_path}", str(path))
    cluster.wait_empty(90)
    log = (tmp_path / f"amst-merge-{job}.log").read_text()
    assert log.count("back into the queue") == 1
    assert "Restarts=1" in cluster.ask("scontrol", "show", "job", job)


def test_only_the_task_that_stopped_goes_back(cluster: Cluster, tmp_path: Path) -> None:
    script = edited(
        "array.sbatch", {"MPI=": "MPI=()", "#SBATCH --array": "#SBATCH --array=1-3"}, []
    )
    script = script.replace("--nodes=2", "--nodes=1").replace("--ntasks-per-node=8", "--ntasks=1")
    step = "task() { [[ $2 == 3 && -z ${SLURM_RESTART_COUNT:-} ]] && return 75; sleep 3; }\n"
    path = tmp_path / "array.sbatch"
    path.write_text(script.replace("\nMPI=", f"\n{step}MPI="))
    job = cluster.ask("sbatch", "--parsable", f"--chdir={tmp_path}", str(path))
    cluster.wait_empty(90)
    logs = [(tmp_path / f"amst-array-{job}_{n}.log").read_text() for n in (1, 2, 3)]
    assert ["back into the queue" in log for log in logs] == [False, False, True]
    states = cluster.ask("scontrol", "show", "job", job)
    assert states.count("JobState=COMPLETED") == 3


def test_a_cancelled_job_stays_away(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "sleeps.sbatch"
    program = [sys.executable, "-c", f"'{STOPS_IN_GOOD_ORDER}'"]
    script.write_text(
        edited("merge.sbatch", {"OUT=": "OUT=none.h5", "MPI=": "MPI=(srun)"}, program)
    )
    job = cluster.ask("sbatch", "--parsable", f"--chdir={tmp_path}", str(script))
    cluster.wait(lambda: any("RUNNING" in s for s in cluster.states()), "running", 60)
    time.sleep(2)
    cluster.ask("scancel", job)
    cluster.wait_empty(60)
    assert "JobState=CANCELLED" in cluster.ask("scontrol", "show", "job", job)


STOPS_IN_GOOD_ORDER = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(75)); "
    "time.sleep(60)"
)
PICK = """
import os
from amst_hpc.opencl.devices import Device
from amst_hpc.opencl.devices import candidates
ids = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
seen = [Device(0, i, "CUDA", f"gpu{i}", "gpu", 1, f"of {n}") for i, n in enumerate(ids)]
rank = int(os.environ["SLURM_LOCALID"])
print(rank, ids[candidates("auto", rank, seen)[0].index])
"""


@pytest.mark.parametrize("binding", ["--gpus-per-task=1", "--gpus-per-node=2"])
def test_each_rank_takes_its_own_gpu(cluster: Cluster, tmp_path: Path, binding: str) -> None:
    command = ["srun", "-N1", "--ntasks=2", binding, sys.executable, "-c", PICK]
    rows = sorted(cluster.ask(*command).splitlines())
    assert [row.split()[0] for row in rows] == ["0", "1"]
    assert sorted(row.split()[1] for row in rows) == ["0", "1"]


def test_submit_checks_before_it_sends(cluster: Cluster, five_stacks: Path, site: Path) -> None:
    broken = five_stacks.read_text().replace("raw2\t", "raw9\t")
    five_stacks.write_text(broken)
    command = ("submit", "--manifest", "stacks.tsv", "--site", site, "--yes")
    assert "stacks.tsv line 3" in amst(five_stacks.parent, *command, code=2)
    assert not cluster.states()
    assert PROGRAM[0] in site.read_text()
