"""A slow rank does less and holds nobody up, and no slice is read twice in a pass."""

import json
import threading
from collections import Counter

import pytest
from jobs import FAST, SLOWED, Job, call, contents, finished, journal, run, transforms
from stacks import inputs

from amst_hpc.images.tiff import TiffSeries
from amst_hpc.synthetic.stack import make_demo

UNCOMPARED = ("--set", "input.compare=false")  # the sample at the start is read besides
DEPTH, RANKS, TIMES = 160, 4, 4
SECONDS = {"register": 0.1, "pair": 0.03, "make": 0.15}
OPTIONS = (*FAST, "--set", "output.layer=2", "--set", "output.levels=2", "--set", "output.chunk=64")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """160 small slices, and what one rank makes of them."""
    folder = tmp_path_factory.mktemp("balance")
    make_demo(folder, DEPTH, 96, seed=4)
    (folder / "prealigned").rename(folder / "pre")
    finished(run(0, "align", *inputs(folder), folder / "alone.h5", *OPTIONS))
    return folder


def done_by_rank(folder, work, kind):
    """How many records of a kind each rank has left in its journal."""
    logs = sorted((folder / "journal").glob(f"*.{work}.log"))
    return [log.read_text().count(f'"kind":"{kind}"') for log in logs]


def test_every_pass_is_balanced(stack, tmp_path, monkeypatch):
    slow = 0  # that which shares the work out
    out = tmp_path / "out.h5"
    monkeypatch.setenv("FAULTS", json.dumps({**SECONDS, "slow": [slow, TIMES]}))
    job = Job(RANKS, "align", *inputs(stack), out, *OPTIONS, program=SLOWED)
    finished(job.end())
    ranks = json.loads((job.folder / "run.json").read_text())["seconds_per_rank"]
    took = [seconds["register"] for seconds in ranks]
    assert max(took) < 1.15 * sum(took) / RANKS, "all end together"
    for work, kind in (("register", "slice"), ("pair", "pair"), ("write", "layer")):
        done = done_by_rank(job.folder, work, kind)
        others = done[:slow] + done[slow + 1 :]
        assert done[slow] < min(others) / 2, (work, done)
    assert len(journal(job.folder, "pair")) == 3 * DEPTH - 3
    assert transforms(out) == transforms(stack / "alone.h5")
    assert contents(out) == contents(stack / "alone.h5")


@pytest.mark.parametrize("form", ["bdv", "tif"])
def test_each_slice_is_read_once_in_each_pass(tissue, tmp_path, monkeypatch, form):
    """Most of them by a thread, before they are needed."""
    reads, threads, read = Counter(), set(), TiffSeries.read

    def counting(self, z):
        reads[self.files[z]] += 1
        threads.add(threading.current_thread().name.split("_")[0])
        return read(self, z)

    monkeypatch.setattr(TiffSeries, "read", counting)
    out = tmp_path / ("out" if form == "tif" else "out.h5")
    options = (*FAST, *UNCOMPARED, "--set", "neighbours.enabled=false", "--output-format", form)
    finished(call("align", *inputs(tissue), out, *options))
    assert {path.parent.name: n for path, n in reads.items()} == {"raw": 2, "pre": 1}
    assert set(reads.values()) == {1, 2}
    assert len(reads) == 48
    assert "reading" in threads


def test_each_raw_slice_is_read_once_for_its_pairs(tissue, tmp_path, monkeypatch):
    from amst_hpc.passes import filters

    reads, read = Counter(), TiffSeries.read

    def counting(self, z):
        reads[self.files[z].parent.name] += 1
        return read(self, z)

    monkeypatch.setattr(filters, "PLACES", 0)
    monkeypatch.setattr(TiffSeries, "read", counting)
    finished(call("align", *inputs(tissue), tmp_path / "out.h5", *FAST, *UNCOMPARED))
    assert reads == {"raw": 3 * 24, "pre": 2 * 24}
