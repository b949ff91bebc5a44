"""The batch scripts: what `submit` prints and sends. The files in `slurm/` are these scripts for an
example site.

A script starts the step in the background and waits, so that the signal that Slurm sends before the
time limit, and at preemption, reaches the step: it stops in good order (exit code 75) and the job
is put back into the queue. A step that dies is started again at most TRIES times; one that can make
no headway says so and ends for good (`job.failures`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from amst_hpc.cluster.site import Site

TITLES = {
    "align": "One stack, on several nodes:  sbatch align.sbatch",
    "array": "Many stacks, one array task for each line of a manifest:  sbatch array.sbatch",
    "blocks": "One stack in blocks, an array task each. Four jobs, each after the one before:\n"
    "# blocks (register), merge (settle), blocks (write), merge (complete);\n"
    "# six without PREALIGNED: blocks (compare), merge (place) before them:\n"
    "#     sbatch --parsable [--dependency=afterok:NUMBER] blocks.sbatch",
    "merge": "Between and after the arrays of blocks.sbatch:\n"
    "#     sbatch --parsable --dependency=afterok:NUMBER merge.sbatch",
}

SECOND = '"${PREALIGNED:---prealign}"'  # the option where it is empty
STEPS = {
    "align": f'align "$RAW" {SECOND} "$OUT" "${{OPTIONS[@]}}"',
    "array": 'task "$MANIFEST" "$SLURM_ARRAY_TASK_ID" "${OPTIONS[@]}"',
    "blocks": f'align "$RAW" {SECOND} "$OUT" --block "$SLURM_ARRAY_TASK_ID/$BLOCKS" '
    '"${OPTIONS[@]}"',
    "merge": 'merge "$OUT" "${OPTIONS[@]}"',
}


class StepTemplate(Template):
    """`step.sh` beside this module. Its fields are `%%{name}`: the shell needs its $ itself."""

    delimiter = "%%"


@dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for, and why."""

    nodes: int
    ranks_per_node: int
    memory_mb_per_rank: int
    minutes: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchJob:
    """What a script does. `variables`: name, value and comment of its lines to edit; `array`: as
    for --array.
    """

    kind: str
    name: str
    log: str
    variables: tuple[tuple[str, str, str], ...]
    options: tuple[str, ...] = ()
    array: str = ""


def render(work: BatchJob, size: Resources, site: Site) -> str:
    """The text of a batch script."""
    lines = ["#!/bin/bash", f"# {TITLES[work.kind]}"]
    lines += [f"#SBATCH {directive}" for directive in directives(work, size, site)]
    lines += ["", *(_variable(*entry) for entry in work.variables)]
    command = STEPS[work.kind].split()[0]
    lines += [f"OPTIONS=({shlex.join(work.options)})  # of amst-hpc {command}", ""]
    lines += [*site.setup, *(f"module load {name}" for name in site.modules)]
    lines += [f"AMST=({shlex.join(program(site))})"]
    lines += [f"MPI=({site.mpi})", ""]
    text = StepTemplate(files("amst_hpc.cluster").joinpath("step.sh").read_text())
    step = text.substitute(step=STEPS[work.kind])
    return "\n".join(lines) + "\n" + step


def _variable(name: str, value: str, comment: str) -> str:
    return f"{name}={shlex.quote(value)}" + (f"  # {comment}" if comment else "")


def _quoted(value: str) -> str:
    """As the lines of #SBATCH take it: quotes where there is a space."""
    return f'"{value}"' if " " in value else value


def directives(work: BatchJob, size: Resources, site: Site) -> list[str]:
    """The options of sbatch."""
    found = [f"--job-name={_quoted(work.name)}", f"--output={_quoted(work.log)}"]
    found += ["--open-mode=append"]
    found += [f"--array={work.array}"] if work.array else []
    found += [f"--nodes={size.nodes}", f"--ntasks-per-node={size.ranks_per_node}"]
    found += ["--cpus-per-task=1", f"--mem={size.memory_mb_per_rank * size.ranks_per_node}M"]
    found += [f"--time={size.minutes // 60:02d}:{size.minutes % 60:02d}:00"]
    found += ["--requeue", f"--signal=B:USR1@{site.signal_seconds}"]
    if work.kind != "merge" and site.gpus_per_node:
        found += [f"--gpus-per-node={site.gpus_per_node}"]
    found += [f"--partition={site.partition}"] if site.partition else []
    found += [f"--account={site.account}"] if site.account else []
    return [*found, *site.directives]


def program(site: Site) -> list[str]:
    """The start of the command line: the container, or the program of an environment."""
    if not site.container:
        return shlex.split(site.command)
    return ["apptainer", "exec", *site.container_options, site.container, "amst-hpc"]


def spans(count: int, largest: int) -> list[range]:
    """`count` items as several arrays of at most `largest` tasks each: the items of each."""
    return [range(start, min(start + largest, count)) for start in range(0, count, largest)]


def array_option(count: int, throttle: int) -> str:
    """`1-COUNT%THROTTLE`."""
    return f"1-{count}" + (f"%{throttle}" if throttle else "")


EXAMPLE_SITE = Site(container="amst-hpc.sif", container_options=("--nv",))
EXAMPLE_SIZE = Resources(nodes=2, ranks_per_node=8, memory_mb_per_rank=3000, minutes=240)

OPTIONAL = """\
##SBATCH --gpus-per-node=1  (take one # away where it is wanted)
##SBATCH --partition=...
##SBATCH --account=...

"""

ALTERNATIVE = """\
#AMST=("$HOME/amst_hpc/.venv/bin/amst-hpc")  # without a container
#module load openmpi
"""


def examples() -> dict[str, str]:
    """The files of `slurm/`: each script for an example job, to be edited."""
    stack: Sequence[tuple[str, str, str]] = (
        ("RAW", "raw", "folder of TIFF slices, multi-page TIFF, or file.h5:/dataset"),
        ("PREALIGNED", "", "the same slices, coarsely aligned; empty: made from RAW alone"),
        ("OUT", "aligned.h5", ""),
    )
    manifest = (
        "MANIFEST",
        "stacks.tsv",
        "columns: raw, prealigned (empty: from raw alone), output",
    )
    blocks = ("BLOCKS", "4", "as in --array")
    works = [
        BatchJob("align", "amst-align", "%x-%j.log", tuple(stack)),
        BatchJob("array", "amst-array", "%x-%A_%a.log", (manifest,), array="1-5%2"),
        BatchJob("blocks", "amst-blocks", "%x-%A_%a.log", (*stack, blocks), array="1-4"),
        BatchJob("merge", "amst-merge", "%x-%j.log", (stack[2],)),
    ]
    made = {}
    for work in works:
        one = Resources(1, 1, EXAMPLE_SIZE.memory_mb_per_rank, 60)
        text = render(work, one if work.kind == "merge" else EXAMPLE_SIZE, EXAMPLE_SITE)
        text = text.replace("MPI=(", f"{ALTERNATIVE}MPI=(", 1)
        made[f"{work.kind}.sbatch"] = text.replace("\n\n", f"\n{OPTIONAL}", 1)
    return made
