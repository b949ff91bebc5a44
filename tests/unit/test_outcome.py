"""What the user is told at the end."""

from pathlib import Path

from amst_hpc.outcome import Outcome
from amst_hpc.slice_result import SliceResult

VIEW = Path("out.xml")


def slices(*statuses):
    return [SliceResult(z, status=status) for z, status in enumerate(statuses)]


def test_a_good_run_says_what_to_open():
    outcome = Outcome(slices("affine", "affine"), VIEW)
    assert outcome.summary() == "2 slices written: open out.xml"
    assert not outcome.fallen_back


def test_slices_that_fell_back_are_named():
    outcome = Outcome(slices("affine", "blank", "translation"), VIEW)
    assert [s.z for s in outcome.fallen_back] == [1, 2]
    assert not outcome.refused
    assert outcome.summary().splitlines() == [
        "3 slices written: open out.xml",
        "2 of them not by affine registration: 1 (blank), 2 (translation)",
    ]
    many = Outcome(slices(*["copied"] * 25), VIEW).summary()
    assert many.endswith("19 (copied) and 5 more")


def test_slices_that_were_to_be_placed_alone_are_not_blamed_for_it():
    outcome = Outcome(slices("placed", "interpolated", "placed"), VIEW, placing=True)
    assert outcome.summary().splitlines() == [
        "3 slices written: open out.xml",
        "1 of them not placed by pairs: 1 (interpolated)",
    ]
    black = Outcome(slices("blank"), VIEW, placing=True).summary()
    assert black.endswith("1 of them not placed by pairs: 0 (blank)")


def test_strict_says_that_nothing_was_written():
    outcome = Outcome(slices("affine", "copied"), VIEW, strict=True)
    assert outcome.refused
    assert outcome.summary().splitlines() == [
        "--strict: 2 slices registered, nothing written",
        "1 of them not by affine registration: 1 (copied)",
    ]
    assert not Outcome(slices("affine"), VIEW, strict=True).refused


def test_overrides_are_told_and_are_no_fall_back():
    decided = SliceResult(4, status="blank", reason="override: blank")
    outcome = Outcome([decided], VIEW, strict=True)
    assert not outcome.refused
    assert outcome.summary().splitlines() == [
        "1 slices written: open out.xml",
        "1 of them by overrides: 4 (blank)",
    ]


def test_what_templates_lack_is_named_once():
    lacking = [SliceResult(z, status="affine", missed=["s_1.tif", "s_2.tif"]) for z in (0, 3)]
    assert Outcome(lacking, VIEW).summary().splitlines()[1] == (
        "the templates of 2 slices lack pre-aligned slices that cannot be read: s_1.tif, s_2.tif; "
        "the same command registers them again when these are back"
    )


def test_a_step_says_what_is_next():
    assert Outcome([], VIEW, next_step="amst-hpc merge out.h5").summary() == "amst-hpc merge out.h5"
