"""Stacks of every kind read as what was written; what is wrong is said in a line that names it."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile
from jobs import UNPRIVILEGED

from amst_hpc.bdv.metadata import write_xml
from amst_hpc.config import InputError
from amst_hpc.images.opening import open_stack
from amst_hpc.images.stack import SliceError, fit_to, number_gaps

DTYPES = ["uint8", "uint16"]
SHAPE = (5, 40, 52)


@pytest.fixture(autouse=True)
def close_files(monkeypatch):
    """Multi-page TIFFs stay open as long as their stack; closed here, whatever a test keeps."""
    opened = []

    def open_tiff(*args, **kwargs):
        opened.append(OPEN(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(tifffile, "TiffFile", open_tiff)
    yield
    for file in opened:
        file.close()


OPEN = tifffile.TiffFile


@pytest.fixture(params=DTYPES)
def volume(request):
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(request.param).max, SHAPE).astype(request.param)


def write_series(folder, volume, pattern="slice_{:04d}.tif", **options):
    folder.mkdir(exist_ok=True)
    for z, image in enumerate(volume):
        tifffile.imwrite(folder / pattern.format(z), image, photometric="minisblack", **options)
    return folder


def check(source, volume):
    stack = open_stack(str(source), "RAW")
    assert len(stack.names) == len(volume)
    stamps = [stack.stamp(z) for z in range(len(volume))]
    assert len(set(stamps)) == len(volume)
    for z, image in enumerate(volume):
        header = stack.header(z)
        assert (header.shape, header.dtype) == (image.shape, image.dtype.name)
        found = stack.read(z)
        assert found.dtype == image.dtype
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, image)
        assert not stack.is_constant(z)
    return stack


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


def test_hidden_and_other_files_are_left_alone(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume, "s_{:03d}.TIFF")
    (folder / ".DS_Store").touch()
    (folder / "._s_000.TIFF").touch()
    (folder / "readme.txt").touch()
    check(folder, volume)


def test_glob_takes_what_fits(tmp_path, volume):
    folder = write_series(tmp_path / "raw", volume, "a_{:03d}.tif")
    write_series(folder, volume[:1], "b_{:03d}.tif")
    stack = check(folder / "a_*.tif", volume)
    assert stack.names[0] == "a_000.tif"


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


def test_hdf5_dataset(tmp_path, volume):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("deep/data", data=volume, chunks=(2, 16, 16), compression="gzip")
    check(f"{path}:/deep/data", volume)


def test_bigdataviewer_h5_and_xml(tmp_path, volume):
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = volume
    check(path, volume)
    write_xml(tmp_path / "stack.xml", path, ())
    check(tmp_path / "stack.xml", volume)


def test_legacy_bigdataviewer_bits_are_uint16(tmp_path):
    volume = np.arange(2 * 8 * 4096, dtype=np.uint16).reshape(2, 64, 512)
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = volume.view(np.int16)
    check(path, volume)


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


def read_headers(source, option):
    stack = open_stack(str(source), option)
    for z in range(len(stack.names)):
        stack.header(z)


def refused(source, expected, option="RAW"):
    with pytest.raises(InputError, match=expected) as caught:
        read_headers(source, option)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_sources_that_are_not_there(tmp_path):
    refused(tmp_path / "gone", "RAW .*gone: no such file or folder")
    refused(tmp_path / "gone.tif", "RAW .*gone.tif: no such file or folder")
    refused(tmp_path / "gone.h5:/data", "RAW .*gone.h5: no such file")
    refused(tmp_path / "gone_*.tif", "holds no .tif slices")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "PREALIGNED .*empty: holds no .tif slices", "PREALIGNED")
    (tmp_path / "image.png").touch()
    refused(tmp_path / "image.png", "expected a folder, a TIFF or an HDF5 file")
    refused(tmp_path / "*.png", "expected .tif slices only")


def test_names_without_leading_zeros(tmp_path):
    folder = write_series(tmp_path / "raw", np.zeros((12, 4, 4), np.uint8), "s{}.tif")
    refused(folder, r"s11\.tif stands before s2\.tif; expected numbers with leading zeros")


def test_names_of_several_kinds_are_sorted_as_text(tmp_path, volume):
    folder = tmp_path / "raw"
    folder.mkdir()
    names = ["a1.tif", "a10_x.tif", "a2.tif", "b.tif", "c.tif"]
    for name, image in zip(names, volume, strict=True):
        tifffile.imwrite(folder / name, image)
    assert check(folder, volume).names == names


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


def test_hdf5_files_without_the_stack(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["flat"] = np.zeros((4, 4), np.uint8)
        file["real"] = np.zeros((2, 4, 4), np.float32)
    refused(f"{path}:/gone", "no dataset /gone; it holds flat, real")
    refused(path, "no dataset /t00000/s00/0/cells")
    refused(f"{path}:/flat", "expected .z, y, x.")
    refused(f"{path}:/real", "dtype float32, expected uint8 or uint16")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:100])
    refused(tmp_path / "cut.h5", "not a readable HDF5 file")
    (tmp_path / "a.xml").write_text("<SpimData>")
    refused(tmp_path / "a.xml", "not valid XML")
    (tmp_path / "a.xml").write_text("<SpimData/>")
    refused(tmp_path / "a.xml", "names no HDF5 file")


def test_gaps_in_the_numbers():
    def gaps(*numbers):
        return number_gaps([f"s_{z:03d}.tif" for z in numbers])

    assert gaps(0, 1, 2, 5, 6) == ["after s_002.tif: 2 missing"]
    assert gaps(0, 5, 10, 20) == ["after s_010.tif: 1 missing"]
    assert number_gaps(["a.tif", "b.tif", "c.tif"]) == []


def test_a_slice_of_another_size_is_cropped_and_padded():
    image = np.zeros((30, 40), np.uint8)
    image[5:15, 8:28] = np.random.default_rng(0).integers(1, 255, (10, 20))
    fitted, m = fit_to(image, (20, 25), "s.tif")
    np.testing.assert_array_equal(fitted[:10, :20], image[5:15, 8:28])
    assert not fitted[10:].any()
    assert not fitted[:, 20:].any()
    np.testing.assert_array_equal(m[:, 2], [8, 5])
    with pytest.raises(SliceError, match=r"s\.tif: size \(30, 40\) .*\(10, 20\) without its zero"):
        fit_to(image, (9, 25), "s.tif")
    same, m = fit_to(image, image.shape, "s.tif")
    assert same is image
    black, _ = fit_to(np.zeros((30, 40), np.uint8), (9, 9), "s.tif")
    assert black.shape == (9, 9)
