"""Which slice of another stack belongs to which of a run, and what sizes fit."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from amst_hpc.config import Config, Input, InputError
from amst_hpc.images.pairing import Job
from amst_hpc.job.finished_run import FinishedRun
from amst_hpc.passes.counterpart import (
    Application,
    find_late_changes,
    find_scale,
    fits,
    pair_slices,
    scaled_shape,
    shorten,
)
from amst_hpc.slice_result import SliceResult
from amst_hpc.transform import compose, scaled, translation

JOB = Job("other", "other", Path("o.h5"))
ANYHOW = Job("other", "other", Path("o.h5"), allow_count_mismatch=True)


def run_of(numbers, select=None, depth=None, numbered=True):
    """A run whose slices `select` had these numbers in their names."""
    select = select or range(len(numbers))
    results = [SliceResult(z, f"s_{n:04d}.tif") for z, n in zip(select, numbers, strict=True)]
    return FinishedRun(
        Path("out.h5"), results, depth or len(numbers), select, (9, 9), (9, 9), {}, numbered,
        Config(), "",
    )  # fmt: skip


def stack_of(numbers, count=None):
    names = [f"d_{n}.tif" for n in numbers or range(count)]
    return SimpleNamespace(source="other", names=names, numbers=numbers)


def pair(other, run, job=JOB, config=None, select=None):
    return pair_slices(job, other, run, select or run.select, config or Config())


@pytest.mark.parametrize(
    ("run", "other", "expected"),
    [
        (run_of([3, 4, 6]), stack_of([3, 4, 6]), {0: 0, 1: 1, 2: 2}),
        (run_of([3, 4, 6]), stack_of([0, 1, 3]), {0: 0, 1: 1, 2: 2}),  # numbered anew
        (run_of([3, 4, 6]), stack_of(None, 3), {0: 0, 1: 1, 2: 2}),
        (run_of([5, 6], range(2, 4), 6), stack_of([3, 4, 5, 6, 7, 8]), {2: 2, 3: 3}),
        (run_of([5, 6], range(2, 4), 6), stack_of([0, 1, 2, 3, 4, 5]), {2: 2, 3: 3}),
        (run_of([5, 6], range(2, 4), 6), stack_of([5, 6, 7]), {2: 0, 3: 1}),
    ],
)
def test_slices_are_paired_by_their_numbers(run, other, expected):
    assert pair(other, run) == expected


@pytest.mark.parametrize(
    ("run", "other", "expected"),
    [
        (run_of([3, 4, 6]), stack_of([3, 5, 6]), r"gaps in other places.*d_5.tif beside s_0004"),
        (run_of([3, 4, 6]), stack_of([8, 9, 11]), r"another first number"),
        (run_of([3, 4, 6]), stack_of([3, 5]), r"d_5.tif: RAW of out.h5 has no slice of this num"),
        (run_of([3, 4, 6]), stack_of([3, 4]), r"lacks 1 of 3 slices of out.h5 \(s_0006.tif\)"),
        (run_of([3, 4, 6]), stack_of(None, 2), r"has 2 slices, RAW of out.h5 3: expected the sa"),
        (run_of([3, 4], numbered=False), stack_of([3]), r"has 1 slices, RAW of out.h5 2: expect"),
        (run_of([3, 4, 6]), stack_of([70, 71]), r"lacks 3 of 3 slices"),
    ],
)
def test_never_silently_by_position(run, other, expected):
    with pytest.raises(InputError, match=expected):
        pair(other, run)


def test_missing_slices_are_allowed_on_demand_or_outside_the_range():
    assert pair(stack_of([3, 6]), run_of([3, 4, 6]), ANYHOW) == {0: 0, 2: 1}
    assert pair(stack_of([3, 6]), run_of([3, 4, 6]), select=range(2, 3)) == {0: 0, 2: 1}
    by_position = Config(input=Input(pair_by="position"))
    assert pair(stack_of([8, 9]), run_of([3, 4, 6]), ANYHOW, by_position) == {0: 0, 1: 1}
    with pytest.raises(InputError, match="lacks 3 of 3"):
        pair(stack_of([70, 71]), run_of([3, 4, 6]), ANYHOW)


@pytest.mark.parametrize(
    ("size", "raw", "scale"),
    [
        ((300, 400), (150, 200), 2),
        ((301, 401), (150, 200), 2),  # a rest that binning left out
        ((75, 100), (150, 200), 0.5),
        ((75, 100), (151, 201), 0.5),
        ((225, 300), (150, 200), 1.5),
        ((900, 1202), (300, 400), 3),
        ((150, 200), (150, 200), 1),
        ((151, 201), (150, 200), 0),
        ((300, 200), (150, 200), 0),
        ((1, 9000), (100, 100), 0),
    ],
)
def test_the_scale_that_fits_is_found(size, raw, scale):
    assert find_scale(size, raw) == scale
    assert scale == 0 or fits(size, raw, scale)


def test_nothing_is_cut_at_another_scale():
    assert scaled_shape((150, 200), (150, 200), (301, 401), 2) == (301, 401)
    assert scaled_shape((160, 220), (150, 200), (301, 401), 2) == (321, 441)
    assert scaled_shape((151, 201), (151, 201), (75, 100), 0.5) == (75, 100)
    assert scaled_shape((160, 220), (150, 200), (150, 200), 1) == (160, 220)


def test_pixels_of_the_large_stack_lie_in_the_binned_ones():
    """Pixel centres at integers: p_full = s p + (s - 1) / 2."""
    m = np.array([[1.01, 0.02, 3.5], [-0.01, 0.98, -7.25]])
    for s in (0.5, 2, 3):
        up = np.array([[s, 0, (s - 1) / 2], [0, s, (s - 1) / 2]])
        np.testing.assert_allclose(compose(scaled(m, s), up), compose(up, m), atol=1e-12)
    assert scaled(translation(1, -2), 2).tolist() == translation(2, -4).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 0}, "--scale 0: expected a number from 1/64 to 64"),
        ({"scale": float("nan")}, "--scale nan: expected"),
        ({"channel": "x"}, "--channel x: expected --add-to OUT.xml"),
        ({"channel": "x\x01", "add_to": Path("o.xml")}, r"--channel 'x\\x01': expected letters"),
    ],
)
def test_options_that_cannot_be_are_refused(options, expected):
    with pytest.raises(InputError, match=expected):
        Application(Path("out.h5"), JOB, **options)


def test_slices_that_change_meanwhile_end_the_job():
    stack = stack_of([1, 2, 3])
    find_late_changes(stack, {0: "a", 1: "b"}, {0: "a", 1: "", 2: "new"})
    with pytest.raises(OSError, match=r"OTHER_RAW d_2.tif: got other pixels while the job ran"):
        find_late_changes(stack, {0: "a", 1: "b"}, {0: "a", 1: "c", 2: ""})


def test_a_few_names_stand_for_many():
    assert shorten(list("abc")) == "a, b, c"
    assert shorten(list("abcdef")) == "a, b, c, d and 2 more"
