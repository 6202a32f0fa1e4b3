"""Log probabilities of given tokens after a prompt: of possible answers, or of a prompt's own.

The row after the prompt's last token has those of every first token. The tokens after it are
branches of the sequence (`scheduler_data.Branch`); of an answer's last token no row is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.request import TokenLogprob
from paddock.engine.sampling.logprobs import RowLogprobs

from .scheduler_data import Branch


class AnswerScores:
    def __init__(
        self, answers: Items[Tokens], piece: Callable[[int], bytes], n_top: int, *, is_echo: bool
    ) -> None:
        """`is_echo`: the only answer is the rest of the prompt, after which one is picked."""
        self._answers = answers
        self._piece, self._n_top = piece, n_top
        self.is_echo = is_echo
        self.logprobs: list[list[TokenLogprob]] = [[] for _ in answers]

    def branches(self) -> list[Branch]:
        n_unread = 0 if self.is_echo else 1
        computed = [tokens[: len(tokens) - n_unread] for tokens in self._answers]
        return [Branch(number, tokens) for number, tokens in enumerate(computed) if len(tokens)]

    def take_first(self, row: Logits) -> None:
        likely = RowLogprobs(row, self._n_top, self._piece)
        for found, tokens in zip(self.logprobs, self._answers, strict=True):
            found[:1] = [likely.of(int(tokens[0]))]  # again, if the sequence lost its cells

    def take(self, branch: Branch, n_before: int, rows: Logits) -> None:
        """Take the rows of a branch's tokens, `n_before` of which came before."""
        found, tokens = self.logprobs[branch.number], self._answers[branch.number]
        del found[n_before + 1 :]
        for row, token in zip(rows, tokens[n_before + 1 :].tolist(), strict=False):
            found.append(RowLogprobs(row, self._n_top, self._piece).of(token))

    def totals(self) -> list[float]:
        return [sum(logprob.logprob for logprob in found) for found in self.logprobs]
