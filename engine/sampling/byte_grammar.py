"""Walk a grammar byte by byte, and find a short text that ends it.

`ByteMatcher` is the token matcher's grammar over a vocabulary of 256 bytes: what may follow is
known in 2 µs, where a mask over a model's vocabulary takes up to 400 µs in a pattern that was not
walked before. `EndingSearch` goes from decision to decision, the most promising first: what is
forced is followed at once, and where JSON can be closed it is closed. 20 to 300 µs for a common
schema.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

END_SIGN = 256
N_NAMED_TOKENS = 64
"""Tokens that a grammar may name by number, and that no text can spell."""
TOKEN_MARK = b"\xff"
"""Stands before the place of such a token among those of its grammar: no text has this byte."""


def named_token_bytes(place: int) -> bytes:
    """Return what stands in a text for a token that is named by number."""
    return TOKEN_MARK + bytes([place])


def named_token_id(place: int) -> int:
    """Return the number of such a token in the vocabulary of bytes."""
    return END_SIGN + 1 + place


def sign_bytes(sign: int) -> bytes:
    """Return what stands in a text for a sign, the other way round."""
    return bytes([sign]) if sign < END_SIGN else named_token_bytes(sign - END_SIGN - 1)


def _encode_signs(text: bytes) -> list[int]:
    if TOKEN_MARK not in text:
        return list(text)
    first, *others = text.split(TOKEN_MARK)
    signs = list(first)
    for part in others:
        signs += [named_token_id(part[0]), *part[1:]]
    return signs


class _ByteTokeniser:
    """What llguidance wants of a tokeniser."""

    eos_token_id = END_SIGN
    bos_token_id = None
    tokens = (
        *(bytes([byte]) for byte in range(END_SIGN)),
        b"\xff<end>",
        *(b"\xff<named %d>" % place for place in range(N_NAMED_TOKENS)),
    )
    special_token_ids = tuple(range(END_SIGN, END_SIGN + 1 + N_NAMED_TOKENS))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def byte_tokeniser() -> LLTokenizer:
    """Return the vocabulary of all bytes."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_ByteTokeniser()), n_vocab=END_SIGN + 1 + N_NAMED_TOKENS)


_END_SIGN_ALONE = frozenset((END_SIGN,))


class ByteMatcher:
    """A place in a grammar, reached byte by byte."""

    def __init__(self, inner: LLMatcher) -> None:
        self._inner = inner

    def copy(self) -> ByteMatcher:
        """Return another that stands at the same place."""
        return ByteMatcher(self._inner.deep_copy())

    def take(self, text: bytes) -> bool:
        """Go on by bytes; False where one is not allowed, and all is lost."""
        return not text or self._inner.consume_tokens(_encode_signs(text))

    def allows(self, text: bytes) -> bool:
        """Return whether bytes may follow; a refused `take` costs 3 ms."""
        signs = _encode_signs(text)
        return self._inner.validate_tokens(signs) == len(signs)

    def ends_with(self, text: bytes) -> bool:
        """Return whether these bytes make the answer whole."""
        signs = [*_encode_signs(text), END_SIGN]
        return self._inner.validate_tokens(signs) == len(signs)

    @property
    def may_end(self) -> bool:
        """Whether what was said so far is whole."""
        return self._inner.is_accepting()

    def forced(self) -> bytes:
        """Return the bytes that must follow."""
        forced = self._inner.compute_ff_bytes()
        return b"" if TOKEN_MARK in forced else forced

    def kind(self) -> bytes:
        """Tell places apart by what may follow."""
        return self._inner.compute_bitmask()

    def signs(self) -> frozenset[int]:
        """Return the bytes that may follow, and the tokens that are named by number."""
        bits = np.unpackbits(np.frombuffer(self.kind(), np.uint8), bitorder="little")
        return (
            frozenset(np.flatnonzero(bits[: END_SIGN + 1 + N_NAMED_TOKENS]).tolist())
            - _END_SIGN_ALONE
        )


