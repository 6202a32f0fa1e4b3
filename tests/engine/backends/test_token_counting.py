"""Tokens where no one can count them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.backends.token_bounds import (
    least_in_chat,
    least_tokens,
    most_in_chat,
    most_tokens,
)
from paddock.engine.request import Message

# What 21 vocabularies make of each text: those of llama.cpp's `models/ggml-vocab-*.gguf`, SmolLM2
# and all-MiniLM. The fewest tokens, and whose they are.
FEWEST = json.loads(Path(__file__).with_name("fewest_tokens.json").read_text("utf-8"))


@pytest.mark.parametrize("case", FEWEST, ids=[case["name"] for case in FEWEST])
def test_no_vocabulary_makes_fewer_tokens_of_a_text_than_the_lower_bound(
    case: dict[str, Any],
) -> None:
    assert 0 <= least_tokens(case["text"] * case["times"]) <= case["fewest"]


def test_the_lower_bound_counts_scripts_without_spaces_and_numbers() -> None:
    chinese = next(case for case in FEWEST if case["name"] == "Chinese")
    assert least_tokens(chinese["text"]) == 27
    assert least_tokens("12;3;boat\n" * 10) == 10
    assert least_tokens("1 2 3") == 3
    assert least_tokens("— … *** ") == 0


@given(st.text())
def test_the_upper_bound_is_never_below_the_lower_one(text: str) -> None:
    assert least_tokens(text) <= most_tokens(text)


@given(st.text(), st.text())
def test_a_longer_text_never_has_fewer_tokens(first: str, other: str) -> None:
    assert most_tokens(f"{first} {other}") >= most_tokens(first)
    assert least_tokens(f"{first} {other}") >= max(least_tokens(first), least_tokens(other))


def test_a_conversation_has_room_for_its_template() -> None:
    messages = [Message("system", "Be brief."), Message("user", "The ferry leaves at 7:40.")]
    assert (least_in_chat(messages), most_in_chat(messages)) == (7, 75)
