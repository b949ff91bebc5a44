"""Errors of tensorstore are those of Python."""

import errno

import pytest

from amst_hpc.ome_zarr.store import naming_errors


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('RESOURCE_EXHAUSTED: "a/c/0" [OS error 28: ENOSPC No space left\non device]', 28),
        ("UNKNOWN: No space left on device [os_error_code='28']", 28),
        ("FAILED_PRECONDITION: no such codec", errno.EINVAL),
    ],
)
def test_the_number_of_the_fault_is_kept(tmp_path, text, number):
    expected = pytest.raises(OSError, match=f"{tmp_path}: cannot be written")
    with expected as caught, naming_errors(tmp_path, "written"):
        raise ValueError(text)
    assert caught.value.errno == number
    assert "\n" not in str(caught.value)
