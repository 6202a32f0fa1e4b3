"""Prompt overflow: the length of a prompt, and its truncation. Pure.

The caller reports what was lost. Turns go in whole exchanges, the oldest first, because templates
want a conversation to begin with a user turn and a tool result to follow its call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import PromptTooLong
from paddock.engine.request import ChatRequest, Message, reserved_tokens
from paddock.engine.system.records import Struct, replace

# Text is tokenised differently at a cut, so a cut may miss its goal by some tokens.
_MAX_TRIES = 5


class PromptLimit(Struct, frozen=True):
    n_most: int
    """Longer ones are cut."""
    n_goal: int
    """Length after a cut: it leaves space for an answer."""


def prompt_limit(request: ChatRequest, max_tokens: int | None, n_ctx_tokens: int) -> PromptLimit:
    """Return the limit of a request's prompt.

    >>> from paddock.engine.request import ModelSpec
    >>> prompt_limit(ChatRequest(ModelSpec("m"), (), reserves_answer=False), -1, 4096)
    PromptLimit(n_most=4095, n_goal=3072)
    """
    usual = reserved_tokens(None, n_ctx_tokens)
    least = reserved_tokens(max_tokens, n_ctx_tokens) if request.reserves_answer else 1
    has_end = max_tokens is not None and max_tokens > 0
    answer_tokens = min(max_tokens or usual, usual) if has_end else usual
    return PromptLimit(n_ctx_tokens - least, n_ctx_tokens - max(least, answer_tokens))


def drop_oldest_turns(
    messages: Sequence[Message], limit: PromptLimit, count: Callable[[Sequence[Message]], int]
) -> tuple[Message, ...]:
    """Return a conversation with all system turns and as many of the last turns as fit.

    The result may still be too long: the last exchange always stays.

    `count` returns the tokens of a conversation's prompt.
    """
    places = _shorter_from(messages)
    low = 0
    high = len(places) - 1
    while low < high:
        middle = (low + high) // 2
        if count(_shorter(messages, places[middle])) <= limit.n_goal:
            high = middle
        else:
            low = middle + 1
    return _shorter(messages, places[low])


def least_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return what stays however much is cut: system turns, and the last exchange without its text.

    With 1,500 tools each count takes 0.3 s.
    """
    *kept, last = _shorter(messages, _shorter_from(messages)[-1])
    return (*kept, replace(last, content=""))


def _shorter(messages: Sequence[Message], place: int) -> tuple[Message, ...]:
    system = [message for message in messages[:place] if message.role == "system"]
    return (*system, *messages[place:])


def _shorter_from(messages: Sequence[Message]) -> list[int]:
    """Return from where on all turns may stay without those before, but for system turns.

    Where none may go it is the first one.

    >>> _shorter_from([Message(role, "x") for role in ("system", "user", "assistant", "user")])
    [3]
    """
    # How many turns at the end must stay together. The last turn; a call with its results; a begun
    # answer with the turn that it answers.
    n = 1
    while n < len(messages) and messages[-n].role == "tool":
        n += 1
    begins_answer = n == 1 and messages[-1].role == "assistant"
    n_tail = min(2, len(messages)) if begins_answer else n
    n_body = len(messages) - n_tail
    others = [n for n in range(n_body) if messages[n].role != "system"]
    users = [later for later in others[1:] if messages[later].role == "user"]
    return [*users, others[-1] + 1] if others else [0]


def cut_last_turn(
    messages: tuple[Message, ...],
    limit: PromptLimit,
    count: Callable[[Sequence[Message]], int],
    tokenise: Callable[[str], Tokens],
    detokenise: Callable[[Tokens], str],
) -> tuple[Message, ...]:
    """Cut the middle of the last turn's text until the conversation fits, if it can.

    `count` returns the tokens of a conversation's prompt.
    """
    last = messages[-1]
    tokens = tokenise(last.content)
    n_left = len(tokens)
    for _ in range(_MAX_TRIES):
        n_over = count(messages) - limit.n_goal
        if n_over <= 0 or n_left <= 0:
            break
        n_left -= n_over
        text = detokenise(cut_middle(tokens, max(0, n_left), max(0, n_left) // 2))
        messages = (*messages[:-1], replace(last, content=text))
    return messages


def cut_middle(tokens: Tokens, n_most: int, n_keep: int) -> Tokens:
    """Return the first `n_keep` tokens and as many of the last as fit.

    >>> cut_middle(np.arange(9, dtype=np.int32), 5, 2).tolist()
    [0, 1, 6, 7, 8]
    """
    if len(tokens) <= n_most:
        return tokens
    n_keep = max(0, min(n_keep, n_most - 1))
    n_last = n_most - n_keep
    return np.concatenate([tokens[:n_keep], tokens[len(tokens) - n_last :]])


def cut_around_gap(before: Tokens, after: Tokens, n_most: int) -> tuple[Tokens, Tokens]:
    """Cut the texts around a gap at their far ends; a quarter is kept for the text after it.

    >>> before, after = np.arange(9, dtype=np.int32), np.arange(9, 12, dtype=np.int32)
    >>> [one.tolist() for one in cut_around_gap(before, after, 8)]
    [[3, 4, 5, 6, 7, 8], [9, 10]]
    """
    n_after = min(len(after), max(n_most // 4, n_most - len(before)))
    n_before = min(len(before), n_most - n_after)
    return before[len(before) - n_before :], after[:n_after]


def answer_limit_tokens(
    n_prompt_tokens: int, max_tokens: int | None, n_ctx_tokens: int, *, reserves: bool = True
) -> int:
    """Return the longest answer's tokens.

    >>> answer_limit_tokens(1000, 3000, 2048, reserves=False), answer_limit_tokens(48, -1, 2048)
    (1048, 2000)

    Raises:
        PromptTooLong: prompt and reserved answer together exceed the context.
    """
    n_reserved = reserved_tokens(max_tokens, n_ctx_tokens)
    n_least = n_reserved if reserves else 1
    if n_prompt_tokens + n_least > n_ctx_tokens or n_prompt_tokens == 0:
        raise PromptTooLong(n_prompt_tokens, n_least, n_ctx_tokens)
    n_left = n_ctx_tokens - n_prompt_tokens
    has_end = max_tokens is None or max_tokens > 0
    if max_tokens == 0:
        return 0
    return min(n_reserved, n_left) if has_end else n_left
