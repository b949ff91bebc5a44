"""What stands under OUT is of the inputs and settings that were asked for last, however it ended.

Small stacks, one process, no elastix; a kill is a real one, of a process of its own.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import tifffile
from jobs import (
    SLOWED,
    Job,
    assert_same,
    call,
    contents,
    finished,
    journal,
    registrations,
    run,
    slices,
    statuses,
    transforms,
)
from scipy import ndimage
from spoilt import refused
from stacks import inputs, read_cells, read_stack, save_stack

from amst_hpc import pipeline
from amst_hpc.cluster.status import show
from amst_hpc.parallel.signals import Stopped

DEPTH, SHAPE = 12, (64, 96)
WRITERS = ["direct", "funnel", *["collective"] * bool(h5py.get_config().mpi)]
OPTIONS = (
    "coarse.method=xcorr", "refine.backend=none", "output.report=false", "output.layer=4",
    "output.levels=2", "output.chunk=32", "template.radius=1",
)  # fmt: skip


def setting(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--set", text)]


def make_stacks(folder: Path, seed: int) -> Path:
    """raw/ and pre/: smooth noise that changes slowly with z; raw is displaced by some pixels."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(DEPTH, 80, 112)), (2, 2, 2))
    grey = np.clip(128 + 40 * noise / noise.std(), 1, 255).astype(np.uint8)
    moves = rng.integers(4, 12, (DEPTH, 2))
    folder.mkdir()
    save_stack(folder / "pre", grey[:, 8:72, 8:104])
    save_stack(
        folder / "raw",
        [z[y : y + 64, x : x + 96] for z, (y, x) in zip(grey, moves, strict=True)],
    )
    return folder


@pytest.fixture(scope="module")
def stacks(tmp_path_factory) -> tuple[Path, Path]:
    """Two of them, for reading."""
    folder = tmp_path_factory.mktemp("stacks")
    return make_stacks(folder / "one", 1), make_stacks(folder / "two", 2)


def line(stack: Path, out: Path, *more: str, **settings: object) -> list[str | Path]:
    changes = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    return ["align", *inputs(stack), out, *setting(*OPTIONS, *changes), *more]


@pytest.fixture(scope="module")
def alone(stacks, tmp_path_factory):
    """A function (number of the stack, more of the line) -> OUT that nothing came before."""
    made = {}

    def make(number: int, *more: str, name: str = "out.h5", **settings: object) -> Path:
        key = (number, more, name, str(settings))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("alone") / name
            finished(call(*line(stacks[number], made[key], *more, **settings)))
        return made[key]

    return make


def same(out: Path, wanted: Path) -> None:
    """The voxels of all levels, the transforms, the contrast; and it is whole."""
    assert_same(out, wanted)
    settings = [path.with_suffix(".settings.xml").read_text() for path in (out, wanted)]
    assert settings[0] == settings[1]
    assert out.with_suffix(".xml").exists()
    assert not (out.with_suffix(".amst") / "writing.h5").exists()


def stop(*_: object) -> None:
    raise Stopped("writing")


KILLS = {
    "before the rename": "amst_hpc.pipeline:complete_file",
    "after the rename": "amst_hpc.pipeline:write_products",
    "in the last sync": "os:fdatasync",
}


@pytest.fixture(params=["stop", *KILLS])
def end_late(request, monkeypatch):
    """A function (line): the job ends when every layer is written, before it is told so."""

    def end(*arguments: str | Path) -> None:
        if request.param == "stop":
            with monkeypatch.context() as patch:
                patch.setattr(pipeline, "complete_file", stop)
                assert call(*arguments).code == 75
            return
        with monkeypatch.context() as patch:
            patch.setenv("FAULTS", json.dumps({"kill": KILLS[request.param]}))
            assert Job(0, *arguments, program=SLOWED).end().code == -9

    return end


@pytest.mark.parametrize("again", [(), ("--overwrite",)], ids=["same RAW", "--overwrite"])
def test_overwrite_with_another_raw_that_ends_late(stacks, alone, end_late, tmp_path, again):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    end_late(*line(stacks[1], out, "--overwrite"))
    finished(call(*line(stacks[1], out, *again)))
    same(out, alone(1))


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        (("--range", "2:10"), {}),
        ((), {"output__chunk": 16}),
        ((), {"output__levels": 3}),
        ((), {"output__legacy": "true"}),
        ((), {"output__compression": 2}),
    ],
    ids=["range", "chunk", "levels", "legacy", "compression"],
)
def test_changed_output_after_a_finished_run(stacks, alone, tmp_path, more, settings):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    before = registrations(out.with_suffix(".amst"))
    finished(call(*line(stacks[0], out, *more, **settings)))
    assert registrations(out.with_suffix(".amst")) == before
    same(out, alone(0, *more, **settings))


def test_changed_range_that_ends_late(stacks, alone, end_late, tmp_path):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    end_late(*line(stacks[0], out, "--range", "2:10"))
    finished(call(*line(stacks[0], out, "--range", "2:10")))
    same(out, alone(0, "--range", "2:10"))


def test_changed_output_that_ends_late(stacks, alone, end_late, tmp_path):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    end_late(*line(stacks[0], out, output__chunk=16))
    finished(call(*line(stacks[0], out, output__chunk=16)))
    same(out, alone(0, output__chunk=16))
    finished(call(*line(stacks[0], out)))  # and back
    same(out, alone(0))


@pytest.mark.parametrize("compression", [0, 1])
def test_old_xml_is_gone_before_the_new_file_has_its_name(
    stacks, tmp_path, monkeypatch, compression
):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    settings = {"output__compression": compression, "output__chunk": 16}
    monkeypatch.setenv("FAULTS", json.dumps({"kill": KILLS["after the rename"]}))
    Job(0, *line(stacks[0], out, **settings), program=SLOWED).end()
    assert out.exists()
    assert not out.with_suffix(".xml").exists()


# ---- TIFF slices


