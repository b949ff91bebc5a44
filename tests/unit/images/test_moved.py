"""Raw slices on one canvas: how large it is, and what is read of them there."""

import numpy as np
import pytest
from shifted import save

from amst_hpc.config import InputError, Prealign
from amst_hpc.images.moved import MovedStack, lay_canvas
from amst_hpc.images.opening import open_stack
from amst_hpc.placement import Placement
from amst_hpc.transform import compose, corners, displacement, invert, small_affine, translation

SHAPE = (40, 60)


def placed(*transforms):
    n = len(transforms)
    return Placement(np.array(transforms), np.full(n, 2), np.full(n, 0.1), [0])


def by(*shifts):
    """Slices that lie these (x, y) to the right and below in raw."""
    return placed(*(translation(x, y) for x, y in shifts))


@pytest.mark.parametrize(
    ("canvas", "shape", "offset"),
    [("grow", (44, 67), (-5, -1)), ("crop", (36, 53), (2, 3)), ("raw", SHAPE, (0, 0))],
)
def test_the_canvas_is_as_large_as_was_asked_for(canvas, shape, offset):
    """Slice 0 is where it is in raw, slice 1 5 px left and 3 down, slice 2 2 right and 1 up."""
    placement = by((0, 0), (5, -3), (-2, 1))
    found = lay_canvas(placement, SHAPE, Prealign(canvas=canvas))
    assert (found.shape, found.offset) == (shape, offset)
    x, y = offset
    expected = [translation(a + x, b + y) for a, b in [(0, 0), (5, -3), (-2, 1)]]
    np.testing.assert_array_equal(found.moves, expected)
    np.testing.assert_array_equal(found.placement.transforms, expected)
    np.testing.assert_array_equal(placement.transforms[0], translation(0, 0))  # as it was


def at(matrices, shape):
    """Where the corners of an image of this shape come from, (n, 4, 2) px."""
    return displacement(np.array(matrices), shape) + corners(shape)


@pytest.mark.parametrize("transform", ["translation", "rigid", "affine"])
def test_nothing_is_cut_of_a_canvas_that_grows_and_nothing_lacks_in_one_that_is_cropped(transform):
    """To the pixel, of the slices as they are placed and of those that are moved more simply."""
    theta = np.random.default_rng(3).normal(size=(12, 6)) * [4, 1.5, 1.5, 4, 1.5, 1.5]
    placement = placed(*small_affine(theta, SHAPE))
    grown = lay_canvas(placement, SHAPE, Prealign(canvas="grow", transform=transform))
    cropped = lay_canvas(placement, SHAPE, Prealign(canvas="crop", transform=transform))
    for found, inner, outer in (
        (grown, SHAPE, grown.shape),
        (cropped, cropped.shape, SHAPE),
    ):
        for matrices in (found.moves, found.placement.transforms):
            where = at(invert(np.array(matrices)) if found is grown else matrices, inner)
            assert where.min() > -1e-6
            assert (where < np.array(outer[::-1]) - 1 + 1e-6).all()


def test_slices_with_nothing_in_common_cannot_be_cropped():
    with pytest.raises(InputError) as caught:
        lay_canvas(by((0, 0), (70, 0)), SHAPE, Prealign(canvas="crop"))
    assert str(caught.value) == (
        "prealign.canvas = 'crop': no pixel is in all slices, which lie over "
        "130 x 40 px; expected grow or raw"
    )
    assert lay_canvas(by((0, 0), (59, 0)), SHAPE, Prealign(canvas="crop")).shape == (40, 1)


def test_moves_are_as_simple_as_was_asked_for():
    """And do the same as the placement in the middle of the raw slice."""
    m = compose(translation(3.4, -2.2), small_affine(np.array([0, 2, 1, 0, -3, 0.5]), SHAPE))
    found = {
        kind: lay_canvas(placed(m, translation(0, 0)), SHAPE, Prealign(transform=kind))
        for kind in ("translation", "rigid", "affine")
    }
    for kind, canvas in found.items():
        m, simple = canvas.placement.transforms[0], canvas.moves[0]
        middle = invert(m) @ [(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2, 1]
        off = (simple - m)[:, :2] @ middle + (simple - m)[:, 2]
        assert np.abs(off).max() <= {"translation": 0.71, "rigid": 1e-9, "affine": 0}[kind]
    rigid, whole = found["rigid"].moves[0], found["translation"].moves[0]
    np.testing.assert_allclose(rigid[:, :2] @ rigid[:, :2].T, np.eye(2), atol=1e-12)
    assert np.linalg.det(rigid[:, :2]) > 0
    np.testing.assert_array_equal(whole[:, :2], np.eye(2))
    np.testing.assert_array_equal(whole[:, 2], np.rint(whole[:, 2]))


def test_a_moved_stack_is_raw_shifted(tmp_path):
    images = np.random.default_rng(0).integers(1, 255, (3, *SHAPE), np.uint8)
    stack = open_stack(save(tmp_path / "raw", images), "RAW")
    canvas = lay_canvas(by((0, 0), (5, -3), (-2, 1)), SHAPE, Prealign())
    moved = MovedStack(stack, canvas)
    for z, (x, y) in enumerate([(5, 1), (0, 4), (7, 0)]):
        expected = np.zeros((44, 67), np.uint8)
        expected[y : y + 40, x : x + 60] = images[z]
        np.testing.assert_array_equal(moved.read(z), expected)
        assert (moved.header(z).shape, moved.header(z).dtype) == ((44, 67), "uint8")
        assert moved.stamp(z) == stack.stamp(z)
        assert not moved.is_constant(z)
    told = (moved.source, moved.names, moved.files, moved.numbers)
    assert told == (stack.source, stack.names, stack.files, stack.numbers)
