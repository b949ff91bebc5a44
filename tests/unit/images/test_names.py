"""The order of slices by name, what does not belong to a series, and what numbers say."""

from pathlib import Path

import pytest

from amst_hpc.config import InputError
from amst_hpc.images.names import number_fault, number_gaps, order_files, slice_numbers


def order(*names):
    return order_files([f"/data/stack/{name}" for name in names])[1]


def refused(*names):
    with pytest.raises(InputError) as caught:
        order(*names)
    return str(caught.value)


def test_numbers_without_leading_zeros_are_in_order():
    names = [f"s{z}.tif" for z in range(12)]
    assert order(*reversed(names)) == names
    assert order("s_99.tif", "s_100.tif", "s_098.tif") == ["s_098.tif", "s_99.tif", "s_100.tif"]


def test_names_without_numbers_are_in_order():
    assert order("c.tif", "a.tif", "b.tif") == ["a.tif", "b.tif", "c.tif"]


@pytest.mark.parametrize("stranger", ["zz_overview.tif", "slice_3_rescan.tif", "0_overview.tif"])
@pytest.mark.parametrize("pattern", ["slice_{}.tif", "slice_{:04d}.tif"])
def test_a_stranger_is_named(stranger, pattern):
    names = [pattern.format(z) for z in range(12)]
    said = refused(stranger, *names)
    assert said.startswith(f"{stranger}: not of the series slice_# by name")


def test_many_strangers_are_counted():
    names = [f"slice_{z}.tif" for z in range(12)]
    said = refused(*names, *[f"slice_{z}_rescan.tif" for z in range(5)])
    assert said.startswith("slice_0_rescan.tif, slice_1_rescan.tif, slice_2_rescan.tif and 2 more:")


def test_series_that_follow_one_another_are_one_stack():
    names = [f"{day}_{z}.tif" for day in ("monday", "tuesday") for z in range(11)]
    assert order(*reversed(names)) == names


def test_numbers_with_a_point_are_in_order_or_refused():
    """0.75 comes before 0.8; 1.9 and 1.10 may be counts, and are where there is 1.1, too."""
    names = [f"s_{n}.tif" for n in ("0.05", "0.10", "0.25", "1.00", "10.50")]
    assert order(*reversed(names)) == names
    said = refused(*(f"s_{n}.tif" for n in ("0.5", "0.75", "0.8", "1.0")))
    assert said.startswith("s_0.8.tif and s_0.75.tif: numbers with a point sort in two ways")
    names = [f"s_{n}.tif" for n in ("1.1", "1.2", "1.9", "1.10")]
    assert order(*reversed(names)) == names
    names = [f"2024.{n}_{z}.tif" for z, n in enumerate(("9.30", "10.1", "10.2"))]
    assert order(*reversed(names)) == names


def test_negative_numbers_are_refused():
    """z_-2 would come after z_2."""
    assert "negative numbers" in refused(*(f"z_{n}.tif" for n in range(-3, 4)))
    names = [f"day-{z}.tif" for z in range(4)]
    assert order(*reversed(names)) == names


def test_names_that_differ_by_case_are_refused():
    names = [f"{start}_{z}.tif" for start in "sS" for z in range(4)]
    assert "differ only by case" in refused(*names)


def test_a_number_that_counts_in_another_order_is_refused():
    days = ("30-01-2024_0008", "31-01-2024_0009", "01-02-2024_0010", "01-02-2024_0011")
    names = [f"{day}.tif" for day in days]
    said = refused(*names)
    assert said.startswith("01-02-2024_0011.tif before 30-01-2024_0008.tif: the order by name")
    names = [f"part{p}_{z}.tif" for p in range(2) for z in range(4)]
    assert order(*reversed(names)) == names
    names = ["s_0_t235958.tif", "s_1_t000003.tif", "s_2_t000101.tif"]
    assert order(*reversed(names)) == names


def test_twins_are_refused():
    names = [f"s_{z:03d}.tif" for z in range(4)]
    assert refused(*names, "s_002.tiff").startswith("s_002.tif and s_002.tiff are the same slice")
    assert refused(*names, "s_2.tif").startswith("s_002.tif and s_2.tif are the same slice")


def test_folders_follow_one_another_and_names_stay_apart():
    names = [f"part{p}/s_{z:02d}.tif" for p in (2, 10) for z in range(4)]
    assert order(*reversed(names)) == [name.replace("/", "_") for name in names]
    names = [f"part{p}/s_{p * 4 + z:02d}.tif" for p in (2, 10) for z in range(4)]
    assert order(*reversed(names)) == [Path(name).name for name in names]


def test_names_that_no_folder_keeps_apart_are_refused():
    names = [f"{part}{z}.tif" for part in ("a/b_", "a_b/", "c/") for z in range(3)]
    assert refused(*names) == "two slices would be named a_b_0.tif; expected other names"


def test_names_in_another_encoding_are_refused():
    assert "\\udce4_1.tif': expected a name in UTF-8" in refused("a_0.tif", "\udce4_1.tif")


def test_the_number_is_what_counts():
    def numbers(*names):
        return slice_numbers([f"{name}.tif" for name in names])

    assert numbers("a_01_s_5", "a_01_s_6", "a_01_s_8") == [5, 6, 8]
    assert numbers("s_0_t115958", "s_1_t120003", "s_2_t120101") == [0, 1, 2]
    assert numbers("s_009_z=0.9900um", "s_010_z=1.0000um") == [9, 10]
    assert numbers("a", "b") is numbers("a1", "b2") is numbers("s_2", "s_1") is None


def test_gaps_in_the_numbers():
    def gaps(*numbers):
        return number_gaps([f"s_{z:03d}.tif" for z in numbers], numbers)

    assert gaps(0, 1, 2, 5, 6) == ["after s_002.tif: 2 missing"]
    assert gaps(0, 5, 10, 20) == ["after s_010.tif: 1 missing"]
    assert gaps(3) == gaps(3, 7) == []
    assert number_gaps(["a.tif", "b.tif", "c.tif"], None) == []


@pytest.mark.parametrize(
    ("raw", "prealigned", "expected"),
    [
        ([3, 4, 5], [3, 4, 5], None),
        ([137, 138, 140], [0, 1, 3], None),
        ([10, 20, 30], [1, 2, 3], None),
        ([1, 2, 3], [0, 1, 2], None),
        ([7], [9], None),
        ([0, 1, 2, 3], [0, 1, 2], None),
        ([0, 1, 3, 4], [0, 1, 2, 4], (2, "gaps in other places")),
        ([0, 1, 3, 4], [0, 1, 2, 3], (2, "gaps in other places")),
        ([10, 11, 12], [12, 13, 14], (0, "another first number")),
        ([5, 6, 7, 8], [1, 2, 3], (0, "another first number")),
    ],
)
def test_numbers_that_disagree(raw, prealigned, expected):
    assert number_fault(raw, prealigned) == expected
