"""Choose the tokens of one answer, one after the other.

Greedy rows: arg-max over a NumPy view. Sampled rows: llama.cpp's own chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.native.context import Context
from paddock.engine.native.model import Model
from paddock.engine.native.samplers import SamplerChain
from paddock.engine.request import DoneReason, Sampling, TokenLogprob

from .greedy import pick_greedy, window


@dataclass(frozen=True, slots=True)
class Choice:
    """One chosen token; `ends` tells that the answer is over with it, and why."""

    token: int
    ends: DoneReason | None = None
    logprob: TokenLogprob | None = None


class Picker:
    """One answer's choices. Made in any thread, then used by the owner thread alone."""

    def __init__(self, sampling: Sampling, prompt: Tokens, model: Model) -> None:
        self._sampling = sampling
        self._model = model
        n = sampling.repeat_last_n
        self._prompt = (prompt if n < 0 else prompt[len(prompt) - min(n, len(prompt)) :]).tolist()
        self._answer: list[int] = []
        self._chain: SamplerChain | None = None
        if not sampling.is_greedy:
            self._chain = SamplerChain(sampling, window(sampling, self._prompt, []), model.n_vocab)
        self.is_shortened = False
        """Near its limit, the answer was brought to a valid end."""

    def choose(self, context: Context, row: Logits, batch_index: int) -> Choice:
        """Choose the next token and take it into the answer.

        Args:
            context: where the row was computed.
            row: logits, shape (n_vocab,); llama.cpp's own memory, changed in place.
            batch_index: place of the row's token in the last batch.
        """
        if self._chain is not None:
            token = self._chain.pick(context, batch_index)
        else:
            recent = []
            if self._sampling.has_penalties:
                recent = window(self._sampling, self._prompt, self._answer)
            token = pick_greedy(row, self._sampling, recent)
        if self._model.ends_generation(token):
            return Choice(token, "stop")
        self._answer.append(token)
        return Choice(token)

    def forced(self) -> list[int]:
        """Tell the tokens that a constraint leaves no choice about, as guesses ahead."""
        return []

    def close(self) -> None:
        """Free what llama.cpp holds for it."""
        if self._chain is not None:
            self._chain.close()


def prepare(pickers: Iterable[Picker]) -> None:
    """Begin what can be made while the device computes: the masks of constrained rows."""
    del pickers
