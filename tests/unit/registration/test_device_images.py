"""Images on the device: uploaded once, shared by ranks; the coarse step as on the host."""

import numpy as np
import pytest
from scipy import ndimage

from amst_hpc.config import Coarse
from amst_hpc.registration import coarse
from amst_hpc.registration.coarse import Matcher
from amst_hpc.registration.correlation import quality
from amst_hpc.registration.device_images import OnDevice
from amst_hpc.transform import translation


def blobs(dtype, shape=(301, 422), seed=1):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    image = (image - image.min()) / np.ptp(image)
    return (image * np.iinfo(dtype).max).astype(dtype)


def test_templates_upload_each_slice_once(kernels):
    rng = np.random.default_rng(0)
    slices = [rng.integers(0, 255, (40, 50)).astype(np.uint8) for _ in range(9)]
    device = OnDevice(kernels.queue.context, 1.6, 1 << 30)
    for first in (0, 2):
        windows = [slices[first : first + 6], slices[first + 1 : first + 7]]
        for found, window in zip(device.templates(windows), windows, strict=True):
            np.testing.assert_array_equal(found, np.median(window, axis=0).astype(np.uint8))
        assert len(device.uploaded) == 7


def test_the_coarse_step_on_the_device_equals_that_on_the_host(kernels, monkeypatch):
    big = blobs(np.uint8, (400, 440))
    rng = np.random.default_rng(2)
    pair = [a + rng.integers(0, 9, (300, 320)) for a in (big[60:360, 70:390], big[72:372, 63:383])]
    fixed, moving = (np.clip(a, 0, 255).astype(np.uint8) for a in pair)
    host = Matcher(Coarse(device="cpu"), 0)
    monkeypatch.setattr(
        coarse, "make_device_images", lambda sift, config: OnDevice(sift.context, 1.6, 1 << 30)
    )
    device = Matcher(Coarse(device="cpu"), 0)
    found = []
    for matcher in (host, device):
        images = matcher.smooth(fixed), matcher.smooth(moving)
        shift = matcher(*images)
        found.append((shift.x, shift.y))
        scores = [matcher.quality(*images, translation(*p)) for p in (found[-1], (0, 0))]
        np.testing.assert_allclose(scores, [0.98, 0.2], atol=0.2)
    assert found[0] == found[1] == (7, -12)
    device.on_device = None  # as after an OpenCL error: what was smoothed there is made again
    shift = device(*images)
    assert (shift.x, shift.y) == (7, -12)


def test_margins_on_the_device_are_those_on_the_host(kernels):
    images = blobs(np.uint8), np.roll(blobs(np.uint8), (3, -5), (0, 1))
    for image, y, x in zip(images, (40, 30), (350, 370), strict=True):
        image[:y], image[:, x:] = 255, 255
    matcher = Matcher(Coarse(method="xcorr"), 0)
    device = OnDevice(kernels.queue.context, 1.6, 1 << 30)
    host, moved = map(matcher.smooth, images)
    there, moved_there = map(device.smooth, images)
    np.testing.assert_allclose(there.pixels.get(), host, atol=1e-3)
    at = translation(-5, 3)
    assert quality(host, moved, at) == pytest.approx(1, abs=1e-3)
    assert device.quality(there, moved_there, at) == pytest.approx(1, abs=1e-3)
    assert device.nearest_peak(there, there, 2, -1)[:2] == (0, 0)


def test_ranks_that_fill_a_gpu_leave_it(opencl_ready, monkeypatch, caplog):
    monkeypatch.setattr(
        coarse, "make_device_images", lambda sift, config: OnDevice(sift.context, 1.6, 1 << 31)
    )
    matcher = Matcher(Coarse(device="cpu"), 0)
    monkeypatch.setattr(coarse, "make_device_images", lambda sift, config: None)
    pixels = 4096**2
    matcher.share_memory(pixels, pixels, 7, ranks_on_node=1)
    assert matcher.on_device
    matcher.share_memory(pixels, pixels, 7, ranks_on_node=2)
    assert not matcher.on_device
    assert "2 ranks need 2.0 GB" in caplog.text
