"""Which items a sample takes: pure properties of `ItemSample`."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.system.item_samples import ItemSample, draw, seats

KEYS = [f"{number}.txt" for number in range(200)]


def test_a_sample_is_the_same_in_any_order_and_another_one_with_another_seed() -> None:
    sample = ItemSample(20).chosen(KEYS)
    assert len(sample) == 20
    assert ItemSample(20).chosen(KEYS[::-1]) == sample
    assert ItemSample(20, seed=1).chosen(KEYS) != sample


def test_a_larger_sample_contains_the_smaller_one() -> None:
    assert ItemSample(5).chosen(KEYS) < ItemSample(20).chosen(KEYS)


@given(st.text(min_size=1))
def test_a_new_document_replaces_at_most_one_of_the_sample(key: str) -> None:
    before = ItemSample(20).chosen(KEYS)
    after = ItemSample(20).chosen([key, *(other for other in KEYS if other != key)])
    assert len(before - after) <= 1
    assert after - before <= {key}


def test_draws_are_spread_evenly_from_0_to_below_1() -> None:
    drawn = sorted(draw(0, str(number)) for number in range(10_000))
    assert drawn[0] >= 0
    assert drawn[-1] < 1
    # Kolmogorov and Smirnov's bound for a chance of 1 in a million.
    assert max(abs(share - n / 10_000) for n, share in enumerate(drawn)) < 0.027


def test_each_stratum_has_its_share_and_the_sample_its_size() -> None:
    strata = ["pdf" if number % 4 else "md" for number in range(200)]
    chosen = ItemSample(20).chosen(KEYS, strata)
    of = dict(zip(KEYS, strata, strict=True))
    assert Counter(of[key] for key in chosen) == {"pdf": 15, "md": 5}


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1), st.integers(1, 300))
def test_seats_add_up_and_no_stratum_has_more_than_it_has_items(
    sizes: dict[str, int], n_seats: int
) -> None:
    found = seats(sizes, n_seats)
    assert sum(found.values()) == min(n_seats, sum(sizes.values()))
    assert all(found[name] <= size for name, size in sizes.items())


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 30), min_size=1), st.integers(1, 100))
def test_a_larger_sample_of_strata_loses_no_item(sizes: dict[str, int], n_items: int) -> None:
    strata = [name for name, size in sizes.items() for _ in range(size)]
    keys = [str(number) for number in range(len(strata))]
    smaller = ItemSample(n_items).chosen(keys, strata)
    assert smaller <= ItemSample(n_items + 1).chosen(keys, strata)


def test_one_more_seat_takes_none_where_the_largest_remainders_would() -> None:
    sizes = {"a": 6, "b": 6, "c": 2}
    assert seats(sizes, 10) == {"a": 5, "b": 4, "c": 1}
    assert seats(sizes, 11) == {"a": 5, "b": 5, "c": 1}
    assert seats(sizes, 12) == {"a": 5, "b": 5, "c": 2}


def test_a_sample_of_more_than_there_are_is_all() -> None:
    assert ItemSample(1_000).chosen(KEYS) == set(KEYS)
    assert ItemSample(1_000, is_first=True).chosen(KEYS) == set(KEYS)
    assert ItemSample(3).chosen([]) == frozenset()


def test_the_first_items_are_those_of_the_list() -> None:
    assert ItemSample(3, is_first=True).chosen(KEYS) == set(KEYS[:3])


@pytest.mark.parametrize(
    ("given_options", "words"),
    [
        ({"n_items": 0}, "a sample of 0 items: it needs at least 1."),
        ({"n_items": -3}, "a sample of -3 items: it needs at least 1."),
        (
            {"n_items": 3, "is_first": True, "seed": 4},
            "the first items of a list have no seed and no strata.",
        ),
    ],
)
def test_a_sample_that_cannot_be_is_refused(given_options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ItemSample(**given_options)  # type: ignore[arg-type]
