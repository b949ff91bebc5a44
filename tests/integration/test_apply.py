"""`amst-hpc apply`: the transforms of a run on other stacks, read back by independent readers."""

import errno
import json
import os
import shutil
import signal

import h5py
import npy2bdv
import numpy as np
import pytest
import tifffile
from jobs import FAST, SLOWED, Job, call, contents, finished, journal, run, slices, transforms
from spoilt import refused
from stacks import inputs, read_cells, read_stack, resampled, save_stack

from amst_hpc.bdv.metadata import write_xml
from amst_hpc.images.opening import open_stack

LAYOUT = ("output.levels=3", "output.chunk=32", "output.layer=8", "output.voxel_size_nm=[8,5,5]")
OPTIONS = (*FAST, *(part for text in LAYOUT for part in ("--set", text)))
BLACK = 5
"""Slice of RAW without content."""


@pytest.fixture(scope="module")
def aligned(tissue, tmp_path_factory):
    """OUT.h5 of 24 slices in 3 layers and 3 levels; one slice is black. For reading."""
    folder = tmp_path_factory.mktemp("apply")
    for part in ("raw", "pre"):
        shutil.copytree(tissue / part, folder / part)
    path = folder / "raw" / f"slice_{BLACK:05d}.tif"
    tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)))
    finished(call("align", *inputs(folder), folder / "out.h5", *OPTIONS), 3)
    return folder / "out.h5"


@pytest.fixture
def own(aligned, tmp_path):
    """The same, to be changed."""
    for name in ("out.h5", "out.xml", "out.settings.xml"):
        shutil.copy2(aligned.with_name(name), tmp_path / name)
    shutil.copytree(aligned.with_suffix(".amst"), tmp_path / "out.amst")
    return tmp_path / "out.h5"


def raw_of(out):
    return out.with_name("raw")


def labels_of(raw):
    """Five labels and the background, in stripes and patches as fine as a pixel."""
    grey = read_stack(raw)
    found = np.digitize(grey, np.quantile(grey, [0.3, 0.5, 0.7, 0.9])).astype(np.uint16)
    return np.array([0, 7, 300, 301, 65535], np.uint16)[found]


def test_the_same_raw_gives_the_same_file_on_other_ranks(aligned, tmp_path):
    other = tmp_path / "other.h5"
    told = finished(run(3, "apply", aligned, raw_of(aligned), other))
    assert contents(other) == contents(aligned)
    assert f"1 of them are black, as in the run: slice_{BLACK:05d}.tif" in told.stdout
    assert transforms(other) == transforms(aligned)
    facts = json.loads((tmp_path / "other.amst/run.json").read_text())
    assert facts["applied"]["out"] == str(aligned)
    assert facts["voxel_size"] == {"nm": [8, 5, 5], "from": "output.voxel_size_nm"}
    assert "as written" in finished(call("verify", other)).stdout
    assert "24/24" in finished(call("status", other)).stdout
    # the run folder, a folder of slices and a run of its own serve as well
    folder = aligned.with_suffix(".amst")
    finished(call("apply", folder, raw_of(aligned), tmp_path / "tif", "--output-format", "tif"))
    np.testing.assert_array_equal(read_stack(tmp_path / "tif"), read_cells(aligned))
    finished(call("apply", tmp_path / "tif", raw_of(aligned), tmp_path / "third.h5"))
    assert contents(tmp_path / "third.h5") == contents(aligned)


def test_labels_stay_labels_on_all_levels(aligned, tmp_path):
    labels = labels_of(raw_of(aligned))
    stack = save_stack(tmp_path / "labels", labels)
    finished(call("apply", aligned, stack, tmp_path / "out.h5", "--nearest"))
    for level in range(3):
        assert {*np.unique(read_cells(tmp_path / "out.h5", level))} == {*np.unique(labels)}
    for image, source, matrix in zip(
        read_cells(tmp_path / "out.h5"), labels, transforms(aligned), strict=True
    ):
        if matrix is not None:
            y, x = np.mgrid[: image.shape[0], : image.shape[1]]
            at = np.einsum("ij,j...->i...", np.array(matrix), [x, y, np.ones_like(x)])
            column, row = np.floor(at + 0.5).astype(int)
            height, width = source.shape
            inside = (at >= 0).all(axis=0) & (at[0] <= width - 1) & (at[1] <= height - 1)
            np.testing.assert_array_equal(image[inside], source[row[inside], column[inside]])
            assert not image[~inside].any()


