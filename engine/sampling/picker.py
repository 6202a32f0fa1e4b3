"""Pick the tokens of one answer.

Greedy rows: arg-max over a NumPy view. Sampled rows: llama.cpp's own chain, over the tokens that
`top_k` leaves. The order is bias, penalties, the constraint's mask, the choice; then the token
limit and the repetition detector may overrule it. There are two parts: `scan` reads the whole row
and may run in any thread, `pick` takes the token into the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.llama.samplers import SamplerChain
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.request import DoneReason, Sampling, TokenLogprob
from paddock.engine.system.records import Struct

from .constrained_decoding import ConstrainedAnswer
from .logits import FORBIDDING_BIAS, N_PRESELECTED, Candidates, LogitBias, top_candidates
from .logprobs import RowLogprobs
from .penalties import Penalties
from .repetition import RepetitionDetector

if TYPE_CHECKING:
    from .constraint import TokenMatcher


MOST_LOGPROBS = 100
MOST_SCAN_THREADS = 8
LOGITS_WORTH_THREADS = 8_000_000
"""Logits that take longer to scan than to hand to other threads: beside a card, 64 rows of 32,000
took 0.4 ms in one thread and 1.5 ms in eight, of 151,936 2.1 ms in one."""
FEW_MASKS = 4
"""Fewer are computed when needed, if at all: another thread costs 20 to 100 µs."""


class PickedToken(Struct, frozen=True):
    """One chosen token; `ends` is why the answer ends with it, if it does."""

    token: int
    ends: DoneReason | None = None
    logprob: TokenLogprob | None = None


class RowScan(Struct):
    """Result of `Picker.scan`; the constraint is not applied yet, except to `logprobs`."""

    token: int | None = None
    """The likeliest one; without a constraint and with a temperature, the one that was drawn."""
    candidates: Candidates | None = None
    """The likeliest tokens, of which an allowed one is to be drawn."""
    logprobs: RowLogprobs | None = None
    """None: not wanted, or the grammar forces the token."""


class Picker:
    """Pick one answer's tokens. Made in any thread, then used by one thread at a time."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Tokens,
        model: Vocabulary,
        *,
        matcher: TokenMatcher | None = None,
        max_tokens: int | None = None,
        n_logprobs: int | None = None,
    ) -> None:
        """Prepare an answer.

        `prompt`: tokens that penalties include; `max_tokens`: a constrained answer is completed
        within it; `n_logprobs`: likely alternatives reported for each token.

        Raises:
            BadRequest: `n_logprobs` is out of range.
        """
        if n_logprobs is not None and not 0 <= n_logprobs <= MOST_LOGPROBS:
            raise BadRequest(f"`n_logprobs` must be from 0 to {MOST_LOGPROBS}, not {n_logprobs}")
        self._sampling = sampling
        self._model = model
        self._bias = LogitBias(sampling.logit_bias, model.n_vocab) if sampling.logit_bias else None
        self.stop_tokens = frozenset(sampling.stop_token_ids)
        ends = model.ending_tokens if sampling.min_tokens or sampling.ignore_eos else ()
        self._bans = [
            (n_tokens, LogitBias(dict.fromkeys(tokens, FORBIDDING_BIAS), model.n_vocab))
            for n_tokens, tokens in (
                (sampling.min_tokens, {*ends, *self.stop_tokens}),
                (math.inf, {*model.suppressed_tokens, *(ends if sampling.ignore_eos else ())}),
            )
            if n_tokens and tokens
        ]
        """Tokens that cannot be chosen before the answer has so many."""
        self._n_picked = 0
        self._penalties = Penalties(sampling, prompt) if sampling.has_penalties else None
        self.constrained = ConstrainedAnswer(matcher, max_tokens) if matcher is not None else None
        self._repetition = RepetitionDetector() if sampling.guards_repetition else None
        self._n_logprobs = n_logprobs
        self._chain = None if sampling.is_greedy else SamplerChain(sampling)

    @property
    def uses_masks(self) -> bool:
        return self._chain is not None or self._n_logprobs is not None

    @property
    def is_shortened(self) -> bool:
        """Whether the answer was completed before the model ended it."""
        return self.constrained is not None and self.constrained.is_shortened

    def scan(self, row: Logits) -> RowScan:
        """Apply bias and penalties to a row, find its likeliest tokens, draw if that is possible.

        The row, shape (n_vocab,), is llama.cpp's own memory and changed in place. Each result must
        be picked, since a seed gives one number for each draw.
        """
        if self._bias is not None:
            self._bias.apply(row)
        for n_tokens, ban in self._bans:
            if self._n_picked < n_tokens:
                ban.apply(row)
        if self._penalties is not None:
            self._penalties.apply(row)
        scan = RowScan(logprobs=self._logprobs(row))
        if self.constrained is not None and self.constrained.only_token() is not None:
            return scan
        k = self._sampling.top_k
        if self._chain is None:
            scan.token = int(row.argmax())
        elif self.constrained is None:
            # `top_k` leaves few, but equal ones are for llama.cpp itself to order.
            token = self._draw_of_few(self._chain, top_candidates(row, k)) if k > 0 else None
            scan.token = self._chain.pick_of_all(row) if token is None else token
        elif k > 0:
            scan.candidates = top_candidates(row, k + N_PRESELECTED)
        return scan

    def pick(self, row: Logits, scan: RowScan | None = None) -> PickedToken:
        """Choose the next token and take it into the answer.

        `scan` is the result of `scan` for this row, if it was called.
        """
        scan = self.scan(row) if scan is None else scan
        if self.constrained is None:
            token = scan.token
            assert token is not None  # only a constraint leaves the choice open
        else:
            token = self.constrained.take(self._pick_constrained(self.constrained, row, scan))
        ends = self._take(token)
        if self._n_logprobs is None:
            return PickedToken(token, ends)
        return PickedToken(token, ends, self._logprob(token, scan.logprobs))

    def follow(self) -> PickedToken | None:
        """Take the next token into the answer without its logits, if there is no choice.

        Return None if it must be chosen from its row, or its probability there is wanted.
        """
        if self.constrained is None:
            return None
        token = self.constrained.only_token()
        if token is None or (self._n_logprobs is not None and not self.constrained.is_forced):
            return None
        token = self.constrained.take(token)
        return PickedToken(token, self._take(token), self._logprob(token, None))

    def _logprobs(self, row: Logits) -> RowLogprobs | None:
        if self._n_logprobs is None:
            return None
        mask = None
        if self.constrained is not None:
            if self.constrained.is_forced:
                return None
            mask = self.constrained.allowed_mask()
        return RowLogprobs(row, self._n_logprobs, self._model.piece, mask)

    def _logprob(self, token: int, row: RowLogprobs | None) -> TokenLogprob | None:
        """Return a chosen token's log probability if it is wanted; without a row it was forced."""
        if self._n_logprobs is None:
            return None
        if row is not None:
            return row.of(token)
        raw = self._model.piece(token)
        return TokenLogprob(raw, 0.0, [(raw, 0.0)] if self._n_logprobs else ())

    def _take(self, token: int) -> DoneReason | None:
        ends = self._ends(token)
        self._n_picked += 1
        if self._penalties is not None and ends != "stop":
            self._penalties.add(token)
        return ends

    def _pick_constrained(self, constrained: ConstrainedAnswer, row: Logits, scan: RowScan) -> int:
        only = constrained.only_token()
        if only is not None:  # it leaves room for an ending
            return only
        if self._chain is None:
            assert scan.token is not None  # greedy, and not forced
            return constrained.likeliest(row, scan.token)
        row, is_changed = constrained.without_avoided(row)
        token = None
        if scan.candidates is not None:
            k = self._sampling.top_k
            found = top_candidates(row, k + N_PRESELECTED) if is_changed else scan.candidates
            token = self._draw_of_few(self._chain, constrained.allowed(row, found, k))
        return self._chain.pick_of_all(constrained.masked(row)) if token is None else token

    def _draw_of_few(self, chain: SamplerChain, found: Candidates) -> int | None:
        """Draw one of the `top_k` likeliest; None if llama.cpp itself must order equal ones."""
        k = self._sampling.top_k
        if not len(found.tokens) or not found.first(k + 1).are_distinct:
            return None
        return chain.pick(*found.first(k), are_sorted=True)

    def _ends(self, token: int) -> DoneReason | None:
        if token in self.stop_tokens:
            return "stop"
        if self._model.ends_generation(token):
            return "stop" if self.constrained is None else self.constrained.reason
        if self.constrained is not None and self.constrained.is_over:
            return self.constrained.reason
        period = self._repetition.feed(token) if self._repetition is not None else 0
        if not period or self._repetition is None:
            return None
        if self.constrained is None:
            return "repetition"
        loop = self._repetition.last(period)
        self._repetition.reset()
        return None if self.constrained.leave_loop(loop) else "repetition"

    def forced(self) -> list[int]:
        return [] if self.constrained is None else self.constrained.forced()

    def close(self) -> None:
        if self._chain is not None:
            self._chain.close()
        if self.constrained is not None:
            self.constrained.matcher.close()


