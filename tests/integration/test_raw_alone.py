"""RAW without PREALIGNED: what a long run does to a stack, ended jobs, other ranks, blocks.

Small stacks without elastix; displacements are known.
"""

import json
import shutil
import signal
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from jobs import (
    SLOWED,
    Job,
    assert_same,
    call,
    finished,
    journal,
    run,
    send,
    slices,
    statuses,
    transforms,
)
from scipy import ndimage
from stacks import read_cells, read_stack, save_stack

from amst_hpc.transform import about, compose, corners, invert

DEPTH, SHAPE, PAD = 40, (128, 160), 60
STAY = {8: (20, -12), 22: (-46, 9)}  # jumps, px
TURNED, BLACK, TWICE, FOREIGN = 30, 12, 17, (25, 26)
OPTIONS = (
    "coarse.method=xcorr", "refine.backend=gauss-newton", "output.report=false", "output.layer=8",
    "output.levels=2", "output.chunk=32", "template.radius=3",
)  # fmt: skip
NO_TEMPLATE = ("refine.backend=none", "template.radius=1")


def setting(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--set", text)]


def line(raw: Path, out: Path, *more: str) -> list[str | Path]:
    return ["align", raw, out, "--prealign", *setting(*OPTIONS), *more]


def texture(rng: np.random.Generator, depth: int) -> np.ndarray:
    shape = (depth, *(n + 2 * PAD for n in SHAPE))
    noise = sum(ndimage.gaussian_filter(rng.normal(size=shape), (3, s, s)) * s**1.5 for s in (2, 5))
    return np.clip(128 + 40 * noise / noise.std(), 20, 255)


def true_pulls(rng: np.random.Generator) -> np.ndarray:
    """`true(p) = raw(M p)` of all slices."""
    middle, stage, made = (np.array(SHAPE[::-1]) - 1) / 2, np.zeros(2), []
    for z in range(DEPTH):
        stage = stage + STAY.get(z, (0, 0))
        turn = np.radians(2) * (z >= TURNED)
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        made.append(about(turned, stage + rng.normal(0, 1.5, 2).clip(-4, 4), middle))
    return np.array(made)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A folder of raw slices, and the true transforms."""
    rng = np.random.default_rng(5)
    tissue, foreign, truth = texture(rng, DEPTH), texture(rng, 2), true_pulls(rng)
    images = []
    for z, pull in enumerate(truth):
        m = invert(pull)
        m[:, 2] += PAD
        yx = m[::-1, 1::-1]
        image = ndimage.affine_transform(tissue[z], yx, m[::-1, 2], SHAPE, order=3)
        images.append(np.clip(image + rng.normal(0, 3, SHAPE), 9, 255).astype(np.uint8))
    images[BLACK] = np.zeros(SHAPE, np.uint8)
    images[TWICE] = images[TWICE - 1]
    for z, image in zip(FOREIGN, foreign, strict=True):
        images[z] = image[PAD:-PAD, PAD:-PAD].astype(np.uint8)
    folder = tmp_path_factory.mktemp("troubled") / "raw"
    save_stack(folder, images)
    return folder, truth


@pytest.fixture(scope="module")
def aligned(troubled, tmp_path_factory) -> Path:
    """OUT that nothing came before, on one rank."""
    out = tmp_path_factory.mktemp("alone") / "out.h5"
    finished(call(*line(troubled[0], out)), 3)
    return out


def same(out: Path, wanted: Path) -> None:
    assert_same(out, wanted)
    texts = [path.with_suffix(".xml").read_text().replace(path.stem, "") for path in (out, wanted)]
    assert texts[0] == texts[1]


def step_errors(found: list, truth: np.ndarray) -> np.ndarray:
    """What two good slices in a row are off each other, px, mean of the corners: nobody knows where
    the whole stack lies."""
    good = [z for z in range(DEPTH) if z not in (BLACK, TWICE, *FOREIGN)]
    off = []
    for z in good:
        m = compose(invert(truth[z]), np.array(found[z]))
        off.append(corners(SHAPE) @ m[:, :2].T + m[:, 2] - corners(SHAPE))
    return np.hypot(*np.moveaxis(np.diff(off, axis=0), -1, 0)).mean(-1)


def test_jumps_a_turn_and_bad_slices_are_no_hindrance(troubled, aligned):
    found = statuses(aligned)
    assert {z: s for z, s in enumerate(found) if s != "affine"} == {
        BLACK: "blank", TWICE: "repeated", **dict.fromkeys(FOREIGN, "interpolated")
    }  # fmt: skip
    assert step_errors(transforms(aligned), troubled[1]).max() < 1.0
    run_json = json.loads((aligned.with_suffix(".amst") / "run.json").read_text())
    (x, y), shape = run_json["canvas"]["offset_xy"], run_json["canvas"]["shape_yx"]
    assert run_json["parts"] == [0]
    assert run_json["shape_zyx"] == [DEPTH, *shape]
    assert shape[0] > SHAPE[0] + 10  # no pixel is cut
    assert shape[1] > SHAPE[1] + 40
    affine = ElementTree.parse(aligned.with_suffix(".xml")).findtext(".//affine")
    assert [float(v) for v in affine.split()][3::4] == [x, y, 0]


def test_a_killed_job_goes_on_and_is_the_same_on_any_ranks(
    troubled, aligned, tmp_path, monkeypatch
):
    out, ranks = tmp_path / "out.h5", 2
    with monkeypatch.context() as patch:
        patch.setenv("FAULTS", json.dumps({"compare": 0.05}))
        job = Job(ranks, *line(troubled[0], out), program=SLOWED)

    def compared() -> int:
        return len(journal(job.folder, "prealign"))

    assert job.wait_for(lambda: compared() > 40)
    for pid in job.ranks():
        send(pid, signal.SIGKILL)
    assert job.end().code != 0
    before = compared()
    finished(run(ranks, *line(troubled[0], out)), 3)
    again = [(r["z"], r["k"]) for r in journal(job.folder, "prealign") if r["kind"] == "pair"]
    assert len(again) == len({*again}), "a pair was compared twice"
    assert len(journal(job.folder, "prealign")) > before
    same(out, aligned)


def test_blocks_take_six_steps_and_give_the_same(troubled, aligned, tmp_path):
    out, told = tmp_path / "out.h5", []
    for _ in range(3):
        steps = [call(*line(troubled[0], out, "--block", block)) for block in ("1/2", "2/2")]
        told += [finished(step).stdout for step in steps]
        told.append(call("merge", out).stdout)
    for n, word in enumerate(("compared", "compared", "placed", "registered", "registered",
                              "settled", "layers are written", "layers are written")):  # fmt: skip
        assert word in told[n]
    same(out, aligned)


def test_a_block_that_was_not_compared_is_named(troubled, tmp_path):
    out = tmp_path / "out.h5"
    finished(call(*line(troubled[0], out, "--block", "1/2")))
    ended = finished(call("merge", out), 2)
    assert "block 2 (slices 20:40) is not compared" in ended.stderr


def test_a_slice_with_other_pixels_is_compared_again(troubled, tmp_path):
    z = 5
    raw, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(troubled[0], raw)
    paths = sorted(raw.iterdir())
    tifffile.imwrite(paths[z], tifffile.imread(paths[z])[::-1].copy())
    finished(call("prealign", raw, out, *setting("output.report=false")), 3)
    shutil.copy2(sorted(troubled[0].iterdir())[z], paths[z])
    finished(call("prealign", raw, out, *setting("output.report=false")), 3)
    wanted = tmp_path / "wanted"
    finished(call("prealign", raw, wanted, *setting("output.report=false")), 3)
    assert transforms(out) == transforms(wanted)
    assert np.array_equal(read_stack(out), read_stack(wanted))


def test_the_same_again_compares_and_writes_nothing(troubled, aligned):
    folder = aligned.with_suffix(".amst")
    before = {p.name: p.stat().st_size for p in folder.glob("journal/*.log")}
    stamp = aligned.stat().st_mtime_ns
    finished(call(*line(troubled[0], aligned)), 3)
    after = {p.name: p.stat().st_size for p in folder.glob("journal/*.log")}
    assert {name: size for name, size in after.items() if size and before.get(name) != size} == {}
    assert aligned.stat().st_mtime_ns == stamp


def test_the_canvas_can_be_the_common_area_or_raw(troubled, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in sorted(troubled[0].iterdir())[:8]:
        shutil.copy2(path, raw)
    shapes = {}
    for name, more in {"grow": (), "crop": ("--crop",), "raw": ("--canvas", "raw")}.items():
        out = tmp_path / f"{name}.h5"
        finished(call(*line(raw, out, *setting(*NO_TEMPLATE), *more)), 0, 3)
        cells = read_cells(out)
        shapes[name] = cells.shape[1:]
        assert (name != "crop") or cells.min() > 0  # nothing but tissue
    assert shapes["raw"] == SHAPE
    assert shapes["crop"] < SHAPE < shapes["grow"]


def test_prealign_moves_slices_by_whole_pixels(troubled, tmp_path):
    out = tmp_path / "out"
    arguments = ["prealign", troubled[0], out, *setting("output.report=false")]
    finished(call(*arguments), 3)
    raw, moved = read_stack(troubled[0]), read_stack(out)
    found = transforms(out)
    for z in range(DEPTH):
        if z == BLACK:
            assert found[z] is None
            assert not moved[z].any()
            continue
        (_, _, x), (_, _, y) = np.array(found[z]).round().astype(int)
        assert np.array_equal(found[z], [[1, 0, x], [0, 1, y]])
        inside = moved[z][-y : -y + SHAPE[0], -x : -x + SHAPE[1]]
        assert np.array_equal(inside, raw[z])
    rows = slices(out)
    assert {r["status"] for r in rows} == {"placed", "blank", "repeated", "interpolated"}
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    finished(call(*arguments), 3)
    assert before == {p: p.stat().st_mtime_ns for p in out.iterdir()}


def test_a_gap_that_nothing_leads_over_is_not_passed_off_as_good(troubled, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for n, path in enumerate(sorted(troubled[0].iterdir())[:28]):
        if n >= 14:  # another place: nothing in common with the slices before
            tifffile.imwrite(raw / path.name, tifffile.imread(path)[::-1, ::-1].copy())
        else:
            shutil.copy2(path, raw)
    ended = finished(call(*line(raw, out := tmp_path / "out.h5", *setting(*NO_TEMPLATE))), 3)
    assert "no slices lead over the gap before slice 14" in ended.stderr
    assert statuses(out)[14] == "apart"
    assert "14 (apart)" in ended.stdout
