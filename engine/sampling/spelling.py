"""A grammar walked byte by byte, to look for ways through it.

The same grammar as the matcher's, over a vocabulary of 256 bytes: what may follow is told in 2 µs,
where a mask over a model's vocabulary takes up to 400 µs in a pattern that was not walked before.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

END = 256
N_NAMED = 64
"""Tokens that a grammar may name by number, and that no text can spell."""
MARK = b"\xff"
"""Stands before the place of such a token among those of its grammar: no text has this byte."""


def named(place: int) -> bytes:
    """Give what stands in a text for a token that is named by number."""
    return MARK + bytes([place])


def number_of(place: int) -> int:
    """Give the number of such a token in the vocabulary of bytes."""
    return END + 1 + place


def text_of(sign: int) -> bytes:
    """Give what stands in a text for a sign, the other way round."""
    return bytes([sign]) if sign < END else named(sign - END - 1)


def _encoded(text: bytes) -> list[int]:
    if MARK not in text:
        return list(text)
    first, *others = text.split(MARK)
    signs = list(first)
    for part in others:
        signs += [number_of(part[0]), *part[1:]]
    return signs


class _Bytes:
    """What llguidance wants of a tokeniser."""

    eos_token_id = END
    bos_token_id = None
    tokens = (
        *(bytes([byte]) for byte in range(END)),
        b"\xff<end>",
        *(b"\xff<named %d>" % place for place in range(N_NAMED)),
    )
    special_token_ids = tuple(range(END, END + 1 + N_NAMED))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def byte_tokeniser() -> LLTokenizer:
    """Give the vocabulary of all bytes."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=END + 1 + N_NAMED)


_END_ALONE = frozenset((END,))


class Spelling:
    """A place in a grammar, reached byte by byte."""

    def __init__(self, inner: LLMatcher) -> None:
        self._inner = inner

    def copy(self) -> Spelling:
        """Give another that stands at the same place."""
        return Spelling(self._inner.deep_copy())

    def take(self, text: bytes) -> bool:
        """Go on by bytes; False where one is not allowed, and all is lost."""
        return not text or self._inner.consume_tokens(_encoded(text))

    def allows(self, text: bytes) -> bool:
        """Tell whether bytes may follow; a refused `take` costs 3 ms."""
        signs = _encoded(text)
        return self._inner.validate_tokens(signs) == len(signs)

    def ends_with(self, text: bytes) -> bool:
        """Tell whether these bytes make the answer whole."""
        signs = [*_encoded(text), END]
        return self._inner.validate_tokens(signs) == len(signs)

    @property
    def may_end(self) -> bool:
        """Whether what was said so far is whole."""
        return self._inner.is_accepting()

    def forced(self) -> bytes:
        """Give the bytes that must follow."""
        forced = self._inner.compute_ff_bytes()
        return b"" if MARK in forced else forced

    def kind(self) -> bytes:
        """Tell places apart by what may follow."""
        return self._inner.compute_bitmask()

    def signs(self) -> frozenset[int]:
        """Give the bytes that may follow, and the tokens that are named by number."""
        bits = np.unpackbits(np.frombuffer(self.kind(), np.uint8), bitorder="little")
        return frozenset(np.flatnonzero(bits[: END + 1 + N_NAMED]).tolist()) - _END_ALONE
