"""TIFF files of many slices: every page by its own tags, or the file is refused."""

import numpy as np
import pytest
import tifffile
from series import check, one_page, refused, set_tag

from amst_hpc.config import InputError
from amst_hpc.images.tiff_pages import TiffPages, look_at_pages


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


def test_a_stack_cut_short(tmp_path, volume):
    path = tmp_path / "stack.tif"
    for options in ({"imagej": True}, {"photometric": "minisblack", "compression": "zlib"}):
        tifffile.imwrite(path, volume, **options)
        whole = path.read_bytes()
        for length in (0, 7, len(whole) // 3, len(whole) * 2 // 3):
            path.write_bytes(whole[:length])
            refused(path, r"stack\.tif")


def append(path, images, **options):
    """Pages written one by one, with the options of each."""
    with tifffile.TiffWriter(path) as writer:
        for z, image in enumerate(images):
            each = {key: value[z % len(value)] for key, value in options.items()}
            writer.write(image, **{"photometric": "minisblack"} | each)


@pytest.mark.parametrize("metadata", [None, {}])
def test_pages_of_several_series(tmp_path, volume, metadata):
    """Each series is another compression, or was appended later."""
    path = tmp_path / "stack.tif"
    append(path, volume, compression=[None, "zlib", "lzw"], metadata=[metadata])
    check(path, volume)
    append(path, [volume[:3], volume[3:]], metadata=[metadata])
    check(path, volume)
    tifffile.imwrite(path, volume[:2], photometric="minisblack")
    tifffile.imwrite(path, volume[2:], photometric="minisblack", append=True)
    check(path, volume)


def test_pages_of_both_meanings_of_zero(tmp_path, volume):
    white = np.iinfo(volume.dtype).max
    path = tmp_path / "stack.tif"
    kinds = ["minisblack", "miniswhite"]
    append(path, [white - v if z % 2 else v for z, v in enumerate(volume)], photometric=kinds)
    check(path, volume)


def test_a_page_of_another_kind_is_named(tmp_path, volume):
    path = tmp_path / "stack.tif"
    other = "uint16" if volume.dtype == np.uint8 else "uint8"
    append(path, [*volume[:4], volume[4].astype(other)])
    stack = TiffPages(path, "RAW")
    assert [stack.header(z).dtype for z in range(5)] == [volume.dtype.name] * 4 + [other]
    append(path, [*volume[:3], volume[3, :20], volume[4]])
    assert TiffPages(path, "RAW").header(3).shape == (20, 52)
    append(path, [*volume[:3], volume[3].astype(np.float32), volume[4]])
    refused(path, "page 3: dtype float32, expected uint8 or uint16")
    append(path, volume, compression=["zlib"])
    set_tag(path, 259, 4711, page=2)
    refused(path, "page 2: compression 4711, which cannot be decoded")


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((20, 16, 3), {"photometric": "rgb"}, r"axes YXS.*one grey channel"),
        ((3, 20, 16), {"photometric": "rgb", "planarconfig": "separate"}, r"axes SYX.*one grey"),
        ((3, 20, 16), {"imagej": True, "metadata": {"axes": "CYX"}}, r"axes CYX.*one grey"),
        ((5, 2, 20, 16), {"imagej": True, "metadata": {"axes": "ZCYX"}}, r"axes ZCYX.*one grey"),
        ((5, 2, 20, 16), {"imagej": True, "metadata": {"axes": "TZYX"}}, r"axes TZYX.*one grey"),
        ((4, 20, 16), {"ome": True, "metadata": {"axes": "CYX"}}, r"axes CYX.*one grey"),
        ((5, 3, 20, 16), {"photometric": "minisblack"}, r"axes QQYX.*one grey"),
    ],
    ids=str,
)
def test_what_is_no_series_of_grey_slices(tmp_path, shape, options, expected):
    path = tmp_path / "stack.tif"
    kind = {"photometric": "minisblack"} if options.get("ome") else {}
    tifffile.imwrite(
        path, np.arange(np.prod(shape), dtype=np.uint8).reshape(shape), **kind, **options
    )
    refused(path, expected)


def test_a_stack_of_ome(tmp_path, volume):
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", metadata={"axes": "ZYX"})
    check(path, volume)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome


def test_ome_that_names_its_pages_in_another_order(tmp_path, volume):
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", metadata={"axes": "ZYX"})
    text = tifffile.tiffcomment(path)
    wanted = '<TiffData IFD="0" PlaneCount="5"/>'
    assert wanted in text
    turned = "".join(f'<TiffData IFD="{4 - z}" FirstZ="{z}" PlaneCount="1"/>' for z in range(5))
    tifffile.tiffcomment(path, text.replace(wanted, turned).encode())
    refused(path, "OME names its pages in another order")


@pytest.mark.parametrize("imagej", [True, False])
@pytest.mark.parametrize("byteorder", "<>")
def test_one_page_and_the_pixels_of_all(tmp_path, volume, imagej, byteorder):
    """As Fiji writes stacks of more than 4 GB."""
    path = tmp_path / "stack.tif"
    options = {"imagej": True, "metadata": {"axes": "ZYX"}} if imagej else {}
    tifffile.imwrite(path, volume, photometric="minisblack", byteorder=byteorder, **options)
    one_page(path)
    check(path, volume)
    path.write_bytes(path.read_bytes()[: volume.nbytes - 100])
    refused(path, "cut short")


def test_one_page_that_does_not_fit_its_description(tmp_path, volume):
    """A changed width: tifffile then knows the first slice alone."""
    path = tmp_path / "stack.tif"
    for appended in ([volume], [volume[:1], volume[1:]]):
        append(path, appended)
        if len(appended) == 1:
            one_page(path)
        set_tag(path, 256, volume.shape[2] - 1, page=0)
        refused(path, "cut short, it does not hold all slices that its description names")


def test_pages_in_a_circle(tmp_path, volume, caplog):
    path = tmp_path / "stack.tif"
    append(path, volume)
    with tifffile.TiffFile(path) as tiff:
        place, first = tiff.pages.next_page_offset, tiff.pages.first.offset
    data = bytearray(path.read_bytes())
    data[place : place + 4] = first.to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "cut short, .* do not hold all its pages")
    assert not caplog.records


def test_pages_are_looked_at_once(tmp_path, volume, monkeypatch):
    """The other ranks get what the first has found; a file that changed meanwhile is refused."""
    path = tmp_path / "stack.tif"
    append(path, volume, compression=[None, "zlib"])
    found = look_at_pages(path, "RAW")
    monkeypatch.setattr("amst_hpc.images.tiff_pages.look_at_pages", None)
    stack = TiffPages(path, "RAW", found)
    for z, image in enumerate(volume):
        np.testing.assert_array_equal(stack.read(z), image)
    append(path, volume)
    with pytest.raises(InputError, match="the ranks do not see the same slices"):
        TiffPages(path, "RAW", found)
