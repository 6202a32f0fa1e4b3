"""Sequences, cache operations and scheduled steps: the scheduler's data. Pure.

A sequence is one request inside the engine: its tokens and how many of them are computed. A
scheduled step is a list of cache operations, carried out in order, and then the pieces of sequences
that one decode computes.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens
from paddock.engine.chat.prompt_images import n_positions, next_piece_length
from paddock.engine.request import PRIORITY_RANK, Priority
from paddock.engine.system.records import Struct, field

Circumstances = tuple[object, ...]
"""By what a cell's numbers may have been rounded otherwise (`numerics`)."""
CellMarks = tuple[tuple[int, Circumstances], ...]
"""The circumstances of a sequence's cells, each with the place from which they hold."""

# Ageing: this many seconds of waiting make up for the priority. A batch job that has waited a
# minute goes before a chat that has just arrived; chats also have slots of their own.
PRIORITY_AGEING_S: dict[Priority, float] = {"interactive": 0.0, "normal": 15.0, "batch": 60.0}

# Cells are planned for this much of an answer without a limit of its own: most are shorter, and a
# whole context would be 100 MB for each answer of a small model.
LIKELY_ANSWER_TOKENS = 512


class Branch(Struct, eq=False):
    """Tokens that may come after a prompt: every one's row of logits is wanted."""

    number: int
    tokens: Tokens
    n_done: int = 0
    """Those with cells of the prompt's own sequence."""


class Sequence(Struct, eq=False):
    """A prompt and the answer after it.

    `seq_id` is its sequence in the KV cache, -1 while it waits. The first `n_computed` tokens have
    cells. The newest token of an answer never has one yet, nor do forced tokens before it: the next
    decode computes them, and after them the `drafts`, guessed tokens.
    """

    request_id: int
    prompt: Tokens
    max_tokens: int
    priority: Priority = "normal"
    arrived_s: float = 0.0
    arrival: int = 0
    state: Literal["waiting", "prefill", "score", "decode", "finished"] = "waiting"
    """`score`: its branches are computed."""
    seq_id: int = -1
    n_computed: int = 0
    n_reused: int = 0
    n_preempted: int = 0
    n_resident: int = 0
    """Length of its prompt's prefix in the cache, or soon to be there, when last checked."""
    resident_since: int = 0
    """Number of sequences that had been placed by then."""
    n_overtaken: int = 0
    """How many later jobs of its priority went first because their prefix was in the cache."""
    answer: list[int] = field(default_factory=list)
    """Tokens after the prompt; a preemption moves them into the prompt."""
    drafts: list[int] = field(default_factory=list)
    is_open: bool = False
    """Whether `max_tokens` is the context's end rather than an expected length."""
    has_images: bool = False
    branches: list[Branch] = field(default_factory=list)
    """Those not computed yet."""
    keeps_branch: bool = False
    """Whether its only branch becomes a part of the prompt."""

    def position(self, index: int) -> int:
        """Return the position of a token: its place, unless rows of an image before it share one.

        Within such an image, the one that would come next.
        """
        if not self.has_images:
            return index
        return n_positions(self.prompt[:index]) + max(0, index - len(self.prompt))

    def next_piece_length(self, n_most: int) -> int:
        if not self.has_images:
            return n_most
        return next_piece_length(self.prompt[self.n_computed :], n_most)

    @property
    def due(self) -> tuple[float, int]:
        """Order of admission: by waiting time, corrected for the priority."""
        return self.arrived_s + PRIORITY_AGEING_S[self.priority], self.arrival

    @property
    def rank(self) -> tuple[int, int]:
        return PRIORITY_RANK[self.priority], self.arrival

    @property
    def n_missing(self) -> int:
        return max(0, len(self.prompt) - self.n_computed)

    @property
    def n_pending(self) -> int:
        return len(self.prompt) + len(self.answer) - self.n_computed

    @property
    def n_most_tokens(self) -> int:
        return len(self.prompt) + self.max_tokens

    @property
    def n_likely_tokens(self) -> int:
        """Length of prompt and answer for which cells are planned."""
        if not self.is_open:
            return self.n_most_tokens
        n_slices = 1 + len(self.answer) // LIKELY_ANSWER_TOKENS
        return len(self.prompt) + min(self.max_tokens, n_slices * LIKELY_ANSWER_TOKENS)


