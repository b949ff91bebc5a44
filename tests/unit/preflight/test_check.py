"""`check`: what is there, what is wrong with it, what the job will need; nothing is written."""

import re

import h5py
import numpy as np
import pytest
import tifffile
from jobs import call, finished
from spoilt import GREY, SLICES, broken, cut, linked, nothing_written, refused, save
from stacks import inputs


def check(folder, *options):
    with nothing_written(folder):
        return call("check", *inputs(folder), *options)


def test_good_stacks_are_described_with_what_the_job_needs(tissue):
    raw, pre, time, memory, disk = finished(check(tissue)).stdout.splitlines()
    assert raw == f"RAW {tissue}/raw: 24 slices of 144 x 160 px (y, x), uint8"
    assert pre == f"PREALIGNED {tissue}/pre: 24 slices of 144 x 160 px (y, x), uint8"
    assert re.fullmatch(r"time: about [\d:]+ on one rank, [\d:]+ on 64 ranks", time)
    assert re.fullmatch(r"memory: about 0\.8 GB per rank \(\d+ cores here: \d+ GB .*\)", memory)
    assert disk == "disk: up to 0.00 GB"


def test_raw_alone_is_described_without_a_second_stack(tissue):
    with nothing_written(tissue):
        ended = call("check", tissue / "raw", "--prealign")
    raw, canvas, time, memory, disk = finished(ended).stdout.splitlines()
    assert raw == f"RAW {tissue}/raw: 24 slices of 144 x 160 px (y, x), uint8"
    assert canvas.startswith("canvas: grows with the motion of raw")
    both = finished(check(tissue)).stdout.splitlines()[2:]
    assert time != both[0]
    assert [memory, disk] == both[1:]
    given = finished(call("check", tissue / "raw", "--prealign", "--set", "prealign.canvas=raw"))
    assert len(given.stdout.splitlines()) == 4
    refused(call("check", tissue / "raw"), "PREALIGNED is missing; expected RAW PREALIGNED, or")
    refused(call("check", *inputs(tissue), "--prealign"), "too many names; expected RAW with --p")


def test_each_fault_of_raw_alone_is_said_once(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", cut)
    (tmp_path / "raw" / "slice_00011.tif").unlink()
    tifffile.imwrite(tmp_path / "raw" / "slice_00003.tif", GREY)
    ended = call("check", tmp_path / "raw", "--prealign")
    refused(ended, "RAW .*slice_00007.tif: cut short")
    assert "RAW: numbers after slice_00010.tif: 1 missing" in ended.stdout
    assert "RAW: 1 black or constant slices: slice_00003.tif" in ended.stdout
    assert "PREALIGNED" not in ended.stdout


def test_gaps_and_black_slices_are_named_and_no_fault(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", save(GREY))
    for part in ("raw", "pre"):
        for z in (11, 12):
            (tmp_path / part / f"slice_{z:05d}.tif").unlink()
    lines = finished(check(tmp_path)).stdout.splitlines()
    assert "RAW: numbers after slice_00010.tif: 2 missing" in lines
    assert "PREALIGNED: numbers after slice_00010.tif: 2 missing" in lines
    assert "RAW: 1 black or constant slices: slice_00007.tif" in lines
    assert not [line for line in lines if line.startswith("PREALIGNED: 1 black")]


def test_many_black_slices_are_counted(tissue, tmp_path):
    broken(tissue, tmp_path, "pre", save(GREY))
    for z in range(10, 20):
        tifffile.imwrite(tmp_path / "pre" / f"slice_{z:05d}.tif", GREY + 9)
    lines = finished(check(tmp_path)).stdout.splitlines()
    (black,) = [line for line in lines if line.startswith("PREALIGNED: 11 black")]
    assert black.endswith("slice_00016.tif ...")


@pytest.mark.parametrize("kind", SLICES)
def test_every_fault_that_align_refuses(tissue, tmp_path, kind):
    name, change, expected = SLICES[kind]
    broken(tissue, tmp_path, name, change)
    ended = check(tmp_path)
    assert ended.code == 2
    assert ended.stderr.splitlines() == ended.faults
    assert any(re.search(expected, fault) for fault in ended.faults), ended.faults


def test_each_fault_has_a_line(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", cut)
    cut(tmp_path / "raw" / "slice_00003.tif")
    tifffile.imwrite(tmp_path / "pre" / "slice_00020.tif", np.zeros((144, 161), np.uint8))
    ended = check(tmp_path)
    assert ended.code == 2
    names = [re.search(r"slice_\d+", fault)[0] for fault in ended.faults]
    assert names == ["slice_00003", "slice_00007", "slice_00020"]
    assert "RAW" in ended.stdout


def test_a_slice_that_is_damaged_inside(tissue, tmp_path):
    def damage(path):
        tifffile.imwrite(path, tifffile.imread(path), compression="zlib")
        with tifffile.TiffFile(path) as tiff:
            place = tiff.pages[0].dataoffsets[0]
        data = bytearray(path.read_bytes())
        data[place + 20 : place + 40] = b"\xff" * 20
        path.write_bytes(data)

    ended = check(broken(tissue, tmp_path, "raw", damage))
    refused(ended, r"RAW .*slice_00007\.tif: cannot be decoded")


def test_a_mismatch_can_be_allowed(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", lambda p: max(p.parent.iterdir()).unlink())
    ended = check(tmp_path)
    refused(ended, "has 23 slices, PREALIGNED .* 24")
    assert "RAW" in ended.stdout
    finished(check(tmp_path, "--allow-count-mismatch"))


def test_settings_are_checked_too(tissue, tmp_path):
    linked(tissue, tmp_path)
    refused(check(tmp_path, "--set", "template.radius=0"), "template.radius = 0")
    refused(check(tmp_path, "--set", "refine.elastix.Transform=BSpline"), "'BSpline'")
    refused(check(tmp_path, "--set", "refine.elastix.Foo=1"), "Foo: no parameter of elastix")
    refused(check(tmp_path, "--set", "refine.elastix.Metric=Nonsense"), "nothing with this Metric")
    refused(check(tmp_path, "--config", "/no/such.toml"), "/no/such.toml: cannot be read")


def test_memory_of_hdf5_input_holds_a_row_of_chunks(tmp_path):
    volume = np.random.default_rng(1).integers(1, 255, (40, 1500, 1500), np.uint8)
    for name, depth in (("deep", 40), ("flat", 1)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("a", data=volume, chunks=(depth, 500, 500))
    memory = {}
    for name in ("deep", "flat"):
        source = f"{tmp_path / name}.h5:/a"
        lines = finished(call("check", source, source)).stdout.splitlines()
        (line,) = [line for line in lines if line.startswith("memory")]
        memory[name] = float(line.split()[2])
    assert memory["deep"] - memory["flat"] == pytest.approx(2 * 39 * 1500**2 / 1e9, abs=0.11)
