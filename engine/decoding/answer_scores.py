"""Log probabilities of given tokens after a prompt: of possible answers, or of a prompt's own.

The row after the prompt's last token has those of every first token. The tokens after it are
branches of the sequence (`scheduler_data.Branch`). Of an answer no more is computed than tells it
from the others, as a constraint forces the rest; what several begin with is computed once.

`branch_pieces` are those of a step:

1. In a unified cache all branches of a prompt go into one step, each with a sequence id of its own,
   which shares the prompt's cells until the step is done.
2. In a split cache, or where one is longer than a step's rows, they have the prompt's id, and come
   one after the other, in parts.
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
from .scheduler_data import Branch, Sequence, SequencePiece
from .slots import Slots


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


def branch_pieces(
    running: Items[Sequence], answers: Items[SequencePiece], slots: Slots
) -> list[SequencePiece]:
    """Return the branches of a step beside `answers`: of whole prompts, unless not one's fit."""
    scored = [sequence for sequence in running if sequence.state == "score"]
    if not scored:
        return []
    limits, pieces = slots.limits, list[SequencePiece]()
    n_before = sum(len(piece.tokens) for piece in answers)
    n_rows = sum(piece.n_rows for piece in answers)
    n_rows += sum(sequence.state == "prefill" for sequence in running)
    n_left = min(limits.n_rows - n_rows, limits.n_batch_tokens - n_before)
    n_left = min(n_left, slots.cells.n_free - n_before) if limits.is_unified else n_left
    ids = list(limits.branch_ids)
    for sequence in scored:
        lengths = [len(branch.tokens) for branch in sequence.branches]
        if not limits.branch_ids or max(lengths) > limits.most_drafts:  # 2.
            found = _next_part(sequence, min(n_left, slots.cells.n_free_for(sequence.seq_id)))
        elif pieces and (sum(lengths) > n_left or len(lengths) > len(ids)):
            continue
        else:  # 1.
            found = _branches_at_once(sequence, n_left, ids, slots)
        pieces += found
        n_left -= sum(len(piece.tokens) for piece in found)
    return pieces


def _branches_at_once(
    sequence: Sequence, n_left: int, ids: list[int], slots: Slots
) -> list[SequencePiece]:
    pieces = list[SequencePiece]()
    for branch in sequence.branches:
        n_tokens, start = len(branch.tokens), len(sequence.prompt)
        if n_tokens > n_left or not ids:
            break
        branch_id = ids.pop(0)
        slots.open_branch(sequence, branch_id)
        pieces.append(SequencePiece(sequence, branch.tokens, start, n_tokens, branch, branch_id))
        n_left -= n_tokens
    return pieces


def _next_part(sequence: Sequence, n_most: int) -> list[SequencePiece]:
    branch = sequence.branches[0]
    tokens = branch.tokens[branch.n_done :][: max(0, n_most)]
    if not len(tokens):
        return []
    return [SequencePiece(sequence, tokens, sequence.n_computed, len(tokens), branch)]
