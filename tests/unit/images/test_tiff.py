"""TIFF slices read as what was written; a damaged one is named."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from jobs import UNPRIVILEGED
from series import check, drop_tag, one_page, refused, set_tag, write_series

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


@pytest.mark.parametrize("turned", [0, 1, 2, 3, 6, 9])
def test_a_turned_page_is_refused(tmp_path, volume, turned):
    """What the tag asks for is not done, so it may ask for nothing."""
    folder = write_series(tmp_path / "raw", volume, extratags=[(274, "H", 1, turned, True)])
    if turned > 1:
        refused(folder, f"slice_0000.tif: orientation {turned}, expected 1")
    else:
        check(folder, volume)


@pytest.mark.parametrize("kind", [1, 4])
def test_thumbnails_and_masks_are_no_slices(tmp_path, volume, kind):
    path = tmp_path / "raw.tif"
    with tifffile.TiffWriter(path) as writer:
        for image in volume:
            writer.write(image, photometric="minisblack", metadata=None)
            writer.write(image, photometric="minisblack", metadata=None, subfiletype=1)
    set_tag(path, 254, kind, page=1)
    refused(path, "raw.tif page 1: a thumbnail or a mask, expected a slice")


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


def test_white_as_zero_is_turned_round(tmp_path, volume):
    white = np.iinfo(volume.dtype).max
    folder = tmp_path / "raw"
    folder.mkdir()
    for z, image in enumerate(volume):
        path = folder / f"s_{z}.tif"
        tifffile.imwrite(path, white - image, photometric="miniswhite", compression="zlib")
    check(folder, volume)


def test_a_page_without_a_word_on_colours_is_grey(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume)
    for path in folder.iterdir():
        drop_tag(path, 262)
    check(folder, volume)


def test_palettes_and_colour_filters_are_refused(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume)
    path, image = folder / "slice_0002.tif", np.zeros((20, 30), np.uint8)
    tifffile.imwrite(path, image, photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    refused(folder, "slice_0002.tif: colours PALETTE, expected grey")
    tifffile.imwrite(path, image, photometric="cfa")
    refused(folder, "slice_0002.tif: colours CFA, expected grey")


def test_a_compression_that_nobody_knows(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume, compression="zlib")
    set_tag(folder / "slice_0001.tif", 259, 4711)
    refused(folder, "slice_0001.tif: compression 4711, which cannot be decoded")


@pytest.mark.parametrize("tag", [273, 279])
def test_a_strip_that_is_not_there(tmp_path, volume, tag):
    """A place or a length of 0, as of a sparse file, would be read as black."""
    folder = write_series(tmp_path / "raw", volume, compression="zlib")
    set_tag(folder / "slice_0001.tif", tag, 0)
    refused(folder, "slice_0001.tif: damaged, not all of its strips are there")


@pytest.mark.parametrize("imagej", [True, False])
def test_a_whole_stack_in_the_place_of_a_slice(tmp_path, volume, imagej):
    """Also one that has a single page, as those of more than 4 GB."""
    folder = write_series(tmp_path / "raw", volume)
    options = {"imagej": True, "metadata": {"axes": "ZYX"}} if imagej else {}
    path = folder / "slice_0001.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", **options)
    refused(folder, "slice_0001.tif: 5 pages, expected one slice per file")
    one_page(path)
    refused(folder, "slice_0001.tif: 5 pages, expected one slice per file")
