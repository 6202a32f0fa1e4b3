"""The tokens that an answer's text is made of, with the alternatives that count."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct

if TYPE_CHECKING:
    from paddock.engine.request import TokenLogprob

LEAST_ALTERNATIVE = 1e-3
"""Probability below which an alternative counts nothing."""


class AnswerToken(Struct, frozen=True):
    """One token of an answer's text; alternatives with their bytes and probabilities."""

    start: int
    raw: bytes
    p: float
    others: tuple[tuple[bytes, float], ...]

    @property
    def end(self) -> int:
        return self.start + len(self.raw)


def own_tokens(text: str, logprobs: Sequence[TokenLogprob]) -> Sequence[TokenLogprob]:
    """Return the tokens that spell a text, without those of reasoning before it and signs after it.

    Empty if they do not spell it, as some servers' do not.
    """
    raw, spelled = b"".join(token.raw for token in logprobs), text.encode()
    start = raw.rfind(spelled)
    if start < 0 or not spelled:
        return ()
    ends = list(accumulate(len(token.raw) for token in logprobs))
    first, last = bisect_right(ends, start), bisect_left(ends, start + len(spelled))
    return logprobs[first : last + 1]


def tokens_with_alternatives(text: str, logprobs: Sequence[TokenLogprob]) -> list[AnswerToken]:
    """Return a text's tokens; the first may begin before it, with a negative `start`."""
    own = own_tokens(text, logprobs)
    start = -b"".join(token.raw for token in own).rfind(text.encode())
    tokens = []
    for token in own:
        others = tuple(
            (raw, math.exp(logprob))
            for raw, logprob in token.top
            if raw != token.raw and math.exp(logprob) >= LEAST_ALTERNATIVE
        )
        tokens.append(AnswerToken(start, token.raw, math.exp(token.logprob), others))
        start += len(token.raw)
    return tokens