class RowScanner:
    """Scan the rows of a step, large ones in several threads."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = min(MOST_SCAN_THREADS, n_threads)
        self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="look")

    def scan(self, rows: Sequence[tuple[Picker, Logits]]) -> list[RowScan]:
        n_parts = min(self._n_threads, len(rows))
        if n_parts < 2 or len(rows) * len(rows[0][1]) < LOGITS_WORTH_THREADS:
            return _scan_rows(rows)
        ends = [len(rows) * part // n_parts for part in range(n_parts + 1)]
        parts = [rows[start:end] for start, end in pairwise(ends)]
        others = [self._pool.submit(_scan_rows, part) for part in parts[1:]]
        found = _scan_rows(parts[0])
        for other in others:
            found += other.result()
        return found


def _scan_rows(rows: Sequence[tuple[Picker, Logits]]) -> list[RowScan]:
    return [picker.scan(row) for picker, row in rows]


def start_masks(pickers: Iterable[Picker], *, has_idle_cores: bool = True) -> None:
    """Start the masks of constrained rows while the device computes.

    A greedy row seldom needs its mask, since the likeliest token is mostly allowed: if the
    processor itself computes the step, its mask is computed only when needed. Log probabilities
    always need it.
    """
    matchers = [
        picker.constrained.matcher
        for picker in pickers
        if picker.constrained is not None
        and (has_idle_cores or picker.uses_masks)
        and picker.constrained.prepare()
    ]
    if len(matchers) >= FEW_MASKS:
        matchers[0].begin_masks(matchers)
