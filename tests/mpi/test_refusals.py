"""Bad input under mpirun: all ranks end, and one line says why."""

import pytest
import tifffile
from jobs import XCORR, run
from spoilt import SLICES, broken, cut, nothing_written, refused
from stacks import inputs, read_stack, save_stack


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


def test_other_tissue_ends_the_job_on_two_ranks(tissue, tmp_path):
    raw, pre = (read_stack(folder) for folder in inputs(tissue))
    save_stack(tmp_path / "raw", raw)
    save_stack(tmp_path / "pre", pre[:, ::-1, ::-1])
    refuse(tmp_path, r"not show the same tissue as RAW \(slices 0, 1, 7, 8, 15, 16, 22, 23\)")


def test_what_the_second_rank_finds_ends_both(tissue, tmp_path):
    broken(tissue, tmp_path, "raw", lambda path: cut(path.with_name("slice_00020.tif")))
    refuse(tmp_path, "RAW .*slice_00020.tif: cut short", "--set", "template.radius=2")


def test_a_page_that_the_second_rank_finds_ends_both(tissue, tmp_path):
    """Also one of another series, which tifffile keeps apart."""
    raw, pre = (read_stack(folder) for folder in inputs(tissue))
    with tifffile.TiffWriter(tmp_path / "pre.tif") as writer:
        for z, image in enumerate(pre):
            writer.write(image[: 143 if z == 20 else 144], photometric="minisblack")
    tifffile.imwrite(tmp_path / "raw.tif", raw, photometric="minisblack")
    stacks = tmp_path / "raw.tif", tmp_path / "pre.tif"
    with nothing_written(tmp_path):
        ended = run(2, "align", *stacks, tmp_path / "out.h5", *XCORR)
    refused(ended, r"PREALIGNED .*slice_00020.tif: size \(143, 160\)")
