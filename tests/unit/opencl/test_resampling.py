"""Where slices are resampled: on the rank's device, on the host when that does not compute."""

import logging

import numpy as np
import pytest

from amst_hpc.opencl import resampling
from amst_hpc.opencl.resampling import make_resampler
from amst_hpc.opencl.spline import ProcessorSpline
from amst_hpc.transform import resample

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
MATRIX = np.array([[1.001, 0.0007, 3.3], [-0.0006, 0.999, -5.7]])


def assert_resampled(there):
    away = there(IMAGE, MATRIX, (70, 90)).astype(int) - resample(IMAGE, MATRIX, (70, 90))
    assert np.abs(away).max() <= 1


def test_on_the_device(opencl_ready, caplog):
    there = make_resampler("cpu", 0)
    assert there is not resample
    assert_resampled(there)
    assert not caplog.records


@pytest.mark.parametrize("wanted", ["9:9", "no such device"])
def test_without_a_device_on_the_host(opencl_ready, wanted):
    assert make_resampler(wanted, 0) is resample


def test_a_device_with_other_numbers_does_not_count(opencl_ready, monkeypatch, caplog):
    def wrong(self, image, m, shape):
        return resample(image, m, shape) ^ np.array(2, image.dtype)

    monkeypatch.setattr(ProcessorSpline, "resample", wrong)
    with caplog.at_level(logging.WARNING):
        assert make_resampler("cpu", 0) is resample
    assert "a test slice was" in caplog.text


def test_a_device_whose_kernels_do_not_compile_does_not_count(opencl_ready, monkeypatch, caplog):
    monkeypatch.setattr("amst_hpc.opencl.spline.read_source", lambda name: "no source")
    with caplog.at_level(logging.WARNING):
        assert make_resampler("cpu", 0) is resample
    assert len(caplog.records) == 1


def test_a_device_that_fails_later_is_left_for_the_host(opencl_ready, monkeypatch, caplog):
    there, calls = make_resampler("cpu", 0), []

    def fails(self, image):
        calls.append(image)
        raise MemoryError("out of resources")

    monkeypatch.setattr(ProcessorSpline, "_coefficients", fails)
    with caplog.at_level(logging.WARNING, logger=resampling.__name__):
        for _ in range(3):
            np.testing.assert_array_equal(
                there(IMAGE, MATRIX, (70, 90)), resample(IMAGE, MATRIX, (70, 90))
            )
    assert len(calls) == len(caplog.records) == 1


def test_a_context_that_an_earlier_step_has_spoilt_is_made_anew(opencl_ready, monkeypatch, caplog):
    opened, whole = [], resampling.open_device

    def spoilt_at_first(wanted, local_rank, fresh):
        opened.append(fresh)
        return whole(wanted, local_rank, fresh) if fresh else (None, whole(wanted, local_rank)[1])

    monkeypatch.setattr(resampling, "open_device", spoilt_at_first)
    there = make_resampler("cpu", 0)
    assert opened == [False, True]
    assert_resampled(there)
    assert not caplog.records
