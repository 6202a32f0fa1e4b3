"""Pick the tokens of one answer.

Greedy rows: arg-max over a NumPy view. Sampled rows: llama.cpp's own chain, over the tokens that
`top_k` leaves. In this order: bias, penalties, the constraint's mask, the choice; then the token
limit and the repetition detector may overrule it. A choice has two parts: `look`, which reads the
whole row and may run in any thread, and `choose`, which takes the token into the answer.

`RepetitionDetector` notices that an answer repeats the same tokens. Legitimate text repeats, too:
a table's rows, a list of zeros, spaces in code. So a loop must be long and turn often before it
counts as one, and only the very same tokens do.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.llama.llama_context import SamplerChain
from paddock.engine.llama.llama_model import Model
from paddock.engine.request import DoneReason, Sampling, TokenLogprob

from .constrained_decoding import N_PRESELECTED, ConstrainedAnswer
from .constraint import TokenMatcher
from .logits import Candidates, LogitBias, Penalties, RowLogprobs, top_candidates

CHECK_EVERY_TOKENS = 32
"""Tokens between two looks: 0.02 ms each, so less than 1 µs a token."""
LONGEST_LOOP_TOKENS = 512
"""Tokens of the longest circle that is looked for."""
LEAST_LOOP_TURNS = 4
LEAST_LOOP_SPAN = 192
LEAST_SHORT_LOOP_SPAN = 384  # 192 zeros of a list, 384 line breaks
SHORT_LOOP_TOKENS = 4
"""Tokens of a circle that may well be meant."""
PREFILTER_TOKENS = 8
"""Tokens that must be the same before a distance is measured out."""


class RepetitionDetector:
    """Looks at one answer's tokens as they come."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._next_look = LEAST_LOOP_SPAN

    def feed(self, token: int) -> int:
        """Add a token; gives the length of the circle that it closes, mostly 0."""
        self._tokens.append(token)
        if len(self._tokens) < self._next_look:
            return 0
        self._next_look += CHECK_EVERY_TOKENS
        return self._look()

    def forget(self) -> None:
        """Begin anew: what was said so far is forgiven."""
        self._tokens = array("i")
        self._next_look = LEAST_LOOP_SPAN

    def before(self, period: int) -> int:
        """Return the token that would go on with the circle."""
        return self._tokens[-period]

    def last(self, n_tokens: int) -> list[int]:
        """Return the last tokens."""
        return self._tokens[-n_tokens:].tolist()

    def _look(self) -> int:
        # Backwards: the newest token first.
        tokens = np.frombuffer(self._tokens, np.intc)[
            : -LEAST_LOOP_TURNS * LONGEST_LOOP_TOKENS - 1 : -1
        ]
        most = min(LONGEST_LOOP_TOKENS, len(tokens) - PREFILTER_TOKENS)
        periods = np.flatnonzero(tokens[1 : most + 1] == tokens[0]) + 1
        for offset in range(1, PREFILTER_TOKENS):
            periods = periods[tokens[periods + offset] == tokens[offset]]
        for period in periods[:LEAST_LOOP_TURNS].tolist():
            others = np.flatnonzero(tokens[period:] != tokens[: len(tokens) - period])
            n_same = int(others[0]) if len(others) else len(tokens) - period
            span = n_same + int(period)
            if span >= max(LEAST_LOOP_TURNS * period, LEAST_LOOP_SPAN):
                # The shortest decides: six zeros are no longer circle than one.
                return (
                    int(period)
                    if period > SHORT_LOOP_TOKENS or span >= LEAST_SHORT_LOOP_SPAN
                    else 0
                )
        return 0


MOST_LOGPROBS = 100
MOST_SCAN_THREADS = 8
LOGITS_WORTH_THREADS = 2_000_000
"""Logits that take longer to look through (0.2 ms) than to hand to another thread."""
FEW_MASKS = 4
"""Fewer are made on the spot, where they are needed at all: another thread costs 20 to 100 µs."""


@dataclass(frozen=True, slots=True)
class PickedToken:
    """One chosen token; `ends` tells that the answer is over with it, and why."""

    token: int
    ends: DoneReason | None = None
    logprob: TokenLogprob | None = None


