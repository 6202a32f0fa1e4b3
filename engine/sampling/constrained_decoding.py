"""Constrained decoding: walk one answer through its grammar, to a valid end, out of loops.

`EndingGuard` knows the shortest ending after each token before the token is taken: one after which
the limit leaves too few tokens is not taken, and the known ending is written instead. So an answer
whose limit has room for any ending gets one. `LoopEscape` gets a JSON answer out of a loop: it
closes the text, list or object that repeats.

`EndingSearch` finds a short ending by a best-first search over the decisions: forced bytes are
followed at once, and JSON is closed wherever it can be. It takes 20 to 300 µs for a common schema.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits
from paddock.engine.request import DoneReason

from .logits import N_PRESELECTED, Candidates, allowed_tokens, top_candidates

if TYPE_CHECKING:
    from .constraint import ByteMatcher, TokenMatcher

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
_PLAIN_TEXT = frozenset(b".az09")
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
        if signs >= _PLAIN_TEXT:
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
        if not signs >= _PLAIN_TEXT:
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
            if after.take(after.spell(byte)):
                kind = after.kind()
                (old if kind in seen else new).setdefault(kind, after.spell(byte))
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


RISKED_TOKENS = 64
"""Tokens that must be left beyond the known ending to take a token after which none is found."""
UNCHECKED_TOKENS = 16
"""Tokens that are taken unchecked once no ending fits; doubled every time."""


class EndingGuard:
    """Guard one answer's token limit. Only the owner thread uses it."""

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
        self._next_ending: bytes | None = None
        self._ending: list[int] | None = None
        self._n_unchecked = 0
        self._next_unchecked = UNCHECKED_TOKENS
        self._spare = 0
        """Known lower bound of the tokens that are left beyond the shortest ending."""

    @property
    def byte_matcher(self) -> ByteMatcher:
        """The answer's state, byte by byte."""
        self._byte_matcher.take(self._not_read)
        self._not_read = b""
        return self._byte_matcher

    @property
    def is_active(self) -> bool:
        """Whether the rest of the answer is fixed."""
        return self._ending is not None

    @property
    def ending(self) -> list[int]:
        """The remaining tokens, once they are fixed."""
        return self._ending or []

    def allows(self, token: int) -> bool:
        """Return whether a token leaves room for an ending; call `note` before the next call."""
        n_after = self.n_left - 1
        if self._is_far() or self._is_unchecked():
            return True
        after = self._ending_after(token)
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
        self._known_ending, self._next_ending = self._next_ending, None
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

    def _is_far(self) -> bool:
        """Return whether no token can make the shortest ending too long."""
        if self._matcher.max_growth_bytes is None or self._spare <= self._matcher.max_growth_bytes:
            return False
        self._spare -= self._matcher.max_growth_bytes + 1
        return True

    def _is_unchecked(self) -> bool:
        self._n_unchecked -= self._n_unchecked > 0
        return self._n_unchecked > 0

    def _own_ending(self) -> bytes | None:
        if self._known_ending is None:
            self._known_ending = self._ending_search.find(self.byte_matcher)
        return self._known_ending

    def _ending_after(self, token: int) -> bytes | None:
        """Return an ending after a token: what is left of the known one, or a new one."""
        piece = self._matcher.piece(token)
        end = self._known_ending
        if end and piece and end.startswith(piece):
            return end[len(piece) :]
        after = self.byte_matcher.copy()
        if not after.take(piece):
            return None
        # Within a text the known ending mostly still holds; a digit would change a number.
        if end and not end[:1].isalnum() and after.ends_with(end):
            return end
        return self._ending_search.find(after)

    def _fits(self, end: bytes, n_tokens: int) -> bool:
        # A token has at least one byte, so most endings need not be tokenised.
        return len(end) <= n_tokens or len(self._matcher.spell(end)) <= n_tokens


_ANY_TEXT = frozenset(b'".az09')