MOST_TRIES = 10_000
"""Bytes that are tried before the search gives up: some 50 ms."""
SECOND_CHOICE_COST = 8
"""How many decisions more a second choice must be worth."""
UNLIKELY_COST = 64
"""The same, where what was done is almost always best."""
PADDING_COST = 16
FILLERS = (b"." * 16, b"." * 8, b"." * 4)
MOST_BRANCHES = 256
_STRING_EDGE = re.compile(rb'(?<!\\)"')
_QUOTE = ord('"')
_DIGITS = b"0123456789"
_ANY_TEXT = frozenset(b".az09")
_AFTER_VALUES = frozenset(b"}],")
_QUOTED_COMMA = frozenset(b'",')
_WORDS = frozenset(b"az")  # no value begins with these
_LETTERS = (b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(order=True, slots=True)
class _SearchNode:
    """A place in the grammar that is reached by `text`; `rank` tells how unlikely its way is."""

    cost: int
    number: int
    place: ByteMatcher = field(compare=False)
    text: bytes = field(compare=False)
    n_before: int = field(default=0, compare=False)
    """How much of the text its parent had."""
    is_quick: bool = field(default=True, compare=False)
    """Whether what is likely best is tried alone."""


class EndingSearch:
    """Finds ends in grammars."""

    def __init__(self, *, is_json: bool, marks: tuple[bytes, ...] = ()) -> None:
        """Look for ends in one kind of grammar.

        Args:
            is_json: whether the answer is JSON as a whole.
            marks: texts that the grammar spells out, which may end a part of another kind.
        """
        self._is_json = is_json
        self._marks = marks

    def find(self, place: ByteMatcher) -> bytes | None:
        """Return a short text behind which the answer is whole; None: none was found."""
        heap = [_SearchNode(0, 0, place.copy(), b"")]
        seen: set[bytes] = set()
        number = n_tries = 0
        while heap and n_tries < MOST_TRIES:
            node = heapq.heappop(heap)
            number += MOST_BRANCHES
            forced = node.place.forced()
            node.place.take(forced)
            node.text += forced
            if node.place.may_end:
                return node.text
            signs = node.place.signs()
            has_passed = _STRING_EDGE.search(node.text, node.n_before) is not None
            if self._is_json and (has_passed or _is_between_values(signs)):
                # Every way on from here leads to an end: the others need not be looked at.
                heap.clear()
                seen.clear()
            n_tries += len(signs) + 1
            for step in self._steps(node, signs, number, seen):
                heapq.heappush(heap, step)
        return None

    def _steps(
        self, node: _SearchNode, signs: frozenset[int], number: int, seen: set[bytes]
    ) -> Iterator[_SearchNode]:
        """Yield where to look next."""
        short_cut = self._short_cut(node.place, signs) if node.is_quick else None
        if short_cut is not None:
            ways = [short_cut, *self._marks_at(node.place, signs)]
            cost = node.cost + (PADDING_COST if short_cut in FILLERS else UNLIKELY_COST)
            yield _SearchNode(cost, number, node.place, node.text, len(node.text), is_quick=False)
        else:
            ways = self._kinds(node.place, signs, seen)
        for rank, text in enumerate(ways):
            place = node.place.copy()
            if place.take(text):
                cost = node.cost + 1 + rank * SECOND_CHOICE_COST
                yield _SearchNode(cost, number + rank + 1, place, node.text + text, len(node.text))

    def _short_cut(self, place: ByteMatcher, signs: frozenset[int]) -> bytes | None:
        """Return what closes a text, an object or a list, is nothing, or makes a text longer."""
        if not self._is_json and not self._marks:
            return None
        if signs >= _ANY_TEXT:
            return b'"' if _QUOTE in signs else _padding(place)
        if signs >= _QUOTED_COMMA:
            return b'"'  # of a text of few signs: between values, only one of them is possible
        if not signs & _WORDS:
            for closer in b"}],":
                if closer in signs:
                    return bytes([closer])
        return b"null" if ord("n") in signs and _is_null_next(place) else None

    def _marks_at(self, place: ByteMatcher, signs: frozenset[int]) -> list[bytes]:
        """Return the marks that may follow in a text, where no mask tells them from other words."""
        if not signs >= _ANY_TEXT:
            return []
        return [mark for mark in self._marks if place.allows(mark)]

    def _kinds(self, place: ByteMatcher, signs: frozenset[int], seen: set[bytes]) -> list[bytes]:
        """Return one byte for each kind that leads elsewhere: `7` and `8` are mostly the same.

        Where the same can follow as before, little was won: those come last.
        """
        new: dict[bytes, bytes] = {}
        old: dict[bytes, bytes] = {}
        for byte in _sample_signs(signs):
            after = place.copy()
            if after.take(sign_bytes(byte)):
                kind = after.kind()
                (old if kind in seen else new).setdefault(kind, sign_bytes(byte))
        seen.update(new)
        return [*new.values(), *old.values()]


def _is_null_next(place: ByteMatcher) -> bool:
    """Return whether `null` is a value here, and not a word within a text."""
    after = place.copy()
    if not place.allows(b"null") or not after.take(b"null"):
        return False
    return after.may_end or _is_between_values(after.signs())


def _padding(place: ByteMatcher) -> bytes | None:
    """Return dots that make a text longer, where it is too short to end."""
    return next((text for text in FILLERS if place.allows(text)), None)


def _is_between_values(signs: frozenset[int]) -> bool:
    return bool(signs & _AFTER_VALUES) and not signs & _WORDS and not signs >= _QUOTED_COMMA


def _sample_signs(signs: frozenset[int]) -> Iterator[int]:
    """Yield all digits and signs, and of many letters the outer ones."""
    if _QUOTE in signs:
        yield _QUOTE
    yield from (byte for byte in _DIGITS if byte in signs)
    for letters in _LETTERS:
        have = [byte for byte in letters if byte in signs]
        # Few letters are the beginnings of words, each with a way of its own.
        yield from have if len(have) <= len(letters) // 2 else (have[0], have[-1])
    yield from sorted(signs.difference(_DIGITS, *_LETTERS, (_QUOTE,)))
