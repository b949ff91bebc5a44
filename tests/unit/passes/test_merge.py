"""Blocks and their merge against the single job; the settings leave registration out."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from mpi4py import MPI

from amst_hpc import pipeline
from amst_hpc.cluster import slurm
from amst_hpc.cluster.blocks import cut, prepare_block
from amst_hpc.cluster.status import show
from amst_hpc.config import InputError, load_config
from amst_hpc.images.pairing import Job
from amst_hpc.pipeline import merge
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import translation

CONFIG = load_config(
    None,
    [
        "coarse.method=none", "refine.backend=none", "output.layer=4", "output.levels=3",
        "output.chunk=16", "output.report=false",
    ],
)  # fmt: skip
BLOCKS = 3
Align = Callable[[str, int], Path]


@pytest.fixture
def align(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Align:
    """A function (name of OUT, block or 0 for the whole) -> OUT; 18 slices of 37x45, uint16."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for folder in ("raw", "pre"):
        Path(folder).mkdir()
    for z in range(18):
        image = rng.integers(1, 60000, (37, 45), np.uint16)
        for folder in ("raw", "pre"):
            tifffile.imwrite(f"{folder}/{z:03d}.tif", image)

    def run(name: str, block: int = 0) -> Path:
        job, config = Job("raw", "pre", Path(name)), CONFIG
        if block:
            job, config = prepare_block(job, config, MPI.COMM_SELF, block, BLOCKS)
        pipeline.align(job, config, MPI.COMM_SELF)
        return job.out

    return run


@pytest.fixture
def parts(align: Align) -> list[Path]:
    return [align("out.h5", block + 1) for block in range(BLOCKS)]


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


@pytest.mark.parametrize("link", [False, True])
def test_merged_parts_equal_the_single_job(align: Align, parts: list[Path], link: bool) -> None:
    single = align("single.h5", 0)
    merge(Path("out.h5"), MPI.COMM_SELF, link)
    assert_same(Path("out.h5"), single)
    for name in ("transforms.json", "config.toml"):
        texts = [Path(f"{stem}.amst", name).read_text() for stem in ("out", "single")]
        assert texts[0] == texts[1], name
    assert Path("out.xml").exists()
    assert Path("out.settings.xml").exists()
    with h5py.File("out.h5") as file:
        assert file["t00000/s00/0/cells"].is_virtual == link


def test_the_disk_needs_room_for_what_is_not_there_yet(
    align: Align, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")._replace(free=10**4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"the disk has 0\.0 GB free"):
        merge(Path("out.h5"), MPI.COMM_SELF)
    before = Path("out.amst/writing.h5")
    before.parent.mkdir()
    before.write_bytes(bytes(10**6))
    merge(Path("out.h5"), MPI.COMM_SELF)
    merge(Path("out.h5"), MPI.COMM_SELF, link=True)


def test_status_of_blocks_has_a_line_for_the_merge(
    align: Align, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "queued", lambda: None)
    assert [s.state for s in show(Path("out.h5"))] == ["done"] * BLOCKS + ["waiting"]
    parts[0].with_suffix(".xml").unlink()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(InputError):
        merge(Path("out.h5"), MPI.COMM_SELF)
    last = show(Path("out.h5"))[-1]
    assert last.state == "failed"
    assert "part-0001.h5" in last.reason


def test_align_takes_the_merged_file_as_its_own(align: Align, parts: list[Path]) -> None:
    merge(Path("out.h5"), MPI.COMM_SELF)
    before = Path("out.h5").stat().st_mtime_ns
    align("out.h5", 0)
    assert Path("out.h5").stat().st_mtime_ns == before


@pytest.mark.parametrize("link", [False, True])
def test_a_slice_settled_otherwise_for_the_whole_is_made_again(
    align: Align, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    single = align("single.h5", 0)
    choose = pipeline.choose_transforms

    def moved(*arguments: Any) -> list[SliceResult]:
        first, *rest = choose(*arguments)
        return [dataclasses.replace(first, transform=translation(3, 2)), *rest]

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "choose_transforms", moved)
        parts = [align("out.h5", block + 1) for block in range(BLOCKS)]
    assert not np.array_equal(levels(parts[1])[0], levels(single)[0][4:8])
    merge(Path("out.h5"), MPI.COMM_SELF, link)
    assert_same(Path("out.h5"), single)


def test_parts_are_refused_by_name(align: Align, parts: list[Path]) -> None:
    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            merge(Path("out.h5"), MPI.COMM_SELF)
        assert not Path("out.h5").exists()
        return str(caught.value)

    second, xml = parts[1], parts[1].with_suffix(".xml")
    xml.rename("kept.xml")
    assert "part-0002.h5 (slices 4:8): not finished" in refusal()
    Path("kept.xml").rename(xml)
    second.rename("kept.h5")
    assert "part-0002.h5 (slices 4:8): not finished" in refusal()
    second.with_suffix(".amst").rename("kept.amst")
    assert "part-0002.h5 (slices 4:8): missing" in refusal()
    Path("kept.h5").rename(second)
    shutil.copytree(parts[0].with_suffix(".amst"), second.with_suffix(".amst"))
    assert "part-0002.h5 (slices 4:8): not a part of this job: range" in refusal()
    shutil.rmtree(second.with_suffix(".amst"))
    Path("kept.amst").rename(second.with_suffix(".amst"))
    print_ = second.with_suffix(".amst") / "journal" / "fingerprint.json"
    tree = json.loads(print_.read_text())
    tree["parameters"]["template"]["radius"] = 3
    print_.write_text(json.dumps(tree))
    assert "parameters.template.radius: 3 -> 7" in refusal()


def test_blocks_of_another_cut_are_refused(align: Align) -> None:
    align("out.h5", 1)
    with pytest.raises(InputError, match="begun with other settings"):
        prepare_block(Job("raw", "pre", Path("out.h5")), CONFIG, MPI.COMM_SELF, 1, 2)


@pytest.mark.parametrize(
    ("depth", "layer", "blocks"), [(18, 4, 3), (64, 8, 8), (5, 8, 1), (67, 8, 3)]
)
def test_blocks_tile_the_stack_in_whole_layers(depth: int, layer: int, blocks: int) -> None:
    ranges = cut(depth, layer, blocks)
    assert [z for part in ranges for z in part] == list(range(depth))
    assert all(part.start % layer == 0 for part in ranges)
    assert all(len(part) >= min(layer, depth) for part in ranges)


def test_more_blocks_than_layers_are_refused() -> None:
    with pytest.raises(InputError, match="expected 1 to 4"):
        cut(18, 4, 5)