class LoopEscape:
    """Close the text, list or object that repeats, as soon as the grammar allows it."""

    def __init__(self, loop: bytes, n_tokens: int) -> None:
        self._is_in_text = b'"' not in loop
        # Repeating objects are items of an endless list.
        self._closers = b"]" if b"}" in loop else b"]}"
        self.n_left = 2 * n_tokens + 8
        """Tokens after which the attempt is given up."""

    def instead(self, byte_matcher: ByteMatcher, piece: bytes) -> bytes | None:
        """Return bytes to write instead of a token's `piece`, or None if nothing can close yet.

        The closing byte may come in the middle of the piece.
        """
        self.n_left -= 1
        byte_matcher = byte_matcher.copy()
        for n_said in range(len(piece) + 1):
            closer = self._closer(byte_matcher.signs())
            if closer is not None:
                return piece[:n_said] + closer
            byte = piece[n_said : n_said + 1]
            if not byte_matcher.allows(byte) or not byte_matcher.take(byte):
                return None
        return None

    def _closer(self, signs: frozenset[int]) -> bytes | None:
        if signs >= _ANY_TEXT:
            return b'"' if self._is_in_text else None
        return next((bytes([sign]) for sign in self._closers if sign in signs), None)


MOST_LOOP_ESCAPES = 3
"""Loops that are closed; the next one ends the answer."""
NO_TOKEN_LIMIT = 1 << 30


