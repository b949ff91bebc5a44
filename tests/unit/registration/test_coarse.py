"""The coarse step finds whole-pixel shifts, the same ones from every start nearby."""

import importlib.util
import warnings
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from scenes import SCENE, pair, texture
from scipy import ndimage

from amst_hpc.config import Coarse, InputError
from amst_hpc.opencl import devices as opencl
from amst_hpc.opencl import sift as sift_module
from amst_hpc.opencl.devices import NoDeviceError
from amst_hpc.registration import coarse
from amst_hpc.registration.coarse import Matcher
from amst_hpc.slice_result import Estimate, RegistrationError
from amst_hpc.transform import translation


@pytest.fixture(scope="module")
def sift(opencl_ready):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Matcher(Coarse(device="cpu"), 0)


def run(matcher, fixed, moving):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return matcher(matcher.smooth(fixed), matcher.smooth(moving))


SHIFTS = [(0, 0), (7, -12), (-33, 18), (1, 1)]


@pytest.mark.parametrize(("x", "y"), SHIFTS)
def test_sift_on_the_cpu_finds_a_shift(sift, x, y):
    assert sift.method == "sift", sift.note
    found = run(sift, *pair(x, y))
    assert (found.x, found.y) == (x, y)
    assert found.matches > 10
    assert found.estimate == pytest.approx((x, y), abs=1.5)


def test_sift_takes_another_shape_and_uint16(sift):
    found = run(sift, *pair(9, -4, size=(260, 240), dtype="uint16"))
    assert (found.x, found.y) == (9, -4)
    found = run(sift, *pair(-9, 4))
    assert (found.x, found.y) == (-9, 4)


def on_canvas(image, y, x, value):
    canvas = np.full((360, 400), value, image.dtype)
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


@pytest.mark.parametrize("method", ["sift", "xcorr"])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_margins_do_not_hold_the_shift(sift, method, value):
    """The tissue lies elsewhere on the canvas of the template than in the raw slice."""
    matcher = sift if method == "sift" else Matcher(Coarse(method="xcorr"), 0)
    fixed, moving = pair(7, -12, size=(260, 280))
    images = on_canvas(fixed, 48, 40, value), on_canvas(moving, 0, 0, value)
    found = run(matcher, *images)
    assert (found.x, found.y) == (7 - 40, -12 - 48)
    smooth = [matcher.smooth(a) for a in images]
    score = matcher.quality(*smooth, translation(found.x, found.y))
    alone = matcher.quality(matcher.smooth(fixed), matcher.smooth(moving), translation(7, -12))
    assert score == pytest.approx(alone, abs=0.01)


@pytest.mark.parametrize("method", ["sift", "xcorr"])
@pytest.mark.parametrize(("x", "y"), [(190, 0), (-150, 110)])
def test_a_shift_by_more_than_half_a_slice_is_found(sift, method, x, y):
    matcher = sift if method == "sift" else Matcher(Coarse(method="xcorr"), 0)
    wide = texture(520, 660, seed=3)
    fixed = wide[120:420, 200:500]
    moving = wide[120 - y : 420 - y, 200 - x : 500 - x]
    found = run(matcher, fixed, moving)
    assert (found.x, found.y) == (x, y)


def test_many_keypoints_are_thinned_out(sift, monkeypatch):
    monkeypatch.setattr(sift_module, "KEYPOINTS", 40)
    found = run(sift, *pair(7, -12))
    assert (found.x, found.y) == (7, -12)
    assert 0 < found.matches <= 80


def test_sift_on_blank_and_noise_is_never_an_offset_in_silence(sift):
    fixed, _ = pair(0, 0)
    rng = np.random.default_rng(0)
    for moving in (np.zeros_like(fixed), np.full_like(fixed, 100)):
        with pytest.raises(RegistrationError):
            run(sift, fixed, moving)
    moving = rng.integers(0, 255, fixed.shape).astype(np.uint8)
    found = run(sift, fixed, moving)  # a chance match: its correlation tells
    m = translation(found.x, found.y)
    assert sift.quality(sift.smooth(fixed), sift.smooth(moving), m) < 0.3


class FakeSift:
    """Stands in for `Sift`: what happens at each opening and each slice, by device."""

    faults: ClassVar[dict[str, list[str]]] = {}
    made: ClassVar[list[str]] = []

    def __init__(self, wanted, local_rank, fresh=False):
        FakeSift.made.append(wanted)
        self.wanted = wanted
        self.device = f"{wanted} {len(FakeSift.made)}"
        self.opened = SimpleNamespace(kind="cpu")  # smoothing and correlation stay on the host
        if "gone" in FakeSift.faults.get(wanted, []):
            raise NoDeviceError("gone")

    def __call__(self, fixed, moving):
        faults = FakeSift.faults.get(self.wanted, [])
        if faults and faults.pop(0) == "fails":
            raise RuntimeError("clEnqueueNDRangeKernel failed: OUT_OF_RESOURCES")
        return Estimate((3.0, -2.0), 5)


