"""Which model comes and which goes, asked of the pure rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.memory.device_memory import MemoryAmount
from paddock.engine.memory.eviction_policy import (
    EvictModels,
    LoadedState,
    LoadModel,
    MemoryLimits,
    RefuseModel,
    WaitForChange,
    WaitingModel,
    decide,
    in_order,
    may_evict_at,
)
from paddock.engine.system.records import replace

ONE = MemoryLimits(max_loaded_models=1, max_wait_s=5)
THREE = MemoryLimits(max_loaded_models=3, max_wait_s=5)
A = LoadedState("a", "ready", MemoryAmount(4), load_s=2, ready_at=0, last_used_at=100)
B = WaitingModel("b", since=100, is_interactive=False, options=(MemoryAmount(4),), n_good=1)


def test_the_best_layout_that_fits_is_taken() -> None:
    wish = replace(B, options=(MemoryAmount(9), MemoryAmount(6), MemoryAmount(3)), n_good=2)
    assert decide([], [wish], MemoryAmount(6), THREE, 100) == LoadModel("b", 1)


def test_a_poor_layout_is_only_a_last_resort() -> None:
    wish = replace(B, options=(MemoryAmount(8), MemoryAmount(3)), n_good=1)
    idle = replace(A, last_used_at=0)
    assert decide([idle], [wish], MemoryAmount(4), THREE, 100) == EvictModels(("a",))
    assert decide(
        [replace(idle, is_pinned=True)], [wish], MemoryAmount(4), THREE, 100
    ) == LoadModel("b", 1)


def test_of_good_layouts_the_one_for_which_less_must_go_is_made_room_for() -> None:
    small = LoadedState("small", "ready", MemoryAmount(1), load_s=1, last_used_at=0)
    idle = replace(A, last_used_at=0)
    wish = replace(B, options=(MemoryAmount(9), MemoryAmount(5)), n_good=2)
    assert decide([idle, small], [wish], MemoryAmount(4), THREE, 100) == EvictModels(("small",))


BUSY = replace(A, n_users=3)
SLOW = replace(A, n_users=1, load_s=30, ready_at=99)
CASES: dict[str, tuple[LoadedState, MemoryLimits, float, object]] = {
    "a model that has just fallen idle stays as long as loading it takes":
        (A, THREE, 100, WaitForChange(102)),
    "a busy model goes on for max_wait": (BUSY, ONE, 100, WaitForChange(105)),
    "and then drains": (BUSY, ONE, 105, EvictModels(("a",))),
    "a model that was just loaded has a turn as long as its load":
        (SLOW, ONE, 105, WaitForChange(129)),
    "who drains already is waited for":
        (replace(A, state="draining", n_users=1), ONE, 100, WaitForChange(None)),
    "a model that loads for someone is not stopped":
        (replace(A, state="loading", n_waiting=1), ONE, 100, WaitForChange(None)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_model_in_the_way_goes_when_it_has_had_its_turn(case: str) -> None:
    loaded, limits, now, decision = CASES[case]
    assert decide([loaded], [B], MemoryAmount(), limits, now) == decision


def test_what_can_never_fit_is_refused_though_all_the_others_would_go() -> None:
    wish = replace(B, options=(MemoryAmount(20), MemoryAmount(10)), n_good=1)
    assert decide([A], [wish], MemoryAmount(5), THREE, 100) == RefuseModel(
        "b", MemoryAmount(10), MemoryAmount(9), False
    )


def test_who_fits_next_to_the_first_in_line_need_not_wait_for_it() -> None:
    busy = replace(A, n_users=1, room=MemoryAmount(6))
    large = replace(B, key="large", since=90, options=(MemoryAmount(9),))
    small = replace(B, key="small", since=91, options=(MemoryAmount(1),))
    house = replace(THREE, max_wait_s=60)
    # The large one claims 9 of the 10 that are free or will be given by the busy one.
    assert decide([busy], [large, small], MemoryAmount(4), house, 100) == LoadModel("small", 0)
    medium = replace(small, options=(MemoryAmount(2),))
    assert decide([busy], [large, medium], MemoryAmount(4), house, 100) == WaitForChange(150)


def test_people_come_first_and_then_those_who_wait_longest() -> None:
    person = replace(B, key="person", since=100, is_interactive=True)
    early = replace(B, key="early", since=50)
    assert [waiting_model.key for waiting_model in in_order([B, early, person])] == [
        "person",
        "early",
        "b",
    ]
    assert decide([], [B, early, person], MemoryAmount(4), THREE, 200) == LoadModel("person", 0)


def test_a_job_that_has_waited_for_long_is_not_put_off_for_people_any_more() -> None:
    person = replace(B, key="person", since=100, is_interactive=True)
    old = replace(B, key="old", since=39)
    assert [waiting_model.key for waiting_model in in_order([person, old])] == ["old", "person"]


stays = st.lists(
    st.builds(
        LoadedState,
        st.sampled_from("abcdef"),
        st.sampled_from(["loading", "ready", "draining", "unloading"]),
        st.integers(1, 5).map(MemoryAmount),
        st.floats(0.1, 20),
        st.integers(0, 3),
        st.integers(0, 3),
        st.floats(0, 100),
        st.floats(0, 100),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda model: model.key,
)
wishes = st.lists(
    st.builds(
        lambda key, since, person, sizes, n: WaitingModel(
            key,
            since,
            person,
            tuple(map(MemoryAmount, sorted(sizes, reverse=True))),
            min(n, len(sizes)),
        ),
        st.sampled_from("uvwxyz"),
        st.floats(0, 100),
        st.booleans(),
        st.lists(st.integers(1, 9), min_size=1, max_size=3),
        st.integers(1, 3),
    ),
    max_size=3,
    unique_by=lambda model: model.key,
)


@given(stays, wishes, st.integers(0, 12), st.integers(1, 4), st.floats(100, 200))
def test_every_move_keeps_the_rules(
    there: list[LoadedState], waiting: list[WaitingModel], free: int, n_most: int, now: float
) -> None:
    house = MemoryLimits(n_most, 5)
    move = decide(there, waiting, MemoryAmount(free), house, now)
    by_key = {model.key: model for model in there}
    if isinstance(move, LoadModel):
        wish = next(waiting_model for waiting_model in waiting if waiting_model.key == move.key)
        assert MemoryAmount(free).holds(wish.options[move.option]) and len(there) < n_most
    elif isinstance(move, EvictModels):
        going = [by_key[key] for key in move.keys]
        assert going and not any(victim.is_pinned or victim.is_leaving for victim in going)
        head = in_order(waiting)[0]
        for victim in going:
            assert victim.state == "loading" or may_evict_at(victim, head, house) <= now
    elif isinstance(move, WaitForChange):
        assert move.until is None or move.until > now
        # A request for no model in particular waits for one that is on the way.
        if waiting and move.until is None:
            assert any(model.state != "ready" for model in there)
    elif isinstance(move, RefuseModel):
        rest = sum((o.room for o in there if o.is_leaving or not o.is_pinned), MemoryAmount(free))
        n_pinned = sum(model.is_pinned and not model.is_leaving for model in there)
        wish = next(waiting_model for waiting_model in waiting if waiting_model.key == move.key)
        assert n_pinned >= n_most or not any(rest.holds(room) for room in wish.options)
