"""Real faults on real slices, and what survives them: `make faults`.

    run.py [--moments 3] [--only NAME ...] [--soak] [--keep]

Prints one line per kind of fault and the totals: faults injected / survived / slices lost / bytes
differing. A fault is survived if the job ends as documented and the same command then gives the
datasets of an undisturbed run without registering a journaled slice again. AMST_HPC_MOMENTS is the
default of --moments (10 is the full form).
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from amst_hpc.job.journal import records

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "support"), str(CHECKOUT)]

from jobs import (  # noqa: E402
    UNPRIVILEGED,
    Ended,
    Job,
    contents,
    environment,
    journal,
    registrations,
    run,
    send,
    slices,
    transforms,
)

SHARED = Path(os.environ.get("AMST_HPC_SHARED", CHECKOUT.parent / "shared")).resolve()
DRIVER = (HERE / "driver.py",)
DEPTH, SIZE = 20, (144, 160)
SLOW = {"register": 0.08, "write": 0.25, "sync": 0.4}
SETTINGS = ("coarse.method=xcorr", "output.layer=2", "output.levels=2", "output.chunk=64")
ABORT_SECONDS = 10
DISK = "24m"
"""The file has 15 MB: all that HDF5 allocates begins at a whole MiB."""
EXAMPLES = 1700
"""TIFF files in each of the three tests of them: some 5,000."""
FULL = 10
"""From so many moments on, all kills hit jobs that register with elastix (it starts slowly)."""


@dataclass
class Result:
    """What became of one fault."""

    fault: str
    survived: bool = True
    lost: int = 0
    differing: int = 0
    notes: list[str] = field(default_factory=list)

    def expect(self, ok: bool, note: str) -> None:
        """Count the fault as not survived, with a note, unless `ok`."""
        if not ok:
            self.survived = False
            self.notes.append(note)


class Bench:
    """The stack, the undisturbed run, and a folder for each fault."""

    def __init__(self, folder: Path, moments: int, seed: int) -> None:
        self.folder, self.moments = folder, moments
        self.random = random.Random(seed)
        self.truth = folder / "truth"
        volume = SHARED / "data" / "fib25_medulla_250x250x250_isotropic.tif"
        options = (
            f"--nz {DEPTH} --z0 100 --fov {SIZE[0]} {SIZE[1]} --drift 6 --jitter-sd 2 --seed 5"
        )
        make_truth(volume, self.truth, options)
        self.references: dict[str, Path] = {}

    def line(self, out: Path, backend: str, truth: Path | None = None) -> list[str | Path]:
        """The command line of a job."""
        source = truth or self.truth
        changes = [*SETTINGS, f"refine.backend={backend}"]
        settings = [part for change in changes for part in ("--set", change)]
        return ["align", source / "raw", source / "pre", out, *settings]

    def reference(self, backend: str) -> Path:
        """The output of a run that nothing disturbed."""
        if backend not in self.references:
            out = self.fresh(f"undisturbed-{backend}") / "out.h5"
            ended = run(2, *self.line(out, backend))
            if ended.code != 0:
                raise SystemExit(f"the undisturbed run failed ({ended.code}):\n{ended.stderr}")
            self.references[backend] = out
        return self.references[backend]

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def start(self, ranks: int, out: Path, backend: str, **faults: object) -> Job:
        """A slowed job."""
        note = str(out.with_name("written"))
        os.environ["FAULTS"] = json.dumps({**SLOW, "written": note, **faults})
        try:
            return Job(ranks, *self.line(out, backend), program=DRIVER)
        finally:
            del os.environ["FAULTS"]

    def resume(self, out: Path, backend: str, result: Result, *codes: int) -> Ended:
        """The same command with another number of ranks, and what is then wrong."""
        before = Counter(registrations(out.with_suffix(".amst")))
        ended = run(self.random.choice((1, 2, 3)), *self.line(out, backend))
        result.expect(ended.code in (codes or (0,)), f"resume ended with {ended.code}")
        if ended.code not in (codes or (0,)):
            result.notes.append(ended.stderr[-400:])
            result.lost += DEPTH
            return ended
        after = Counter(registrations(out.with_suffix(".amst")))
        result.lost += len(set(range(DEPTH)) - set(after)) + sum((before - after).values())
        again = [z for z, count in after.items() if count > 1]
        result.expect(not again, f"registered again: {again}")
        return ended

    def compare(self, out: Path, backend: str, result: Result) -> None:
        """The datasets and transforms are those of the undisturbed run."""
        if not out.exists():
            result.expect(False, "no output")
            return
        reference = self.reference(backend)
        found, wanted = contents(out), contents(reference)
        different = [name for name in wanted if found.get(name) != wanted[name]]
        result.differing += len(different)
        result.expect(not different, f"differ: {different}")
        result.expect(transforms(out) == transforms(reference), "the transforms differ")


def make_truth(volume: Path, out: Path, options: str) -> None:
    command = [sys.executable, SHARED / "tools" / "make_gt.py", volume, out, *options.split()]
    subprocess.run([*map(str, command)], check=True, capture_output=True)


# ---- kills and signals


def reach(bench: Bench, job: Job, in_write: bool) -> str:
    """Wait for a random moment of the registration or the write pass; says which."""
    if in_write:
        layers = bench.random.randrange(DEPTH // 2 - 2)
        job.wait_for(lambda: len(begun(job)) >= layers if layers else job.writing())
        moment = f"write, {len(begun(job))} layers begun"
    else:
        wanted = bench.random.randrange(DEPTH - 2)
        job.wait_for(lambda: job.registered() >= wanted)
        moment = f"register, {job.registered()} slices"
    time.sleep(bench.random.random() * 0.15)
    return moment


def begun(job: Job) -> list[int]:
    """The layers that were begun to be stored (by the driver's word)."""
    path = job.out.with_name("written")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def recorded(folder: Path) -> list[int]:
    """The layers that are in the journal."""
    return [record["layer"] for record in journal(folder, "write") if record["kind"] == "layer"]


def killed_writing(bench: Bench) -> list[Result]:
    """SIGKILL of one rank in the write pass: what is written again, and nothing else.

    Every second time with a sync after each layer: then each rank loses the one that it writes.
    """
    results, ranks = [], 3
    bench.reference("none")
    for n in range(bench.moments):
        out = bench.fresh(f"kill-write-{n}") / "out.h5"
        sync = SLOW["sync"] * (n % 2)
        most = ranks * max(1, math.ceil(sync / SLOW["write"]))
        job = bench.start(ranks, out, "none", sync=sync)
        moment = reach(bench, job, in_write=True)
        send(bench.random.choice(job.ranks()), signal.SIGKILL)
        ended = job.end(60)
        before, kept = set(begun(job)), recorded(job.folder)
        result = Result("")
        result.expect(ended.code != 0, "the job ended with 0")
        result.expect(not out.exists(), "OUT.h5 is there")
        bench.resume(out, "none", result)
        after = recorded(job.folder)[len(kept) :]
        again = before & set(after)
        result.fault = (
            f"SIGKILL of one rank, {moment}: {len(kept)} counted, {len(again)} written again "
            f"(at most {most})"
        )
        result.expect(len(again) <= most, f"written again: {sorted(again)}")
        result.expect(sorted(kept + after) == list(range(DEPTH // 2)), f"{kept} then {after}")
        bench.compare(out, "none", result)
        results.append(result)
    return results


def killed(bench: Bench, victim: str) -> list[Result]:
    """SIGKILL of a rank, of all ranks, of mpirun; every second time in the write pass."""
    results = []
    for n in range(bench.moments):
        backend = "itk" if (n == 0 and victim == "rank") or bench.moments >= FULL else "none"
        bench.reference(backend)
        out = bench.fresh(f"kill-{victim}-{n}") / "out.h5"
        job = bench.start(3, out, backend)
        moment = reach(bench, job, in_write=n % 2 == 1)
        ranks = job.ranks()
        targets = {"rank": [bench.random.choice(ranks)], "all": ranks, "mpirun": [job.process.pid]}
        result = Result(f"SIGKILL {victim}, {moment}, refine {backend}")
        for pid in targets[victim]:
            send(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        ended = job.end(60)
        while any(alive(pid) for pid in ranks) and time.monotonic() - killed_at < ABORT_SECONDS:
            time.sleep(0.05)
        late = [pid for pid in ranks if alive(pid)]
        result.expect(not late, f"{len(late)} ranks went on for {ABORT_SECONDS} s")
        for pid in late:
            send(pid, signal.SIGKILL)
        result.expect(ended.code != 0, "the job ended with 0")
        result.expect(not out.with_suffix(".xml").exists(), "OUT.xml is there")
        bench.resume(out, backend, result)
        bench.compare(out, backend, result)
        results.append(result)
    return results


def alive(pid: int) -> bool:
    """True if the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def signalled(bench: Bench, number: signal.Signals) -> list[Result]:
    """A signal to every rank, as Slurm sends it: exit 75, then the same command finishes."""
    results = []
    for n in range(bench.moments):
        out = bench.fresh(f"{number.name}-{n}") / "out.h5"
        job = bench.start(2, out, "none")
        result = Result(f"{number.name}, {reach(bench, job, in_write=n % 2 == 1)}")
        # before that the interpreters may still be loading: no program is there to hear it
        job.wait_for(lambda: len(list(job.folder.glob("journal/*.register.log"))) == 2)  # noqa: B023
        for pid in job.ranks():
            send(pid, number)
        ended = job.end(60)
        result.expect(ended.code == 75, f"ended with {ended.code}: {ended.stderr[-300:]}")
        bench.resume(out, "none", result)
        bench.compare(out, "none", result)
        results.append(result)
    return results


# ---- the disk


def full_disk(bench: Bench) -> list[Result]:
    """A small file system runs full in either pass: one clear line, exit 1, resumable."""
    results = []
    for in_write in (False, True):
        result = Result(f"disk full in the {'write' if in_write else 'registration'} pass")
        folder = bench.fresh(f"full-{in_write}")
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            result.notes.append("NOT INJECTED: no tmpfs can be mounted (not root?)")
            result.survived = False
            results.append(result)
            continue
        try:
            out, filler = folder / "out.h5", folder / "filler"
            job = bench.start(2, out, "none")
            job.wait_for(job.writing if in_write else lambda: job.registered() >= 3)  # noqa: B023
            fill(filler)
            ended = job.end(60)
            # the log of the job lies on the full disk too: what did not fit there is not judged
            result.expect(ended.code not in (0, 2, 3, 75), f"ended with {ended.code}")
            result.expect(not out.exists(), "OUT.h5 is there")
            filler.unlink()
            bench.resume(out, "none", result)
            bench.compare(out, "none", result)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        results.append(result)
    return results


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def full_disk_says_so(bench: Bench) -> list[Result]:
    """What the user reads when the disk is full: the reason in one line, no traceback."""
    result = Result("disk full: what is said")
    folder = bench.fresh("full-said")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        result.expect(False, "NOT INJECTED: no tmpfs can be mounted (not root?)")
        return [result]
    try:
        command = [sys.executable, *DRIVER, *bench.line(folder / "out.h5", "none")]
        variables = {**environment(), "FAULTS": json.dumps(SLOW)}
        with subprocess.Popen(
            [*map(str, command)], env=variables, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None and not journal(folder / "out.amst", "write"):
                time.sleep(0.01)
            fill(folder / "filler")
            text = process.communicate()[1]
        result.expect(process.returncode == 1, f"ended with {process.returncode}")
        result.expect("No space left on device" in text, "the reason is not named")
        result.expect("Traceback" not in text, "a traceback instead of a line")
        if not result.survived:
            result.notes.append(text[-600:])
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
    return [result]


def cut_journal(bench: Bench) -> list[Result]:
    """The journal of rank 1 cut at every byte of its last two records; some cuts are resumed."""
    from amst_hpc.job.journal import records

    base = bench.fresh("journal") / "out.h5"
    job = bench.start(2, base, "none")
    job.wait_for(lambda: job.registered() >= 15)
    for pid in job.ranks():
        send(pid, signal.SIGTERM)
    job.end(60)
    whole = min((base.with_suffix(".amst") / "journal").glob("*-00001.register.log"))
    data = whole.read_bytes()
    start = len(b"".join(data.splitlines(keepends=True)[:-4]))
    result = Result(f"journal cut at each of {len(data) - start} bytes")
    scratch = bench.fresh("journal-cut")
    for length in range(start, len(data)):
        (scratch / whole.name).write_bytes(data[:length])
        kept = [r for r in records(scratch) if r["kind"] == "slice"]
        right = [json.loads(x[9:]) for x in data[:length].splitlines(keepends=True) if ends(x)]
        result.expect(kept == [r for r in right if r["kind"] == "slice"], f"cut at {length}")
    results = [result]
    for length in bench.random.sample(range(start, len(data)), min(3, bench.moments)):
        result = Result(f"journal cut at byte {length}, resumed")
        out = bench.fresh(f"journal-{length}") / "out.h5"
        shutil.copytree(base.with_suffix(".amst"), out.with_suffix(".amst"))
        path = out.with_suffix(".amst") / "journal" / whole.name
        path.write_bytes(data[:length])
        bench.resume(out, "none", result)
        bench.compare(out, "none", result)
        results.append(result)
    return results


def ends(line: bytes) -> bool:
    return line.endswith(b"\n")


# ---- slices


def bad_files(bench: Bench) -> list[Result]:
    """A slice that cannot be read, before the run: named in one line, exit 2, nothing written."""
    results = []
    victim = "slice_00009.tif"
    whole = (bench.truth / "raw" / victim).read_bytes()
    damages = {f"cut to {n} bytes": whole[:n] for n in (1, 8, 150, len(whole) // 2, len(whole) - 1)}
    damages |= {"of zero length": b"", "with a wrong header": b"\x89PNG" + whole[4:]}
    for name, data in damages.items():
        result = Result(f"TIFF {name}")
        folder = bench.fresh("bad-file")
        shutil.copytree(bench.truth, folder / "in")
        (folder / "in" / "raw" / victim).write_bytes(data)
        refuse(bench, folder, victim, result)
        results.append(result)
    result = Result("TIFF that may not be read (mode 000)")
    folder = bench.fresh("unreadable")
    shutil.copytree(bench.truth, folder / "in")
    (folder / "in" / "raw" / victim).chmod(0)
    refuse(bench, folder, victim, result, before=UNPRIVILEGED)
    return [*results, result]


def refuse(
    bench: Bench, folder: Path, victim: str, result: Result, before: Sequence[str] = ()
) -> None:
    """Expect exit 2, one line that names the slice, and nothing written."""
    ended = run(0, *bench.line(folder / "out.h5", "none", folder / "in"), before=before)
    result.expect(ended.code == 2, f"ended with {ended.code}: {ended.stderr[-300:]}")
    result.expect(len(ended.faults) == 1 and victim in ended.faults[0], f"said {ended.stderr}")
    result.expect([p.name for p in folder.iterdir()] == ["in"], "something was written")


def first_pass(out: Path) -> dict[int, object]:
    """What each slice was registered by, from the journal; neighbours come later."""
    found = records(out.with_suffix(".amst") / "journal")
    return {r["z"]: (r["shift"], r["matrix"]) for r in found if "shift" in r}


def lost_files(bench: Bench) -> list[Result]:
    """A slice removed or cut short during the run: it is left black, all others are registered as
    they were; when it is back, the same command registers it.
    """
    results = []
    for name in ("removed", "cut"):
        result = Result(f"TIFF {name} during the run")
        folder = bench.fresh(f"lost-{name}")
        truth, out, victim = folder / "in", folder / "out.h5", 14
        shutil.copytree(bench.truth, truth)
        path = truth / "raw" / f"slice_{victim:05d}.tif"
        os.environ["FAULTS"] = json.dumps(SLOW)
        job = Job(2, *bench.line(out, "none", truth), program=DRIVER)
        del os.environ["FAULTS"]
        job.wait_for(lambda: job.registered() >= 2)  # noqa: B023
        whole, stamp = path.read_bytes(), path.stat().st_mtime_ns
        if name == "removed":
            path.unlink()
        else:
            path.write_bytes(whole[:700])
        ended = job.end()
        result.expect(ended.code == 3, f"ended with {ended.code}: {ended.stderr[-300:]}")
        if out.exists():
            table = slices(out)
            row = table[victim]
            lost = row["status"] == "unreadable" and path.name in row["reason"]
            result.expect(lost, f"{row}")
            wanted, found = first_pass(bench.reference("none")), first_pass(out)
            others = [z for z in range(DEPTH) if z != victim]
            result.differing += sum(found[z] != wanted[z] for z in others)
            result.lost += sum(transforms(out)[z] is None for z in others)
            path.write_bytes(whole)
            os.utime(path, ns=(stamp, stamp))
            ended = run(2, *bench.line(out, "none", truth))
            result.expect(ended.code == 0, f"when it was back: {ended.code}")
            bench.compare(out, "none", result)
        else:
            result.expect(False, "no output")
        results.append(result)
    return results


def bad_slices(bench: Bench) -> list[Result]:
    """Black, partly black, noisy, displaced and over-bright slices: the error of each, px."""
    sys.path.insert(0, str(SHARED / "tools"))
    from score_gt import corner_residuals, smooth_gauge

    folder = bench.fresh("bad-slices")
    volume = SHARED / "data" / "lucchi_hippocampus_96x768x768_5nm.tif"
    make_truth(volume, folder / "in", "--nz 32 --z0 20 --fov 256 256 --drift 10 --seed 4")
    rng = np.random.default_rng(1)
    kinds = {6: "black", 7: "black", 11: "40 % black", 16: "noise", 21: "displaced by 40 px"}
    kinds |= {26: "doubled contrast"}
    truth = json.loads((folder / "in" / "truth.json").read_text())
    noise = rng.integers(0, 256, (256, 256), np.uint8)
    for z, kind in kinds.items():
        for part in ("raw", "pre"):
            path = folder / "in" / part / f"slice_{z:05d}.tif"
            x, y = truth["slices"][z]["pre_shift_xy"] if part == "pre" else (0, 0)
            shifted = np.roll(noise, (-y, -x), (0, 1))  # the same pixels, as the pre-alignment does
            tifffile.imwrite(path, spoil(tifffile.imread(path), kind, shifted))
        if kind == "displaced by 40 px":
            matrix = np.array(truth["slices"][z]["raw_forward"])
            matrix[:, 2] -= matrix[:, :2] @ [40, 0]
            truth["slices"][z]["raw_forward"] = matrix.tolist()
    results = []
    for method in ("sift", "xcorr"):
        out = folder / f"{method}.h5"
        options = ("--set", f"coarse.method={method}")
        ended = run(2, "align", folder / "in" / "raw", folder / "in" / "pre", out, *options)
        if ended.code != 3:
            results.append(Result(f"bad slices, {method}", False, 32, 0, [ended.stderr[-600:]]))
            continue
        residuals = corner_residuals(truth, transforms(out))
        errors = np.sqrt(((residuals - smooth_gauge(residuals, 7.0)) ** 2).sum(-1)).mean(-1)
        table = slices(out)
        usual = float(np.nanmean([e for z, e in enumerate(errors) if z not in kinds]))
        for z, kind in kinds.items():
            status, error = table[z]["status"], float(errors[z])
            measured = "no transform" if np.isnan(error) else f"{error:.2f} px"
            result = Result(f"{kind} ({method}): {status}, {measured} (others {usual:.2f} px)")
            if kind == "black":
                result.expect(status == "blank" and transforms(out)[z] is None, "not reported")
            elif kind == "noise":
                result.expect(status != "affine", "noise passed as registered")
                result.expect(error < 12, "far from its neighbours")
            else:
                result.expect(error <= 1.2, "more than 1.2 px")
            results.append(result)
        results[-1].expect(usual < 0.8, f"the others have {usual:.2f} px")
    return results


def spoil(image: np.ndarray, kind: str, noise: np.ndarray) -> np.ndarray:
    if kind == "black":
        return np.zeros_like(image)
    if kind == "40 % black":
        image = image.copy()
        image[int(0.6 * len(image)) :] = 0
        return image
    if kind == "noise":
        return noise
    if kind == "displaced by 40 px":
        return np.roll(image, 40, axis=1)
    return np.clip((image.astype(float) - 128) * 2 + 128, 0, 255).astype(np.uint8)


def crash(bench: Bench) -> list[Result]:
    """A crash inside elastix: tried once more, then the slice is skipped and falls back."""
    result = Result("SIGSEGV inside elastix at one slice")
    out = bench.fresh("crash") / "out.h5"
    codes = [bench.start(2, out, "none", crash=8).end().code for _ in range(3)]
    result.expect(codes[0] not in (0, 3) and codes[1] not in (0, 3), f"ended with {codes}")
    result.expect(codes[2] == 3, f"ended with {codes}")
    if out.exists():
        table = slices(out)
        fallen = {z: row["status"] for z, row in enumerate(table) if row["status"] != "affine"}
        result.expect(fallen == {8: "neighbours"}, f"fallen back: {fallen}")
        again = [z for z, n in Counter(registrations(out.with_suffix(".amst"))).items() if n > 1]
        result.expect(not again, f"registered again: {again}")
    else:
        result.expect(False, "no output")
        result.lost += 1
    return [result]


def tiff_files(bench: Bench) -> list[Result]:
    """TIFF files of any layout and damage: the pixels of tifffile's own reader, or a refusal."""
    test = CHECKOUT / "tests/unit/images/test_tiff_fuzz.py"
    examples = min(EXAMPLES, EXAMPLES * bench.moments // 3)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--timeout=3600", str(test)],
        cwd=CHECKOUT,
        env=environment() | {"AMST_HPC_EXAMPLES": str(examples)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{examples} TIFF files by chance in each test of {test.name}"
    return [Result(said, done.returncode == 0, notes=[done.stdout[-3000:]])]


def soak(bench: Bench) -> list[Result]:
    """2,000 registrations in one process, memory growth below 5 %."""
    done = subprocess.run(
        [sys.executable, str(HERE / "soak.py")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout.strip().replace("\n", "; ")
    return [Result(f"soak: {text}", done.returncode == 0, notes=[done.stderr[-300:]])]


FAULTS = {
    "kill-rank": lambda bench: killed(bench, "rank"),
    "kill-all": lambda bench: killed(bench, "all"),
    "kill-write": killed_writing,
    "kill-mpirun": lambda bench: killed(bench, "mpirun"),
    "sigterm": lambda bench: signalled(bench, signal.SIGTERM),
    "sigusr1": lambda bench: signalled(bench, signal.SIGUSR1),
    "full-disk": full_disk,
    "full-disk-said": full_disk_says_so,
    "journal": cut_journal,
    "bad-files": bad_files,
    "lost-files": lost_files,
    "bad-slices": bad_slices,
    "tiff-files": tiff_files,
    "crash": crash,
}


def main() -> int:
    """Run the table; 0 if every fault was survived, nothing lost and nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    moments = int(os.environ.get("AMST_HPC_MOMENTS", "3"))
    parser.add_argument("--moments", type=int, default=moments, help="of each kill and signal")
    parser.add_argument("--only", nargs="*", choices=[*FAULTS, "soak"], help="these faults alone")
    parser.add_argument("--soak", action="store_true", help="2,000 registrations as well")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--folder", type=Path, help="where to work and leave everything")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="amst_hpc_faults_"))
    folder.mkdir(exist_ok=True)
    bench = Bench(folder, options.moments, options.seed)
    names = options.only or [*FAULTS, *(["soak"] if options.soak else [])]
    results = []
    try:
        for name in names:
            began = time.monotonic()
            for result in {**FAULTS, "soak": soak}[name](bench):
                results.append(result)
                print("survived" if result.survived else "FAILED  ", result.fault, flush=True)
                for note in result.notes if not result.survived else []:
                    print(f"         {note}", flush=True)
            print(f"         ({name}: {time.monotonic() - began:.0f} s)", flush=True)
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)
    totals = (
        len(results),
        sum(result.survived for result in results),
        sum(result.lost for result in results),
        sum(result.differing for result in results),
    )
    print("faults injected {} / survived {} / slices lost {} / bytes differing {}".format(*totals))
    return int(totals[0] != totals[1] or any(totals[2:]))


if __name__ == "__main__":
    sys.exit(main())
