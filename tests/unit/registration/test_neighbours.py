"""Pairs of slices: a known affine comes back, on the device and on the host."""

import numpy as np
import pytest
from scipy import ndimage

from amst_hpc.opencl.gauss_newton import DeviceSteps, Fit
from amst_hpc.pair_result import PairResult
from amst_hpc.registration import neighbours as numerics
from amst_hpc.registration.coherence import Spectrum, gaussian, matched_filter, spectra
from amst_hpc.registration.equations import (
    GpuEquations,
    HostEquations,
    ProcessorEquations,
    open_equations,
)
from amst_hpc.registration.neighbours import Neighbours, first_shift
from amst_hpc.transform import compose, displacement, invert, small_affine, translation

SHAPE = (260, 300)
TURN = small_affine(np.array([1.5, 0.8, -0.6, -1.2, 0.4, 0.7]), SHAPE)


def tissue(seed, shape=(360, 400)):
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.normal(size=shape), s) * s for s in (1.5, 3, 8)]
    return sum(layers) / np.std(sum(layers)) * 30 + 128


def cut(source, m, noise, seed=0):
    """`source` moved so that its middle at p is the image at m p."""
    back = invert(m)
    shift = back[::-1, 2] + 50
    image = ndimage.affine_transform(source, back[::-1, 1::-1], shift, SHAPE, order=3)
    image += np.random.default_rng(seed).normal(size=SHAPE) * noise
    return np.clip(np.rint(image), 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def places(kernels):
    """All on one processor, also what a GPU does."""
    context = kernels.queue.context
    return {
        "host": HostEquations(),
        "processor": ProcessorEquations(context),
        "gpu": GpuEquations(context),
    }


@pytest.fixture(params=["host", "processor", "gpu"])
def neighbours(request, places):
    return Neighbours(places[request.param], {1: gaussian(1.0)})


def darken(image):
    """The scan ended early, and there is a hole."""
    image[180:] = 0
    image[40:70, 200:240] = 0
    return image


def error(found, true):
    return np.abs(displacement(found, SHAPE) - displacement(true, SHAPE)).max()


@pytest.mark.parametrize("start", [translation(0, 0), None])
def test_a_known_affine_comes_back(neighbours, start):
    source = tissue(1)
    fixed, moving = cut(source, np.eye(2, 3), 3, 1), cut(source, TURN, 3, 2)
    a, b = neighbours.prepare(fixed), neighbours.prepare(moving)
    found = neighbours.register(a, b, PairResult(4, 1), start)
    assert (found.z, found.k, found.reason) == (4, 1, "")
    assert error(found.matrix, TURN) < 0.03
    assert found.overlap > 0.9


def test_large_slices_are_averaged_down(neighbours, monkeypatch):
    monkeypatch.setattr(numerics, "FINE_SIDE", 128)
    source = tissue(10)
    fixed, moving = cut(source, np.eye(2, 3), 3), cut(source, TURN, 3)
    a, b = map(neighbours.prepare, (fixed, moving))
    assert a.full[1].shape == (130, 150)
    for start in (translation(1, -1), None):
        assert error(neighbours.register(a, b, PairResult(0, 1), start).matrix, TURN) < 0.06


@pytest.mark.parametrize("spoil", [lambda image: image, darken], ids=["whole", "partial"])
def test_devices_and_host_agree(places, spoil):
    source = tissue(2)
    images = cut(source, np.eye(2, 3), 3, 1), spoil(cut(source, TURN, 3, 2))
    found = []
    for equations in places.values():
        place = Neighbours(equations, {1: gaussian(1.0)})
        a, b = map(place.prepare, images)
        found.append(place.register(a, b, PairResult(0, 1), None))
    for other in found[1:]:
        assert error(found[0].matrix, other.matrix) < 0.005
        assert found[0].tissue == pytest.approx(other.tissue, abs=1e-3)
        assert found[0].correlation == pytest.approx(other.correlation, abs=0.01)
        assert found[0].overlap == pytest.approx(other.overlap, abs=0.01)


def test_sums_do_not_depend_on_the_device(places):
    rng = np.random.default_rng(3)
    images = [rng.normal(3, 1, (133, 170)).astype(np.float32) for _ in range(2)]
    images[0][40:50, 60:80] = np.nan
    tiles = np.array([0, 3, 5, 12, 20, 29], np.int32)
    fit = Fit(translation(1.3, -0.8) + TURN - np.eye(2, 3), (1.1, 0.2, 0.7))
    expected = places["host"].tile_sums(tuple(images), fit, tiles)
    for place in (places["processor"].device, places["gpu"]):
        pair = tuple(map(place.memory.upload, images))
        found = place.tile_sums(pair, fit, tiles)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_a_device_that_computes_nonsense_is_left_for_the_host(opencl_ready, monkeypatch, caplog):
    assert isinstance(open_equations("cpu", 0), ProcessorEquations)
    monkeypatch.setattr(DeviceSteps, "descend", lambda *_: Fit(np.eye(2, 3)))
    assert type(open_equations("cpu", 0)) is HostEquations
    assert "neighbours do not compute on" in caplog.text


@pytest.mark.parametrize("black", [False, True])
def test_steps_do_not_depend_on_the_device(places, black):
    """Where nothing is told, too: one step less than the others would take."""
    rng = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 330, 420)), (0, 2, 2)).astype(np.float32)
    images = [noise[0], noise[0] + noise[1] / 2]
    if black:
        images[1][:, 6:] = np.nan
    tiles = np.arange(11 * 14, dtype=np.int32)  # more than are fetched one by one
    fit = Fit(translation(0.4, -0.3))
    expected = places["host"].descend(tuple(images), fit, tiles, 1e-3)
    assert bool(expected.points) != black
    for place in (places["processor"].device, places["gpu"]):
        found = place.descend(tuple(map(place.memory.upload, images)), fit, tiles, 1e-3)
        assert error(found.matrix, expected.matrix) < 1e-3
        assert found.light == pytest.approx(expected.light, rel=1e-3, abs=1e-4)
        assert found.points == expected.points
        assert found.correlation == pytest.approx(expected.correlation, abs=1e-4)


