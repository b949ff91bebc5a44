"""A setting out of range is refused by its name; `settings` reads them."""

import dataclasses

import pytest

from amst_hpc.config import InputError, Output, Registration
from amst_hpc.settings import from_tree


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("input.pair_by", "name", "'name': expected number or position"),
        ("prealign.transform", "shift", "'shift': expected translation, rigid, affine"),
        ("prealign.drift", "none", "'none': expected keep, smooth, remove"),
        ("prealign.canvas", "", "'': expected grow, crop, raw"),
        ("template.radius", 0, "0: expected a whole number from 1 to 1000"),
        ("registration.working_size", 63, "63: expected 0, or 64 or more"),
        ("coarse.method", "magic", "'magic': expected sift, xcorr or none"),
        ("coarse.sigma", 1e9, "1000000000.0: expected a number from 0 to 100"),
        ("coarse.downsample", 65, "65: expected a number from 1 to 64"),
        ("refine.backend", "exe", "'exe': expected itk, pyelastix, gauss-newton or none"),
        ("refine.parameter_file", "no/such", "'no/such': expected an existing file"),
        ("neighbours.reach", 9, "9: expected 1 to 8"),
        ("drift.period", 3, "3: expected 0, or a number >= 4"),
        ("output.format", "png", "'png': expected bdv, ome-zarr or tif"),
        ("output.chunk", 7, "7: expected a number from 8 to 1024"),
        ("output.layer", 12, "12: expected 0 or a power of two"),
        ("output.levels", 13, "13: expected 0 to 12"),
        ("output.voxel_size_nm", [1, 2], "[1, 2]: expected three numbers"),
        ("output.factors", [[1, 2]], "((1, 2),): expected [z, y, x] factors of 1, 2, 3, 4 or 8"),
    ],
)
def test_values_out_of_range_are_named(key, value, expected):
    section, name = key.split(".")
    with pytest.raises(InputError) as caught:
        from_tree({section: {name: value}})
    assert str(caught.value).startswith(f"{key} = {expected}")


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Output().chunk = 3


@pytest.mark.parametrize(
    ("size", "shape", "factor"),
    [(700, (512, 512), 1), (700, (2048, 4096), 3), (700, (12000, 9000), 13), (0, (9000, 9000), 1)],
)
def test_slices_are_averaged_down_to_next_to_the_working_size(size, shape, factor):
    assert Registration(size).factor(shape) == factor
