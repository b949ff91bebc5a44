"""What `prealign` makes, by the ending of OUT."""

import pytest
from jobs import call
from spoilt import linked, nothing_written, refused

from amst_hpc.cli.prealign import find_format


def test_the_ending_of_out_says_the_format(tmp_path):
    names = {"placed": "tif", "2nd.try": "tif", "p.h5": "bdv", "p.zarr": "ome-zarr"}
    assert {name: find_format(tmp_path / name) for name in names} == names


@pytest.mark.parametrize("name", ["p.H5", "p.hdf5", "p.xml", "p.tif"])
def test_an_ending_of_a_file_is_no_folder_of_slices(tissue, tmp_path, monkeypatch, name):
    monkeypatch.chdir(linked(tissue, tmp_path))
    with nothing_written(tmp_path):
        ended = call("prealign", "raw", name)
    refused(ended, rf"OUT {name}: expected a folder for TIFF slices, OUT\.h5 or OUT\.zarr")
