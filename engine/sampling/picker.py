"""Choose the tokens of one answer, one after the other.

Greedy rows: arg-max over a NumPy view. Sampled rows: llama.cpp's own chain, which reads the same
memory. In this order: bias, penalties, the constraint's mask, the choice; then the limit and
circles may overrule it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.native.context import Context
from paddock.engine.native.model import Model
from paddock.engine.native.samplers import SamplerChain
from paddock.engine.request import DoneReason, Sampling, TokenLogprob

from .bias import Bias
from .constraint import Matcher
from .greedy import penalise, window
from .guided import Guided
from .logprobs import RowLogprobs
from .repetition import Circles

MOST_LOGPROBS = 100
FEW_MASKS = 4
"""Fewer are made on the spot, where they are needed at all: another thread costs 20 to 100 µs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One chosen token; `ends` tells that the answer is over with it, and why."""

    token: int
    ends: DoneReason | None = None
    logprob: TokenLogprob | None = None


class Picker:
    """One answer's choices. Made in any thread, then used by the owner thread alone."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Tokens,
        model: Model,
        *,
        matcher: Matcher | None = None,
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
        n = sampling.repeat_last_n
        self._prompt = (prompt if n < 0 else prompt[len(prompt) - min(n, len(prompt)) :]).tolist()
        self._answer: list[int] = []
        self._bias = Bias(sampling.logit_bias, model.n_vocab) if sampling.logit_bias else None
        self._guided = Guided(matcher, max_tokens) if matcher is not None else None
        self._circles = Circles() if sampling.guards_repetition else None
        self._n_logprobs = n_logprobs
        self._chain: SamplerChain | None = None
        if not sampling.is_greedy:
            self._chain = SamplerChain(sampling, window(sampling, self._prompt, []), model.n_vocab)

    @property
    def is_shortened(self) -> bool:
        """Whether the answer was brought to a valid end before its own."""
        return self._guided is not None and self._guided.is_shortened

    @property
    def guided(self) -> Guided | None:
        """What holds the answer to its constraint."""
        return self._guided

    def choose(self, context: Context, row: Logits, batch_index: int) -> Choice:
        """Choose the next token and take it into the answer.

        Args:
            context: where the row was computed.
            row: logits, shape (n_vocab,); llama.cpp's own memory, changed in place.
            batch_index: place of the row's token in the last batch.
        """
        # After bias and greedy penalties: the likeliest token is then the one that is chosen.
        self._adjust(row)
        likely = None
        if self._n_logprobs is not None:
            likely = RowLogprobs(row, self._n_logprobs, self._model.piece)
        if self._guided is None:
            token = self._pick(context, row, batch_index)
        else:
            token = self._pick_guided(self._guided, context, row, batch_index)
        ends = self._ends(token)
        if not self._model.ends_generation(token):
            self._answer.append(token)
        return Choice(token, ends, likely.of(token) if likely else None)

    def _adjust(self, row: Logits) -> None:
        if self._bias is not None:
            self._bias.apply(row)
        if self._chain is None and self._sampling.has_penalties:
            recent = window(self._sampling, self._prompt, self._answer)
            if recent:
                penalise(row, self._sampling, recent)

    def _pick(self, context: Context, row: Logits, batch_index: int) -> int:
        if self._chain is not None:
            return self._chain.pick(context, batch_index)
        return int(row.argmax())

    def _pick_guided(self, guided: Guided, context: Context, row: Logits, batch_index: int) -> int:
        """Choose among what the constraint allows, and keep room for its end."""
        token = guided.settled()
        if token is None and self._chain is None:
            token = guided.likeliest(row)
        elif token is None:
            guided.mask(row)
            token = self._pick(context, row, batch_index)
        elif self._chain is not None:
            self._chain.accept(token)
        taken = guided.take(token)
        if taken != token and self._chain is not None:
            self._chain.accept(taken)
        return taken

    def _ends(self, token: int) -> DoneReason | None:
        """Tell whether the answer is over with this token."""
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
        """Tell the tokens that a constraint leaves no choice about, as guesses ahead."""
        return [] if self._guided is None else self._guided.forced()

    def close(self) -> None:
        """Free what llama.cpp holds for it."""
        if self._chain is not None:
            self._chain.close()


def prepare(pickers: Iterable[Picker]) -> None:
    """Begin what can be made while the device computes: the masks of constrained rows."""
    wanted = [
        picker.guided.matcher
        for picker in pickers
        if picker.guided is not None and picker.guided.needs_mask
    ]
    if len(wanted) >= FEW_MASKS:
        Matcher.begin_masks(wanted)