class TrimCells(Struct, frozen=True):
    """Free the cells of `seq_id` from position `n_keep` on."""

    seq_id: int
    n_keep: int


class CopyPrefix(Struct, frozen=True):
    """Copy the first `n_positions` of `source` to `target`, which is empty."""

    source: int
    target: int
    n_positions: int


class SaveToHost(Struct, frozen=True):
    """Save a sequence's cells to main memory under `key`."""

    seq_id: int
    key: int


class RestoreFromHost(Struct, frozen=True):
    """Restore the cells saved under `key` to `seq_id`, which is empty."""

    key: int
    seq_id: int


class DropFromHost(Struct, frozen=True):
    """Drop the cells saved under `key`."""

    key: int


class SequenceMove(Struct, frozen=True):
    """Move of a running sequence to a sequence id of another context.

    Its first `n_shared` positions are shared with `donor`, a sequence that was moved before.
    """

    source: int
    target: int
    n_tokens: int
    donor: int = -1
    n_shared: int = 0


CacheOperation = TrimCells | CopyPrefix | SaveToHost | RestoreFromHost | DropFromHost


class SequencePiece(Struct, frozen=True):
    """Consecutive tokens of one sequence in a batch, or rows of one image; `start` is their place.

    `n_rows` rows of logits are wanted: none within a prompt, one after its last token or an
    answer's, one after each draft and each token of a branch.
    """

    sequence: Sequence
    tokens: Tokens
    start: int
    n_rows: int
    branch: Branch | None = None
    branch_id: int = -1
    """The branch's own sequence id, for this step; -1: it has its prompt's."""

    @property
    def seq_id(self) -> int:
        return self.branch_id if self.branch_id >= 0 else self.sequence.seq_id

    @property
    def is_image(self) -> bool:
        return bool(self.tokens[0] < 0)

    @property
    def n_drafts(self) -> int:
        return max(0, self.n_rows - 1)


class Padding(Struct, frozen=True):
    """Tokens of a stream that are computed for nothing and cut off before the next step.

    llama.cpp computes as many tokens of each of some streams that follow one another in one pass;
    a pass costs much more than some tokens in it.
    """

    seq_id: int
    position: int
    n_tokens: int


class ScheduledStep(Struct, frozen=True):
    operations: tuple[CacheOperation, ...]
    pieces: tuple[SequencePiece, ...]
    prompt_budget: tuple[int, int] = (0, 0)
    """By which prompts were last divided: tokens of a step, and the most for a chat."""
    padding: tuple[Padding, ...] = ()

    @property
    def n_tokens(self) -> int:
        return sum(len(piece.tokens) for piece in self.pieces)


def batch_arrays(
    tokens: Items[Tokens], starts: Items[int], seq_ids: Items[int], n_rows: Items[int]
) -> tuple[Tokens, Tokens, Tokens, NDArray[np.int8]]:
    """Return the arguments of `Context.decode` for pieces of sequences.

    A piece has tokens from position `starts` on, and wants the logits of its last `n_rows`.

    >>> arrays = batch_arrays([np.array([7, 8, 9]), np.array([5])], [0, 40], [2, 1], [2, 0])
    >>> [one.tolist() for one in arrays]
    [[7, 8, 9, 5], [0, 1, 2, 40], [2, 2, 2, 1], [0, 1, 1, 0]]
    """
    if all(len(piece) == 1 for piece in tokens):  # 0.05 ms less, after a model has used the caches
        rows = (np.array(starts, np.int32), np.array(seq_ids, np.int32), np.array(n_rows, np.int8))
        return np.concatenate(tokens), *rows
    lengths = np.array([len(piece) for piece in tokens])
    ends = np.cumsum(lengths)
    places = np.arange(int(ends[-1]), dtype=np.int32)
    within = places - np.repeat(ends - np.array(n_rows), lengths)
    return (
        np.concatenate(tokens),
        places - np.repeat(ends - lengths - np.array(starts), lengths).astype(np.int32),
        np.repeat(np.array(seq_ids, np.int32), lengths),
        (within >= 0).astype(np.int8),
    )