@pytest.mark.parametrize(
    ("gpu", "cpu", "made", "end"),
    [
        ([], [], ["gpu"], ("sift", "gpu 1")),
        (["fails"], [], ["gpu", "gpu"], ("sift", "gpu 2")),
        (["fails", "works", "fails"], [], ["gpu", "gpu", "cpu"], ("sift", "cpu 3")),
        (["fails"] * 2, ["works", "fails"], ["gpu", "gpu", "cpu"], ("xcorr", "CPU")),
        (["fails"] * 2, ["gone"], ["gpu", "gpu", "cpu"], ("xcorr", "CPU")),
    ],
)
def test_opencl_errors_lead_to_a_new_context_then_the_cpu_then_xcorr(
    monkeypatch, caplog, gpu, cpu, made, end
):
    monkeypatch.setattr(coarse, "Sift", FakeSift)
    FakeSift.made, FakeSift.faults = [], {"gpu": list(gpu), "cpu": list(cpu)}
    matcher = Matcher(Coarse(device="gpu"), 0)
    for _ in range(3):
        found = run(matcher, *pair(6, -4))
        assert (found.x, found.y) == (6, -4)
    assert found.method == end[0]
    assert FakeSift.made == made
    assert (matcher.method, matcher.device) == end
    assert caplog.text.count("OUT_OF_RESOURCES") == gpu.count("fails") + cpu.count("fails")


def test_where_sift_finds_nothing_xcorr_is_tried(monkeypatch):
    class Blind(FakeSift):
        def __call__(self, fixed, moving):
            raise RegistrationError("no match between 28 and 28 keypoints")

    monkeypatch.setattr(coarse, "Sift", Blind)
    matcher = Matcher(Coarse(), 0)
    found = run(matcher, *pair(6, -4))
    assert (found.x, found.y, found.matches, found.method) == (6, -4, 0, "xcorr")
    assert matcher.method == "sift"


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("x", "y"), SHIFTS)
@pytest.mark.parametrize("downsample", [1, 2])
def test_phase_correlation_finds_a_shift(x, y, dtype, downsample):
    matcher = Matcher(Coarse(method="xcorr", downsample=downsample), 0)
    found = run(matcher, *pair(x, y, dtype=dtype))
    assert (found.x, found.y) == (x, y)


def test_none_is_no_shift():
    found = run(Matcher(Coarse(method="none"), 0), *pair(5, 5))
    assert (found.x, found.y, found.method) == (0, 0, "none")


def test_an_image_without_edges_has_no_shift():
    with pytest.raises(RegistrationError, match="without any edge"):
        run(Matcher(Coarse(method="xcorr"), 0), np.zeros((64, 64), np.uint8), SCENE[:64, :64])


def test_a_speck_of_content_has_no_shift():
    speck = np.pad(SCENE[:6, :6], 29, constant_values=255)
    with pytest.raises(RegistrationError, match="without any edge"):
        run(Matcher(Coarse(method="xcorr"), 0), speck, SCENE[:64, :64])


def test_shapes_that_differ_are_refused():
    with pytest.raises(RegistrationError, match="differ"):
        run(Matcher(Coarse(method="xcorr"), 0), SCENE[:64, :64], SCENE[:64, :60])


def test_a_shift_as_large_as_the_slice_is_refused():
    matcher = Matcher(Coarse(method="xcorr"), 0)
    matcher.estimate = lambda fixed, moving: Estimate((0.4 * fixed.shape[1] * 2, 0.0), 3)
    with pytest.raises(RegistrationError, match="as large as the slice"):
        run(matcher, *pair(0, 0))


def vigra_gaussian(image, sigma):
    """vigra's gaussianSmoothing by its definition: window 3 sigma, normalised, border reflected."""
    radius = int(3 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    out = image.astype(np.float64)
    for axis in (0, 1):
        out = ndimage.correlate1d(out, taps, axis, mode="mirror")
    return out


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.6, 2.5])
def test_smoothing_is_vigras(sigma):
    """Whichever of the two smooths here; where vigra imports, it is also compared itself."""
    image = texture(70, 90)
    smoothed = coarse._smoother()(image, sigma)
    assert smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed, vigra_gaussian(image, sigma), atol=1e-4)
    if importlib.util.find_spec("vigra"):
        import vigra

        np.testing.assert_allclose(
            ndimage.gaussian_filter(image.astype(np.float32), sigma, truncate=3.0, mode="mirror"),
            vigra.gaussianSmoothing(image.astype(np.float32), sigma),
            atol=1e-4,
        )


def test_a_device_that_is_not_there_is_refused(sift):
    for device in ("9:9", "no such device"):
        with pytest.raises(InputError, match=rf"coarse.device = '{device}': no such device"):
            Matcher(Coarse(device=device), 0)


def test_without_opencl_phase_correlation_takes_over(monkeypatch):
    monkeypatch.setattr(opencl, "find_devices", list)
    matcher = Matcher(Coarse(), 0)
    assert matcher.method == "xcorr"
    assert "XCORR is used instead" in matcher.note
    found = run(matcher, *pair(4, 3))
    assert (found.x, found.y) == (4, 3)


def test_opencl_that_silx_cannot_work_with_is_no_end(monkeypatch):
    """Two copies of pocl: the device computes, and silx finds none."""

    def broken(self, wanted, local_rank, fresh):
        raise AttributeError("'NoneType' object has no attribute 'type'")

    monkeypatch.setattr(coarse.Sift, "__init__", broken)
    matcher = Matcher(Coarse(), 0)
    assert (matcher.method, matcher.device) == ("xcorr", "CPU")
    assert "'NoneType' object" in matcher.note


def test_kernels_are_compiled_in_another_process(sift, monkeypatch, caplog):
    config = Coarse(device="cpu")
    assert coarse.compile_kernels(config, 0, (64, 80)) == config
    assert not caplog.text
    assert coarse.compile_kernels(Coarse(method="xcorr"), 0, (64, 80)) == Coarse(method="xcorr")
    monkeypatch.setattr(coarse, "runs_without_crash", lambda statement, device: False)
    assert coarse.compile_kernels(config, 0, (64, 80)).method == "xcorr"
