"""Slabs tile the stack; levels and layers fit each other whatever the sizes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst_hpc.config import InputError, Output
from amst_hpc.geometry import PAGE, layer_depth, level_factors, make_layout, share_of, split

FIELD = (1000, 300)  # y, x: three levels
ISOTROPIC = ((1, 1, 1), (2, 2, 2), (4, 4, 4))
PLENTY = 1e12  # bytes


@given(st.integers(0, 500), st.integers(1, 40))
def test_split_tiles_and_balances(n, parts):
    ranges = split(n, parts)
    assert len(ranges) == parts
    assert [i for part in ranges for i in part] == list(range(n))
    lengths = [len(part) for part in ranges]
    assert max(lengths) - min(lengths) <= 1


def test_split_leaves_ranks_without_work():
    assert sorted(len(part) for part in split(2, 3)) == [0, 1, 1]


def test_shares_are_the_items_at_those_places():
    assert [share_of("abcde", 3, part) for part in range(3)] == [["a"], ["b", "c"], ["d", "e"]]


def test_levels_are_halved_until_they_fit_a_screen():
    assert level_factors((100, 1000, 300), Output()) == ISOTROPIC
    assert level_factors((100, 256, 256), Output()) == ((1, 1, 1),)
    assert len(level_factors((100, 257, 10), Output())) == 2


def test_number_of_levels_can_be_set():
    assert len(level_factors((100, 70, 75), Output(levels=4))) == 4
    assert level_factors((100, 4000, 4000), Output(levels=1)) == ((1, 1, 1),)


def test_absolute_z_factor_stops_at_8():
    factors = level_factors((100, 20000, 20000), Output())
    assert [f[0] for f in factors] == [1, 2, 4, 8, 8, 8, 8, 8]
    assert factors[-1] == (8, 128, 128)


@pytest.mark.parametrize(
    ("voxel_size_nm", "expected_z"),
    [
        ((), [1, 2, 4, 8]),
        ((5, 5, 5), [1, 2, 4, 8]),
        ((20, 5, 5), [1, 1, 1, 2]),
        ((25, 5, 5), [1, 1, 1, 2]),
        ((8, 5, 5), [1, 1, 2, 4]),
        ((6, 5, 5), [1, 2, 4, 8]),
        ((5, 10, 10), [1, 2, 4, 8]),
    ],
)
def test_coarse_z_is_not_halved(voxel_size_nm, expected_z):
    factors = level_factors((100, 70, 75), Output(levels=4, voxel_size_nm=voxel_size_nm))
    assert [f[0] for f in factors] == expected_z
    assert [f[1:] for f in factors] == [(1, 1), (2, 2), (4, 4), (8, 8)]


def test_factors_of_the_user_go_first():
    output = Output(levels=7, factors=((1, 2, 2), (4, 3, 2)))
    assert level_factors((10, 10, 10), output) == ((1, 1, 1), (1, 2, 2), (4, 6, 4))


@pytest.mark.parametrize("factors", [((3, 1, 1),), ((8, 1, 1), (8, 1, 1), (2, 1, 1))])
def test_unusable_z_factors_are_refused(factors):
    with pytest.raises(InputError, match=r"output\.factors"):
        level_factors((10, 10, 10), Output(factors=factors))


@pytest.mark.parametrize(
    ("depth", "ranks", "expected"),
    [
        (13, 1, 64),
        (1000, 1, 64),
        (1000, 8, 64),  # 128 of 125
        (1000, 20, 8),  # 56 of 50: none is balanced
        (960, 20, 16),
        (100, 100, 8),
    ],
)
def test_layers_balance_the_ranks(depth, ranks, expected):
    assert layer_depth((depth, *FIELD), 1, ranks, Output(), PLENTY) == expected


def test_layers_fit_the_memory():
    needed = 32 * 1000 * 8 / 7 * 2
    assert layer_depth((1000, *FIELD), 1000, 1, Output(), needed) == 32
    assert layer_depth((1000, *FIELD), 1000, 1, Output(), needed - 1) == 16
    assert layer_depth((1000, *FIELD), 1000, 1, Output(), 0) == 8


def test_layers_hold_whole_chunks_of_every_level():
    assert layer_depth((100, *FIELD), 1, 50, Output(factors=((8, 1, 1), (4, 1, 1))), 0) == 32


def test_layer_of_the_user_goes_first():
    assert layer_depth((1000, *FIELD), 1, 1, Output(layer=4), 0) == 4
    with pytest.raises(InputError, match=r"output\.layer = 2: .*multiple of 4"):
        layer_depth((1000, *FIELD), 1, 1, Output(layer=2), PLENTY)


@given(
    st.tuples(st.integers(1, 200), st.integers(1, 3000), st.integers(1, 3000)),
    st.sampled_from([8, 16, 32, 64]),
    st.sampled_from([(), (20.0, 5.0, 5.0), (5.0, 5.0, 5.0)]),
)
def test_chunks_of_a_layer_cover_its_slices_on_every_level(shape, layer, voxel_size_nm):
    layout = make_layout(shape, layer, Output(voxel_size_nm=voxel_size_nm))
    assert [z for slices in layout.layers for z in slices] == list(range(shape[0]))
    for level in layout.levels:
        assert level.shape == tuple(
            math.ceil(n / f) for n, f in zip(shape, level.factors, strict=True)
        )
        depth, height, width = level.chunk
        assert depth <= level.shape[0]
        if depth == level.shape[0]:
            assert (height, width) == tuple(min(128, n) for n in level.shape[1:])
        else:
            assert depth * height * width % PAGE == 0
            assert height < level.shape[1] + 128
            assert width < level.shape[2] + 128
        assert math.ceil(level.shape[0] / level.chunk[0]) == len(layout.layers)
        if len(layout.layers) > 1:
            assert level.chunk[0] * level.factors[0] == layer


def test_layout_of_sizes_that_do_not_divide():
    layout = make_layout((13, 70, 75), 4, Output(levels=3, chunk=32))
    assert [level.shape for level in layout.levels] == [(13, 70, 75), (7, 35, 38), (4, 18, 19)]
    assert [level.chunk for level in layout.levels] == [(4, 32, 32), (2, 32, 32), (1, 32, 32)]
    assert layout.layers == [range(4), range(4, 8), range(8, 12), range(12, 13)]
