"""Decisions: how likely each option of a question about a conversation is. Pure.

A question about many documents stands before them, several questions about one document after it:
what prompts share is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from .request import ChatRequest, Message
from .system.records import record, replace


@record(frozen=True, slots=True)
class OptionQuestion:
    options: tuple[str, ...]
    """Texts of which one is the answer."""
    words: str
    """What the prompt says of it."""


def option_list(options: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Return lines for the prompt; an empty description says nothing more."""
    described = descriptions or [""] * len(options)
    pairs = zip(options, described, strict=True)
    lines = [f"- {option}: {words}" if words else f"- {option}" for option, words in pairs]
    return "\n".join(["Answer with one of these, and nothing else:", *lines])


def decision_request(
    request: ChatRequest, question: OptionQuestion, *, is_only: bool
) -> ChatRequest:
    """Return a request about the messages of another one; `is_only`: no others are asked."""
    place = with_beginning if is_only else with_ending
    messages = tuple(place(request.messages, question.words))
    longest = max(len(option.encode(errors="replace")) for option in question.options)
    params = {"max_tokens": longest + 1}  # a token has a byte at least, and one ends the turn
    options = question.options
    return replace(request, messages=messages, params=params, think=False, answers=options)


def with_beginning(messages: Sequence[Message], words: str) -> list[Message]:
    """Put text where prompts of many items are still the same: their KV cache is shared.

    That is the end of a system message, else the beginning of the conversation.
    """
    if not words or not messages:
        return list(messages)
    first, is_system = messages[0], messages[0].role == "system"
    parts = (first.content.rstrip(), words) if is_system else (words, first.content)
    if not is_system and first.role != "user":
        return [Message("user", words), *messages]
    return [replace(first, content="\n\n".join(parts)), *messages[1:]]


def with_ending(messages: Sequence[Message], words: str) -> list[Message]:
    """Append text to the user's last message: small models respect what is last."""
    where = max((n for n, message in enumerate(messages) if message.role == "user"), default=None)
    if where is None:
        return [*messages, Message("user", words)]
    ended = replace(messages[where], content=f"{messages[where].content.rstrip()}\n\n{words}")
    return [*messages[:where], ended, *messages[where + 1 :]]