def test_gain_and_bias_do_not_matter(neighbours):
    source = tissue(3)
    fixed, moving = cut(source, np.eye(2, 3), 2), cut(source * 0.7 + 30, TURN, 2)
    found = neighbours.register(*map(neighbours.prepare, (fixed, moving)), PairResult(0, 1), None)
    assert error(found.matrix, TURN) < 0.03


def test_a_far_shift_is_found(neighbours):
    source, far = tissue(4), translation(33, -21)
    fixed, moving = cut(source, np.eye(2, 3), 3), cut(source, far, 3)
    a, b = map(neighbours.prepare, (fixed, moving))
    shift = first_shift(*(neighbours.equations.fetch(i.small) for i in (a, b)))
    assert np.abs(shift - far).max() < 1.5
    assert error(neighbours.register(a, b, PairResult(0, 1), None).matrix, far) < 0.03


def test_a_slice_that_ends_early_counts_where_it_is(neighbours):
    source = tissue(5)
    fixed, moving = cut(source, np.eye(2, 3), 3), cut(source, TURN, 3)
    moving[150:] = 0
    found = neighbours.register(*map(neighbours.prepare, (fixed, moving)), PairResult(0, 1), None)
    assert error(found.matrix, TURN) < 0.15
    assert 0.4 < found.overlap < 0.6


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_larger_canvas_changes_nothing(places, value):
    """The same pair with margins: the same transform, tissue and overlap."""
    source, canvas = tissue(11), (400, 420)
    fixed, moving = cut(source, np.eye(2, 3), 3, 1), cut(source, TURN, 3, 2)
    wide = [np.full(canvas, value, np.uint8) for _ in range(2)]
    for image, part in zip(wide, (fixed, moving), strict=True):
        image[70:-70, 60:-60] = part
    for equations in places.values():
        place = Neighbours(equations, {1: gaussian(1.0)})
        alone, found = (
            place.register(*map(place.prepare, pair), PairResult(0, 1), None)
            for pair in ((fixed, moving), wide)
        )
        back = compose(translation(-60, -70), compose(found.matrix, translation(60, 70)))
        assert error(back, alone.matrix) < 0.02
        assert found.overlap == pytest.approx(alone.overlap, abs=0.03)
        assert found.tissue == pytest.approx(alone.tissue, rel=0.3, abs=0.005)


def test_other_tissue_is_refused(neighbours):
    fixed, moving = cut(tissue(6), np.eye(2, 3), 3), cut(tissue(7), np.eye(2, 3), 3)
    start = translation(0, 0)
    pair = map(neighbours.prepare, (fixed, moving))
    found = neighbours.register(*pair, PairResult(0, 1), start)
    assert found.matrix is None or found.correlation < 0.15


def test_a_separable_sum_is_the_filter(places):
    """What a GPU does with the windows is what the host does with the transfer function."""
    source = tissue(8)
    image, other = cut(source, np.eye(2, 3), 6, 1), cut(source, np.eye(2, 3), 6, 2)
    kernel = matched_filter([spectra(image.astype(np.float32), other.astype(np.float32))], 260)
    gpu = places["gpu"]
    there = gpu.filtered(gpu.load(image, 1), kernel).get()[24:-24, 24:-24]
    here = Spectrum.of(image, None).filtered(kernel)[24:-24, 24:-24]
    assert np.corrcoef(there.ravel(), here.ravel())[0, 1] > 0.999


def test_the_filter_leaves_out_what_is_not_shared():
    source = tissue(9)
    pair = [cut(source, np.eye(2, 3), 20, seed).astype(np.float32) for seed in (1, 2)]
    gain = matched_filter([spectra(*pair)], 260).gain
    assert gain[40:].max() < 0.05
    noise = [np.random.default_rng(s).normal(size=SHAPE).astype(np.float32) for s in (1, 2)]
    np.testing.assert_array_equal(matched_filter([spectra(*noise)], 260).gain, gaussian(1.0).gain)


def test_the_inverse_undoes():
    np.testing.assert_allclose(compose(TURN, invert(TURN)), np.eye(2, 3), atol=1e-12)
