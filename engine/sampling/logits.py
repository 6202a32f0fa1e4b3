"""One row of logits: likeliest tokens, bias, penalties, log probabilities. Pure NumPy.

Likeliest tokens: llama.cpp's chain begins by copying a row into 12 bytes a token (1.8 MB and 0.3 ms
at 151,936 tokens), and `top_k` then drops all but some 40. Here these are found in 40 µs, and the
chain gets nothing else. The result is the same, since later samplers see only what `top_k` leaves.
Where two of the likeliest are equal, llama.cpp itself must order them, and gets the whole row.

Penalties are those of llama.cpp's `llama_sampler_penalties`. llama.cpp looks up every token of the
vocabulary (0.5 ms at 151,936 tokens); here only recent ones are touched, and counts are updated
token by token.

Log probabilities are computed after bias and penalties: the likeliest token is then the one that a
greedy answer takes. Under a constraint they are those of the allowed tokens alone, whose
probabilities add up to 1. Temperature comes later, so answers can be compared.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.request import LOWEST_LOGPROB, Sampling, TokenLogprob

# A row is reshaped to so many lines; one pass finds each column's maximum (15 µs at 151,936 tokens;
# 64 and 256 lines are slower by a tenth).
N_ROW_PARTS = 128
_ALL_ALLOWED = 0xFF
_LOWEST_LOGIT = np.finfo(np.float32).min


class Candidates(NamedTuple):
    """Tokens with their logits, the likeliest first; of equal ones, the lower id first."""

    tokens: NDArray[np.intp]
    logits: Logits

    @property
    def are_distinct(self) -> bool:
        """Whether no two logits are equal."""
        return not (self.logits[1:] == self.logits[:-1]).any()

    def first(self, n: int) -> Candidates:
        """Return the `n` likeliest."""
        return Candidates(self.tokens[:n], self.logits[:n])

    def allowed_by(self, mask: NDArray[np.uint8]) -> Candidates:
        """Return those whose bit is set; the lowest bit of a byte comes first."""
        tokens = self.tokens
        keep = (mask[tokens >> 3] >> (tokens & 7).astype(np.uint8) & 1).view(np.bool_)
        return Candidates(tokens[keep], self.logits[keep])


def in_order(tokens: Tokens, logits: Logits) -> Candidates:
    """Return tokens in any order, as a device finds them, as candidates."""
    possible = np.flatnonzero(logits > -np.inf)
    tokens, logits = tokens[possible], logits[possible]
    order = np.lexsort((tokens, -logits))
    return Candidates(tokens[order].astype(np.intp), logits[order])


def top_candidates(row: Logits, n: int) -> Candidates:
    """Return the `n` likeliest tokens of a row, and those as likely as the last of them.

    Impossible tokens (minus infinity) are left out, so there may be fewer.
    """
    tokens = _likely_tokens(row, n)
    logits = row[tokens]
    if len(tokens) > n:
        bound = np.partition(logits, len(logits) - n)[len(logits) - n]
        keep = np.flatnonzero(logits >= bound)
        tokens, logits = tokens[keep], logits[keep]
    # Stable, and the tokens are in the order of their ids.
    order = np.argsort(-logits, kind="stable")
    return Candidates(tokens[order], logits[order])


def _likely_tokens(row: Logits, n: int) -> NDArray[np.intp]:
    """Return the ids, in order, of a superset of the `n` likeliest tokens."""
    n_columns = len(row) // N_ROW_PARTS
    if 4 * n > n_columns:
        bound = np.partition(row, len(row) - n)[len(row) - n] if n < len(row) else _LOWEST_LOGIT
        return np.flatnonzero(row >= max(bound, _LOWEST_LOGIT))
    body = row[: N_ROW_PARTS * n_columns].reshape(N_ROW_PARTS, n_columns)
    maxima = body.max(axis=0)
    # In each of n columns there is a logit of at least this.
    bound = max(np.partition(maxima, n_columns - n)[n_columns - n], _LOWEST_LOGIT)
    columns = np.flatnonzero(maxima >= bound)
    found = np.flatnonzero(body.take(columns, axis=1) >= bound)
    lines, places = np.divmod(found, max(1, len(columns)))
    tokens = lines * n_columns + columns[places]
    n_in_lines = N_ROW_PARTS * n_columns
    if n_in_lines == len(row):
        return tokens
    rest = np.flatnonzero(row[n_in_lines:] >= bound)
    return np.concatenate([tokens, rest + n_in_lines])


def allowed_tokens(row: Logits, mask: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the ids of the tokens that a mask allows, in order."""
    bits = np.unpackbits(mask, count=len(row), bitorder="little")
    return np.flatnonzero(bits.view(np.bool_))


