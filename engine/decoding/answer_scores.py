"""Log probabilities of given tokens after a prompt: of possible answers, or of a prompt's own.

The row after the prompt's last token has those of every first token. The tokens after it are
branches of the sequence (`scheduler_data.Branch`). Of an answer no more is computed than tells it
from the others, as a constraint forces the rest; what several begin with is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from itertools import pairwise

import numpy as np

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.request import TokenLogprob
from paddock.engine.sampling.logprobs import RowLogprobs

from .prefix_cache import shared_prefix_length
from .scheduler_data import Branch


def telling_tokens(answers: Items[Tokens]) -> list[Tokens]:
    """Return the beginning of each answer by which it is like no other one.

    >>> [each.tolist() for each in telling_tokens([np.array([1, 2, 3]), np.array([1, 4]),
    ...                                            np.array([5, 6])])]
    [[1, 2], [1, 4], [5]]
    """
    rows = [tuple(tokens.tolist()) for tokens in answers]
    order = sorted({*rows})
    n_shared = dict.fromkeys(order, 0)
    for before, after in pairwise(order):  # the most alike are neighbours
        n = shared_prefix_length(np.array(before), np.array(after))
        n_shared[before], n_shared[after] = max(n_shared[before], n), max(n_shared[after], n)
    return [tokens[: n_shared[row] + 1] for tokens, row in zip(answers, rows, strict=True)]


class AnswerScores:
    def __init__(
        self, answers: Items[Tokens], piece: Callable[[int], bytes], n_top: int, *, is_echo: bool
    ) -> None:
        """`is_echo`: the only answer is the rest of the prompt, after which one is picked."""
        scored = answers if is_echo else telling_tokens(answers)
        self._answers = [tuple(tokens.tolist()) for tokens in scored]
        self._piece, self._n_top = piece, n_top
        self.is_echo = is_echo
        self.logprobs: list[dict[int, TokenLogprob]] = [{} for _ in answers]
        """Of each answer's tokens, by their place."""
        n_unread = 0 if is_echo else 1
        paths = sorted({answer[: len(answer) - n_unread] for answer in self._answers})
        self._paths = [
            path for path, after in pairwise([*paths, ()]) if path and after[: len(path)] != path
        ]

    @property
    def n_longest(self) -> int:
        return max(map(len, self._answers))

    def branches(self) -> list[Branch]:
        rows = (np.array(path, np.int32) for path in self._paths)
        return [Branch(number, tokens) for number, tokens in enumerate(rows)]

    def take_first(self, row: Logits) -> None:
        self._take((), row)

    def take(self, branch: Branch, n_before: int, rows: Logits) -> None:
        """Take the rows of a branch's tokens, `n_before` of which came before."""
        for n_read, row in enumerate(rows, start=n_before + 1):
            self._take(self._paths[branch.number][:n_read], row)

    def _take(self, path: tuple[int, ...], row: Logits) -> None:
        place, likely = len(path), RowLogprobs(row, self._n_top, self._piece)
        for found, answer in zip(self.logprobs, self._answers, strict=True):
            if len(answer) > place and answer[:place] == path:
                found[place] = likely.of(answer[place])

    def totals(self) -> list[float]:
        return [sum(logprob.logprob for logprob in found.values()) for found in self.logprobs]
