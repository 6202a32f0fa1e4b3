"""Tokens where nobody can count them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.elsewhere.estimate import (
    least_in_chat,
    least_tokens,
    most_in_chat,
    most_tokens,
)
from paddock.engine.request import Message


@given(st.text())
def test_the_upper_bound_is_never_below_the_lower_one(text: str) -> None:
    assert least_tokens(text) <= most_tokens(text)


@given(st.text(), st.text())
def test_a_longer_text_never_has_fewer_tokens(one: str, other: str) -> None:
    assert most_tokens(f"{one} {other}") >= most_tokens(one)
    assert least_tokens(f"{one} {other}") == least_tokens(one) + least_tokens(other)


def test_a_conversation_has_room_for_its_template() -> None:
    messages = [Message("system", "Be brief."), Message("user", "The ferry leaves at 7:40.")]
    assert (least_in_chat(messages), most_in_chat(messages)) == (6, 75)