class ConstrainedAnswer:
    """One answer's constraint. Only the owner thread uses it."""

    def __init__(self, matcher: TokenMatcher, max_tokens: int | None) -> None:
        self.matcher = matcher
        self._ending_guard = EndingGuard(matcher, max_tokens or NO_TOKEN_LIMIT)
        # A token has at least one byte.
        self._has_limit = max_tokens is not None and max_tokens < (matcher.most_bytes or math.inf)
        self.is_shortened = False
        self.reason: DoneReason = "stop"
        self._n_loops = 0
        self._avoided: int | None = None
        self._loop_escape: LoopEscape | None = None
        self._has_failed = False

    # Choosing the next token

    @property
    def needs_mask(self) -> bool:
        """Whether a mask should be computed for the next token."""
        is_fixed = self._ending_guard.is_active or self._has_failed
        return not (is_fixed or self.matcher.has_mask or self.matcher.forced_tokens())

    def only_token(self) -> int | None:
        """Return the next token if there is no choice, else None."""
        ending = self._ending_guard.ending
        if ending or self._has_failed or self._loop_escape is not None:
            return ending[0] if ending else None
        forced = self.matcher.forced_tokens()
        return forced[0] if forced else None

    @property
    def is_forced(self) -> bool:
        """Whether the grammar itself leaves one token only; an ending for the limit is a choice."""
        is_own = self._ending_guard.is_active or self._has_failed or self._loop_escape is not None
        return not is_own and bool(self.matcher.forced_tokens())

    def allowed_mask(self) -> NDArray[np.uint8] | None:
        """Return the mask for the next token; None where the matcher met a limit."""
        return None if self._has_failed else self.matcher.mask()

    def likeliest(self, row: Logits, first: int) -> int:
        """Return the likeliest allowed token; `first` is the likeliest of all."""
        row, is_changed = self.without_avoided(row)
        if is_changed:
            first = int(row.argmax())
        if self.matcher.allows(first):
            return first
        mask = self.matcher.mask()
        few = top_candidates(row, N_PRESELECTED).allowed_by(mask)
        if len(few.tokens):
            return int(few.tokens[0])
        allowed = allowed_tokens(row, mask)
        return int(allowed[row[allowed].argmax()]) if len(allowed) else first

    def likeliest_of(self, few: Candidates) -> int | None:
        """Return the place of the likeliest allowed one; None: it is not known without its row."""
        if self._avoided is not None:
            return None
        if self.matcher.allows(int(few.tokens[0])):
            return 0
        allowed = few.allowed_by(self.matcher.mask()).tokens
        return int(np.flatnonzero(few.tokens == allowed[0])[0]) if len(allowed) else None

    def allowed(self, row: Logits, found: Candidates, n: int) -> Candidates:
        """Return the `n` likeliest allowed tokens, and those as likely as the last of them.

        `found` are the likeliest of all; mostly, enough of them are allowed.
        """
        mask = self.matcher.mask()
        few = found.allowed_by(mask)
        if len(few.tokens) >= n:
            return few
        allowed = allowed_tokens(row, mask)
        few = top_candidates(row[allowed], n)
        return Candidates(allowed[few.tokens], few.logits)

    def masked(self, row: Logits) -> Logits:
        """Return a copy of a row in which tokens that are not allowed are impossible."""
        allowed = allowed_tokens(row, self.matcher.mask())
        masked = np.full_like(row, -np.inf)
        masked[allowed] = row[allowed]
        if masked.max() == -np.inf:
            # A bias forbids all allowed tokens: the constraint wins.
            masked[allowed] = 0.0
        return masked

    def without_avoided(self, row: Logits) -> tuple[Logits, bool]:
        """Return a copy without the token that continues a loop, and True; or the row and False."""
        avoided, self._avoided = self._avoided, None
        if avoided is None or not np.any(allowed_tokens(row, self.matcher.mask()) != avoided):
            return row, False
        row = row.copy()
        row[avoided] = -np.inf
        return row, True

    def forced(self) -> list[int]:
        if self._ending_guard.is_active:
            return list(self._ending_guard.ending)
        return [] if self._has_failed or self._loop_escape else self.matcher.forced_tokens()

    # Taking a token

    def take(self, token: int) -> int:
        """Take a token, or the one that must replace it; return which."""
        if self._loop_escape is not None and not self._ends(token):
            token = self._escape_loop(self._loop_escape, token)
        if self._has_limit and not self._ending_guard.is_active and not self._ends(token):
            token = self._within_limit(token)
        if not self.matcher.take([token]):
            # llguidance met a limit; an ending that was fixed before is still right.
            self._has_failed = True
            self.reason = self.reason if self._ending_guard.is_active else "length"
        if not self._ends(token):
            self._ending_guard.note(token)
        return token

    def _ends(self, token: int) -> bool:
        return token in self.matcher.vocabulary.ends

    def _within_limit(self, token: int) -> int:
        if self._ending_guard.allows(token) or not self._ending_guard.begin():
            return token
        self.is_shortened = True
        return (self._ending_guard.ending or self.matcher.vocabulary.ends)[0]

    @property
    def is_over(self) -> bool:
        """Whether the answer is complete, or has failed."""
        if self._has_failed:
            return not self._ending_guard.ending
        if self.matcher.must_end:
            return True
        is_last = self._has_limit and self._ending_guard.n_left <= 0
        is_told = self._ending_guard.is_active and not self._ending_guard.ending
        if (is_last or is_told) and self.matcher.may_end:
            self.is_shortened = True
            return True
        return False

    # Loops

    def leave_loop(self, loop: list[int]) -> bool:
        """Start to leave a loop; return False if the answer can only be cut off."""
        if self._ending_guard.is_active:
            return True
        self._n_loops += 1
        if self._n_loops > MOST_LOOP_ESCAPES or not self.matcher.is_json:
            self.reason = "repetition"
            self.is_shortened = self._ending_guard.begin()
            return self.is_shortened and bool(self._ending_guard.ending)
        self._loop_escape = LoopEscape(self.matcher.vocabulary.bytes_of(loop), len(loop))
        self._avoided = loop[0]
        return True

    def _escape_loop(self, escape: LoopEscape, token: int) -> int:
        """Return the token that closes what repeats, or the given one."""
        said = escape.instead(self._ending_guard.byte_matcher, self.matcher.piece(token))
        if said is None:
            self._loop_escape = escape if escape.n_left else None
            return token
        tokens = self.matcher.spell(said)
        if len(tokens) == 1:
            self._loop_escape = self._avoided = None
        self.is_shortened = True
        return tokens[0]
