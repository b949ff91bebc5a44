"""The filters are measured where slices have content, on whatever canvas they lie."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from shifted import Alone
from stops import Acting, look_always

from amst_hpc.images.pairing import Inputs
from amst_hpc.parallel.signals import Stopped, StopRequest
from amst_hpc.passes.filters import Sampling, measure_filters
from amst_hpc.registration.coherence import gaussian
from amst_hpc.registration.equations import HostEquations


class InMemory:
    """Slices of a stack that is in no file."""

    def __init__(self, slices):
        self.slices, self.names = slices, [f"slice {z}" for z in range(len(slices))]

    def read(self, z):
        return self.slices[z]


def inputs(slices):
    stack = InMemory(slices)
    return Inputs(stack, stack, len(slices), slices[0].shape, "uint8", range(len(slices)))


@pytest.fixture
def measure(tmp_path):
    """The filter of neighbours."""
    stop = StopRequest(tmp_path / "stop")

    def measured(slices):
        return measure_filters(Sampling(inputs(slices), 1), Alone(), HostEquations(), stop)[1]

    return measured


def tissue(depth=3, shape=(120, 130)):
    rng = np.random.default_rng(4)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    slices = [base / base.std() * 25 + 128 + rng.normal(size=shape) * 12 for _ in range(depth)]
    return [np.clip(np.rint(image), 1, 254).astype(np.uint8) for image in slices]


@pytest.mark.parametrize("value", [0, 255])
def test_margins_change_the_filter_little(measure, value):
    slices = tissue()
    wide = [np.pad(image, ((20, 30), (25, 15)), constant_values=value) for image in slices]
    alone, found = (measure(images).gain for images in (slices, wide))
    assert np.abs(alone - gaussian(1.0).gain).max() > 0.2
    assert np.corrcoef(alone, found)[0, 1] > 0.99


def test_a_stop_is_heard_between_slices(tmp_path, monkeypatch):
    look_always(monkeypatch)
    stack = Acting(InMemory(tissue(12)), 3, (tmp_path / "stop").touch)
    sampling, stop = Sampling(inputs(stack.slices), 1), StopRequest(tmp_path / "stop")
    sampling = replace(sampling, inputs=replace(sampling.inputs, raw=stack))
    with pytest.raises(Stopped):
        measure_filters(sampling, Alone(), HostEquations(), stop)
    assert stack.seen == [0, 1, 2]


def test_slices_without_content_in_common_tell_nothing(measure):
    slices = tissue(2)
    slices[0][:, 80:] = 0
    slices[1][:, :90] = 0
    found = measure(slices)
    np.testing.assert_array_equal(found.gain, gaussian(1.0).gain)
