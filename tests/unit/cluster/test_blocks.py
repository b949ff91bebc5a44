"""A stack in blocks against the single job; the settings leave registration out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from stacks import save_noise

from amst_hpc import pipeline
from amst_hpc.cluster import slurm
from amst_hpc.cluster.status import show
from amst_hpc.config import Config, InputError
from amst_hpc.images.pairing import Job
from amst_hpc.settings import load_config
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import translation

SETTINGS = [
    "coarse.method=none", "refine.backend=none", "output.layer=4", "output.levels=3",
    "output.chunk=16", "output.report=false",
]  # fmt: skip
BLOCKS = 3
OUT = Path("out.h5")

Align = Callable[..., pipeline.Outcome]


@pytest.fixture
def align(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Align:
    """A function (OUT, block or 0 for the whole) -> outcome; 18 slices of 37x45, uint16."""
    monkeypatch.chdir(tmp_path)
    save_noise(18, np.uint16, 60000)

    def run(out: Path, block: int = 0, blocks: int = BLOCKS, **changes: Any) -> pipeline.Outcome:
        config: Config = load_config(None, [*SETTINGS, *changes.pop("settings", [])])
        job = Job("raw", "pre", out, **changes)
        return pipeline.align(job, config, MPI.COMM_SELF, (block, blocks) if block else None)

    return run


def all_blocks(align: Align, blocks: int = BLOCKS) -> list[str]:
    return [align(OUT, block + 1, blocks).summary() for block in range(blocks)]


def levels(path: Path) -> list[Any]:
    with h5py.File(path) as file:
        return [file[f"t00000/s00/{k}/cells"][()] for k in range(3)]


def assert_same(one: Path, other: Path) -> None:
    for a, b in zip(levels(one), levels(other), strict=True):
        assert np.array_equal(a, b)
    with h5py.File(one) as a, h5py.File(other) as b:
        assert a["s00"].attrs["dataType"] == b["s00"].attrs["dataType"]
        for table in ("resolutions", "subdivisions"):
            assert np.array_equal(a["s00"][table], b["s00"][table])


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_blocks_make_the_file_of_the_single_job(align: Align, blocks: int) -> None:
    single = Path("single.h5")
    align(single)
    assert "are registered; when all blocks are: amst-hpc merge" in all_blocks(align, blocks)[-1]
    assert "settled" in pipeline.merge(OUT, MPI.COMM_SELF).summary()
    assert not OUT.exists()
    assert "its layers are written" in all_blocks(align, blocks)[-1]
    assert not OUT.exists()
    outcome = pipeline.merge(OUT, MPI.COMM_SELF)
    assert outcome.summary().startswith("18 slices written: open out.xml")
    assert_same(OUT, single)
    for name in ("transforms.json", "config.toml"):
        texts = [Path(f"{stem}.amst", name).read_text() for stem in ("out", "single")]
        assert texts[0] == texts[1], name
    settings = [Path(f"{stem}.settings.xml").read_text() for stem in ("out", "single")]
    assert settings[0] == settings[1]


def test_merge_names_what_is_missing_and_writes_nothing(align: Align) -> None:
    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            pipeline.merge(OUT, MPI.COMM_SELF)
        assert not OUT.exists()
        assert not OUT.with_suffix(".xml").exists()
        return str(caught.value)

    assert "expected the blocks that align --block registered" in refusal()
    align(OUT, 1)
    align(OUT, 3)
    assert "block 2 (slices 6:12) is not registered" in refusal()
    align(OUT, 2)
    pipeline.merge(OUT, MPI.COMM_SELF)
    assert "block 1 (slices 0:6) is not written" in refusal()
    align(OUT, 1)
    align(OUT, 2)
    assert "block 3" in refusal()


def test_blocks_continue_and_repeat(align: Align) -> None:
    for _ in range(2):
        all_blocks(align)
    pipeline.merge(OUT, MPI.COMM_SELF)
    for _ in range(2):
        all_blocks(align)
    pipeline.merge(OUT, MPI.COMM_SELF)
    before = OUT.stat()
    pipeline.merge(OUT, MPI.COMM_SELF)
    align(OUT)
    after = OUT.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_layer_settled_otherwise_is_written_again_and_no_other(
    align: Align, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_blocks(align)
    pipeline.merge(OUT, MPI.COMM_SELF)
    all_blocks(align)
    settle = pipeline.settle

    def moved(*arguments: Any) -> list[SliceResult]:
        first, *rest = settle(*arguments)
        return [dataclasses.replace(first, transform=translation(3, 2)), *rest]

    monkeypatch.setattr(pipeline, "settle", moved)
    assert "settled" in pipeline.merge(OUT, MPI.COMM_SELF).summary()
    logs = len(list(Path("out.amst/journal").glob("*.write.log")))
    all_blocks(align)
    written = sorted(Path("out.amst/journal").glob("*.write.log"))[logs:]
    assert sum(path.read_text().count('"kind":"layer"') for path in written) == 1
    pipeline.merge(OUT, MPI.COMM_SELF)
    single = Path("single.h5")
    align(single)
    assert_same(OUT, single)


def test_status_of_blocks(align: Align, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "queued", lambda: None)
    align(OUT, 2)
    (found,) = show(OUT)
    assert (found.total, found.registered, found.written) == (18, 6, 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(InputError):
        pipeline.merge(OUT, MPI.COMM_SELF)
    (found,) = show(OUT)
    assert found.state == "failed"
    assert "block 1 (slices 0:6)" in found.reason


def test_another_cut_or_other_settings_are_refused(align: Align) -> None:
    align(OUT, 1)
    files = {path: path.stat().st_mtime_ns for path in Path("out.amst").rglob("*")}
    with pytest.raises(InputError, match="begun with other settings"):
        align(OUT, 1, 2)
    with pytest.raises(InputError, match=r"other settings \(config\.output\.chunk: 16 -> 32\)"):
        align(OUT, 2, settings=["output.chunk=32"])
    assert {path: path.stat().st_mtime_ns for path in files} == files
    with pytest.raises(InputError, match="--overwrite: expected none with blocks"):
        align(OUT, 2, overwrite=True)
    with pytest.raises(InputError, match="--strict: expected none with blocks"):
        align(OUT, 2, strict=True)
    with pytest.raises(InputError, match=r"output\.compression = 1"):
        align(OUT, 2, settings=["output.compression=1"])
    with pytest.raises(InputError, match="19 blocks: expected 1 to 18"):
        align(OUT, 1, 19)
    align(Path("whole.h5"))
    with pytest.raises(InputError, match=r"other settings of the output \(chunk: 16 -> 32\)"):
        align(Path("whole.h5"), 2, settings=["output.chunk=32"])
