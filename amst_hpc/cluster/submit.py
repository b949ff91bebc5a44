"""`amst-hpc submit`: batch scripts for a job, shown, and sent when asked to.

A job is one stack, one stack in blocks (arrays with a merge after each), or a manifest (arrays of
one stack per task, of those stacks alone that are neither finished nor in the queue). Scripts, logs
and the list of what was sent go to `NAME.slurm/` beside the output or the manifest; nothing is
written before everything is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amst_hpc.cluster import slurm
from amst_hpc.cluster.batch_script import BatchJob, Resources, array_option, render, spans
from amst_hpc.cluster.blocks import plan_blocks
from amst_hpc.cluster.manifest import (
    Entry,
    check_entries,
    open_entry,
    read_manifest,
    write_manifest,
)
from amst_hpc.cluster.site import Site
from amst_hpc.cluster.status import read_status, sent, slurm_folder
from amst_hpc.config import Config, InputError
from amst_hpc.images.chunked import block_bytes
from amst_hpc.images.pairing import Inputs, Job
from amst_hpc.job.journal import write_whole
from amst_hpc.job.progress import duration
from amst_hpc.overrides import read_overrides
from amst_hpc.preflight.estimate import (
    JobEstimate,
    estimate,
    lighter,
    refuse_large,
    with_prealignment,
)
from amst_hpc.preflight.voxel_size import find_voxel_size
from amst_hpc.settings import load_config, read_toml

AIM_SECONDS = 3600.0
"""More nodes are taken until a stack is expected to take no longer."""
START_SECONDS = 120.0
LEAST_SLICES = 8
"""Slices of a rank: with fewer, starting it takes longer than its work."""
SPARE = 3.0
MERGE_MINUTES = 60
NAMED = 12  # outputs in a line
OVERRIDES = "overrides.csv"  # beside the scripts
ALONE = ("compare", "place")
STEPS = ("register", "settle", "write", "complete")
"""Of blocks, an array and a merge in turn; those of raw alone come first."""
ONE_LOG, ARRAY_LOG = "%x-%j.log", "%x-%A_%a.log"  # of a job, of each task of an array


@dataclass(frozen=True)
class Order:
    """What holds for every script of a `submit`: the site and the settings, as they were named.

    throttle : array tasks at a time, 0: all. Raises `InputError` for settings that cannot be.
    """

    site: Site
    config: Path | None = None
    changes: tuple[str, ...] = ()
    throttle: int = 0

    def __post_init__(self) -> None:
        self.load_config()

    def load_config(self) -> Config:
        """The settings."""
        return load_config(self.config, self.changes)

    @property
    def options(self) -> tuple[str, ...]:
        """--config and --set as they go into the scripts.

        What the file says now goes in, not its name: who edits it later changes no job that waits.
        """
        tree = read_toml(self.config) if self.config else {}
        return tuple(word for change in (*_flat(tree), *self.changes) for word in ("--set", change))


@dataclass(frozen=True)
class Script:
    """A script to send. `after`: how it waits for the one before it (afterok, afterany), empty: it
    does not.

    `tasks`: the output of each array task, or the one output; `entries`: the manifest that goes
    with it.
    """

    name: str
    text: str
    tasks: tuple[Path, ...]
    array: bool = False
    after: str = ""
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What would be sent: scripts in this order, where they will stand, and why they are as they
    are. `overrides`: the table that goes with them: who edits his own later changes no job that
    waits.
    """

    folder: Path
    scripts: tuple[Script, ...]
    reasons: tuple[str, ...]
    follow: Path
    overrides: str = ""

    def show(self) -> str:
        """For the reader."""
        parts = [f"# {reason}" for reason in self.reasons]
        for script in self.scripts:
            waits = f"  (waits: {script.after} the one before)" if script.after else ""
            parts += ["", f"==== {self.folder / script.name}{waits}", script.text.rstrip()]
        return "\n".join(parts)


