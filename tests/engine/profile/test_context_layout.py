"""Layouts and sizes follow from what was measured."""

from paddock.engine.profile.context_layout import (
    ContextLayout,
    LayoutBounds,
    Workload,
    choose_layout,
    gpu_parallel,
    turn_tokens,
    workload_s,
)
from paddock.engine.profile.profile import DecodePoint, PrefillPoint, Profile
from paddock.engine.system.records import replace

ROOMY = LayoutBounds(n_cells=16_384, n_parallel_max=16, n_batch_max=512)


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
    return Profile("d" * 64, "cpu2", "b", 23_040, prefill, tuple(decode), 1e-5)


def test_unrelated_documents_get_a_stream_each() -> None:
    work = Workload(16, 650, 64)
    assert not choose_layout(profile(), work, ROOMY).is_unified


def test_where_neighbours_cost_nothing_streams_come_first_unless_much_is_shared() -> None:
    layout = choose_layout(profile(neighbours_cost=0.0), Workload(16, 650, 64), ROOMY)
    assert layout == ContextLayout(False, 16, 512)
    assert choose_layout(profile(neighbours_cost=0.0), Workload(16, 650, 64, 400), ROOMY).is_unified


def test_no_layout_exceeds_its_bounds() -> None:
    for bounds in (
        LayoutBounds(8192, 3, 200),
        LayoutBounds(512, 1, 32),
        LayoutBounds(65_536, 128, 2048),
    ):
        for work in (Workload(1, 20, 5), Workload(200, 300, 100), Workload(9, 5_000, 10, 4_000)):
            layout = choose_layout(profile(), work, bounds)
            assert layout.n_parallel <= bounds.n_parallel_max
            assert layout.n_batch_tokens <= bounds.n_batch_max


def test_without_a_profile_every_sequence_has_its_stream_if_it_fits() -> None:
    bounds = replace(ROOMY, n_parallel_max=8)
    assert choose_layout(None, Workload(16, 650, 64), bounds) == ContextLayout(False, 8, 512)
    assert choose_layout(None, Workload(16, 650, 64), replace(bounds, n_cells=4096)).is_unified
    assert choose_layout(None, Workload(16, 650, 64, 400), bounds).is_unified


def test_a_turn_is_as_large_as_its_time_allows() -> None:
    assert turn_tokens(profile(), 0.3) == 128
    assert turn_tokens(profile(), 0.15) < 64
    assert turn_tokens(profile(), 1e-9) == 16, "never less, or the weights are read for nothing"
    assert turn_tokens(profile(), 60.0) == 2048
    assert turn_tokens(None, 0.3) == 128


def test_seconds_grow_with_the_work_and_shrink_with_what_is_shared() -> None:
    single, many = Workload(1, 650, 64), Workload(64, 650, 64)
    assert 0 < workload_s(profile(), single) < workload_s(profile(), many)
    assert workload_s(profile(), replace(many, n_shared_tokens=500)) < workload_s(profile(), many)
    assert workload_s(profile(), replace(many, n_sequences=0)) == 0.0


def h200(*, is_measured: bool = True) -> Profile:
    """An 8B model on an H200: steps of 5 to 20 ms at a depth of 64, more with depth."""
    decode = []
    for n, step in ((1, 5.0), (8, 6.5), (16, 7.5), (32, 10.0), (64, 13.0), (128, 20.0)):
        for depth in (64, 1024):
            step_ms = step + n * (depth - 64) * 5e-5
            decode.append(DecodePoint(n, depth, False, 1000 * n / step_ms))
    prefill = tuple(
        PrefillPoint(n, speed)
        for n, speed in ((64, 6_000.0), (512, 16_000.0), (1024, 20_000.0), (2048, 22_500.0))
    )
    profile = Profile("d", "gpu-nvidia-h200", "b", 131_072, prefill)
    return replace(profile, decode=tuple(decode) if is_measured else ())


def test_a_large_card_gets_a_stream_for_each_of_64_and_more_and_batches_of_2048() -> None:
    card = LayoutBounds(132 * 4096, 128, 2048, is_gpu=True)
    for work in (Workload(200, 700, 64), Workload(64, 2000, 400), Workload(128, 300, 800, 200)):
        layout = choose_layout(h200(), work, card)
        assert not layout.is_unified
        assert (layout.n_parallel, layout.n_batch_tokens) == (128, 2048)
        assert layout.n_pass_tokens == 2048, "22,500 tokens a second are more than 8 % above 20,000"
    assert gpu_parallel(h200()) == 128
    unmeasured = choose_layout(h200(is_measured=False), Workload(64, 512, 64), card)
    assert (unmeasured.is_unified, unmeasured.n_parallel) == (False, 128)
    assert (unmeasured.n_batch_tokens, unmeasured.n_pass_tokens) == (2048, 512)


def test_several_cards_get_several_passes_of_a_batch_and_equal_passes_are_small() -> None:
    cards = LayoutBounds(132 * 4096, 128, 2048, is_gpu=True, n_devices=2)
    assert choose_layout(h200(), Workload(64, 700, 64), cards).n_pass_tokens == 512
    flat = replace(h200(), prefill=tuple(PrefillPoint(n, 16_000.0) for n in (512, 1024, 2048)))
    one_card = replace(cards, n_devices=1)
    small = replace(one_card, n_pass_max=512)
    assert choose_layout(h200(), Workload(64, 700, 64), small).n_pass_tokens == 512
    assert choose_layout(flat, Workload(64, 700, 64), one_card).n_pass_tokens == 512


def test_a_turn_of_an_unmeasured_card_is_larger_than_that_of_a_processor() -> None:
    assert turn_tokens(None, 0.1, is_gpu=True) == 512
    assert turn_tokens(h200(), 0.2) == 2048
