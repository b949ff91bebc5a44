"""Voxel sizes in TIFFs that tifffile wrote, slice by slice and as one file."""

import numpy as np
import pytest
import tifffile

from amst_hpc.images.opening import open_stack
from amst_hpc.images.stack import Averaged
from amst_hpc.images.voxel_size import UNKNOWN

IMAGES = np.random.default_rng(0).integers(1, 255, (3, 20, 24), np.uint8)
SCREEN = {"resolution": (72, 72), "resolutionunit": "INCH"}
OME = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}


def imagej(unit, **more):
    """5 x 4.9 (x, y) of a thousandth of its unit."""
    return {"imagej": True, "resolution": (200, 1 / 0.0049), "metadata": {"unit": unit, **more}}


def tag(code, *lines):
    text = "\r\n".join(lines) + "\r\n"
    return {"extratags": [(code, 2, 0, text, True)], **SCREEN}


PLAIN = {  # how they are written: z, y, x and what says so
    "um": ({"resolution": (200, 1 / 0.0049), "resolutionunit": 5}, (None, 4.9, 5), "resolution"),
    "cm": ({"resolution": (2e6, 2e6), "resolutionunit": 3}, (None, 5, 5), "resolution tags"),
    "ImageJ": (imagej("um", spacing=0.008), (8, 4.9, 5), "ImageJ metadata"),
    "micron": (imagej("micron", spacing=-0.008), (8, 4.9, 5), "ImageJ metadata"),
    "escaped": (imagej("\\u00B5m", spacing=8, zunit="nm"), (8, 4.9, 5), "ImageJ metadata"),
    "no spacing": (imagej("um"), (None, 4.9, 5), "ImageJ metadata"),
    "OME": (
        {"metadata": {"PhysicalSizeX": 5, "PhysicalSizeY": 4.9, "PhysicalSizeZ": 8, **OME}},
        (8, 4.9, 5),
        "OME-XML",
    ),
    "OME in um": (
        {"metadata": {"PhysicalSizeX": 0.005, "PhysicalSizeY": 0.0049}},
        (None, 4.9, 5),
        "OME-XML",
    ),
}
VENDORS = {
    "FEI": (
        tag(34682, "[User]", "Date=1", "[Scan]", "PixelWidth=5e-009", "PixelHeight=4.9e-009"),
        (None, 4.9, 5),
        "tags of FEI",
    ),
    "Zeiss": (
        tag(34118, "0", "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 4.9 nm", "AP_WD", "WD = 5 mm"),
        (None, 4.9, 4.9),
        "tags of Zeiss",
    ),
    "old Zeiss": (tag(34118, "0", "0", "0", "1.171875e-10"), (None, 5, 5), "tags of Zeiss"),
}
NOTHING = {
    "plain": {},
    "72 dpi": SCREEN,
    "no unit": {"resolution": (200, 200), "resolutionunit": "NONE"},
    "pixels": imagej("pixel", spacing=1),
    "0 per cm": {"resolution": (0, 0), "resolutionunit": 3},
    "damaged FEI": tag(34682, "[Scan]", "PixelWidth=wide"),
    "damaged Zeiss": tag(34118, "nothing"),
    "reference frames": {"metadata": {"PhysicalSizeX": 5, "PhysicalSizeXUnit": "reference frame"}},
}


def write(path, images, axes, options):
    more = {"metadata": {"axes": axes} | options["metadata"]} if "metadata" in options else {}
    tifffile.imwrite(path, images, photometric="minisblack", **options | more)


def sizes(folder, kind, options):
    """As slices, and as the pages of one file."""
    suffix = ".ome.tif" if kind.startswith(("OME", "reference")) else ".tif"
    (folder / "slices").mkdir()
    for z, image in enumerate(IMAGES):
        write(folder / "slices" / f"s{z}{suffix}", image, "YX", options)
    write(folder / f"pages{suffix}", IMAGES, "ZYX", options)
    for source in (folder / "slices", folder / f"pages{suffix}"):
        stack = open_stack(str(source), "RAW")
        np.testing.assert_array_equal(stack.read(2), IMAGES[2])
        yield from (stack.header(z).voxel_size for z in (0, 2))


@pytest.mark.parametrize("kind", PLAIN)
def test_what_programs_write_is_found(tmp_path, kind):
    options, zyx, source = PLAIN[kind]
    for size in sizes(tmp_path, kind, options):
        assert size.zyx == pytest.approx(zyx)
        assert size.source.startswith(source)


@pytest.mark.parametrize("kind", VENDORS)
def test_tags_of_microscopes_count_more_than_the_resolution(tmp_path, kind):
    options, zyx, source = VENDORS[kind]
    for size in sizes(tmp_path, kind, options):
        assert (size.zyx, size.source) == (pytest.approx(zyx), source)


@pytest.mark.parametrize("kind", NOTHING)
def test_what_says_nothing_is_no_voxel_size(tmp_path, kind):
    assert set(sizes(tmp_path, kind, NOTHING[kind])) == {UNKNOWN}


def test_a_preview_has_larger_pixels(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", IMAGES[0], resolution=(200, 200), resolutionunit=5)
    stack = Averaged(open_stack(str(tmp_path), "RAW"), 4)
    assert stack.header(0).voxel_size.zyx == (None, 20, 20)
