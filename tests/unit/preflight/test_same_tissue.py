"""A PREALIGNED that is not that of RAW is refused by `check` and `align` before any work."""

import numpy as np
import pytest
from jobs import FAST, call, finished
from sampled import noise_on, seen
from spoilt import nothing_written, refused
from stacks import inputs, read_stack, save_stack

from amst_hpc.preflight.same_tissue import (
    Comparison,
    sample,
    tissue_fault,
)
from amst_hpc.registration.chance import Likeness

DIFFERS = r"PREALIGNED does not show the same tissue as RAW \(slices 0, 1, 7, 8, 15, 16, 22, 23\)"


@pytest.fixture(scope="module")
def stacks(tissue):
    return [read_stack(folder) for folder in inputs(tissue)]


def seen_of(folder, raw, pre):
    return seen(save_stack(folder / "raw", raw), save_stack(folder / "pre", pre))


def partial(stack):
    left = stack.copy()
    left[:, 100:] = 0
    return left


def black(stack):
    left = stack.copy()
    left[[0, 7, 15]] = 0
    return left


RIGHT = {
    "as it is": lambda raw, pre: (raw, pre),
    "noise": lambda raw, pre: (noise_on(raw, 30, 1), noise_on(pre, 30, 2)),
    "gain": lambda raw, pre: (raw, (50 + 0.4 * pre).astype(np.uint8)),
    "30 % of RAW missing": lambda raw, pre: (partial(raw), pre),
    "30 % of PREALIGNED missing": lambda raw, pre: (raw, partial(pre)),
    "black slices": lambda raw, pre: (black(raw), pre),
    "a larger canvas": lambda raw, pre: (raw, np.pad(pre, [(0, 0), (20, 30), (25, 10)])),
    "raw larger by its border": lambda raw, pre: (np.pad(raw, [(0, 0), (9, 0), (0, 9)]), pre),
    "one slice": lambda raw, pre: (raw[:1], pre[:1]),
    "two slices": lambda raw, pre: (raw[:2], pre[:2]),
    "five slices": lambda raw, pre: (raw[:5], pre[:5]),
    "nothing but black": lambda raw, pre: (0 * raw, pre),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_right_one_passes(stacks, tmp_path, kind):
    assert seen_of(tmp_path, *RIGHT[kind](*stacks)) == ("", "")


WRONG = {
    "another area": lambda raw, pre: (raw, pre[:, ::-1, ::-1]),
    "noise": lambda raw, pre: (raw, np.random.default_rng(2).integers(1, 255, pre.shape, np.uint8)),
    "one slice": lambda raw, pre: (raw[:1], pre[:1, ::-1, ::-1]),
    "five slices": lambda raw, pre: (raw[:5], pre[:5, ::-1, ::-1]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_one_is_refused(stacks, tmp_path, kind):
    fault, _ = seen_of(tmp_path, *WRONG[kind](*stacks))
    assert fault.startswith("PREALIGNED does not show the same tissue as RAW (slices 0")


def test_inverted_contrast_has_a_line_of_its_own(stacks, tmp_path):
    fault, _ = seen_of(tmp_path, stacks[0], 255 - stacks[1])
    assert fault.startswith("PREALIGNED shows RAW with inverted contrast (slices 0, 1, 7,")


def test_an_order_that_is_shifted_is_mentioned(stacks, tmp_path):
    raw, pre = stacks
    fault, note = seen_of(tmp_path, raw[:-2], pre[2:])
    assert not fault
    assert note == (
        "RAW slices 1, 8, 14, 21 are more like the PREALIGNED slices before theirs: "
        "is it shifted along z?"
    )


def test_the_sample_is_spread_and_small():
    assert sample(range(5)) == [range(2), range(2, 4), range(4, 5)]
    assert sample(range(10, 1010)) == [
        range(10, 12), range(343, 345), range(675, 677), range(1008, 1010)
    ]  # fmt: skip
    assert all(sum(map(len, sample(range(n)))) == min(n, 8) for n in range(1, 60))


def test_half_of_the_slices_decide():
    def found(unlike):
        return [Comparison(z, z, Likeness(0.5 if z < unlike else 3.0, 0.4)) for z in range(8)]

    assert tissue_fault(found(3)) == ""
    assert "(slices 0, 1, 2, 3)" in tissue_fault(found(4))


@pytest.fixture
def mirrored(stacks, tmp_path):
    """PREALIGNED is of another area."""
    save_stack(tmp_path / "raw", stacks[0])
    save_stack(tmp_path / "pre", stacks[1][:, ::-1, ::-1])
    return tmp_path


SHORT = ("--range", "8:12", "--set", "neighbours.enabled=false")


def test_check_refuses_it(mirrored):
    with nothing_written(mirrored):
        refused(call("check", *inputs(mirrored)), DIFFERS)
    finished(call("check", *inputs(mirrored), "--set", "input.compare=false"))


def test_align_refuses_it_at_the_start_and_a_job_that_has_begun_is_not_asked_again(mirrored):
    line = ("align", *inputs(mirrored), mirrored / "out.h5", *FAST, *SHORT, "--strict")
    with nothing_written(mirrored):
        refused(call(*line), r"\(slices 8, 9, 10, 11\)")
    finished(call(*line, "--set", "input.compare=false"), 4)
    finished(call(*line), 4)
    refused(call(*line, "--overwrite"), r"\(slices 8, 9, 10, 11\)")
