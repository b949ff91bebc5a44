"""The need of a job grows with its pixels, and says in which units."""

from amst_hpc.config import Config
from amst_hpc.preflight.estimate import (
    LIBRARIES_BYTES,
    PAIR_SECONDS,
    PREALIGN_PART,
    REGISTER_SECONDS,
    estimate,
    with_prealignment,
)
from amst_hpc.settings import load_config


def test_small_slices_take_the_least_time():
    need = estimate(10, (100, 100), "uint8", Config())
    least = 10 * (REGISTER_SECONDS[0] + PAIR_SECONDS[0])
    assert least < need.seconds < 2 * least
    assert need.rank_bytes > LIBRARIES_BYTES


def test_time_and_memory_grow_with_the_slices():
    one, four = (estimate(100, (n, n), "uint8", Config()) for n in (2048, 4096))
    assert (one.slice_bytes, four.slice_bytes) == (2048**2, 4096**2)
    assert one.seconds < four.seconds < 4 * one.seconds
    assert one.rank_bytes < four.rank_bytes
    wide = estimate(100, (2048, 2048), "uint16", Config())
    assert wide.output_bytes == 2 * one.output_bytes
    assert wide.rank_bytes > one.rank_bytes


def test_without_neighbours_there_are_neither_pairs_nor_filters():
    one, no_pairs = (
        estimate(100, (1000, 1000), "uint8", load_config(None, [f"neighbours.enabled={value}"]))
        for value in ("true", "false")
    )
    assert one.seconds - no_pairs.seconds > 100 * PAIR_SECONDS[0]


def test_raw_alone_takes_a_part_of_the_time_of_pairs_more():
    need = estimate(100, (100, 100), "uint8", Config())
    more = with_prealignment(need, (100, 100))
    part = 100 * PREALIGN_PART * PAIR_SECONDS[0]
    assert part < more.seconds - need.seconds < 1.1 * part
    assert more.rank_bytes == need.rank_bytes


def test_a_wider_template_needs_memory():
    small, large = (
        estimate(100, (1000, 1000), "uint8", load_config(None, [f"template.radius={radius}"]))
        for radius in (1, 20)
    )
    assert large.rank_bytes - small.rank_bytes == 2 * 19 * 10**6


def test_registration_at_full_size_needs_more_of_it():
    usual, full = (
        estimate(9, (4096, 4096), "uint8", load_config(None, [f"registration.working_size={size}"]))
        for size in (700, 0)
    )
    assert full.rank_bytes - usual.rank_bytes > 1e9


def test_levels_need_disk():
    small = estimate(100, (1000, 1000), "uint8", Config())
    single = estimate(100, (1000, 1000), "uint8", load_config(None, ["output.levels=1"]))
    assert single.output_bytes == 10**8
    assert single.output_bytes < small.output_bytes < 1.2 * single.output_bytes


def test_slices_that_reading_keeps_are_counted():
    plain, held = (estimate(9, (64, 64), "uint8", Config(), held) for held in (0, 10**9))
    assert held.rank_bytes - plain.rank_bytes == 10**9
