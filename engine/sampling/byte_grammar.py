"""Walk a grammar byte by byte, and search for a short ending.

`ByteMatcher` is the token matcher's grammar over a vocabulary of 256 bytes: the bytes that may
follow are known in 2 µs, where a mask over a model's vocabulary takes up to 400 µs. `EndingSearch`
is a best-first search over the decisions: forced bytes are followed at once, and JSON is closed
wherever it can be. It takes 20 to 300 µs for a common schema.
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
"""Tokens that a grammar may name by number; no text can spell them."""
TOKEN_MARK = b"\xff"
"""Precedes the index of a named token in its stand-in: no UTF-8 text has this byte."""


def named_token_bytes(place: int) -> bytes:
    """Return the stand-in of a grammar's named token, by its index."""
    return TOKEN_MARK + bytes([place])


def named_token_id(place: int) -> int:
    """Return the id of a named token in the vocabulary of bytes."""
    return END_SIGN + 1 + place


def sign_bytes(sign: int) -> bytes:
    """Return the byte, or the stand-in, of an id in the vocabulary of bytes."""
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
    """The vocabulary of bytes, in llguidance's interface."""

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
    """Return llguidance's tokeniser over bytes."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_ByteTokeniser()), n_vocab=END_SIGN + 1 + N_NAMED_TOKENS)


_END_SIGN_ALONE = frozenset((END_SIGN,))


class ByteMatcher:
    """A state in a grammar, reached byte by byte."""

    def __init__(self, inner: LLMatcher) -> None:
        self._inner = inner

    def copy(self) -> ByteMatcher:
        """Return an independent copy."""
        return ByteMatcher(self._inner.deep_copy())

    def take(self, text: bytes) -> bool:
        """Consume bytes; return False if one is not allowed: the matcher is then unusable."""
        return not text or self._inner.consume_tokens(_encode_signs(text))

    def allows(self, text: bytes) -> bool:
        """Return whether bytes may follow; a refused `take` costs 3 ms."""
        signs = _encode_signs(text)
        return self._inner.validate_tokens(signs) == len(signs)

    def ends_with(self, text: bytes) -> bool:
        """Return whether the answer is complete after these bytes."""
        signs = [*_encode_signs(text), END_SIGN]
        return self._inner.validate_tokens(signs) == len(signs)

    @property
    def may_end(self) -> bool:
        """Whether the answer so far is complete."""
        return self._inner.is_accepting()

    def forced(self) -> bytes:
        """Return the bytes that must follow."""
        forced = self._inner.compute_ff_bytes()
        return b"" if TOKEN_MARK in forced else forced

    def kind(self) -> bytes:
        """Return the mask of what may follow; equal masks mark equivalent states."""
        return self._inner.compute_bitmask()

    def signs(self) -> frozenset[int]:
        """Return the ids of the bytes and named tokens that may follow."""
        bits = np.unpackbits(np.frombuffer(self.kind(), np.uint8), bitorder="little")
        return (
            frozenset(np.flatnonzero(bits[: END_SIGN + 1 + N_NAMED_TOKENS]).tolist())
            - _END_SIGN_ALONE
        )


MOST_TRIES = 10_000
"""Bytes that are tried before the search gives up: some 50 ms."""
SECOND_CHOICE_COST = 8
"""Cost of a second choice, in decisions."""
UNLIKELY_COST = 64
"""The same where the first choice is almost always best."""
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
    """A state in the grammar that is reached by `text`."""

    cost: int
    number: int
    place: ByteMatcher = field(compare=False)
    text: bytes = field(compare=False)
    n_before: int = field(default=0, compare=False)
    """Length of its parent's text."""
    is_quick: bool = field(default=True, compare=False)
    """Whether only the likely best choice is tried."""


class EndingSearch:
    """Search for endings in one kind of grammar."""

    def __init__(self, *, is_json: bool, marks: tuple[bytes, ...] = ()) -> None:
        """Take whether the whole answer is JSON, and literal texts that may end a part of it."""
        self._is_json = is_json
        self._marks = marks

    def find(self, place: ByteMatcher) -> bytes | None:
        """Return a short text that completes the answer; None if none was found."""
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
                # Every path from here leads to an end: the others need not be searched.
                heap.clear()
                seen.clear()
            n_tries += len(signs) + 1
            for step in self._steps(node, signs, number, seen):
                heapq.heappush(heap, step)
        return None

    def _steps(
        self, node: _SearchNode, signs: frozenset[int], number: int, seen: set[bytes]
    ) -> Iterator[_SearchNode]:
        """Yield the nodes that follow a node."""
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
        """Return bytes that close a text, object or list, are `null`, or lengthen a text."""
        if not self._is_json and not self._marks:
            return None
        if signs >= _ANY_TEXT:
            return b'"' if _QUOTE in signs else _padding(place)
        if signs >= _QUOTED_COMMA:
            return b'"'  # of a text with few signs: between values, only one of both is possible
        if not signs & _WORDS:
            for closer in b"}],":
                if closer in signs:
                    return bytes([closer])
        return b"null" if ord("n") in signs and _is_null_next(place) else None

    def _marks_at(self, place: ByteMatcher, signs: frozenset[int]) -> list[bytes]:
        """Return the marks that may follow within a text."""
        if not signs >= _ANY_TEXT:
            return []
        return [mark for mark in self._marks if place.allows(mark)]

    def _kinds(self, place: ByteMatcher, signs: frozenset[int], seen: set[bytes]) -> list[bytes]:
        """Return one byte for each different state that follows: `7` and `8` are mostly the same.

        Bytes that lead to a state like one before come last.
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
    """Return whether `null` would be a value here, not a part of a text."""
    after = place.copy()
    if not place.allows(b"null") or not after.take(b"null"):
        return False
    return after.may_end or _is_between_values(after.signs())


def _padding(place: ByteMatcher) -> bytes | None:
    """Return dots that lengthen a text which is too short to end."""
    return next((text for text in FILLERS if place.allows(text)), None)


def _is_between_values(signs: frozenset[int]) -> bool:
    return bool(signs & _AFTER_VALUES) and not signs & _WORDS and not signs >= _QUOTED_COMMA


def _sample_signs(signs: frozenset[int]) -> Iterator[int]:
    """Yield all digits and punctuation, and the first and last of many letters."""
    if _QUOTE in signs:
        yield _QUOTE
    yield from (byte for byte in _DIGITS if byte in signs)
    for letters in _LETTERS:
        have = [byte for byte in letters if byte in signs]
        # Few letters begin different words.
        yield from have if len(have) <= len(letters) // 2 else (have[0], have[-1])
    yield from sorted(signs.difference(_DIGITS, *_LETTERS, (_QUOTE,)))