def tif(stack: Path, out: Path, *more: str, compression: int = 0) -> list[str | Path]:
    return line(stack, out, "--output-format", "tif", *more, output__compression=compression)


def pixels(out: Path) -> np.ndarray:
    return read_stack(out)


def test_overwrite_replaces_every_tiff_slice(stacks, alone, tmp_path):
    out = tmp_path / "out"
    finished(call(*tif(stacks[0], out)))
    finished(call(*tif(stacks[1], out, "--overwrite")))
    np.testing.assert_array_equal(pixels(out), read_cells(alone(1)))


def test_overwrite_leaves_no_tiff_slice_of_another_name(stacks, alone, tmp_path):
    """A RAW of fewer slices, with names of its own; what is not ours stays."""
    out = tmp_path / "out"
    finished(call(*tif(stacks[0], out)))
    (out / "notes.txt").write_text("mine")
    other = tmp_path / "other"
    for part in ("raw", "pre"):
        (other / part).mkdir(parents=True)
        for path in sorted((stacks[1] / part).iterdir())[:8]:
            shutil.copy(path, other / part / f"cell_{path.name}")
    finished(call(*tif(other, out, "--overwrite")))
    wanted = {path.name for path in (other / "raw").iterdir()}
    assert {path.name for path in out.iterdir()} == {*wanted, "notes.txt"}


def test_a_smaller_range_leaves_no_tiff_slice_outside_it(stacks, tmp_path):
    out = tmp_path / "out"
    finished(call(*tif(stacks[0], out)))
    finished(call(*tif(stacks[0], out, "--range", "2:10")))
    assert [path.name for path in sorted(out.iterdir())] == [
        f"slice_{z:05d}.tif" for z in range(2, 10)
    ]


def compressions(out: Path) -> set[int]:
    found = set()
    for path in out.glob("*.tif"):
        with tifffile.TiffFile(path) as tiff:
            found.add(int(tiff.pages[0].compression))
    return found


def test_a_damaged_tiff_slice_is_written_again(stacks, alone, tmp_path):
    """One that decodes, too."""
    out = tmp_path / "out"
    finished(call(*tif(stacks[0], out)))
    for z, images in ((3, lambda image: image ^ 1), (7, lambda image: image[::-1])):
        path = out / f"slice_{z:05d}.tif"
        tifffile.imwrite(path, images(tifffile.imread(path)))
    finished(call(*tif(stacks[0], out)))
    np.testing.assert_array_equal(pixels(out), read_cells(alone(0)))
    assert len(written(out)) == DEPTH + 2


def test_changed_compression_of_tiff_is_applied(stacks, alone, tmp_path):
    out = tmp_path / "out"
    finished(call(*tif(stacks[0], out)))
    assert compressions(out) == {1}
    finished(call(*tif(stacks[0], out, compression=6)))
    assert compressions(out) == {8}
    np.testing.assert_array_equal(pixels(out), read_cells(alone(0)))


def test_changed_compression_of_a_half_written_tiff_folder(stacks, tmp_path, monkeypatch):
    from amst_hpc.passes import write_tiff

    out, write, count = tmp_path / "out", write_tiff.write_slice, iter(range(100))

    def full(*args: object) -> None:
        if next(count) == 5:
            raise OSError(28, "No space left on device", str(out))
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(write_tiff, "write_slice", full)
        assert call(*tif(stacks[0], out)).code == 1
    assert len(list(out.glob("*.tif"))) == 5
    finished(call(*tif(stacks[0], out, compression=6)))
    assert compressions(out) == {8}


@pytest.mark.parametrize("change", ["--overwrite", "compression", "range"])
def test_a_tiff_slice_is_there_until_the_new_one_is(stacks, alone, tmp_path, monkeypatch, change):
    """The job ends half way; then the same command is given again."""
    from amst_hpc.passes import write_tiff

    out, write, count = tmp_path / "out", write_tiff.write_slice, iter(range(100))
    stack = stacks[1] if change == "--overwrite" else stacks[0]
    command = {
        "--overwrite": tif(stack, out, "--overwrite"),
        "compression": tif(stack, out, compression=6),
        "range": tif(stack, out, "--range", "2:10", compression=6),
    }[change]
    finished(call(*tif(stacks[0], out)))
    names = sorted(path.name for path in out.iterdir())

    def full(*args: object) -> None:
        assert sorted(path.name for path in out.iterdir()) == names
        if next(count) == 5:
            raise OSError(28, "No space left on device", str(out))
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(write_tiff, "write_slice", full)
        assert call(*command).code == 1
    assert sorted(path.name for path in out.iterdir()) == names
    finished(call(*command))
    kept = slice(2, 10) if change == "range" else slice(None)
    assert sorted(path.name for path in out.iterdir()) == names[kept]
    if change == "range":  # solved by itself, without the slices around it
        finished(call(*tif(stack, tmp_path / "fresh", "--range", "2:10")))
        wanted = pixels(tmp_path / "fresh")
    else:
        wanted = read_cells(alone(1 if change == "--overwrite" else 0))
    np.testing.assert_array_equal(pixels(out), wanted)
    assert not (tmp_path / "out.amst" / "former.json").exists()


# ---- restarts by Slurm


