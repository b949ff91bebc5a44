"""Bad input under mpirun: all ranks end, and one line says why."""

import pytest
from jobs import XCORR, run
from spoilt import SLICES, broken, cut, nothing_written, refused
from stacks import inputs


def refuse(folder, expected, *options):
    with nothing_written(folder):
        ended = run(2, "align", *inputs(folder), folder / "out.h5", *XCORR, *options)
    refused(ended, expected)


# the kinds of fault have tests in one process; here each way to find one
QUICK = {"raw cut", "pre fewer", "no folder"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in SLICES]
)
def test_bad_slices_end_the_job_on_two_ranks(tissue, tmp_path, kind):
    name, change, expected = SLICES[kind]
    refuse(broken(tissue, tmp_path, name, change), expected)


def test_what_the_second_rank_finds_ends_both(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", lambda path: cut(path.with_name("slice_00020.tif")))
    refuse(tmp_path, "RAW .*slice_00020.tif: cut short", "--set", "template.radius=2")
