"""A valid ending before the token limit: an answer under a grammar is never cut in the middle.

`EndingGuard` knows the shortest ending after each token before the token is taken: one after which
the limit leaves too few tokens is not taken, and the known ending is written instead. So an answer
whose limit has room for any ending gets one.

`EndingSearch` finds a short ending by a best-first search over the decisions: forced bytes are
followed at once, and JSON is closed wherever it can be. It takes 20 to 300 µs for a common schema.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paddock.engine.system.records import SelectiveFields, Struct

if TYPE_CHECKING:
    from .constraint import ByteMatcher, TokenMatcher

MOST_TRIES = 2_000
"""Ways that are followed before the search gives up: 20 to 200 ms."""
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
_PLAIN_TEXT = frozenset(b".az09")
_AFTER_VALUES = frozenset(b"}],")
_QUOTED_COMMA = frozenset(b'",')
_WORDS = frozenset(b"az")  # no value begins with these
_LETTERS = (b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD_BYTES = _DIGITS + b"".join(_LETTERS)


class _SearchNode(SelectiveFields, Struct, order=True):
    uncompared = ("place", "text", "n_before", "is_quick")

    cost: int
    number: int
    place: ByteMatcher
    text: bytes
    n_before: int = 0
    """Length of its parent's text."""
    is_quick: bool = True
    """Whether only the likely best choice is tried."""


class EndingSearch:
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
            for step in self._steps(node, signs, number, seen):
                heapq.heappush(heap, step)
                n_tries += 1
        return None

    def _steps(
        self, node: _SearchNode, signs: frozenset[int], number: int, seen: set[bytes]
    ) -> Iterator[_SearchNode]:
        short_cut = self._short_cut(node.place, signs) if node.is_quick else None
        if short_cut is not None:
            marks = self._marks if signs >= _PLAIN_TEXT else ()  # those may follow within a text
            ways = [short_cut, *filter(node.place.allows, marks)]
            cost = node.cost + (PADDING_COST if short_cut in FILLERS else UNLIKELY_COST)
            yield _SearchNode(cost, number, node.place, node.text, len(node.text), is_quick=False)
        else:
            # One byte for each different state that follows: `7` and `8` are mostly the same. Bytes
            # that lead to a state like one before come last.
            new: dict[bytes, bytes] = {}
            old: dict[bytes, bytes] = {}
            for byte in _sample_signs(signs):
                after = node.place.copy()
                if after.take(after.spell(byte)):
                    kind = after.kind()
                    (old if kind in seen else new).setdefault(kind, after.spell(byte))
            seen.update(new)
            ways = [*new.values(), *old.values()]
        for rank, text in enumerate(ways):
            place = node.place.copy()
            if place.take(text):
                cost = node.cost + 1 + rank * SECOND_CHOICE_COST
                yield _SearchNode(cost, number + rank + 1, place, node.text + text, len(node.text))

    def _short_cut(self, place: ByteMatcher, signs: frozenset[int]) -> bytes | None:
        if not self._is_json and not self._marks:
            return None
        if signs >= _PLAIN_TEXT:
            if _QUOTE in signs:
                return b'"'
            # Dots lengthen a text that is too short to end.
            return next((text for text in FILLERS if place.allows(text)), None)
        if signs >= _QUOTED_COMMA:
            return b'"'  # of a text with few signs: between values, only one of both is possible
        if not signs & _WORDS:
            for closer in b"}],":
                if closer in signs:
                    return bytes([closer])
        return b"null" if ord("n") in signs and _is_null_next(place) else None


def _is_null_next(place: ByteMatcher) -> bool:
    """Return whether `null` would be a value here, not a part of a text."""
    after = place.copy()
    if not place.allows(b"null") or not after.take(b"null"):
        return False
    return after.may_end or _is_between_values(after.signs())


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


RISKED_TOKENS = 64
"""Tokens that must be left beyond the known ending to take a token after which none is found."""
UNCHECKED_TOKENS = 16
"""Tokens that are taken unchecked once no ending fits; doubled every time."""


