"""Layouts and sizes follow from what was measured."""

from __future__ import annotations

from dataclasses import replace

from paddock.engine.profile.choice import (
    Bounds,
    Layout,
    Workload,
    choose,
    estimate,
    seconds,
    turn_tokens,
)
from paddock.engine.profile.profile import DecodePoint, PrefillPoint, Profile

ROOMY = Bounds(n_cells=16_384, n_parallel_max=16, n_batch_max=512)


def profile(*, neighbours_cost: float = 1.0) -> Profile:
    """A small model on two cores; a unified cache costs the more, the more sequences it has."""
    decode = []
    for n, tokens_per_s in ((1, 190.0), (4, 240.0), (8, 280.0), (16, 350.0)):
        for depth in (256, 700):
            alone = tokens_per_s * (1 - 0.0001 * depth)
            decode.append(DecodePoint(n, depth, False, alone))
            decode.append(
                DecodePoint(n, depth, True, alone / (1 + neighbours_cost * 3e-5 * depth * (n - 1)))
            )
    prefill = (
        PrefillPoint(64, 400.0),
        PrefillPoint(128, 450.0),
        PrefillPoint(512, 500.0),
        PrefillPoint(128, 450.0 / (1 + neighbours_cost * 0.2), n_cells_before=4096),
    )
    return Profile(
        "d" * 64, "cpu2", "b", 0.0, 2, 1.0, 98 << 20, 23_040, prefill, tuple(decode), 1e-5
    )


def test_unrelated_documents_get_a_stream_each() -> None:
    work = Workload(16, 650, 64)
    assert not choose(profile(), work, ROOMY).is_unified


def test_where_neighbours_cost_nothing_streams_come_first_unless_much_is_shared() -> None:
    layout = choose(profile(neighbours_cost=0.0), Workload(16, 650, 64), ROOMY)
    assert layout == Layout(False, 16, 512)
    assert choose(profile(neighbours_cost=0.0), Workload(16, 650, 64, 400), ROOMY).is_unified


def test_one_request_alone_gets_a_stream_beside_which_others_do_not_slow_it() -> None:
    assert not choose(profile(), Workload(1, 650, 64), ROOMY).is_unified


def test_what_fits_no_stream_is_taken_by_the_unified_cache() -> None:
    cramped = Bounds(n_cells=1024, n_parallel_max=1, n_batch_max=512)
    assert choose(profile(), Workload(16, 900, 64), cramped).n_parallel == 1
    layout = choose(profile(), Workload(16, 2000, 64), Bounds(4096, 16, 512))
    assert layout.is_unified or layout.n_parallel == 1, "a stream must hold a whole request"


def test_no_layout_exceeds_its_bounds() -> None:
    for bounds in (Bounds(8192, 3, 200), Bounds(512, 1, 32), Bounds(65_536, 128, 2048)):
        for work in (Workload(1, 20, 5), Workload(200, 300, 100), Workload(9, 5_000, 10, 4_000)):
            layout = choose(profile(), work, bounds)
            assert layout.n_parallel <= bounds.n_parallel_max
            assert layout.n_batch_tokens <= bounds.n_batch_max


def test_without_a_profile_every_sequence_has_its_stream_if_it_fits() -> None:
    bounds = replace(ROOMY, n_parallel_max=8)
    assert choose(None, Workload(16, 650, 64), bounds) == Layout(False, 8, 512)
    assert choose(None, Workload(16, 650, 64), replace(bounds, n_cells=4096)).is_unified
    assert choose(None, Workload(16, 650, 64, 400), bounds).is_unified


def test_a_turn_is_as_large_as_its_time_allows() -> None:
    assert turn_tokens(profile(), 0.3) == 128
    assert turn_tokens(profile(), 0.15) < 64
    assert turn_tokens(profile(), 1e-9) == 16, "never less, or the weights are read for nothing"
    assert turn_tokens(profile(), 60.0) == 2048
    assert turn_tokens(None, 0.3) == 128


def test_seconds_grow_with_the_work_and_shrink_with_what_is_shared() -> None:
    one, many = Workload(1, 650, 64), Workload(64, 650, 64)
    assert 0 < seconds(profile(), one) < seconds(profile(), many)
    assert seconds(profile(), replace(many, n_shared_tokens=500)) < seconds(profile(), many)
    assert seconds(profile(), replace(many, n_sequences=0)) == 0.0


def test_a_request_that_fits_nowhere_takes_for_ever() -> None:
    assert estimate(
        profile(), Workload(2, 650, 64), Layout(False, 16, 512), Bounds(512, 16, 512)
    ) == float("inf")