def test_overwrite_in_a_requeued_job_continues(stacks, alone, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "complete_file", stop)
        assert call(*line(stacks[1], out, "--overwrite")).code == 75
    before = registrations(out.with_suffix(".amst"))
    layers = written(out)
    assert (len(before), len(layers)) == (DEPTH, DEPTH // 4)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    finished(call(*line(stacks[1], out, "--overwrite")))
    assert registrations(out.with_suffix(".amst")) == before
    assert written(out) == layers
    same(out, alone(1))
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # another job, also requeued: asked for anew
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    finished(call(*line(stacks[1], out, "--overwrite")))
    assert len(journal(out.with_suffix(".amst"), "register")) == 2 * DEPTH
    assert len(list((out.with_suffix(".amst") / "journal").glob("*.register.log"))) == 1


def written(out: Path) -> list[int]:
    """The layers that were written, as often as they were."""
    return [r["layer"] for r in journal(out.with_suffix(".amst"), "write") if r["kind"] == "layer"]


# ---- slices that cannot be read


@pytest.fixture
def own(stacks, tmp_path) -> Path:
    """A copy of the first stack to spoil."""
    shutil.copytree(stacks[0], tmp_path / "own", copy_function=shutil.copy2)
    return tmp_path / "own"


@pytest.fixture
def lose(monkeypatch):
    """A function (path): the slice is garbage from the moment its header was looked at.

    Gives a function that brings it back as it was.
    """

    def lost(path: Path):
        aside = path.with_name(f".{path.name}")
        pass_on = pipeline.register_slices

        def spoil(*args: object):
            path.rename(aside)
            path.write_bytes(b"garbage")
            monkeypatch.setattr(pipeline, "register_slices", pass_on)
            return pass_on(*args)

        monkeypatch.setattr(pipeline, "register_slices", spoil)
        return lambda: aside.replace(path)

    return lost


@pytest.mark.parametrize("format_", ["bdv", "tif"])
def test_an_unreadable_raw_slice_that_is_back_is_registered(own, alone, lose, tmp_path, format_):
    out = tmp_path / ("out.h5" if format_ == "bdv" else "out")
    come_back = lose(own / "raw" / "slice_00005.tif")
    command = line(own, out) if format_ == "bdv" else tif(own, out)
    ended = finished(call(*command), 3)
    assert "5 (unreadable)" in ended.stdout
    assert statuses(out)[5] == "unreadable"
    assert "slice_00005.tif" in slices(out)[5]["reason"]
    come_back()
    finished(call(*command))
    assert statuses(out) == ["affine"] * DEPTH
    if format_ == "bdv":
        same(out, alone(0))
        assert len(registrations(tmp_path / "out.amst")) == DEPTH
        own_pairs = [r["z"] for r in journal(tmp_path / "out.amst", "pair") if r["k"] == 0]
        assert sorted(own_pairs) == [*range(DEPTH)], "the filter has no part in these"
    else:
        np.testing.assert_array_equal(pixels(out), read_cells(alone(0)))


def test_an_unreadable_raw_slice_that_is_back_changes_its_layer_alone(own, lose, tmp_path):
    """By the templates alone: a solution with neighbours moves the slices around it, too."""
    out = tmp_path / "out.h5"
    come_back = lose(own / "raw" / "slice_00005.tif")
    command = line(own, out, neighbours__enabled="false")
    finished(call(*command), 3)
    come_back()
    finished(call(*command))
    assert len(written(out)) == DEPTH // 4 + 1, "its layer alone was written again"


def test_other_neighbours_register_no_slice_again(stacks, alone, tmp_path):
    out = tmp_path / "out.h5"

    def count() -> tuple[int, int]:
        folder = tmp_path / "out.amst"
        return len(registrations(folder)), len(journal(folder, "pair"))

    for settings, pairs in (
        ({"neighbours__enabled": "false"}, 0),
        ({"neighbours__reach": 1}, 2 * DEPTH - 1),
        ({}, 3 * DEPTH - 3),
        ({"drift__period": 50}, 3 * DEPTH - 3),
    ):
        finished(call(*line(stacks[0], out, **settings)))
        assert count() == (DEPTH, pairs)
        same(out, alone(0, **settings))


def test_a_black_slice_stays_black_and_is_not_asked_again(own, tmp_path):
    out, path = tmp_path / "out.h5", own / "raw" / "slice_00005.tif"
    tifffile.imwrite(path, np.zeros(SHAPE, np.uint8))
    finished(call(*line(own, out)), 3)
    finished(call(*line(own, out)), 3)
    assert statuses(out)[5] == "blank"
    assert sorted(registrations(tmp_path / "out.amst")) == list(range(DEPTH))


def test_a_template_that_lacks_a_slice_is_named_and_made_again(own, alone, lose, tmp_path):
    out = tmp_path / "out.h5"
    come_back = lose(own / "pre" / "slice_00005.tif")
    ended = finished(call(*line(own, out)), 0, 3)
    assert "the templates of 3 slices lack" in ended.stdout
    assert "slice_00005.tif" in ended.stdout
    come_back()
    ended = finished(call(*line(own, out)))
    assert "the templates of" not in ended.stdout
    assert sorted(registrations(tmp_path / "out.amst")) == list(range(DEPTH))
    again = [r["z"] for r in journal(tmp_path / "out.amst", "register") if r["kind"] == "start"]
    assert sorted(again) == sorted([*range(DEPTH), 4, 5, 6])
    same(out, alone(0))


def test_retry_registers_again_what_fell_back(stacks, alone, tmp_path, monkeypatch):
    from amst_hpc.passes.register import Registrar
    from amst_hpc.slice_result import RegistrationError

    out, find = tmp_path / "out.h5", Registrar.find_shift

    def fail(self, result, pair):
        if result.z in (3, 8):
            raise RegistrationError("a bad day")
        return find(self, result, pair)

    with monkeypatch.context() as patch:
        patch.setattr(Registrar, "find_shift", fail)
        patch.setattr(Registrar, "match_prealigned", lambda *_: None)
        finished(call(*line(stacks[0], out)), 3)
    finished(call(*line(stacks[0], out)), 3)
    assert len(registrations(tmp_path / "out.amst")) == DEPTH, "not without --retry"
    pairs = paired(out)
    finished(call(*line(stacks[0], out, "--retry")))
    assert registrations(tmp_path / "out.amst")[DEPTH:] == [3, 8]
    assert paired(out)[len(pairs) :] == [(z, k) for z, k in pairs if {z, z + k} & {3, 8}]
    same(out, alone(0))


# ---- ends between the passes


def paired(out: Path) -> list[tuple[int, int]]:
    """The pairs that were registered, as often as they were."""
    found = journal(out.with_suffix(".amst"), "pair")
    return [(r["z"], r["k"]) for r in found if r["kind"] == "pair"]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_job_that_ends_among_its_pairs_makes_none_again(
    stacks, alone, tmp_path, monkeypatch, how
):
    from amst_hpc.passes.pair import Pairer

    out, register = tmp_path / "out.h5", Pairer.register

    def stopping(self, place):
        if place == (4, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return register(self, place)

    with monkeypatch.context() as patch:
        if how == "stop":
            patch.setattr(Pairer, "register", stopping)
            assert call(*line(stacks[0], out)).code == 75
        else:
            patch.setenv("FAULTS", json.dumps({"kill": "amst_hpc.passes.pair:_show"}))
            assert Job(0, *line(stacks[0], out), program=SLOWED).end().code == -9
    begun = paired(out)
    assert len(begun) == (14 if how == "stop" else 1)
    assert not out.exists()
    finished(call(*line(stacks[0], out)))
    places = [(z, k) for z in range(DEPTH) for k in range(3) if z + k < DEPTH]
    assert paired(out) == places, "each once"
    assert registrations(out.with_suffix(".amst")) == list(range(DEPTH))
    same(out, alone(0))


# ---- what a person has decided about single slices


def decided(folder: Path, *rows: str) -> tuple[str, Path]:
    """The option, with a table of these rows."""
    path = folder / f"decided{len(list(folder.glob('decided*')))}.csv"
    path.write_text("\n".join(["slice;action;x;y", *rows]), encoding="utf-8-sig")
    return "--overrides", path


@pytest.fixture
def every_override(stacks, tmp_path) -> tuple[tuple[str, Path], Path]:
    """The option, with one table for all tests, and OUT."""
    path = stacks[0].with_name("every.csv")
    path.write_text("slice,action,x,y\n1,shift,2.5,1\n3,exclude\n6,interpolate\n9,blank\n")
    return ("--overrides", path), tmp_path / "out.h5"


def work_done(out: Path) -> tuple[int, int, int]:
    """Slices and pairs registered, layers written, in all starts."""
    folder = out.with_suffix(".amst")
    return len(registrations(folder)), len(journal(folder, "pair")), len(written(out))


PAIRS, LAYERS = 3 * DEPTH - 3, DEPTH // 4


def test_overrides_write_their_own_layers_alone_and_go_again(stacks, alone, tmp_path):
    out, command = tmp_path / "out.h5", line(stacks[0], tmp_path / "out.h5")
    finished(call(*command))
    before, matrices = read_cells(out), np.array(transforms(out))
    ended = call(*command, *decided(tmp_path, "1;shift;3;-2", "2;blank", "10;interpolate"))
    told = finished(ended).stdout
    assert "3 of them by overrides: 1 (shifted), 2 (blank), 10 (interpolated)" in told
    assert work_done(out) == (DEPTH, PAIRS, LAYERS + 2)
    assert written(out)[LAYERS:] == [0, 2]
    now = read_cells(out)
    moved = now[1, 8:-8, 8:-8].astype(int) - before[1, 10:-6, 5:-11]
    assert np.abs(moved).max() <= 1, "three to the right, two up"
    assert not now[2].any()
    np.testing.assert_array_equal(now[[0, *range(3, 10), 11]], before[[0, *range(3, 10), 11]])
    found = transforms(out)
    assert found[2] is None
    np.testing.assert_allclose(found[10], matrices[[9, 11]].mean(axis=0))
    shown = [(row["status"], row["reason"]) for row in slices(out)]
    assert shown[1] == ("shifted", "override: shift 3 -2")
    assert (shown[2][0], shown[10][0]) == ("blank", "interpolated")
    assert [status for status, reason in shown if not reason] == ["affine"] * (DEPTH - 3)
    finished(call("verify", out))
    facts = json.loads((tmp_path / "out.amst" / "run.json").read_text())
    assert facts["overrides"] == {"1": "shift 3 -2", "2": "blank", "10": "interpolate"}
    (found,) = show(out)
    assert (found.state, found.written, found.fallen_back) == ("done", DEPTH, 0)
    finished(call(*command))
    assert work_done(out) == (DEPTH, PAIRS, LAYERS + 4)
    same(out, alone(0))


@pytest.mark.parametrize("neighbours", ["true", "false"])
def test_an_excluded_slice_is_kept_from_the_others(own, tmp_path, neighbours):
    """Templates without it are made again, and pairs that start elsewhere then; no others."""
    out, fresh, option = tmp_path / "out.h5", tmp_path / "new.h5", decided(tmp_path, "5;exclude")
    settings = {"neighbours__enabled": neighbours}
    finished(call(*line(own, out, **settings)))
    before = transforms(out)
    finished(call(*line(own, out, *option, **settings)))
    assert registrations(tmp_path / "out.amst")[DEPTH:] == [4, 5, 6]
    if neighbours == "false":
        assert set(written(out)[LAYERS:]) <= {1}, "the layer of slices 4 to 7"
    assert statuses(out) == ["affine"] * 5 + ["excluded"] + ["affine"] * 6
    finished(call(*line(own, fresh, *option, **settings)))
    same(out, fresh)
    finished(call(*line(own, out, **settings)))
    assert transforms(out) == before
    assert len(registrations(tmp_path / "out.amst")) == DEPTH + 3, "what was found is still known"
    if neighbours == "false":  # with them it has its part in the filter of all pairs
        for part in ("raw", "pre"):
            shutil.copy(own / part / "slice_00000.tif", own / part / "slice_00005.tif")
        finished(call(*line(own, out, "--overwrite", *option, **settings)))
        others = [np.delete(read_cells(path), 5, 0) for path in (out, fresh)]
        np.testing.assert_array_equal(*others)


def test_overrides_of_tiff_slices_write_those_alone(stacks, alone, tmp_path):
    out, command = tmp_path / "out", tif(stacks[0], tmp_path / "out")
    finished(call(*command))
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    finished(call(*command, *decided(tmp_path, "3;blank")))
    changed = [p for p in out.iterdir() if p.stat().st_mtime_ns != times[p.name]]
    assert changed == [out / "slice_00003.tif"]
    assert not tifffile.imread(changed[0]).any()
    finished(call(*command))
    np.testing.assert_array_equal(pixels(out), read_cells(alone(0)))


def test_a_slice_that_fell_back_is_settled_by_an_override(own, tmp_path):
    """It is no error for --strict, and the exit code is 0."""
    tifffile.imwrite(own / "raw" / "slice_00007.tif", np.zeros(SHAPE, np.uint8))
    out = tmp_path / "out.h5"
    assert call(*line(own, out, "--strict")).code == 4
    finished(call(*line(own, out, "--strict", *decided(tmp_path, "7;blank"))))
    assert slices(out)[7]["reason"] == "override: blank (black or constant slice)"
    finished(call(*line(own, out)), 3)


def test_overrides_of_blocks_are_recorded_for_merge(stacks, alone, every_override, tmp_path):
    option, out = every_override

    def go(block: int, *more: str | Path):
        return call(*line(stacks[0], out, "--block", f"{block}/2", *more))

    def rounds(*more: str | Path) -> None:
        for _ in range(2):
            finished(go(1, *more))
            finished(go(2, *more))
            finished(call("merge", out))

    rounds()
    same(out, alone(0))
    before = registrations(tmp_path / "out.amst")
    finished(go(2, *option))
    refused(go(1), "overrides: .* expected the same for all blocks")
    refused(call("merge", out), r"block 1 \(slices 0:6\) is not registered")
    rounds(*option)
    same(out, alone(0, *option))
    assert statuses(out) == statuses(alone(0, *option))
    rounds()
    same(out, alone(0))
    found = registrations(tmp_path / "out.amst")
    assert sorted(set(found)) == [*range(DEPTH)]
    assert [z for z in set(found) if found.count(z) > before.count(z)] == [2, 3, 4]


def test_a_bad_table_is_refused_before_any_work(stacks, tmp_path):
    option = decided(tmp_path, "1;blank", "12;blank")
    refused(
        call(*line(stacks[0], tmp_path / "out.h5", *option)),
        r"decided0\.csv line 3: slice '12': expected a number from 0 to 11",
    )
    refused(
        call(*line(stacks[0], tmp_path / "out.h5", "--preview", *option)), "none with --preview"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["decided0.csv"]


# ---- what a result depends on


def test_the_content_of_a_parameter_file_counts(stacks, tmp_path):
    out, file = tmp_path / "out.h5", tmp_path / "elastix.txt"
    file.write_text('(Transform "AffineTransform")\n')
    named = {"refine__parameter_file": f'"{file}"'}
    finished(call(*line(stacks[0], out, **named)), 0, 3)
    finished(call(*line(stacks[0], out, **named)), 0, 3)
    file.write_text('(Transform "AffineTransform")\n(NumberOfResolutions 1)\n')
    refused(call(*line(stacks[0], out, **named)), "parameters.refine.parameter_file")


def test_another_elastix_is_another_job(stacks, tmp_path, monkeypatch):
    from amst_hpc.job import fingerprint

    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    monkeypatch.setattr(fingerprint, "elastix_version", lambda _: "other 9.9")
    refused(call(*line(stacks[0], out)), "parameters.refine.version: .* -> other 9.9")


@pytest.mark.parametrize("spelling", ["slash", "relative", "link", "glob"])
def test_another_spelling_of_the_source_is_the_same(stacks, tmp_path, monkeypatch, spelling):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    monkeypatch.chdir(stacks[0])
    (tmp_path / "link").symlink_to(stacks[0] / "raw")
    raw = {
        "slash": f"{stacks[0]}/raw/",
        "relative": "raw",
        "link": tmp_path / "link",
        "glob": f"{stacks[0]}/raw/*.tif",
    }[spelling]
    command = line(stacks[0], out)
    finished(call("align", raw, *command[2:]))
    assert len(registrations(tmp_path / "out.amst")) == DEPTH


# ---- slices that are not what they were


def touch(folder: Path) -> None:
    for path in folder.glob("*/*.tif"):
        path.touch()


def rename(folder: Path) -> None:
    for path in folder.glob("raw/*.tif"):
        path.rename(path.with_name(f"new_{path.name}"))


def brighten(path: Path) -> None:
    """A fifth of the slice, so that it is registered as before."""
    image = tifffile.imread(path)
    image[:12] = np.minimum(image[:12].astype(int) + 3, 255)
    tifffile.imwrite(path, image)


@pytest.mark.parametrize("change", [touch, rename])
@pytest.mark.parametrize("black", [(), (4,)])
def test_a_slice_with_another_stamp_and_its_pixels_is_the_same(own, tmp_path, change, black):
    for z in black:
        for part in ("raw", "pre"):
            tifffile.imwrite(own / part / f"slice_{z:05d}.tif", np.zeros(SHAPE, np.uint8))
    out = tmp_path / "out.h5"
    finished(call(*line(own, out)), 0, 3)
    before, pairs, layers = out.stat().st_mtime_ns, paired(out), written(out)
    change(own)
    ended = finished(call(*line(own, out)), 0, 3)
    assert "but their pixels" in ended.stderr
    assert sorted(registrations(tmp_path / "out.amst")) == [*range(DEPTH)]
    assert (paired(out), written(out), out.stat().st_mtime_ns) == (pairs, layers, before)
    if change is rename:
        assert slices(out)[3]["file"] == "new_slice_00003.tif"


def test_renamed_slices_give_their_names_to_tiff_output(own, tmp_path):
    out = tmp_path / "out"
    finished(call(*tif(own, out)))
    rename(own)
    finished(call(*tif(own, out)))
    assert {path.name for path in out.iterdir()} == {p.name for p in (own / "raw").iterdir()}
    assert sorted(registrations(tmp_path / "out.amst")) == [*range(DEPTH)]


@pytest.mark.parametrize(("part", "again"), [("raw", [5]), ("pre", [4, 5, 6])])
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_slice_with_other_pixels_is_registered_again(own, tmp_path, part, again, ranks):
    """And what depends on it, but nothing else; the result is that of a fresh job."""
    out, fresh = tmp_path / "out.h5", tmp_path / "fresh.h5"
    finished(call(*line(own, out, neighbours__enabled="false")))
    layers = written(out)
    brighten(own / part / "slice_00005.tif")
    changed = line(own, out, neighbours__enabled="false")
    ended = finished(run(ranks, *changed) if ranks else call(*changed))
    assert "1 slices have other pixels: slice_00005.tif" in ended.stderr
    assert sorted(registrations(tmp_path / "out.amst")) == sorted([*range(DEPTH), *again])
    assert set(written(out)[len(layers) :]) <= {1}
    assert (len(written(out)) > len(layers)) == (part == "raw")
    finished(call(*line(own, fresh, neighbours__enabled="false")))
    same(out, fresh)
    finished(call(*changed))
    assert len(registrations(tmp_path / "out.amst")) == DEPTH + len(again), "once"


@pytest.mark.parametrize("z", [0, DEPTH - 1])
def test_pairs_are_made_again_where_their_filters_were_of_other_pixels(own, tmp_path, z):
    """They are measured on every slice of so few."""
    out, fresh = tmp_path / "out.h5", tmp_path / "fresh.h5"
    finished(call(*line(own, out)))
    pairs = paired(out)
    brighten(own / "raw" / f"slice_{z:05d}.tif")
    finished(call(*line(own, out)))
    assert paired(out)[len(pairs) :] == pairs
    finished(call(*line(own, fresh)))
    same(out, fresh)


def test_a_changed_slice_outside_the_range_counts_when_the_range_is_wider(own, tmp_path):
    out, fresh = tmp_path / "out.h5", tmp_path / "fresh.h5"
    finished(call(*line(own, out)))
    brighten(own / "raw" / "slice_00001.tif")
    finished(call(*line(own, out, "--range", "4:10")))
    finished(call(*line(own, out)))
    finished(call(*line(own, fresh)))
    same(out, fresh)


@pytest.mark.parametrize(
    ("part", "moment"),
    [(part, moment) for part in ("raw", "pre") for moment in ("pair_slices", "write_output")],
)
def test_pixels_that_change_while_the_job_runs_end_it(
    own, alone, tmp_path, monkeypatch, part, moment
):
    """The transforms belong to other ones. What was right is kept when these are back."""
    out, path = tmp_path / "out.h5", own / part / "slice_00005.tif"
    before, pass_on = path.read_bytes(), getattr(pipeline, moment)
    stat = path.stat()

    def change(*args: object) -> object:
        brighten(path)
        return pass_on(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, moment, change)
        ended = call(*line(own, out))
    assert ended.code == 1, ended.stderr
    assert "slice_00005.tif" in ended.stderr
    assert "other pixels" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not out.with_suffix(".xml").exists()
    path.write_bytes(before)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    finished(call(*line(own, out)))
    same(out, alone(0))


def test_inputs_that_are_gone_after_their_turn_are_not_missed(own, alone, tmp_path, monkeypatch):
    out, pass_on = tmp_path / "out.h5", pipeline.complete_file

    def remove(*args: object) -> object:
        for part in ("raw", "pre"):
            shutil.rmtree(own / part)
        return pass_on(*args)

    monkeypatch.setattr(pipeline, "complete_file", remove)
    finished(call(*line(own, out)))
    same(out, alone(0))


@pytest.mark.parametrize("part", ["raw", "pre"])
def test_another_stack_is_refused_and_named(stacks, own, tmp_path, part):
    out, option = tmp_path / "out.h5", {"raw": "RAW", "pre": "PREALIGNED"}[part]
    finished(call(*line(own, out)))
    shutil.rmtree(own / part)
    shutil.copytree(stacks[1] / part, own / part)
    expected = rf"another {option}: 12 slices of 12 have other pixels \(slice_00000.tif, .*\.\.\.\)"
    refused(call(*line(own, out)), expected)
    refused(run(2, *line(own, out, output__compression=1)), expected)
    assert out.exists(), "it is not forgotten before it is refused"


def test_a_changed_slice_of_blocks_is_registered_by_its_block(own, tmp_path):
    out, fresh = tmp_path / "out.h5", tmp_path / "fresh.h5"

    def both() -> None:
        for block in ("1/2", "2/2"):
            finished(call(*line(own, out, "--block", block)))

    both()
    finished(call("merge", out))
    brighten(own / "raw" / "slice_00008.tif")
    for _ in range(2):
        both()
        finished(call("merge", out))
    assert sorted(registrations(tmp_path / "out.amst")) == sorted([*range(DEPTH), 8])
    finished(call(*line(own, fresh)))
    same(out, fresh)


# ---- disks, and how it ends


def no_room(monkeypatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))


@pytest.mark.parametrize("compression", [0, 5])
@pytest.mark.parametrize("format_", ["bdv", "tif"])
def test_a_finished_job_on_a_full_disk_ends_well(
    stacks, tmp_path, monkeypatch, compression, format_
):
    out = tmp_path / ("out.h5" if format_ == "bdv" else "out")
    command = line(stacks[0], out, "--output-format", format_, output__compression=compression)
    finished(call(*command))
    no_room(monkeypatch)
    finished(call(*command))
    refused(call(*line(stacks[0], tmp_path / "new.h5")), "the disk has 0.0 GB free")


def test_other_settings_need_room_beside_the_finished_file(stacks, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    finished(call(*line(stacks[0], out)))
    no_room(monkeypatch)
    refused(call(*line(stacks[0], out, output__chunk=16)), "the disk has 0.0 GB free")


@pytest.mark.parametrize("number", [5, 28, 116, 122])  # EIO ENOSPC ESTALE EDQUOT
@pytest.mark.parametrize("writer", ["direct", "funnel"])
def test_a_fault_of_the_disk_ends_with_1_and_the_same_line_continues(
    stacks, alone, tmp_path, monkeypatch, number, writer
):
    from amst_hpc.bdv.direct import DirectFile
    from amst_hpc.bdv.funnel import FunnelStore

    kind, method = {
        "direct": (DirectFile, "_write"), "funnel": (FunnelStore, "store"),
    }[writer]  # fmt: skip
    out, write, count = tmp_path / "out.h5", getattr(kind, method), iter(range(1000))

    def fail(self, *args):
        if next(count) == 2:
            raise OSError(number, "away")
        return write(self, *args)

    settings = {"output__writer": writer}
    with monkeypatch.context() as patch:
        patch.setattr(kind, method, fail)
        ended = call(*line(stacks[0], out, **settings))
    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "away" in ended.stderr
    assert not out.exists()
    finished(call(*line(stacks[0], out, **settings)))
    same(out, alone(0))


@pytest.mark.parametrize("opening", [0, 1, 2])
@pytest.mark.parametrize("number", [5, 116])  # EIO ESTALE
def test_a_file_that_cannot_be_opened_now_is_not_made_anew(
    stacks, alone, tmp_path, monkeypatch, opening, number
):
    """At any of the openings before the write pass: exit 1, and nothing written is lost."""
    out, count = tmp_path / "out.h5", iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "complete_file", stop)
        assert call(*line(stacks[0], out)).code == 75

    class Away(h5py.File):
        def __init__(self, *args, **kwargs):
            if next(count) == opening:
                raise OSError(number, "away")
            super().__init__(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", Away)
        ended = call(*line(stacks[0], out))
    assert ended.code == 1, ended.stderr
    finished(call(*line(stacks[0], out)))
    assert len(written(out)) == DEPTH // 4, "no layer was written again"
    same(out, alone(0))


@pytest.mark.parametrize("text", ["", "[]", "\udcff"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("journal/fingerprint.json", "align"),
        ("journal/stamps.json", "align"),
        ("run.json", "verify"),
        ("run.json", "report"),
        ("slices.csv", "report"),
        ("slices.csv", "status"),
        ("transforms.json", "report"),
    ],
)
def test_a_damaged_run_folder_is_one_line_or_nothing(stacks, alone, tmp_path, name, command, text):
    shutil.copytree(alone(0).parent, tmp_path / "there")
    out = tmp_path / "there" / "out.h5"
    (out.with_suffix(".amst") / name).write_bytes(text.encode(errors="surrogateescape"))
    ended = call(*(line(stacks[0], out) if command == "align" else (command, out)))
    assert ended.code in (0, 2)
    assert ended.code == 0 or len(ended.faults) == 1


def test_strict_ends_with_4_and_the_reason(own, tmp_path):
    tifffile.imwrite(own / "raw" / "slice_00005.tif", np.zeros(SHAPE, np.uint8))
    out = tmp_path / "out.h5"
    ended = call(*line(own, out, "--strict"))
    assert ended.code == 4
    assert "5 (blank)" in ended.stderr
    assert not out.exists()


def test_a_folder_and_a_file_of_one_name_do_not_share_a_run_folder(stacks, tmp_path):
    finished(call(*line(stacks[0], tmp_path / "aligned.h5")))
    before = contents(tmp_path / "aligned.h5")
    for more in ((), ("--overwrite",)):
        ended = call(*tif(stacks[1], tmp_path / "aligned", *more))
        refused(ended, "belongs to aligned.h5; expected another name")
    assert contents(tmp_path / "aligned.h5") == before
    assert not (tmp_path / "aligned").exists()


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_what_is_not_of_the_program_is_left_alone(stacks, tmp_path, more):
    (tmp_path / "one.amst").mkdir()
    (tmp_path / "one.amst" / "notes.txt").write_text("mine")
    refused(call(*line(stacks[0], tmp_path / "one.h5", *more)), "holds other things")
    assert (tmp_path / "one.amst" / "notes.txt").read_text() == "mine"
    (tmp_path / "two.amst").write_text("mine")
    refused(call(*line(stacks[0], tmp_path / "two.h5", *more)), "two.amst is damaged")
    (tmp_path / "three.xml").write_text("of another file")
    if not more:
        refused(call(*line(stacks[0], tmp_path / "three.h5")), "OUT .*three.xml: exists")
        assert (tmp_path / "three.xml").read_text() == "of another file"


def test_names_with_dots_have_run_folders_and_reasons_of_their_own(stacks, tmp_path, monkeypatch):
    from amst_hpc.job.failures import failure_reason

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    one, two = tmp_path / "stack.v1", tmp_path / "stack.v2"
    for out, number in ((one, 1), (two, 2)):
        ended = call(*tif(tmp_path / f"missing{number}", out))
        refused(ended, f"missing{number}")
    assert {path.name for path in tmp_path.iterdir()} == {"stack.v1.failed", "stack.v2.failed"}
    assert "missing1" in failure_reason(one)
    assert "missing2" in failure_reason(two)
    finished(call(*tif(stacks[0], one)))
    assert failure_reason(one) == ""
    assert "missing2" in failure_reason(two)
    finished(call(*tif(stacks[1], two)))
    assert {path.name for path in tmp_path.iterdir()} == {
        "stack.v1", "stack.v2", "stack.v1.amst", "stack.v2.amst",
    }  # fmt: skip


# ---- on disk before it counts


@pytest.mark.parametrize(("writer", "record"), [("direct", '"layer"'), ("funnel", '"closed"')])
def test_a_record_is_written_after_its_data_are_on_disk(
    stacks, tmp_path, monkeypatch, writer, record
):
    from amst_hpc.bdv.direct import DirectFile
    from amst_hpc.bdv.funnel import FunnelStore
    from amst_hpc.job.journal import Journal
    from amst_hpc.passes import write

    done = []

    def noted(kind, name, tell):
        before = getattr(kind, name)

        def spy(*args, **kwargs):
            result = before(*args, **kwargs)
            done.append(tell(*args))
            return result

        monkeypatch.setattr(kind, name, spy)

    noted(DirectFile, "write_layer", lambda *_: "data")
    noted(FunnelStore, "store", lambda *_: "data")
    noted(DirectFile, "sync", lambda *_: "synced")
    noted(write, "sync", lambda *_: "synced")
    noted(Journal, "write", lambda _self, record, *_: json.dumps(record["kind"]))
    finished(call(*line(stacks[0], tmp_path / "out.h5", output__writer=writer)))
    first = done.index(record)
    last = max(i for i, what in enumerate(done) if what == "data")
    assert "synced" in done[last:first]


# ---- contrast


def contrast(out: Path) -> str:
    return out.with_suffix(".settings.xml").read_text()


def test_the_contrast_is_that_of_the_slices_whatever_the_levels(alone, stacks):
    one, three = alone(0, output__levels=1), alone(0, output__levels=3)
    assert contrast(one) == contrast(three)
    raw = read_stack(stacks[0] / "raw")
    low, high = np.percentile(raw, (0.5, 99.5))
    found = ElementTree.parse(one.with_suffix(".settings.xml"))
    assert float(found.findtext(".//min")) == pytest.approx(low, abs=12)
    assert float(found.findtext(".//max")) == pytest.approx(high, abs=12)


def test_the_contrast_loads_no_dataset(stacks, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("voxels were read back")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse)
    finished(call(*line(stacks[0], tmp_path / "out.h5", output__levels=1)))


def test_a_range_has_the_contrast_of_its_own_slices(own, alone, tmp_path):
    """Bright slices outside of it do not count, also when they were written before."""
    for z in (0, 1):
        path = own / "raw" / f"slice_{z:05d}.tif"
        tifffile.imwrite(path, np.clip(tifffile.imread(path).astype(int) + 90, 0, 255).astype("u1"))
    out, fresh = tmp_path / "out.h5", tmp_path / "fresh.h5"
    finished(call(*line(own, out)), 0, 3)
    finished(call(*line(own, out, "--range", "4:10")))
    finished(call(*line(own, fresh, "--range", "4:10")))
    assert contrast(out) == contrast(fresh)


# ---- ranks


@pytest.mark.parametrize("ranks", [1, 2, 3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("writer", WRITERS)
def test_datasets_do_not_depend_on_ranks_or_writer(stacks, alone, every_override, ranks, writer):
    table, out = every_override
    finished(run(ranks, *line(stacks[0], out, *table, output__writer=writer)))
    same(out, alone(0, *table))


@pytest.mark.parametrize(("blocks", "ranks"), [(1, 0), (2, 0), (4, 0), (2, 3)])
def test_blocks_give_the_datasets_of_one_job(stacks, alone, tmp_path, blocks, ranks):
    """0 ranks: in this process."""
    out = tmp_path / "out.h5"

    def go(*arguments: str | Path) -> None:
        finished(run(ranks, *arguments) if ranks else call(*arguments))

    for _ in range(2):
        for block in range(1, blocks + 1):
            go(*line(stacks[0], out, "--block", f"{block}/{blocks}"))
        assert not out.exists()
        finished(call("merge", out))
    same(out, alone(0))
    facts = json.loads((tmp_path / "out.amst" / "run.json").read_text())
    assert facts["ranks"] == len(facts["seconds_per_rank"]) == blocks * max(1, ranks)
    for seconds in facts["seconds_per_rank"]:
        parts = [seconds[name] for name in ("start", "register", "pair", "write")]
        assert 0 < sum(parts) <= seconds["total"] + 0.01, "of both steps"
    ended = finished(call("report", out))
    assert f"Its {blocks} blocks took " in Path(ended.stdout.strip()).read_text()
    finished(call("verify", out))


# ---- the voxel size that the files say


def tag(path: Path, *zyx: int) -> None:
    """The same pixels with the voxel size of ImageJ, or without."""
    z, y, x = zyx or (1, 1, 1)
    said = {"unit": "nm" if zyx else "pixel", "spacing": z}
    image = tifffile.imread(path)
    tifffile.imwrite(path, image, imagej=True, resolution=(1 / x, 1 / y), metadata=said)


def voxel_size(out: Path) -> str:
    return ElementTree.parse(out.with_suffix(".xml")).getroot().findtext(".//voxelSize/size")


@pytest.mark.parametrize("instead", [(), (8, 9, 9)], ids=["nothing", "another size"])
def test_a_voxel_size_that_was_found_stays_that_of_the_job(own, tmp_path, instead):
    """A first slice that was replaced neither lays the file out anew nor refuses a block."""
    first, out, blocks = own / "raw" / "slice_00000.tif", tmp_path / "o.h5", tmp_path / "b.h5"
    for path in (own / "raw").iterdir():
        tag(path, 24, 5, 4)
    ended = finished(call(*line(own, out)))
    assert ended.stderr.count("z, y, x = 24, 5, 4 nm, from RAW (ImageJ metadata)") == 1
    assert voxel_size(out) == "4.0 5.0 24.0"
    found = json.loads((tmp_path / "o.amst" / "run.json").read_text())["voxel_size"]
    assert found == {"nm": [24, 5, 4], "from": "RAW (ImageJ metadata)"}
    with h5py.File(out) as file:
        assert file["s00/resolutions"][1].tolist() == [2, 2, 1], "z is coarse enough"
    finished(call(*line(own, blocks, "--block", "1/2")))

    tag(first, *instead)
    before = out.stat()
    finished(call(*line(own, out)))
    assert (out.stat().st_ino, voxel_size(out)) == (before.st_ino, "4.0 5.0 24.0")
    finished(call(*line(own, blocks, "--block", "2/2")))
    finished(call("merge", blocks))
    for block in ("1/2", "2/2"):
        finished(call(*line(own, blocks, "--block", block)))
    finished(call("merge", blocks))
    same(blocks, out)
    assert voxel_size(blocks) == "4.0 5.0 24.0"

    ended = finished(call(*line(own, out, output__voxel_size_nm=[24, 4, 4])))
    assert "output.voxel_size_nm = [24, 4, 4]" in ended.stderr or instead == (8, 9, 9)
    assert voxel_size(out) == "4.0 4.0 24.0"
