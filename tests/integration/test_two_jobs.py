"""Two jobs write one output at once: one is refused in one line or finds it finished."""

import json
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from jobs import FAST, SLOWED, call, command_line, contents, environment, finished, registrations
from stacks import inputs

TIMES = 20
SPREAD = 2.0  # s: the second starts up to so much later


def start(line, cwd: Path) -> subprocess.Popen:
    """A job of some 3 s, most of them with the lock."""
    slow = json.dumps({"register": 0.07, "write": 0.1})
    return subprocess.Popen(
        command_line(0, line, SLOWED),
        env=environment() | {"FAULTS": slow},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def datasets(out: Path) -> dict[str, str]:
    return {key: value for key, value in contents(out).items() if "cells" in key}


@pytest.mark.slow
def test_two_jobs_on_one_output(tissue, tmp_path):
    options = (*FAST, "--set", "output.layer=4")
    alone = tmp_path / "alone.h5"
    finished(call("align", *inputs(tissue), alone, *options))
    counts: Counter[str] = Counter()
    for n in range(TIMES):
        out = tmp_path / f"{n}" / "out.h5"
        out.parent.mkdir()
        line = ("align", *inputs(tissue), out, *options)
        first = start(line, tmp_path)
        time.sleep(SPREAD * n / (TIMES - 1))
        jobs = [first, start(line, tmp_path)]
        ended = [(job.communicate(timeout=120), job.returncode) for job in jobs]
        codes = sorted(code for _, code in ended)
        assert codes in ([0, 2], [0, 0]), ended
        for (_, stderr), code in ended:
            faults = [text for text in stderr.splitlines() if text.startswith("amst-hpc: ")]
            assert len(faults) == (code == 2), stderr
            assert all("another job writes it (process " in text for text in faults), faults
            assert "Traceback" not in stderr
        counts["refused" if 2 in codes else "came after it"] += 1
        assert datasets(out) == datasets(alone)
        folder = out.with_suffix(".amst")
        assert sorted(registrations(folder)) == list(range(24)), "each slice once"
        assert not list((folder / "lock").iterdir()), "a lock is left"
        assert not (folder / "writing.h5").exists()
        finished(call(*line))  # the run folder is whole
        assert sorted(registrations(folder)) == list(range(24))
        finished(call("verify", out))
    print(f"{TIMES} pairs: {dict(counts)}")
    assert counts["refused"] >= TIMES // 2, counts
