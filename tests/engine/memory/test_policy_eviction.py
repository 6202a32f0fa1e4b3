"""Who makes room: never a pinned one, never in vain, never more than needed."""

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.memory.device_memory import MemoryAmount
from paddock.engine.memory.eviction_policy import EvictionCandidate, choose_victims, eviction_price

rooms = st.builds(
    MemoryAmount, st.integers(0, 20), st.lists(st.integers(0, 20), max_size=3).map(tuple)
)
candidates = st.lists(
    st.builds(
        EvictionCandidate,
        st.integers(0, 10_000).map(str),
        rooms,
        st.floats(0.1, 60),
        st.floats(0, 1000),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=7,
    unique_by=lambda candidate: candidate.key,
)


def given_by(going: list[EvictionCandidate]) -> MemoryAmount:
    return sum((victim.room for victim in going), MemoryAmount())


@given(candidates, rooms, st.integers(0, 3))
def test_enough_room_is_made_or_no_one_goes(
    there: list[EvictionCandidate], missing: MemoryAmount, n_places: int
) -> None:
    chosen = choose_victims(there, missing, n_places)
    could_go = [candidate for candidate in there if not candidate.is_pinned]
    is_possible = given_by(could_go).holds(missing) and len(could_go) >= n_places
    assert (chosen is not None) == is_possible
    going = [candidate for candidate in there if candidate.key in (chosen or ())]
    assert not any(victim.is_pinned for victim in going)
    if chosen is not None:
        assert given_by(going).holds(missing) and len(going) >= n_places


@given(candidates, rooms, st.integers(0, 3))
def test_no_one_goes_who_is_not_needed(
    there: list[EvictionCandidate], missing: MemoryAmount, n_places: int
) -> None:
    going = [
        candidate
        for candidate in there
        if candidate.key in (choose_victims(there, missing, n_places) or ())
    ]
    for victim in going:
        rest = [other for other in going if other is not victim]
        assert len(rest) < n_places or not given_by(rest).holds(missing)


@given(candidates, rooms, st.integers(0, 3))
def test_busy_and_leased_ones_go_only_where_it_cannot_be_avoided(
    there: list[EvictionCandidate], missing: MemoryAmount, n_places: int
) -> None:
    going = [
        candidate
        for candidate in there
        if candidate.key in (choose_victims(there, missing, n_places) or ())
    ]
    for spared in ("is_busy", "is_leased"):
        others = [
            candidate
            for candidate in there
            if not candidate.is_pinned and not candidate.is_busy and not getattr(candidate, spared)
        ]
        if given_by(others).holds(missing) and len(others) >= n_places:
            assert not any(getattr(victim, spared) for victim in going)


def test_of_two_alike_the_one_used_longer_ago_goes() -> None:
    new = EvictionCandidate("new", MemoryAmount(10), load_s=5, idle_s=1)
    old = EvictionCandidate("old", MemoryAmount(10), load_s=5, idle_s=100)
    assert choose_victims([new, old], MemoryAmount(8)) == ("old",)


def test_what_lies_on_another_device_gives_nothing() -> None:
    here = EvictionCandidate("here", MemoryAmount(0, (10, 0)), load_s=60, idle_s=1)
    there = EvictionCandidate("there", MemoryAmount(0, (0, 10)), load_s=1, idle_s=100)
    missing = MemoryAmount(0, (5, 0))
    assert eviction_price(there, missing) > eviction_price(here, missing)
    assert choose_victims([here, there], missing) == ("here",)


def test_one_large_model_goes_rather_than_it_and_a_small_one() -> None:
    small = EvictionCandidate("small", MemoryAmount(2), load_s=0.1, idle_s=100)
    large = EvictionCandidate("large", MemoryAmount(10), load_s=20, idle_s=1)
    assert choose_victims([small, large], MemoryAmount(9)) == ("large",)
