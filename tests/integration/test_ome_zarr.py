"""`output.format = "ome-zarr"`: what the BigDataViewer file has, whatever happens."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import zarr
from jobs import SLOWED, Job, call, finished, journal, registrations
from ome_zarr_models.v05 import Image
from spoilt import refused
from stacks import inputs, read_cells, read_stack
from zarr_files import read_level, save_image

VOXEL = "output.voxel_size_nm=[8,4,4]"
SETTINGS = ("output.chunk=32", "output.layer=4", "output.levels=3", "neighbours.enabled=false")
LAYOUT = tuple(part for text in (*SETTINGS, VOXEL) for part in ("--set", text))
ZARR = ("--output-format", "ome-zarr")


@pytest.fixture(scope="module")
def line(make_aligned):
    """A function: the arguments that align the stack into OUT."""
    return lambda out, *more: make_aligned("fast").line(out, *LAYOUT, *more)


@pytest.fixture(scope="module")
def both(line, tmp_path_factory):
    """The same stack as BigDataViewer file and as OME-Zarr, undisturbed."""
    folder = tmp_path_factory.mktemp("both")
    finished(call(*line(folder / "bdv.h5")))
    finished(call(*line(folder / "made.ome.zarr", *ZARR)))
    return folder


@pytest.fixture
def made(both, tmp_path):
    """A copy of the OME-Zarr, to damage."""
    for name in ("made.ome.zarr", "made.amst"):
        shutil.copytree(both / name, tmp_path / name)
    return tmp_path / "made.ome.zarr"


def same(out, wanted):
    for k in range(3):
        np.testing.assert_array_equal(read_level(out, k), read_level(wanted, k))


def files(out):
    """Names of all files, and when they were written."""
    found = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


def test_levels_are_those_of_bigdataviewer(both):
    out = both / "made.ome.zarr"
    group = zarr.open_group(out, mode="r")
    assert sorted(group) == ["0", "1", "2"]
    for k in range(3):
        np.testing.assert_array_equal(group[str(k)][...], read_cells(both / "bdv.h5", k))
        assert group[str(k)].metadata.dimension_names == ("z", "y", "x")
    image = Image.from_zarr(group).ome_attributes.multiscales[0]
    assert image.name == "made"
    assert [(axis.name, axis.unit) for axis in image.axes] == [(a, "nanometer") for a in "zyx"]
    scale, shift = image.datasets[2].coordinateTransformations
    assert (scale.scale, shift.translation) == ([16, 16, 16], [4, 6, 6])
    assert {p.name for p in both.iterdir()} >= {"made.ome.zarr", "made.amst"}
    assert not (both / "made.xml").exists()
    assert sorted(p.name for p in out.iterdir()) == ["0", "1", "2", "zarr.json"]


def test_the_commands_after_a_job(both):
    out = both / "made.ome.zarr"
    assert "chunks on 3 levels, metadata as written" in finished(call("verify", out)).stdout
    assert "done" in finished(call("status", out)).stdout
    assert "made.amst/report.html" in finished(call("report", out)).stdout
    names, few = ("made.ome.zarr", "bdv.xml"), ("--grid", "1", "--range", "0:5")
    said = [finished(call("evaluate", both / name, *few)).stdout for name in names]
    figures = [[row.split()[1:] for row in text.splitlines()] for text in said]
    assert figures[0] == figures[1]  # also in nm


def test_killed_and_resumed_by_others(both, line, tmp_path, monkeypatch):
    """Three ranks are killed while they write; one goes on, with what is on disk."""
    out = tmp_path / "out.zarr"
    monkeypatch.setenv("FAULTS", json.dumps({"make": 0.2, "sync": 0}))
    job = Job(3, *line(out, *ZARR), program=SLOWED)
    layers = lambda: [r["layer"] for r in journal(job.folder, "write") if r["kind"] == "layer"]  # noqa: E731
    assert job.wait_for(lambda: len(layers()) >= 2), job.log.read_text()
    for pid in job.ranks():
        os.kill(pid, signal.SIGKILL)
    assert job.end().code != 0
    assert not out.exists()
    growing, kept = job.folder / "writing.zarr", set(layers())
    assert 2 <= len(kept) < 6
    with pytest.raises(Exception, match="No group found"):
        zarr.open_group(growing, mode="r")
    before = files(growing)
    (growing / "0/c/0/0").mkdir(parents=True, exist_ok=True)
    (growing / "0/c/0/0/0_1f.__lock").write_bytes(b"begun, not ended")
    finished(call(*line(out, *ZARR)))
    assert sorted(registrations(job.folder)) == list(range(24))
    after = files(out)
    assert all(after[f"0/c/{n}/0/0"] == before[f"0/c/{n}/0/0"] for n in kept)
    assert after.keys() == files(both / "made.ome.zarr").keys()
    same(out, both / "made.ome.zarr")
    assert not growing.exists()


def test_blocks_write_into_one(both, line, tmp_path):
    out = tmp_path / "made.zarr"
    for _ in range(2):
        for n in (1, 2):
            finished(call(*line(out, *ZARR, "--block", f"{n}/2")))
        assert not out.exists()
        finished(call("merge", out))
    same(out, both / "made.ome.zarr")
    assert "metadata as written" in finished(call("verify", out)).stdout


def test_damage_is_named_and_repaired(both, line, made):
    again = line(made, *ZARR)
    shard = made / "1/c/3/0/0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 16
    shard.write_bytes(data)
    ended = call("verify", made)
    assert ended.code == 1
    told = "made.ome.zarr: level 1: the chunk at (z, y, x) = (12, 0, 0) is damaged"
    assert [fault.endswith(told) for fault in ended.faults] == [True]
    before = files(made)
    assert call("verify", "--repair", made).code == 1
    finished(call(*again))
    same(made, both / "made.ome.zarr")
    after = files(made)
    changed = {name for name in after if after[name] != before[name]} - {"zarr.json"}
    assert {name.split("/")[2] for name in changed} == {"3"}
    for name in ("2/zarr.json", "zarr.json"):
        path = made / name
        path.write_text(path.read_text().replace(": [", ": [9, "))
        assert call("verify", made).code == 1
        call("verify", "--repair", made)
        finished(call(*again))
        assert call("verify", made).code == 0
    same(made, both / "made.ome.zarr")


def test_other_settings_and_overwrite_replace_it(both, line, made):
    for more in (("--set", "output.compression=2"), ("--overwrite",)):
        finished(call(*line(made, *ZARR, *more)))
        same(made, both / "made.ome.zarr")
        codecs = json.loads((made / "0/zarr.json").read_text())["codecs"][0]["configuration"][
            "codecs"
        ]
        assert ("zstd" in str(codecs)) == ("output.compression=2" in more)
        assert not list(made.parent.glob("made.amst/*.zarr"))


def test_what_is_not_ours_is_left_alone(line, made, tmp_path):
    """A folder of that name, and what a person has put into an output."""
    again = line(made, *ZARR)
    (made / "labels").mkdir()
    (made / "labels/zarr.json").write_text("{}")
    finished(call(*again))
    for more in (("--overwrite",), ("--set", "output.compression=1")):
        refused(call(*again, *more), "made.ome.zarr: holds labels, which amst-hpc did not write")
    assert (made / "labels/zarr.json").exists()
    assert "metadata as written" in finished(call("verify", made)).stdout
    other = tmp_path / "other.zarr"
    (other / "0").mkdir(parents=True)
    refused(call(*line(other, *ZARR)), "other.zarr: exists; expected a new name, or --overwrite")
    refused(call(*line(other, *ZARR, "--overwrite")), "other.zarr: holds 0, which amst-hpc did not")
    assert [p.name for p in other.iterdir()] == ["0"]
    assert not (tmp_path / "other.amst").exists()


def test_names_and_settings_that_cannot_be(line, made, tmp_path):
    out = tmp_path / "x.zarr"
    refused(
        call(*line(out)), r"x.zarr: expected a name that ends in .h5, or output.format=ome-zarr"
    )
    refused(call(*line(tmp_path / "x.h5", *ZARR)), r"x.h5: expected a name that ends in .zarr")
    refused(
        call(*line(out, "--output-format", "tif")), r"x.zarr: expected a name that does not end"
    )
    refused(call(*line(out, *ZARR, "--set", "output.legacy=true")), "output.legacy = True")
    refused(call(*line(out, *ZARR, "--set", "output.writer=funnel")), "output.writer = 'funnel'")
    out.touch()
    refused(call(*line(out, *ZARR)), "x.zarr: is a file; expected a folder")
    for source in (made / "0", made):
        own = call("align", source, source, made, *LAYOUT, *ZARR, "--overwrite")
        refused(own, "made.ome.zarr: is RAW .* or inside it")


def test_apply_takes_and_makes_it(both, make_aligned, tmp_path):
    made, raw = both / "made.ome.zarr", inputs(make_aligned("fast").folder)[0]
    out = tmp_path / "other.ome.zarr"
    assert f"open {out}" in finished(call("apply", made, raw, out)).stdout
    same(out, made)
    facts = json.loads((tmp_path / "other.amst/run.json").read_text())
    assert (facts["raw_yx"], facts["voxel_size"]["nm"]) == ([144, 160], [8, 4, 4])
    assert "24/24" in finished(call("status", out)).stdout
    add = ("--add-to", both / "made.xml")
    refused(call("apply", made, raw, tmp_path / "a.h5", *add), "--add-to .*: .*zarr has no XML")
    # labels from an OME-Zarr, with the transforms of a BigDataViewer file
    labels = np.where(read_stack(raw) > 127, 7, 200).astype(np.uint8)
    path, line = save_image(tmp_path / "labels.zarr", labels), ("--nearest", "--range", "4:9")
    finished(call("apply", both / "bdv.h5", path, tmp_path / "mask.zarr", *line))
    assert {*np.unique(read_level(tmp_path / "mask.zarr", 2))} <= {0, 7, 200}
    group = zarr.open_group(tmp_path / "mask.zarr", mode="r")
    assert Image.from_zarr(group).ome_attributes.multiscales[0].type == "mode"
    for path in (out, tmp_path / "mask.zarr"):
        assert "metadata as written" in finished(call("verify", path)).stdout


def test_an_output_is_input_again(both, make_aligned, tmp_path):
    """As PREALIGNED it is what the BigDataViewer file is."""
    raw, options = inputs(make_aligned("fast").folder)[0], make_aligned("fast").options
    for name, source in (("a.h5", both / "made.ome.zarr"), ("b.h5", both / "bdv.xml")):
        finished(call("align", raw, source, tmp_path / name, *options, "--range", "3:6"))
    np.testing.assert_array_equal(read_cells(tmp_path / "a.h5"), read_cells(tmp_path / "b.h5"))
    assert read_cells(tmp_path / "a.h5").any()