class EndingGuard:
    def __init__(self, matcher: TokenMatcher, n_left: int) -> None:
        self._matcher = matcher
        self._byte_matcher = matcher.byte_matcher.copy()
        self._not_read = b""
        """Of the answer, by the matcher of bytes: it is mostly not needed."""
        self._ending_search = EndingSearch(is_json=matcher.is_json, marks=matcher.marks)
        self.n_left = n_left
        """Tokens that the answer may still get."""
        self._known_ending: bytes | None = None
        """Bytes that complete the answer from here; None: not searched yet."""
        self._older_ending = b""
        """The last one that was known before."""
        self._next_ending: bytes | None = None
        self._ending: list[int] | None = None
        self._n_unchecked = 0
        self._next_unchecked = UNCHECKED_TOKENS
        self._spare = 0
        """Known lower bound of the tokens that are left beyond the shortest ending."""

    @property
    def byte_matcher(self) -> ByteMatcher:
        self._read()
        return self._byte_matcher

    def prepare(self) -> None:
        """Do what the next `consider` needs of the answer so far, which may take its time."""
        if self.is_active or self._is_far:
            return
        if self._known_ending is None and not self._older_ending:
            self._own_ending()
        self._read()

    def _read(self) -> None:
        self._byte_matcher.take(self._not_read)
        self._not_read = b""

    @property
    def is_active(self) -> bool:
        return self._ending is not None

    @property
    def ending(self) -> list[int]:
        return self._ending or []

    def consider(self, token: int) -> bool:
        """Return whether a token may be taken: it leaves room for an ending, or nothing does.

        The ending after it is remembered for `note`, which takes the token.
        """
        n_after = self.n_left - 1
        if self._is_far:
            self._spare -= (self._matcher.max_growth_bytes or 0) + 1
            return True
        self._n_unchecked -= self._n_unchecked > 0
        if self._n_unchecked > 0:
            return True
        after = self._ending_after(token, n_after)
        if after is not None and self._fits(after, n_after):
            self._next_ending, self._spare = after, n_after - len(after)
            return True
        own = self._own_ending()
        # No ending fits from here: the answer cannot be completed and will end with "length".
        is_hopeless = own is None or not self._fits(own, self.n_left)
        is_lost = after is None and (own is None or n_after > len(own) + RISKED_TOKENS)
        if is_lost or is_hopeless:
            self._n_unchecked = self._next_unchecked
            self._next_unchecked *= 2
        self._next_ending = after
        return is_hopeless or is_lost

    def note(self, token: int) -> None:
        self._not_read += self._matcher.piece(token)
        self.n_left -= 1
        self._older_ending = self._known_ending or self._older_ending
        self._known_ending = self._next_ending
        self._next_ending = None
        if self._ending and self._ending[0] == token:
            self._ending.pop(0)

    def begin(self) -> bool:
        """Fix the rest of the answer; return False if no ending is known."""
        end = self._own_ending()
        if end is None or not self._fits(end, self.n_left):
            return False
        ending = self._matcher.spell(end)
        if not self._matcher.ends_with(ending):
            return False  # a grammar over special tokens that text cannot spell
        self._ending = ending
        return True

    @property
    def _is_far(self) -> bool:
        """Whether no token can make the shortest ending too long."""
        growth_bytes = self._matcher.max_growth_bytes
        return growth_bytes is not None and self._spare > growth_bytes

    def _own_ending(self) -> bytes | None:
        if self._known_ending is None:
            self._known_ending = self._ending_search.find(self.byte_matcher)
        return self._known_ending

    def _ending_after(self, token: int, n_after: int) -> bytes | None:
        piece, end = self._matcher.piece(token), self._known_ending
        if end and piece and end.startswith(piece):
            return end[len(piece) :]
        # Within a text the known ending mostly still holds, or an older one that is short; after
        # another word or number than its first, the rest of it does.
        rest = (end or self._older_ending).lstrip(_WORD_BYTES)
        may_hold = rest and (end or len(rest) <= n_after)
        if may_hold and self.byte_matcher.ends_with(piece + rest):
            return rest
        after = self.byte_matcher.copy()
        return self._ending_search.find(after) if after.take(piece) else None

    def _fits(self, end: bytes, n_tokens: int) -> bool:
        # A token has at least one byte, so most endings need not be tokenised.
        return len(end) <= n_tokens or len(self._matcher.spell(end)) <= n_tokens
