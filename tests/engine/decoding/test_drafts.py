from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.decoding.drafts import FIRST_PAUSE, MOST_TOKENS, Drafter


def drafter(*ids: int) -> Drafter:
    return Drafter(np.array(ids, np.int32))


def test_what_followed_the_same_words_earlier_is_guessed() -> None:
    one = drafter(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2)
    one.add(3)
    assert one.guess(4, 0.3) == [4, 5, 6, 7]


def test_nothing_is_guessed_where_nothing_repeats_or_where_it_costs_as_much() -> None:
    one = drafter(1, 2, 3, 4, 5, 1, 2, 3)
    assert one.guess(10, 1.0) == []
    assert one.guess(0, 0.3) == []
    assert drafter(1, 2, 3, 4).guess(10, 0.3) == []


def test_guesses_grow_while_they_are_right_and_pause_when_they_are_not() -> None:
    text = list(range(100, 400))
    one = drafter(*text, *text[:3])
    lengths = []
    for _ in range(12):
        lengths.append(len(guess := one.guess(1000, 0.3)))
        one.learn(len(guess), len(guess))
    assert lengths[0] == 10
    assert lengths == sorted(lengths)
    assert lengths[-1] == MOST_TOKENS
    for _ in range(30):
        one.learn(4, 0)
    assert one.guess(10, 0.3) == []
    for token in text[100 : 100 + FIRST_PAUSE]:
        one.add(token)
    again = one.guess(10, 0.3)
    assert 1 <= len(again) <= 4, "a short try"
    assert again == text[100 + FIRST_PAUSE : 100 + FIRST_PAUSE + len(again)]


def test_the_dearer_a_check_the_shorter_the_guess() -> None:
    text = list(range(100, 400))
    lengths = [len(drafter(*text, *text[:3]).guess(100, price)) for price in (0.1, 0.3, 0.6, 0.85)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 1


def test_a_prompt_is_indexed_only_where_the_price_allows_a_guess() -> None:
    text = list(range(100, 400))
    one = drafter(*text, *text[:3])
    for price in (1.0, 1.5):
        assert one.guess(10, price) == []
    assert not one._after
    assert one.guess(10, 0.1)
    assert len(one._after) >= 300


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=20))
def test_a_guess_is_always_something_that_was_said(prompt: list[int], said: list[int]) -> None:
    one = drafter(*prompt)
    for token in said:
        one.add(token)
    guess = one.guess(8, 0.3)
    whole = [*prompt, *said]
    assert not guess or any(
        whole[start : start + len(guess)] == guess for start in range(len(whole))
    )
