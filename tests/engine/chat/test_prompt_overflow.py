"""Which turns go, and which tokens."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.arrays import Tokens
from paddock.engine.chat.prompt_overflow import (
    PromptLimit,
    cut_around_gap,
    cut_last_turn,
    cut_middle,
    drop_oldest_turns,
    prompt_limit,
)
from paddock.engine.request import ChatRequest, Message, ModelSpec

ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
TURNS = st.lists(st.builds(Message, ROLES, st.text("ab ", max_size=20)), min_size=1, max_size=12)


def count(messages: Sequence[Message]) -> int:
    """Take a character for a token, and three more for each turn."""
    return sum(len(message.content) + 3 for message in messages)


def read(text: str) -> Tokens:
    return np.array([ord(character) for character in text], np.int32)


def write(tokens: Tokens) -> str:
    return "".join(map(chr, tokens.tolist()))


@given(TURNS, st.integers(1, 150))
def test_every_system_turn_and_the_last_turn_stay_and_the_order_too(
    turns: list[Message], n: int
) -> None:
    left = drop_oldest_turns(turns, PromptLimit(n, n), count)
    places = [next(i for i, turn in enumerate(turns) if turn is kept) for kept in left]
    assert left[-1] is turns[-1]
    assert places == sorted(places)
    assert [turn for turn in turns if turn.role == "system"] == [
        turn for turn in left if turn.role == "system"
    ]


@given(TURNS, st.integers(1, 150))
def test_what_is_left_fits_if_it_can_and_begins_with_a_question(
    turns: list[Message], n: int
) -> None:
    turns = [Message("user", "x"), *turns, Message("user", "y")]
    left = drop_oldest_turns(turns, PromptLimit(n, n), count)
    others = [turn for turn in left[:-1] if turn.role != "system"]
    assert not others or others[0].role == "user"
    assert count(left) <= n or not others
    assert len(left) < len(turns)


def test_a_result_stays_with_its_call_and_a_begun_answer_with_its_question() -> None:
    turns = [Message(role, role * 5) for role in ("user", "assistant", "tool", "tool")]
    left = drop_oldest_turns([*turns, *turns], PromptLimit(1, 1), count)
    assert [turn.role for turn in left] == ["assistant", "tool", "tool"]
    begun = [Message("user", "old"), Message("user", "Count."), Message("assistant", "One, two")]
    assert drop_oldest_turns(begun, PromptLimit(1, 1), count) == tuple(begun[1:])


def test_the_middle_of_a_last_turn_goes_where_it_is_too_long_alone() -> None:
    turns = (Message("system", "s" * 10), Message("user", "b" * 100 + "m" * 100 + "e" * 100))
    left = cut_last_turn(turns, PromptLimit(120, 100), count, read, write)
    assert count(left) == 100
    assert left[0] is turns[0]
    assert left[1].content == "b" * 42 + "e" * 42
    assert cut_last_turn(turns, PromptLimit(9, 9), count, read, write)[1].content == ""


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 50))
def test_the_beginning_and_the_end_of_a_prompt_stay(n: int, n_most: int, n_keep: int) -> None:
    tokens = np.arange(n, dtype=np.int32)
    left = cut_middle(tokens, n_most, n_keep)
    assert len(left) == min(n, n_most)
    assert n == 0 or left[-1] == n - 1
    n_kept = min(n_keep, n_most - 1)
    assert left[:n_kept].tolist() == list(range(min(n_kept, n)))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60))
def test_what_is_near_a_gap_stays(n_before: int, n_behind: int, n_most: int) -> None:
    before, behind = np.arange(n_before), np.arange(n_behind)
    left = cut_around_gap(before.astype(np.int32), behind.astype(np.int32), n_most)
    assert sum(map(len, left)) == min(n_before + n_behind, n_most)
    assert left[0].tolist() == list(range(n_before - len(left[0]), n_before))
    assert left[1].tolist() == list(range(len(left[1])))


def test_a_prompt_may_fill_the_context_but_a_cut_one_leaves_room_for_an_answer() -> None:
    request = ChatRequest(ModelSpec("m"), (), reserves_answer=False)
    assert prompt_limit(request, None, 4096) == PromptLimit(4095, 3072)
    assert prompt_limit(request, 100, 4096) == PromptLimit(4095, 3996)
    assert prompt_limit(request, -2, 65_536) == PromptLimit(65_535, 64_512)
    reserving = ChatRequest(ModelSpec("m"), ())
    assert prompt_limit(reserving, 3000, 4096) == PromptLimit(1096, 1096)
    assert prompt_limit(reserving, 100, 4096) == PromptLimit(3996, 3996)
