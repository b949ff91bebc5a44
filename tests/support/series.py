"""Slice stacks of every format: written for a test, and compared with what is read."""

import numpy as np
import pytest
import tifffile

from amst_hpc.config import InputError
from amst_hpc.images.opening import open_stack


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


def read_headers(source, option):
    stack = open_stack(str(source), option)
    for z in range(len(stack.names)):
        stack.header(z)


def refused(source, expected, option="RAW"):
    with pytest.raises(InputError, match=expected) as caught:
        read_headers(source, option)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def set_tag(path, code, value, page=0):
    """Overwrite the value of a tag of one page, whatever it was."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[page].tags[code].overwrite(value)


def drop_tag(path, code):
    """The first page has the tag no more: its code becomes one of nobody."""
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags[code].offset
        order = {"<": "little", ">": "big"}[tiff.byteorder]
    data = bytearray(path.read_bytes())
    data[place : place + 2] = (65432).to_bytes(2, order)
    path.write_bytes(data)


def one_page(path):
    """The first page names no next one, as where Fiji writes more than 4 GB."""
    with tifffile.TiffFile(path) as tiff:
        page, form = tiff.pages.first, tiff.tiff
        place = page.offset + form.tagnosize + len(page.tags) * form.tagsize
    data = bytearray(path.read_bytes())
    data[place : place + form.offsetsize] = bytes(form.offsetsize)
    path.write_bytes(data)