FORBIDDING_BIAS = -100.0


class LogitBias:
    """Add to the logits of some tokens; -100 or less forbids one.

    >>> row = np.zeros(4, np.float32)
    >>> LogitBias({1: 2.0, 3: -100.0, 99: 1.0}, 4).apply(row)
    >>> row.tolist()
    [0.0, 2.0, 0.0, -inf]
    """

    def __init__(self, bias: Mapping[int, float], n_vocab: int) -> None:
        # Ids beyond the vocabulary cannot be chosen anyway.
        known = {token: value for token, value in bias.items() if 0 <= token < n_vocab}
        self._tokens = np.fromiter(known, np.intp, len(known))
        values = [-np.inf if value <= FORBIDDING_BIAS else value for value in known.values()]
        self._values = np.array(values, np.float32)

    def apply(self, row: Logits) -> None:
        """Change a row in place."""
        row[self._tokens] += self._values


class Penalties:
    """Lower the logits of one answer's recent tokens.

    >>> row = np.array([2.0, -2.0, 1.0], np.float32)
    >>> sampling = Sampling(repeat_penalty=2.0, presence_penalty=0.5)
    >>> Penalties(sampling, np.array([0, 1, 1], np.int32)).apply(row)
    >>> row.tolist()
    [0.5, -4.5, 1.0]
    """

    def __init__(self, sampling: Sampling, prompt: Tokens) -> None:
        """Start after `prompt`; the last `repeat_last_n` tokens count, -1 for all."""
        n = sampling.repeat_last_n
        recent = prompt if n < 0 else prompt[len(prompt) - min(n, len(prompt)) :]
        self._n_window = n
        self._window = deque(recent.tolist()) if n >= 0 else None
        self._repeat = np.float32(sampling.repeat_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        tokens, counts = np.unique(recent, return_counts=True)
        self._tokens = tokens.astype(np.intp)
        self._counts = counts.astype(np.float32)
        self._places = {token: place for place, token in enumerate(tokens.tolist())}

    def add(self, token: int) -> None:
        """Count a new token; the oldest leaves a window that is full."""
        place = self._places.get(token)
        if place is None:
            place = self._places[token] = len(self._places)
            if place == len(self._tokens):
                self._tokens = np.resize(self._tokens, 2 * place + 64)
                self._counts = np.resize(self._counts, 2 * place + 64)
            self._tokens[place], self._counts[place] = token, 0
        self._counts[place] += 1
        if self._window is not None:
            self._window.append(token)
            if len(self._window) > self._n_window:
                self._drop(self._window.popleft())

    def _drop(self, token: int) -> None:
        place = self._places[token]
        self._counts[place] -= 1
        if self._counts[place]:
            return
        del self._places[token]
        last = len(self._places)
        if place != last:
            moved = int(self._tokens[last])
            self._tokens[place], self._counts[place] = moved, self._counts[last]
            self._places[moved] = place

    def apply(self, row: Logits) -> None:
        """Lower the logits of recent tokens in place, to the bit as llama.cpp does."""
        n = len(self._places)
        if not n:
            return
        tokens = self._tokens[:n]
        values = row[tokens]
        values = np.where(values <= 0, values * self._repeat, values / self._repeat)
        if self._frequency or self._presence:
            values -= self._counts[:n] * self._frequency + self._presence
        row[tokens] = values


FEW_FORBIDDEN_BYTES = 1024
"""Bytes of a mask that forbid a token: up to so many, their tokens are taken out of a pass over the
row; of more, the allowed tokens are gathered. A text of JSON has 310 such bytes, a number 6,143."""
N_PRESELECTED = 64
"""Likeliest tokens that are checked against a mask before all others are."""
_LEAST_SHARE = 1e-6
"""Of the likeliest token's: a smaller sum has too few digits, and is computed again."""


class RowLogprobs:
    """A row's log probabilities; the row must not change before `of`.

    With a mask (as `TokenMatcher.mask`) they are those of the tokens that it allows.
    """

    def __init__(
        self,
        row: Logits,
        n_top: int,
        piece: Callable[[int], bytes],
        mask: NDArray[np.uint8] | None = None,
    ) -> None:
        self._row = row
        self._piece = piece
        if mask is None:
            self._norm = log_sum_exp(row)
            self._top = top_candidates(row, n_top).tokens[:n_top].tolist() if n_top else []
            return
        forbidding = np.flatnonzero(mask != _ALL_ALLOWED)
        if len(forbidding) > FEW_FORBIDDEN_BYTES:
            self._use_allowed(allowed_tokens(row, mask), n_top)
            return
        self._norm = log_sum_exp(row, _forbidden_tokens(row, mask, forbidding))
        likely = top_candidates(row, n_top + N_PRESELECTED).allowed_by(mask) if n_top else None
        self._top = likely.tokens[:n_top].tolist() if likely is not None else []
        if len(self._top) < n_top or self._norm == -math.inf:
            self._use_allowed(allowed_tokens(row, mask), n_top)

    def _use_allowed(self, allowed: NDArray[np.intp], n_top: int) -> None:
        """Compute everything from the logits of the allowed tokens."""
        logits = self._row[allowed]
        self._norm = log_sum_exp(logits)
        if len(allowed) and self._norm == -math.inf:
            # A bias forbids all allowed tokens: the constraint wins, and they are equally likely.
            self._row = np.full_like(self._row, -np.inf)
            self._row[allowed] = logits = np.zeros_like(logits)
            self._norm = math.log(len(allowed))
        if n_top:
            self._top = allowed[top_candidates(logits, n_top).tokens[:n_top]].tolist()
        else:
            self._top = []

    def of(self, token: int) -> TokenLogprob:
        """Return a token's log probability, with the likeliest alternatives."""
        top = tuple(self._logprob(other) for other in self._top)
        text, logprob, raw = self._logprob(token)
        return TokenLogprob(text, logprob, raw, top)

    def _logprob(self, token: int) -> tuple[str, float, bytes]:
        raw = self._piece(token)
        # Rounding may exceed 0; a token that leaves a loop is not always among the allowed ones.
        logprob = min(0.0, max(LOWEST_LOGPROB, float(self._row[token]) - self._norm))
        return raw.decode(errors="replace"), logprob, raw


def forced_logprob(raw: bytes, n_top: int) -> TokenLogprob:
    """Return the log probability of the only allowed token: 0, without alternatives."""
    text = raw.decode(errors="replace")
    return TokenLogprob(text, 0.0, raw, ((text, 0.0, raw),) if n_top else ())


def log_sum_exp(logits: Logits, without: NDArray[np.intp] | None = None) -> float:
    """Return the logarithm of the sum of exponentials; minus infinity if all are impossible.

    Some tokens may be left out, by their ids.
    """
    highest = float(logits.max(initial=-np.inf))
    if highest == -math.inf:
        return highest
    shares = logits - np.float32(highest)
    np.exp(shares, out=shares)
    if without is None:
        return highest + math.log(_total(shares))
    shares[without] = 0
    total = _total(shares)
    if total < _LEAST_SHARE:  # what is left is far less likely than what was left out
        return log_sum_exp(np.delete(logits, without))
    return highest + math.log(total)


def _total(shares: Logits) -> float:
    """Return a sum, by lines (see `N_ROW_PARTS`): 4 µs instead of 18 at 49,152."""
    n_in_lines = len(shares) // N_ROW_PARTS * N_ROW_PARTS
    lines = shares[:n_in_lines].reshape(N_ROW_PARTS, -1)
    return float(lines.sum(axis=0).sum()) + float(shares[n_in_lines:].sum())


def _forbidden_tokens(
    row: Logits, mask: NDArray[np.uint8], forbidding: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the ids of the tokens that some bytes of a mask forbid."""
    bits = np.unpackbits(~mask[forbidding], bitorder="little")
    found = np.flatnonzero(bits.view(np.bool_))
    tokens: NDArray[np.intp] = 8 * forbidding[found >> 3] + (found & 7)
    return tokens[tokens < len(row)]
