"""TIFF slices and pages read as what was written; a damaged one is named."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from jobs import UNPRIVILEGED
from series import check, refused, write_series

from amst_hpc.images.opening import open_stack
from amst_hpc.images.stack import SliceError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "zstd"},
        {"tile": (16, 16)},
        {"byteorder": ">"},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_folder_of_slices(tmp_path, volume, options):
    check(write_series(tmp_path / "raw", volume, **options), volume)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_multi_page(tmp_path, volume, compression):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", compression=compression)
    check(path, volume)


def test_pages_written_one_by_one(tmp_path, volume):
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as writer:
        for image in volume:
            writer.write(image, photometric="minisblack", contiguous=False)
    check(path, volume)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_imagej_stack_with_contiguous_pixels(tmp_path, volume, byteorder):
    """Fiji writes big-endian."""
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX"}
    tifffile.imwrite(path, volume, imagej=True, metadata=metadata, byteorder=byteorder)
    check(path, volume)


def test_a_single_page(tmp_path, volume):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, volume[0], photometric="minisblack")
    check(path, volume[:1])


def test_black_slices_are_seen(tmp_path, volume):
    volume[2] = 7
    stack = open_stack(str(write_series(tmp_path / "raw", volume, compression="lzw")), "RAW")
    assert [stack.is_constant(z) for z in range(5)] == [False, False, True, False, False]


def test_a_changed_slice_changes_its_stamp(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume)
    stack = open_stack(str(folder), "RAW")
    before = stack.stamp(1)
    os.utime(folder / stack.names[1], ns=(1, 1))
    assert stack.stamp(1) != before


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((20, 30, 3), np.uint8), "shape .*, expected one grey channel"),
        (np.zeros((20, 30), np.float32), "dtype float32, expected uint8 or uint16"),
        (np.zeros((20, 30), np.int16), "dtype int16, expected uint8 or uint16"),
        (np.zeros((20, 30), np.uint32), "dtype uint32, expected uint8 or uint16"),
        (np.zeros((20, 30), bool), "dtype bool, expected uint8 or uint16"),
        (np.zeros((2, 20, 30), np.uint8), "2 pages, expected one slice per file"),
    ],
)
def test_slices_of_another_kind(tmp_path, volume, image, expected):
    folder = write_series(tmp_path / "raw", volume)
    tifffile.imwrite(folder / "slice_0002.tif", image)
    assert "slice_0002.tif: " in refused(folder, expected)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 8}], ids=str)
def test_a_slice_cut_short_is_named_at_every_length(tmp_path, volume, options):
    folder = write_series(tmp_path / "raw", volume, **options)
    path = folder / "slice_0003.tif"
    whole = path.read_bytes()
    stack = open_stack(str(folder), "RAW")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        end = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    for length in [*range(0, end, max(1, end // 97)), end - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(SliceError, match=r"slice_0003\.tif: "):
            stack.header(3)


@pytest.mark.parametrize("start", [b"", b"\0" * 100, b"JUNK" * 50, b"II*\0\xff\xff\xff\x7f"])
def test_files_that_are_no_tiff(tmp_path, volume, start):
    folder = write_series(tmp_path / "raw", volume)
    (folder / "slice_0001.tif").write_bytes(start)
    stack = open_stack(str(folder), "RAW")
    for look in (stack.header, stack.read, stack.is_constant):
        with pytest.raises(SliceError, match=r"slice_0001\.tif: "):
            look(1)


def test_damaged_pixels_are_an_error_of_that_slice(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume, compression="zlib")
    path = folder / "slice_0001.tif"
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].dataoffsets[0]
    damaged = bytearray(path.read_bytes())
    damaged[place + 20 : place + 40] = b"\xff" * 20
    path.write_bytes(damaged)
    with pytest.raises(SliceError, match=r"slice_0001\.tif: cannot be decoded"):
        open_stack(str(folder), "RAW").read(1)


def test_a_slice_removed_later_is_an_error_of_that_slice(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume)
    stack = open_stack(str(folder), "RAW")
    (folder / "slice_0004.tif").unlink()
    for look in (stack.header, stack.read, stack.is_constant):
        with pytest.raises(SliceError, match=r"slice_0004\.tif: not a readable TIFF"):
            look(4)


def test_a_slice_that_may_not_be_read(tmp_path, volume):
    """In a process without root's right to read everything."""
    folder = write_series(tmp_path / "raw", volume)
    (folder / "slice_0002.tif").chmod(0)
    code = (
        "import sys\n"
        "from amst_hpc.images.opening import open_stack\n"
        "from amst_hpc.images.stack import SliceError\n"
        "try: open_stack(sys.argv[1], 'RAW').read(2)\n"
        "except SliceError as error: print(error)\n"
    )
    command = [*UNPRIVILEGED, sys.executable, "-c", code, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "slice_0002.tif: not a readable TIFF" in done.stdout
    assert "Permission denied" in done.stdout


def test_a_stack_cut_short(tmp_path, volume):
    path = tmp_path / "stack.tif"
    for options in ({"imagej": True}, {"photometric": "minisblack", "compression": "zlib"}):
        tifffile.imwrite(path, volume, **options)
        whole = path.read_bytes()
        for length in (0, 7, len(whole) // 3, len(whole) * 2 // 3):
            path.write_bytes(whole[:length])
            refused(path, r"stack\.tif")
