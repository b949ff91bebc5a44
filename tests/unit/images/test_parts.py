"""Parts of a slice are what the whole slice has there, in every format."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from amst_hpc.images.opening import open_stack
from amst_hpc.images.parts import read_parts
from amst_hpc.images.stack import Averaged, SliceError

SHAPE = (150, 203)
BOXES = [(8, 40, 16, 99), (8, 40, 100, 203), (64, 150, 0, 7)]


def write_hdf5(path, images):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=images, chunks=(2, 32, 64), compression="gzip")
    return f"{path}:/raw"


def write_zarr(path, images):
    array = zarr.create_array(path, shape=images.shape, dtype=images.dtype, chunks=(2, 32, 64))
    array[:] = images
    return str(path)


def series(**how):
    def write(path, images):
        path.mkdir()
        for z, image in enumerate(images):
            tifffile.imwrite(path / f"s_{z}.tif", image, **how)
        return str(path)

    return write


def pages(**how):
    def write(path, images):
        tifffile.imwrite(path.with_suffix(".tif"), images, **how)
        return str(path.with_suffix(".tif"))

    return write


FORMATS = {
    "one strip": (series(), "whole rows"),
    "strips": (series(rowsperstrip=7), "whole rows"),
    "white is zero": (series(photometric="miniswhite"), "whole rows"),
    "big endian": (series(byteorder=">"), "whole rows"),
    "zlib strips": (series(compression="zlib", rowsperstrip=16), "strips"),
    "zlib tiles": (series(compression="zlib", tile=(32, 48), predictor=True), "tiles"),
    "zlib, one strip": (series(compression="zlib", rowsperstrip=150), None),
    "pages": (pages(photometric="minisblack", metadata=None), "whole rows"),
    "ImageJ": (pages(imagej=True, metadata={"axes": "ZYX"}, truncate=True), "whole rows"),
    "HDF5": (lambda path, images: write_hdf5(path.with_suffix(".h5"), images), "chunks"),
    "Zarr": (lambda path, images: write_zarr(path.with_suffix(".zarr"), images), "chunks"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_parts_are_those_of_the_whole_slice(tmp_path, name, dtype):
    images = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (3, *SHAPE), dtype)
    write, pieces = FORMATS[name]
    stack = open_stack(write(tmp_path / "stack", images), "RAW")
    for z in (2, 0):
        found = read_parts(stack, z, BOXES, SHAPE)
        if pieces is None:
            assert found is None
            continue
        whole = stack.read(z)
        assert len(found) == len(BOXES)
        for part, (y0, y1, x0, x1) in zip(found, BOXES, strict=True):
            assert part.dtype == dtype
            np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


def test_what_lies_beside_the_parts_is_not_read(tmp_path):
    images = np.random.default_rng(1).integers(0, 255, (1, *SHAPE), np.uint8)
    source = series(compression="zlib", rowsperstrip=16)(tmp_path / "stack", images)
    with tifffile.TiffFile(tmp_path / "stack/s_0.tif") as tiff:
        place = tiff.pages.first.dataoffsets[7]
    with (tmp_path / "stack/s_0.tif").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 40)
    stack = open_stack(source, "RAW")
    with pytest.raises(SliceError):
        stack.read(0)
    (part,) = read_parts(stack, 0, [(0, 112, 5, 30)], SHAPE)
    np.testing.assert_array_equal(part, images[0, :112, 5:30])
    with pytest.raises(SliceError, match=r"s_0\.tif: cannot be decoded"):
        read_parts(stack, 0, [(100, 113, 5, 30)], SHAPE)


def test_a_slice_of_another_size_or_averaged_down_is_read_as_a_whole(tmp_path):
    stack = open_stack(series()(tmp_path / "stack", np.zeros((1, *SHAPE), np.uint8)), "RAW")
    assert read_parts(stack, 0, BOXES, (150, 200)) is None
    assert read_parts(Averaged(stack, 2), 0, BOXES, SHAPE) is None
