"""Which voxel size counts: of the settings, RAW or PREALIGNED; what contradicts is named."""

import numpy as np
import pytest
import tifffile
from jobs import call, finished

from amst_hpc.images.opening import open_stack
from amst_hpc.preflight.voxel_size import GIVEN, find_voxel_size

IMAGE = np.random.default_rng(0).integers(1, 255, (20, 24), np.uint8)


def imagej(y, x, z=None):
    said = {"unit": "nm"} | ({"spacing": z} if z else {})
    return {"imagej": True, "resolution": (1 / x, 1 / y), "metadata": said}


@pytest.fixture
def save(tmp_path):
    """A function (name, how each slice is written): the stack."""

    def make(name, *written):
        (tmp_path / name).mkdir()
        for z, options in enumerate(written):
            tifffile.imwrite(tmp_path / name / f"s{z}.tif", IMAGE, **options)
        return open_stack(str(tmp_path / name), name)

    return make


def find(raw, prealigned, given):
    return find_voxel_size({"RAW": raw, "PREALIGNED": prealigned}, given)


def test_raw_comes_first(save):
    found = find(save("raw", imagej(5, 4, 8)), save("pre", imagej(5.01, 4, 8)), ())
    assert (found.nm, found.source) == ((8, 5, 4), "RAW (ImageJ metadata)")
    assert found.notes == ["voxel size: z, y, x = 8, 5, 4 nm, from RAW (ImageJ metadata)"]
    assert not found.warnings


def test_files_that_say_nothing_are_not_worth_a_word(save):
    found = find(save("raw", {}, {}), save("pre", {}, {}), ())
    assert found == type(found)((), "", [], [])


def test_without_z_nothing_is_taken_and_one_line_says_so(save):
    found = find(save("raw", imagej(5, 5), {}), save("pre", {}, imagej(5, 5)), ())
    assert found.nm == ()
    (line,) = found.notes
    assert line == (
        "voxel size: y, x = 5, 5 nm in RAW (ImageJ metadata), z not known: "
        "give output.voxel_size_nm (z, y, x)"
    )


def test_what_raw_does_not_know_prealigned_adds(save):
    found = find(save("raw", imagej(5, 4)), save("pre", imagej(5, 4, 8)), ())
    assert found.nm == (8, 5, 4)
    assert found.source == "RAW (ImageJ metadata), PREALIGNED (ImageJ metadata)"


def test_stacks_that_disagree_are_named_and_nothing_is_mixed(save):
    found = find(save("raw", imagej(5, 5)), save("pre", imagej(4, 4, 8)), ())
    assert found.nm == ()
    (line,) = found.warnings
    assert line == (
        "voxel size: y, x = 5, 5 nm in RAW (ImageJ metadata), "
        "z, y, x = 8, 4, 4 nm in PREALIGNED (ImageJ metadata)"
    )
    assert "z not known" in found.notes[0]


def test_slices_that_disagree_are_named_and_not_believed(save):
    found = find(
        save("raw", imagej(5, 5, 8), {}, imagej(4, 4, 8)), save("pre", imagej(5, 5, 8)), ()
    )
    assert (found.nm, found.source) == ((8, 5, 5), "PREALIGNED (ImageJ metadata)")
    assert found.warnings == [
        (
            "voxel size: RAW disagrees with itself: z, y, x = 8, 5, 5 nm in s0.tif, "
            "z, y, x = 8, 4, 4 nm in s2.tif: ignored"
        )
    ]


def test_a_setting_counts_more_than_the_files(save):
    raw, pre = save("raw", imagej(5, 5)), save("pre", {})
    assert find(raw, pre, (8, 5, 5)).warnings == []
    found = find(raw, pre, (8, 4, 4))
    assert (found.nm, found.source) == ((8, 4, 4), GIVEN)
    assert found.warnings == [
        (
            "output.voxel_size_nm = [8, 4, 4], but y, x = 5, 5 nm in RAW (ImageJ metadata): "
            "the setting counts"
        )
    ]


def test_what_cannot_be_is_told(save):
    found = find(save("raw", imagej(50_000, 50_000, 8)), save("pre", {}), ())
    assert found.notes == [
        (
            "voxel size: RAW says y = 50000 nm, x = 50000 nm (ImageJ metadata), which no electron "
            "microscope has: ignored"
        ),
        (
            "voxel size: z = 8 nm in RAW (ImageJ metadata), y, x not known: "
            "give output.voxel_size_nm (z, y, x)"
        ),
    ]


def test_a_slice_that_cannot_be_read_is_left_to_others(save, tmp_path):
    raw = save("raw", imagej(5, 5, 8), {}, {})
    (tmp_path / "raw" / "s1.tif").write_bytes(b"no TIFF")
    assert find(raw, save("pre", {}), ()).nm == (8, 5, 5)


def test_check_and_submit_tell_it(save, tmp_path):
    save("raw", *[imagej(5, 5, 8)] * 3)
    save("pre", *[imagej(4, 4, 8)] * 3)
    told = "voxel size: z, y, x = 8, 5, 5 nm, from RAW (ImageJ metadata)"
    stacks = tmp_path / "raw", tmp_path / "pre"
    ended = finished(call("check", *stacks, "--set", "input.compare=false"))
    assert told in ended.stdout.splitlines()
    assert any("4, 4 nm in PREALIGNED" in line for line in ended.stdout.splitlines())
    assert f"# {told}" in finished(call("submit", *stacks, tmp_path / "out.h5")).stdout