def test_full_resolution_lies_over_the_binned_stack(aligned, tmp_path):
    """Raw enlarged so that its pixel means are those of the stack that was registered."""
    raw = read_stack(raw_of(aligned))
    large = save_stack(tmp_path / "large", raw.repeat(2, axis=1).repeat(2, axis=2))
    out = tmp_path / "full.h5"
    refused(
        call("apply", aligned, large, out),
        r"size \(288, 320\) \(y, x\), RAW of .* \(144, 160\): expected --scale 1 .*--scale 2 would",
    )
    assert not out.with_suffix(".amst").exists()
    finished(call("apply", aligned, large, out, "--scale", "2"))
    volume = read_cells(out)
    assert volume.shape == (24, 288, 320)
    for z in (0, 12):
        m = np.array(transforms(aligned)[z])
        y, x = np.mgrid[:288, :320]
        # where a pixel of the full stack lies in raw, by way of the binned pixels
        binned = [(x - 0.5) / 2, (y - 0.5) / 2, np.ones(x.shape)]
        way = 2 * np.einsum("ij,j...->i...", m, binned) + 0.5
        full = np.array(transforms(out)[z])
        found = np.einsum("ij,j...->i...", full, [x, y, np.ones(x.shape)])
        assert np.abs(found - way).max() < 1e-9
        source = raw[z].repeat(2, 0).repeat(2, 1)
        away = np.abs(volume[z].astype(float) - resampled(source, full, (288, 320)))
        assert (away > 1).mean() < 1e-3
    assert "<size>2.5 2.5 8.0</size>" in out.with_suffix(".xml").read_text()


def test_one_xml_shows_both(own, aligned, tmp_path, monkeypatch):
    before = own.read_bytes()
    raw = read_stack(raw_of(aligned))
    bright = save_stack(tmp_path / "bright", raw.astype(np.uint16) * 200)
    line = ("apply", own, bright, tmp_path / "sub" / "esb.h5", "--add-to", own.with_suffix(".xml"))
    (tmp_path / "sub").mkdir()
    line = (*line, "--channel", "ESB", "--range", "4:20")
    shutil.copy(own.with_suffix(".xml"), tmp_path / "former.xml")

    def fail(path, *rest):
        if path == own.with_suffix(".xml"):
            raise OSError(errno.EIO, "gone", str(path))
        return write_xml(path, *rest)

    with monkeypatch.context() as patched:  # on its way to the new XML
        patched.setattr("amst_hpc.passes.products.write_xml", fail)
        assert call(*line).code == 1
    assert own.with_suffix(".xml").read_text() == (tmp_path / "former.xml").read_text()
    assert "open " + str(own.with_suffix(".xml")) in finished(call(*line)).stdout
    views = [own.with_suffix(".xml"), own.with_suffix(".settings.xml")]
    first = [path.read_text() for path in views]
    assert first[0] != views[0].with_name("former.xml").read_text()
    finished(call(*line))  # does not add it twice
    assert [path.read_text() for path in views] == first
    assert own.read_bytes() == before
    for named in (own, f"{views[0]}:setup=0", f"{views[0]}:setup=1"):
        assert open_stack(str(named), "RAW").header(0).voxel_size.nm == (8, 5, 5)
    editor = npy2bdv.BdvEditor(str(views[0]))
    np.testing.assert_array_equal(editor.read_view(channel=0), read_cells(own))
    editor.dtype = np.dtype(np.uint16)  # npy2bdv knows one for all setups
    esb = editor.read_view(channel=1)
    editor._file_object_h5.close()
    assert esb.max() > 255
    np.testing.assert_array_equal(esb, read_cells(tmp_path / "sub/esb.h5"))
    assert "<name>ESB</name>" in first[0]
    assert "<affine>5.0 0.0 0.0 0.0 0.0 5.0 0.0 0.0 0.0 0.0 8.0 32.0</affine>" in first[0]
    # what is done with OUT afterwards leaves it there
    assert "as written" in finished(call("verify", own)).stdout
    assert "done" in finished(call("status", own)).stdout
    finished(call("align", *inputs(aligned.parent), own, *OPTIONS), 3)
    assert [path.read_text() for path in views] == first
    # and a run with other transforms does not show it any more
    table = tmp_path / "table.csv"
    table.write_text("slice,action,x,y\n9,shift,2,1\n")
    mended = call("align", *inputs(aligned.parent), own, *OPTIONS, "--overrides", table)
    assert "was made with other transforms" in finished(mended, 3).stderr
    assert "ESB" not in views[0].read_text()
    refused(call(*line), "parameters.transforms: .* -> .*--overwrite")