def size_job(need: JobEstimate, site: Site) -> Resources:
    """Ranks, nodes, memory and time for a stack; with the reasoning.

    Raises `InputError` for a rank that is larger than a node.
    """
    refuse_large(need, site.memory_gb_per_node)
    per_node = site.ranks_per_node
    if site.memory_gb_per_node:
        per_node = min(per_node, int(site.memory_gb_per_node * 1000 // need.memory_mb))
    useful = max(1, need.slices // LEAST_SLICES)
    nodes = min(math.ceil(need.seconds / (per_node * AIM_SECONDS)), site.nodes, useful)
    per_node = min(per_node, math.ceil(useful / nodes))
    ranks = nodes * per_node
    seconds = START_SECONDS + need.seconds / ranks * 1.15
    wanted = math.ceil(SPARE * seconds / 60) + 5
    minutes = min(wanted, site.minutes)
    size = Resources(nodes, per_node, need.memory_mb, minutes)
    return replace(size, reasons=_reasons(need, site, size, seconds, wanted > minutes))


def _reasons(
    need: JobEstimate, site: Site, size: Resources, seconds: float, cut: bool
) -> tuple[str, ...]:
    """Why a job asks for this; `seconds` that it is expected to take, `cut` by the site's limit."""
    each, all_of_it = need.seconds / need.slices, duration(need.seconds)
    ranks = f"{size.nodes} x {size.ranks_per_node} ranks"
    most = f"{site.nodes} x {site.ranks_per_node}"
    parts = f"libraries and images {need.rank_bytes / 1e9:.1f} GB, a fifth to spare"
    limit = f", cut to the {site.hours:g} h of the site" if cut else ""
    return (
        f"{need.slices} slices, {each:.1f} s each on one core: {all_of_it} in all",
        f"{ranks}: at most {most} by the site file, {LEAST_SLICES} slices or more for each",
        f"about {duration(seconds)} with start and writing",
        f"memory {size.memory_mb_per_rank / 1000:.1f} GB per rank: {parts}, and layers",
        f"time limit {size.minutes} min: {SPARE:.0f} times the estimate and 5 min{limit}",
        "at the limit the job stops in good order, goes back into the queue and continues",
    )


def plan_stack(job: Job, order: Order, blocks: int = 0) -> Plan:
    """One stack: one job; in blocks, arrays with a merge after each. Raises `InputError`."""
    _refuse_twice(job.out)
    config = order.load_config()
    entry = Entry(job.raw, job.prealigned, job.out, (), "")
    inputs = open_entry(entry, config)
    stacks = {"RAW": inputs.raw} | ({} if job.prealign else {"PREALIGNED": inputs.prealigned})
    voxel = find_voxel_size(stacks, config.output.voxel_size_nm)
    config = replace(config, output=replace(config.output, voxel_size_nm=voxel.nm))
    folder, table = slurm_folder(job.out), ""
    told = (*_raw_alone([entry]), *voxel.notes, *voxel.warnings)
    if job.overrides:
        read_overrides(job.overrides, inputs.depth)
        table = job.overrides.read_text(encoding="utf-8-sig")
    _refuse_large(entry, inputs, config, order.site)
    if not blocks:
        size = size_job(_need(entry, inputs, config), order.site)
        work = BatchJob("align", _name(job), _log(folder, ONE_LOG), _paths(job), _words(job, order))
        script = Script("align.sbatch", render(work, size, order.site), (job.out,))
        return Plan(folder, (script,), (*told, *size.reasons), job.out, table)
    cut = plan_blocks(job, config, inputs, blocks)
    if blocks > slurm.largest_array():
        raise InputError(f"--blocks {blocks}: this Slurm takes {slurm.largest_array()} array tasks")
    largest = max(stop - start for start, stop in cut.ranges)
    size = size_job(_need(entry, inputs, config, largest), order.site)
    minutes = min(MERGE_MINUTES, order.site.minutes)
    alone = Resources(1, 1, size.memory_mb_per_rank, minutes)
    array, merge = _blocks_script(job, order, blocks, size), _merge_script(job, order, alone)
    steps = (*(ALONE if job.prealign else ()), *STEPS)
    later = (replace(array, after="afterok"), merge) * (len(steps) // 2 - 1)
    reason = f"{blocks} blocks of at most {largest} slices; {', '.join(steps)}; for each array:"
    reasons = (*told, reason, *size.reasons)
    return Plan(folder, (array, merge, *later), reasons, job.out, table)


def _raw_alone(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Says of which stacks there is no pre-alignment: it may have been forgotten."""
    names = [entry.output.name for entry in entries if not entry.prealigned]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    told = f"raw alone, without PREALIGNED (--prealign): {', '.join(names[:NAMED])}{more}"
    return (told,) if names else ()


def _blocks_script(job: Job, order: Order, blocks: int, size: Resources) -> Script:
    """An array with a task for each block."""
    work = BatchJob(
        kind="blocks",
        name=_name(job),
        log=_log(slurm_folder(job.out), ARRAY_LOG),
        variables=(*_paths(job), ("BLOCKS", str(blocks), "")),
        options=_words(job, order),
        array=array_option(blocks, order.throttle),
    )
    return Script("blocks.sbatch", render(work, size, order.site), (job.out,) * blocks, array=True)


def _merge_script(job: Job, order: Order, size: Resources) -> Script:
    """What follows when all tasks of an array are done."""
    log = _log(slurm_folder(job.out), ONE_LOG)
    work = BatchJob("merge", f"{_name(job)}-merge", log, _paths(job)[2:])
    return Script("merge.sbatch", render(work, size, order.site), (job.out,), after="afterok")


def _words(job: Job, order: Order) -> tuple[str, ...]:
    """The options of `align` in a script."""
    table = str(slurm_folder(job.out) / OVERRIDES)
    return order.options + (("--overrides", table) if job.overrides else ())


def _name(job: Job) -> str:
    return f"amst-{job.out.stem}"


def _paths(job: Job) -> tuple[tuple[str, str, str], ...]:
    """The lines of a script that name the stack."""
    return (("RAW", job.raw, ""), ("PREALIGNED", job.prealigned, ""), ("OUT", str(job.out), ""))


def _refuse_twice(out: Path) -> None:
    """Two jobs must not write one output. Raises `InputError`."""
    for job, _ in _in_queue(sent(out)).values():
        raise InputError(f"OUT {out}: job {job} for it is in the queue; expected none")


def _in_queue(jobs: Mapping[Path, Sequence[slurm.TaskId]]) -> dict[Path, slurm.TaskId]:
    """One for each output that waits or runs; Slurm is not asked where none was sent."""
    queue = (slurm.queued() or {}) if jobs else {}
    return {out: job for out, places in jobs.items() for job in places if job in queue}


def plan_manifest(path: Path, order: Order) -> Plan:
    """The stacks of a manifest that are neither finished nor in the queue.

    Raises `InputError` with a line for each fault.
    """
    entries = read_manifest(path)
    faults, opened = check_entries(entries, order.config, order.changes)
    if faults:
        raise InputError("\n".join(faults))
    left = _left(path, [entry.output for entry in entries])
    rest = [(e, i) for e, i in zip(entries, opened, strict=True) if e.output in left]
    folder = slurm_folder(path)
    told = f"{len(rest)} of {len(entries)} stacks of {path} are neither finished nor in the queue"
    if not rest:
        return Plan(folder, (), (told,), path)
    work = [(e, i, e.settings(order.config, order.changes)) for e, i in rest]
    for each in work:
        _refuse_large(*each, order.site)
    size = size_job(_largest([_need(*each) for each in work]), order.site)
    scripts = _array_scripts(path, [entry for entry, _ in rest], order, size)
    alone = _raw_alone([entry for entry, _ in rest])
    reasons = (told, *alone, "sizes by the largest of them:", *size.reasons)
    return Plan(folder, scripts, reasons, path)


def _array_scripts(
    path: Path, entries: Sequence[Entry], order: Order, size: Resources
) -> tuple[Script, ...]:
    """An array for these stacks, or several where Slurm takes no array so large.

    With a throttle, one waits for the other: it is meant for all of them together.
    """
    folder = slurm_folder(path)
    number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.tsv")), default=0)
    scripts = []
    for n, span in enumerate(spans(len(entries), slurm.largest_array())):
        some = tuple(entries[i] for i in span)
        name, note = f"{number + n:04d}", f"{len(some)} stacks of {path.name}"
        work = BatchJob(
            kind="array",
            name=f"amst-{path.stem}",
            log=_log(folder, ARRAY_LOG),
            variables=(("MANIFEST", str(folder / f"{name}.tsv"), note),),
            options=order.options,
            array=array_option(len(some), order.throttle),
        )
        outputs = tuple(entry.output for entry in some)
        after = "afterany" if n and order.throttle else ""
        text = render(work, size, order.site)
        scripts.append(Script(f"{name}.sbatch", text, outputs, True, after, some))
    return tuple(scripts)


def _log(folder: Path, pattern: str) -> str:
    """The file of a job's output, as sbatch takes it: % stands for numbers and names there."""
    return f"{str(folder).replace('%', '%%')}/{pattern}"


def _need(entry: Entry, inputs: Inputs, config: Config, depth: int = 0) -> JobEstimate:
    held = block_bytes(inputs.raw) + block_bytes(inputs.prealigned)
    need = estimate(depth or inputs.depth, inputs.shape, inputs.dtype, config, held)
    return need if entry.prealigned else with_prealignment(need, inputs.shape)


def _refuse_large(entry: Entry, inputs: Inputs, config: Config, site: Site) -> None:
    """Raises `InputError` for a stack whose ranks are larger than a node."""
    ways = lighter(config, inputs.depth, inputs.shape)
    less = {name: _need(entry, inputs, changed) for name, changed in ways}
    try:
        refuse_large(_need(entry, inputs, config), site.memory_gb_per_node, less)
    except InputError as error:
        raise InputError(f"OUT {entry.output}: {error}") from None


def _largest(needs: Sequence[JobEstimate]) -> JobEstimate:
    """That of the stack which takes longest, with the memory of the one that needs most."""
    longest, largest = (max(needs, key=lambda n: (n.seconds, n.memory_mb)[i]) for i in (0, 1))
    return replace(longest, rank_bytes=largest.rank_bytes, layer_bytes=largest.layer_bytes)


def _left(manifest: Path, outputs: Sequence[Path]) -> set[Path]:
    """The outputs that are neither finished nor in Slurm's queue."""
    waiting = _in_queue(sent(manifest))
    return {
        out for out in outputs if out.resolve() not in waiting and read_status(out).state != "done"
    }


def send_plan(plan: Plan) -> list[str]:
    """Write the scripts, have Slurm look at all of them, send them; the job numbers and how to
    follow.

    Raises `InputError` if Slurm refuses one; it names what was sent before.
    """
    try:
        plan.folder.mkdir(exist_ok=True)
        if plan.overrides:
            write_whole(plan.folder / OVERRIDES, plan.overrides)
        for script in plan.scripts:
            write_whole(plan.folder / script.name, script.text)
            if script.entries:
                write_manifest((plan.folder / script.name).with_suffix(".tsv"), script.entries)
    except OSError as error:
        raise InputError(f"{plan.folder}: cannot be written ({error.strerror})") from None
    lines = [slurm.test(plan.folder / script.name) for script in plan.scripts]
    jobs: list[str] = []
    for script in plan.scripts:
        waits = f"{script.after}:{jobs[-1]}" if script.after else ""
        try:
            jobs.append(slurm.send(plan.folder / script.name, waits))
        except InputError as error:
            before = f"; sent before it: job {' '.join(jobs)}, to end with scancel" if jobs else ""
            raise InputError(f"{error}{before}") from None
        _record(plan.folder, jobs[-1], script)
        tasks = f", {len(script.tasks)} array tasks" if script.array else ""
        lines.append(f"sent: job {jobs[-1]} ({script.name}{tasks}{', ' + waits if waits else ''})")
    lines += [f"follow: amst-hpc status {plan.follow}", f"logs: {plan.folder}/*.log"]
    return [*lines, f"end: scancel {' '.join(jobs)}"]


def _record(folder: Path, job: str, script: Script) -> None:
    """Append to `sent.tsv`: job, array task, output."""
    with (folder / "sent.tsv").open("a") as file:
        for n, out in enumerate(script.tasks, 1):
            file.write(f"{job}\t{n if script.array else ''}\t{out.resolve()}\n")


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """`section.key=value` for each value of nested tables, written as JSON, which TOML reads."""
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield f"{name}={json.dumps(value)}"
