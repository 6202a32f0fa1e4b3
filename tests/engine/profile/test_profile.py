"""A profile survives its file, and gives times between the measured points."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from paddock.engine.profile.profile import (
    Agreement,
    DecodePoint,
    FormatPoint,
    PrefillPoint,
    Profile,
    ProfileUnreadable,
    Weights,
    neighbour_s,
    prefill_s,
    read_profile,
    step_s,
)

WHOLE = Profile(
    digest="a" * 64,
    device="cpu2-some",
    build="0.3.36",
    measured_at=1.0,
    n_threads=2,
    load_s=0.5,
    weight_bytes=98,
    cell_bytes=23_040.0,
    prefill=(PrefillPoint(100, 100.0), PrefillPoint(200, 200.0), PrefillPoint(100, 50.0, 1000)),
    decode=(
        DecodePoint(1, 100, True, 100.0),
        DecodePoint(4, 100, True, 200.0),
        DecodePoint(4, 300, True, 100.0),
        DecodePoint(4, 100, False, 400.0),
    ),
    copy_s=1e-5,
    formats=(FormatPoint("Q4_1", 256, 2.0),),
    weights=(Weights("Q4_1", 1e8, 3e7),),
    agreements=(Agreement(True, False, True), Agreement(False, True, None)),
)


def test_a_profile_comes_back_from_json_as_it_was() -> None:
    assert read_profile(json.loads(json.dumps(WHOLE.as_json()))) == WHOLE


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 0},
        {"prefill": [{"n_batch_tokens": 64}]},
        {"prefill": 3},
        {"decode": [[1, 2]]},
        {"prefill": [{"n_batch_tokens": 64, "tokens_per_s": 0}]},
        {"surprise": 1},
    ],
)
def test_a_damaged_profile_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ProfileUnreadable):
        read_profile({**WHOLE.as_json(), **damage})


def test_a_list_is_no_profile() -> None:
    with pytest.raises(ProfileUnreadable):
        read_profile([])


def test_times_lie_between_the_measured_ones() -> None:
    assert prefill_s(WHOLE, 100) == prefill_s(WHOLE, 200) == pytest.approx(1.0)
    assert prefill_s(WHOLE, 400) == pytest.approx(2.0)
    assert step_s(WHOLE, 1, 100, True) == pytest.approx(0.01)
    assert step_s(WHOLE, 4, 200, True) == pytest.approx(0.03)
    assert step_s(WHOLE, 4, 100, False) == pytest.approx(0.01)


def test_a_batch_smaller_than_the_measured_ones_lies_between_them_and_one_token() -> None:
    assert 0.01 < prefill_s(WHOLE, 50) < prefill_s(WHOLE, 100)


def test_cells_of_others_cost_what_was_measured() -> None:
    assert neighbour_s(WHOLE) == pytest.approx(1e-5)
    assert prefill_s(WHOLE, 100, n_cells_before=2000) == pytest.approx(3.0)


def test_what_was_measured_without_flash_attention_is_apart() -> None:
    plain = (PrefillPoint(100, 50.0, is_flash=False),)
    steps = (DecodePoint(4, 100, False, 800.0, is_flash=False),)
    both = replace(WHOLE, prefill=WHOLE.prefill + plain, decode=WHOLE.decode + steps)
    assert prefill_s(both, 100) == prefill_s(WHOLE, 100)
    assert prefill_s(both, 100, is_flash=False) == pytest.approx(2.0)
    assert step_s(both, 4, 100, False) == pytest.approx(0.01)
    assert step_s(both, 4, 100, False, is_flash=False) == pytest.approx(0.005)
    assert both.has_plain
    assert not WHOLE.has_plain
    assert both.agreement(is_flash=False) == Agreement(False, True, None)
    assert replace(both, agreements=()).agreement().company is None


def test_an_unmeasured_unified_cache_attends_to_the_cells_of_all() -> None:
    split = tuple(DecodePoint(8, depth, False, 8 / (0.01 + depth * 1e-6)) for depth in (64, 1024))
    device = replace(WHOLE, decode=split)
    apart_s, together_s = (step_s(device, 8, 1000, is_unified) for is_unified in (False, True))
    assert apart_s == pytest.approx(0.011)
    assert together_s == pytest.approx(0.01 + 8 * 0.001 + 1.5e-9 * 64 * 1000)


def test_where_nothing_was_measured_no_time_is_claimed() -> None:
    nothing = replace(WHOLE, prefill=(), decode=())
    assert prefill_s(nothing, 100) == step_s(nothing, 1, 1, True) == 0.0