def test_slices_that_cannot_be_read_are_black_and_tried_again(aligned, tmp_path):
    other = shutil.copytree(raw_of(aligned), tmp_path / "raw")
    victim = other / "slice_00011.tif"
    whole = victim.read_bytes()
    tifffile.imwrite(victim, tifffile.imread(victim), compression="zlib")
    spoilt = bytearray(victim.read_bytes())
    spoilt[400:900] = bytes(500)
    victim.write_bytes(spoilt)
    line = ("apply", aligned, other, tmp_path / "out.h5")
    told = finished(call(*line), 3)
    assert "1 of them are black, since they cannot be read: slice_00011.tif" in told.stdout
    assert slices(tmp_path / "out.h5")[11]["status"] == "unreadable"
    assert not read_cells(tmp_path / "out.h5")[11].any()
    victim.write_bytes(whole)
    finished(call(*line))
    assert contents(tmp_path / "out.h5") == contents(aligned)


def test_a_subset_is_paired_by_the_numbers_in_the_names(aligned, tmp_path):
    other = shutil.copytree(raw_of(aligned), tmp_path / "raw")
    for z in (0, 1, 13):
        (other / f"slice_{z:05d}.tif").unlink()
    line = ("apply", aligned, other, tmp_path / "out.h5")
    refused(call(*line), r"lacks 3 of 24 slices .*slice_00000.tif, slice_00001.tif, slice_00013")
    assert not (tmp_path / "out.amst").exists()
    told = finished(call(*line, "--allow-count-mismatch"))
    assert "3 of them are black, since OTHER_RAW lacks them: slice_00000.tif" in told.stdout
    expected = read_cells(aligned)
    expected[[0, 1, 13]] = 0
    np.testing.assert_array_equal(read_cells(tmp_path / "out.h5"), expected)
    finished(call("apply", aligned, other, tmp_path / "part.h5", "--range", "2:13"))
    np.testing.assert_array_equal(read_cells(tmp_path / "part.h5"), expected[2:13])
    with h5py.File(tmp_path / "named.h5", "w") as file:
        file["grey"] = read_stack(other)
    source = f"{tmp_path / 'named.h5'}:/grey"
    refused(call("apply", aligned, source, tmp_path / "h5.h5"), "has 21 slices, RAW of .* 24: exp")


def test_slices_of_several_sizes_have_the_sizes_of_raw(tissue, tmp_path):
    """Raw slices with a zero border, which the transforms take into account."""
    for part in ("raw", "pre"):
        shutil.copytree(tissue / part, tmp_path / part)
    path = tmp_path / "raw" / "slice_00003.tif"
    tifffile.imwrite(path, np.pad(tifffile.imread(path), ((7, 2), (5, 11))))
    out, line = tmp_path / "out.h5", ("--range", "0:8", "--set", "neighbours.enabled=false")
    finished(call("align", *inputs(tmp_path), out, *FAST, *line), 0, 3)
    facts = json.loads((tmp_path / "out.amst/run.json").read_text())
    assert (facts["raw_yx"], facts["raw_yx_others"]) == ([144, 160], {"3": [153, 176]})
    for path in (tmp_path / "raw").iterdir():  # a voxel size, which the run has not
        tags = {"resolution": (0.2, 0.2), "metadata": {"unit": "nm", "spacing": 5}}
        tifffile.imwrite(path, tifffile.imread(path), imagej=True, **tags)
    finished(call("apply", out, tmp_path / "raw", tmp_path / "o.h5"))
    assert contents(tmp_path / "o.h5") == contents(out)
    facts = json.loads((tmp_path / "o.amst/run.json").read_text())
    assert facts["voxel_size"] == {"nm": [5, 5, 5], "from": "OTHER_RAW (ImageJ metadata)"}
    assert "<size>5.0 5.0 5.0</size>" in (tmp_path / "o.xml").read_text()
    expected = r"slice_00003.tif: size \(144, 160\) \(y, x\), RAW of .* \(153, 176\)"
    refused(call("apply", out, tissue / "raw", tmp_path / "no.h5"), expected)


def test_a_killed_job_is_continued_by_the_same_line(aligned, tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTS", json.dumps({"make": 0.4, "sync": 0}))
    line = ("apply", aligned, raw_of(aligned), tmp_path / "out.h5")
    job = Job(2, *line, program=SLOWED)

    def layers():
        return sum(r["kind"] == "layer" for r in journal(tmp_path / "out.amst", "write"))

    assert job.wait_for(lambda: layers() >= 1), job.log.read_text()
    for pid in job.ranks():
        os.kill(pid, signal.SIGKILL)
    assert job.end().code != 0
    assert not (tmp_path / "out.xml").exists()
    refused(call("apply", tmp_path / "out.h5", raw_of(aligned), tmp_path / "x.h5"), "not finished")
    before = layers()
    finished(call(*line))
    assert layers() - before == 3 - before
    assert contents(tmp_path / "out.h5") == contents(aligned)