@dataclass(slots=True)
class RowScan:
    """What `Picker.look` found in a row."""

    likeliest: int | None = None
    """The likeliest token, constraint left aside."""
    candidates: Candidates | None = None
    """The likeliest tokens, constraint left aside."""
    logprobs: RowLogprobs | None = None


class Picker:
    """One answer's choices. Made in any thread, then used by one thread at a time."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Tokens,
        model: Model,
        *,
        matcher: TokenMatcher | None = None,
        max_tokens: int | None = None,
        n_logprobs: int | None = None,
    ) -> None:
        """Begin an answer.

        Args:
            sampling: how tokens are chosen.
            prompt: what penalties look back at.
            model: whose tokens they are.
            matcher: what the answer must match, at its beginning.
            max_tokens: where the answer is cut; a constrained one is ended before.
            n_logprobs: how many likely tokens are told beside each; None: no log probabilities.

        Raises:
            BadRequest: more of them than are told.
        """
        if n_logprobs is not None and not 0 <= n_logprobs <= MOST_LOGPROBS:
            raise BadRequest(f"`n_logprobs` must be from 0 to {MOST_LOGPROBS}, not {n_logprobs}")
        self._sampling = sampling
        self._model = model
        self._bias = LogitBias(sampling.logit_bias, model.n_vocab) if sampling.logit_bias else None
        self._penalties = Penalties(sampling, prompt) if sampling.has_penalties else None
        self._guided = ConstrainedAnswer(matcher, max_tokens) if matcher is not None else None
        self._circles = RepetitionDetector() if sampling.guards_repetition else None
        self._n_logprobs = n_logprobs
        self._chain = None if sampling.is_greedy else SamplerChain(sampling)
        own = (self._bias, self._penalties, self._guided, self._n_logprobs, self._chain)
        self.needs_logits = any(one is not None for one in own)
        """Whether more is asked of a row than which token is the likeliest."""

    @property
    def is_sampled(self) -> bool:
        """Whether tokens are drawn by chance."""
        return self._chain is not None

    @property
    def is_shortened(self) -> bool:
        """Whether the answer was brought to a valid end before its own."""
        return self._guided is not None and self._guided.is_shortened

    @property
    def guided(self) -> ConstrainedAnswer | None:
        """What holds the answer to its constraint."""
        return self._guided

    def look(self, row: Logits) -> RowScan:
        """Apply bias and penalties to a row, and find what may be chosen in it.

        Args:
            row: logits, shape (n_vocab,); llama.cpp's own memory, changed in place.
        """
        if self._bias is not None:
            self._bias.apply(row)
        if self._penalties is not None:
            self._penalties.apply(row)
        look = RowScan()
        if self._n_logprobs is not None:
            # After bias and penalties: the likeliest token is then the one that is chosen.
            look.logprobs = RowLogprobs(row, self._n_logprobs, self._model.piece)
        if self._guided is not None and self._guided.settled() is not None:
            return look
        if self._chain is None:
            look.likeliest = int(row.argmax())
        elif self._sampling.top_k > 0:
            more = N_PRESELECTED if self._guided is not None else 0
            look.candidates = top_candidates(row, self._sampling.top_k + more)
        return look

    def choose(self, row: Logits, look: RowScan | None = None) -> PickedToken:
        """Choose the next token and take it into the answer.

        Args:
            row: logits, shape (n_vocab,).
            look: what `look` found in this row; None: it has not been called.
        """
        look = look or self.look(row)
        if self._guided is None:
            token = self._pick(row, look)
        else:
            token = self._pick_guided(self._guided, row, look)
        ends = self._take(token)
        return PickedToken(token, ends, look.logprobs.of(token) if look.logprobs else None)

    def follow(self) -> PickedToken | None:
        """Take the next token into the answer where nothing is left to choose.

        None: it has to be chosen from its row, or the row's probabilities are wanted.
        """
        if self._guided is None or self._n_logprobs is not None:
            return None
        token = self._guided.settled()
        if token is None:
            return None
        token = self._guided.take(token)
        return PickedToken(token, self._take(token))

    def _take(self, token: int) -> DoneReason | None:
        """Note a token of the answer; return why the answer is over with it, if it is."""
        ends = self._ends(token)
        if self._penalties is not None and ends != "stop":
            self._penalties.add(token)
        return ends

    def _pick(self, row: Logits, look: RowScan) -> int:
        if self._chain is None:
            assert look.likeliest is not None
            return look.likeliest
        return self._draw(self._chain, row, look.candidates)

    def _pick_guided(self, guided: ConstrainedAnswer, row: Logits, look: RowScan) -> int:
        """Choose among what the constraint allows, and keep room for its end."""
        token = guided.settled()
        if token is None and self._chain is None:
            assert look.likeliest is not None
            token = guided.likeliest(row, look.likeliest)
        elif token is None and self._chain is not None:
            token = self._draw_guided(self._chain, guided, row, look)
        assert token is not None
        return guided.take(token)

    def _draw(self, chain: SamplerChain, row: Logits, found: Candidates | None) -> int:
        """Draw one of the tokens that `top_k` leaves, or of all where those are not certain."""
        token = self._draw_of_few(chain, found) if found is not None else None
        return chain.pick_of_all(row) if token is None else token

    def _draw_guided(
        self, chain: SamplerChain, guided: ConstrainedAnswer, row: Logits, look: RowScan
    ) -> int:
        row, is_changed = guided.without_avoided(row)
        token = None
        if look.candidates is not None:
            k = self._sampling.top_k
            found = top_candidates(row, k + N_PRESELECTED) if is_changed else look.candidates
            token = self._draw_of_few(chain, guided.allowed(row, found, k))
        return chain.pick_of_all(guided.masked(row)) if token is None else token

    def _draw_of_few(self, chain: SamplerChain, found: Candidates) -> int | None:
        """Draw one of the `top_k` likeliest; None where llama.cpp itself must order equal ones."""
        k = self._sampling.top_k
        if not len(found.tokens) or not found.first(k + 1).are_distinct:
            return None
        if len(found.tokens) < k and self._sampling.typical_p < 1:
            return None  # its entropy is not defined beside impossible tokens
        return chain.pick(*found.first(k), are_sorted=True)

    def _ends(self, token: int) -> DoneReason | None:
        """Return whether the answer is over with this token."""
        if self._model.ends_generation(token):
            return "stop" if self._guided is None else self._guided.reason
        if self._guided is not None and self._guided.is_over:
            return self._guided.reason
        period = self._circles.feed(token) if self._circles is not None else 0
        if not period or self._circles is None:
            return None
        if self._guided is None:
            return "repetition"
        circle = self._circles.last(period)
        self._circles.forget()
        return None if self._guided.leave(circle) else "repetition"

    def forced(self) -> list[int]:
        """Return the tokens that a constraint leaves no choice about, as guesses ahead."""
        return [] if self._guided is None else self._guided.forced()

    def close(self) -> None:
        """Free what llama.cpp holds for it."""
        if self._chain is not None:
            self._chain.close()


class RowScanner:
    """Looks at the rows of a step, from a size on in several threads."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = min(MOST_SCAN_THREADS, n_threads)
        self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="look")

    def look(self, asked: Sequence[tuple[Picker, Logits]]) -> list[RowScan]:
        """Return what each picker finds in its row."""
        n_parts = min(self._n_threads, len(asked))
        if n_parts < 2 or len(asked) * len(asked[0][1]) < LOGITS_WORTH_THREADS:
            return _scan_rows(asked)
        ends = [len(asked) * part // n_parts for part in range(n_parts + 1)]
        parts = [asked[start:end] for start, end in pairwise(ends)]
        others = [self._pool.submit(_scan_rows, part) for part in parts[1:]]
        found = _scan_rows(parts[0])
        for other in others:
            found += other.result()
        return found


def _scan_rows(asked: Sequence[tuple[Picker, Logits]]) -> list[RowScan]:
    return [picker.look(row) for picker, row in asked]


def start_masks(pickers: Iterable[Picker], *, has_idle_cores: bool = True) -> None:
    """Begin what can be made while the device computes: the masks of constrained rows.

    A greedy row seldom needs its mask, since the likeliest token is mostly allowed: where the
    processor itself computes the step, it is made only when it is needed.
    """
    wanted = [
        picker.guided.matcher
        for picker in pickers
        if picker.guided is not None
        and (has_idle_cores or picker.is_sampled)
        and picker.guided.needs_mask
    ]
    if len(wanted) >= FEW_MASKS:
        TokenMatcher.begin_masks(wanted)
