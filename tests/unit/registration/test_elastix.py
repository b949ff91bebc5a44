"""Each backend brings a known affine back; what elastix gets and what it says when it fails."""

import os
import shutil
import sys

import numpy as np
import pytest
from matrices import invert
from scipy import ndimage

from amst_hpc.config import InputError, Refine
from amst_hpc.registration.elastix import (
    elastix_parameters,
    make_refine,
    read_parameter_file,
)
from amst_hpc.settings import load_config
from amst_hpc.slice_result import RegistrationError
from amst_hpc.transform import about, compose, displacement, resample, translation

SHAPE = (260, 300)
TRUTH = np.array([[1.004, 0.003, 11.3], [-0.002, 0.997, -6.4]])
SHIFT = (12, -6)


def scene(shape=SHAPE):
    rng = np.random.default_rng(1)
    image = sum(s * ndimage.gaussian_filter(rng.normal(size=shape), s) for s in (1.5, 3, 6, 12))
    return (np.clip(image / image.std() * 0.18 + 0.5, 0.05, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pair():
    """(template, raw) with `template(p) = raw(TRUTH p)`, and noise on raw."""
    template = scene()
    wide = np.pad(template, 40, mode="reflect")
    raw = resample(wide, compose(translation(40, 40), invert(TRUTH)), SHAPE).astype(float)
    raw += np.random.default_rng(2).normal(0, 5, SHAPE)
    return template, np.clip(raw, 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def itk_backend():
    return make_refine(Refine())


def error_px(found):
    """Mean distance of the corners from where they belong, px."""
    return np.linalg.norm(displacement(found, SHAPE) - displacement(TRUTH, SHAPE), axis=1).mean()


def test_itk_brings_a_known_affine_back(itk_backend, pair):
    assert error_px(itk_backend(*pair, SHIFT)) < 0.1


def test_itk_brings_it_back_in_uint16(itk_backend, pair):
    template, raw = (a.astype(np.uint16) * 200 for a in pair)
    assert error_px(itk_backend(template, raw, SHIFT)) < 0.1


def test_a_slice_turned_by_degrees_is_tried_again_with_a_pyramid(itk_backend, pair):
    """Unless the parameters are the user's."""
    template, _ = pair
    angle = np.deg2rad(2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    truth = about(turn, np.zeros(2), np.array([149.5, 129.5]))
    wide = np.pad(template, 60, mode="reflect")
    raw = resample(wide, compose(translation(60, 60), invert(truth)), SHAPE)

    def error(backend):
        moved = displacement(backend(template, raw, (0, 0)), SHAPE) - displacement(truth, SHAPE)
        return np.linalg.norm(moved, axis=1).mean()

    assert error(itk_backend) < 0.1
    once = load_config(None, ["refine.elastix.MaximumNumberOfIterations=99"]).refine
    assert error(make_refine(once)) > 1


def test_itk_repeats_itself_exactly(itk_backend, pair):
    first, second = (itk_backend(*pair, SHIFT) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(make_refine(Refine())(*pair, SHIFT), first)


def test_itk_result_hardly_depends_on_the_coarse_shift(itk_backend, pair):
    for shift in ((11, -6), (13, -7), (9, -4)):
        assert error_px(itk_backend(*pair, shift)) < 0.1


def test_missing_parts_do_not_steer(itk_backend, pair):
    template, raw = (a.copy() for a in pair)
    raw[160:] = 0  # a slice that the microscope did not finish
    template[:, :30] = 0  # the border of a shifted pre-aligned slice
    assert error_px(itk_backend(template, raw, SHIFT)) < 0.25


@pytest.mark.parametrize("value", [0, 128, 255])
def test_margins_do_not_steer(itk_backend, pair, value):
    """Of the canvas of the template, which is larger than the raw slice."""
    template, raw = (np.full((360, 400), value, np.uint8) for _ in range(2))
    for image, part, (y, x) in zip((template, raw), pair, ((50, 60), (0, 0)), strict=True):
        image[y : y + SHAPE[0], x : x + SHAPE[1]] = part
    found = itk_backend(template, raw, (SHIFT[0] - 60, SHIFT[1] - 50))
    assert error_px(compose(found, translation(60, 50))) < 0.015


def test_little_that_both_show_is_enough(itk_backend, pair):
    """A quarter of the slice; the rest is other tissue."""
    wide = scene((500, 560))
    template, raw = wide[:260, :300], wide[120:380, 150:450]
    found = itk_backend(template, raw, (-150, -120))
    y, x = np.mgrid[120:260, 150:300].reshape(2, -1)
    away = found[:, :2] @ [x, y] + found[:, 2:] - [x - 150, y - 120]
    assert np.abs(away).max() < 0.3
    with pytest.raises(RegistrationError, match="elastix: both share 625 px, fewer than 1024"):
        itk_backend(template, raw, (-275, -235))


def test_elastix_failure_is_an_error_with_its_reason(itk_backend, pair):
    with pytest.raises(RegistrationError, match="elastix"):
        itk_backend(*pair, (2000, 0))
    assert error_px(itk_backend(*pair, SHIFT)) < 0.1


@pytest.mark.parametrize("transform", ["EulerTransform", "TranslationTransform"])
def test_other_linear_transforms(pair, transform):
    """A pure translation comes back in each kind of matrix."""
    template, _ = pair
    moved = resample(np.pad(template, 40, mode="reflect"), translation(40 - 7.5, 40 + 3.25), SHAPE)
    config = load_config(None, [f"refine.elastix.Transform={transform}"]).refine
    found = make_refine(config)(template, moved, (7, -3))
    np.testing.assert_allclose(found, translation(7.5, -3.25), atol=0.1)


def test_itk_with_a_parameter_file(tmp_path, pair):
    path = tmp_path / "affine.txt"
    lines = ["// elastix", "", '(Transform "AffineTransform") // kind']
    for name, values in elastix_parameters(Refine()).items():
        if name != "Transform":
            lines.append(f"({name} {' '.join(values)})")
    lines.append("(MaximumNumberOfIterations 150)")
    path.write_text("\n".join(lines))
    backend = make_refine(Refine(parameter_file=str(path), elastix={}))
    assert error_px(backend(*pair, SHIFT)) < 0.1


def test_parameter_files_are_read_as_elastix_does(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text('(A "text")\n  (B 1 2.5 "x")  // note\n// (C 1)\n\n')
    assert read_parameter_file(path) == {"A": ["text"], "B": ["1", "2.5", "x"]}
    for bad in ("A 1", "(A)", "(A 1"):
        path.write_text(f"(B 1)\n{bad}\n")
        with pytest.raises(InputError, match=r"p\.txt: line 2 is not"):
            read_parameter_file(path)
    path.write_bytes(b"\xff\xfe(A 1)")
    with pytest.raises(InputError, match="cannot be read"):
        read_parameter_file(path)


def test_values_go_to_elastix_as_text():
    config = load_config(
        None, ["refine.elastix.UseDirectionCosines=true", "refine.elastix.MaximumStepLength=[8, 4]"]
    )
    parameters = elastix_parameters(config.refine)
    assert parameters["UseDirectionCosines"] == ["true"]
    assert parameters["MaximumStepLength"] == ["8", "4"]
    assert parameters["RandomSeed"] == ["1"]
    assert parameters["WriteResultImage"] == ["false"]


def test_a_transform_that_is_no_matrix_is_refused():
    config = load_config(None, ["refine.elastix.Transform=BSplineTransform"]).refine
    with pytest.raises(InputError, match=r"Transform = 'BSplineTransform': expected one of Affine"):
        make_refine(config)


@pytest.fixture(scope="module")
def gauss_newton(opencl_ready):
    """Where elastix cannot be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "itk", None)
        return make_refine(Refine(backend="gauss-newton"), "cpu")


def test_gauss_newton_brings_a_known_affine_back_without_elastix(gauss_newton, pair):
    for shift in (SHIFT, (9, -4)):
        assert error_px(gauss_newton(*pair, shift)) < 0.05
    wide = tuple(a.astype(np.uint16) * 200 for a in pair)
    assert error_px(gauss_newton(*wide, SHIFT)) < 0.05


def test_gauss_newton_leaves_missing_parts_out(gauss_newton, pair):
    template, raw = (a.copy() for a in pair)
    raw[160:], template[:, :30] = 0, 0
    assert error_px(gauss_newton(template, raw, SHIFT)) < 0.15


def test_gauss_newton_says_when_there_is_nothing_to_hold_on_to(gauss_newton, pair):
    template, _ = pair
    rng = np.random.default_rng(0)
    for lowest, highest in ((1, 255), (90, 92)):
        raw = rng.integers(lowest, highest, SHAPE).astype(np.uint8)
        with pytest.raises(RegistrationError, match="Gauss-Newton: "):
            gauss_newton(template, raw, SHIFT)


def test_gauss_newton_goes_on_with_the_host_when_its_device_fails(pair, opencl_ready, monkeypatch):
    backend = make_refine(Refine(backend="gauss-newton"), "cpu")
    monkeypatch.setattr(backend.neighbours.equations, "descend", lost)
    assert error_px(backend(*pair, SHIFT)) < 0.05
    assert error_px(backend(*pair, SHIFT)) < 0.05


def leaves_files_open(test):
    """For what pyelastix does."""
    for warning in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{warning}")(test)
    return test


def lost(*_):
    raise RuntimeError("clEnqueueNDRangeKernel failed: OUT_OF_RESOURCES")


def test_none_is_the_coarse_shift(pair):
    found = make_refine(Refine(backend="none"))(*pair, SHIFT)
    np.testing.assert_array_equal(found, translation(*SHIFT))


@leaves_files_open
def test_program_brings_a_known_affine_back_or_is_missing_in_clear_words(pair):
    """On the CI machine the elastix program is there."""
    if shutil.which("elastix") is None:
        assert not os.environ.get("CI"), "elastix is not on PATH: see .ci/install-apt"
        with pytest.raises(InputError, match="the program elastix is not on PATH"):
            make_refine(Refine(backend="pyelastix"))
        return
    backend = make_refine(Refine(backend="pyelastix"))
    first = backend(*pair, SHIFT)
    assert error_px(first) < 0.1
    np.testing.assert_allclose(backend(*pair, SHIFT), first, atol=1e-6)
    with pytest.raises(RegistrationError, match=r"."):
        backend(*pair, (2000, 0))


@leaves_files_open
def test_program_gets_the_masks(itk_backend, pair):
    if shutil.which("elastix") is None:
        assert not os.environ.get("CI"), "elastix is not on PATH: see .ci/install-apt"
        return
    template, raw = (np.full((360, 400), 255, np.uint8) for _ in range(2))
    for image, part, (y, x) in zip((template, raw), pair, ((50, 60), (0, 0)), strict=True):
        image[y : y + SHAPE[0], x : x + SHAPE[1]] = part
    shift = SHIFT[0] - 60, SHIFT[1] - 50
    backend = make_refine(Refine(backend="pyelastix"))
    assert error_px(compose(backend(template, raw, shift), translation(60, 50))) < 0.015
    assert error_px(backend(*pair, SHIFT)) < 0.1  # and none of the slice before


@leaves_files_open
def test_program_takes_slices_4096_px_wide():
    """Points on one diagonal of the field of displacements told no affine transform."""
    if shutil.which("elastix") is None:
        assert not os.environ.get("CI"), "elastix is not on PATH: see .ci/install-apt"
        return
    shape, truth = (256, 4096), np.array([[1.0005, 0.004, 11.3], [-0.0004, 0.997, -6.4]])
    template = scene(shape)
    wide = np.pad(template, 40, mode="reflect")
    raw = resample(wide, compose(translation(40, 40), invert(truth)), shape)
    found = make_refine(Refine(backend="pyelastix"))(template, raw, (12, -6))
    assert np.abs(displacement(compose(found, invert(truth)), shape)).max() < 0.2


def test_program_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="the program elastix is not on PATH"):
        make_refine(Refine(backend="pyelastix"))
