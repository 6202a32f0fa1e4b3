"""Sequences, context limits, cache operations and scheduled steps: the scheduler's data. Pure.

A sequence is one request inside the engine: its tokens and how many of them are computed. A
scheduled step is a list of cache operations, carried out in order, and then the pieces of sequences
that one decode computes.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens
from paddock.engine.chat.prompt_images import n_positions, next_piece_length
from paddock.engine.request import PRIORITY_RANK, Priority

Circumstances = tuple[object, ...]
"""By what a cell's numbers may have been rounded otherwise (`numerics`)."""
CellMarks = tuple[tuple[int, Circumstances], ...]
"""The circumstances of a sequence's cells, each with the place from which they hold."""

SequenceStatus = Literal["waiting", "prefill", "decode", "finished"]

# Ageing: this many seconds of waiting make up for the priority. A batch job that has waited a
# minute goes before a chat that has just arrived; chats also have slots of their own.
PRIORITY_AGEING_S: dict[Priority, float] = {"interactive": 0.0, "normal": 15.0, "batch": 60.0}

# Cells are planned for this much of an answer without a limit of its own: most are shorter, and a
# whole context would be 100 MB for each answer of a small model.
LIKELY_ANSWER_TOKENS = 512


@dataclass(slots=True, eq=False)
class Sequence:
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
    state: SequenceStatus = "waiting"
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

    def position(self, index: int) -> int:
        """Return the position of a token: its place, unless rows of an image before it share one.

        Within such an image, the one that would come next.
        """
        if not self.has_images:
            return index
        return n_positions(self.prompt[:index]) + max(0, index - len(self.prompt))

    def next_piece_length(self, n_most: int) -> int:
        """Return how many of the next `n_most` tokens of its prompt can be computed together."""
        if not self.has_images:
            return n_most
        return next_piece_length(self.prompt[self.n_computed :], n_most)

    @property
    def due(self) -> tuple[float, int]:
        """Order of admission: by waiting time, corrected for the priority."""
        return self.arrived_s + PRIORITY_AGEING_S[self.priority], self.arrival

    @property
    def rank(self) -> tuple[int, int]:
        """Order of preemption, last first: by priority, then by age."""
        return PRIORITY_RANK[self.priority], self.arrival

    @property
    def n_missing(self) -> int:
        """Prompt tokens that are not computed yet."""
        return max(0, len(self.prompt) - self.n_computed)

    @property
    def n_pending(self) -> int:
        """Tokens of prompt and answer that are not computed yet."""
        return len(self.prompt) + len(self.answer) - self.n_computed

    @property
    def n_most_tokens(self) -> int:
        """Maximum length of prompt and answer."""
        return len(self.prompt) + self.max_tokens

    @property
    def n_likely_tokens(self) -> int:
        """Length of prompt and answer for which cells are planned."""
        if not self.is_open:
            return self.n_most_tokens
        n_slices = 1 + len(self.answer) // LIKELY_ANSWER_TOKENS
        return len(self.prompt) + min(self.max_tokens, n_slices * LIKELY_ANSWER_TOKENS)

    @property
    def n_owed_cells(self) -> int:
        """Cells that it will likely still need."""
        return self.n_likely_tokens - self.n_computed


MOST_SEQ_IDS = 256  # LLAMA_MAX_SEQ
# Drafts of all answers together. From 64 tokens of a step on, llama.cpp's flash attention takes
# another path on a processor, and logits differ by up to 0.9. Below, most kernels compute each
# token as if alone; the profile finds those that do not (AMX), see `Agreement.drafts`.
MOST_DRAFTS = 48
# An MTP head costs a layer and the output's weights for each token: worth it while few run.
MOST_MTP_SEQUENCES = 4
# A shorter piece of a prompt takes as long: from 64 tokens of a sequence on, flash attention on a
# processor is a third quicker. One more, since in a split cache the first token goes into the pass
# of the decoding sequences.
LEAST_PIECE_TOKENS = 65
# Without flash attention only the pass over the weights counts.
LEAST_PLAIN_TOKENS, MOST_PLAIN_DRAFTS = 17, 96

# Idle sequences that a unified cache keeps, besides the running ones.
_MOST_IDLE_SEQUENCES = 32


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Capacity of one context, and the token budgets of its steps."""

    n_cells: int
    n_parallel: int
    """Jobs that run at once."""
    n_batch_tokens: int = 512
    can_share: bool = True
    """Whether prefixes can be shared and sequences cut; else a sequence is kept whole."""
    is_unified: bool = True
    prefers_free_streams: bool = False
    """Whether free streams of a split cache go first, since idle ones cannot be saved; on a
    graphics device they are copied to free streams."""
    is_gpu: bool = False
    """Whether a pass over the weights takes about as long with few tokens as with many."""
    n_reserved: int = 1
    """Slots beyond `n_parallel` that only chats may use."""
    near_turn_tokens: int = 128
    """Prompt tokens of a step while a chat is expected, which would have to wait for the step."""
    chat_turn_tokens: int = 64
    """Prompt tokens of a step while a chat is being answered, whose next token waits for it."""
    n_host_cache_tokens: int = 0
    """Tokens of finished conversations that are kept in main memory."""
    is_flash: bool = True
    """Whether flash attention is on."""
    n_undo_tokens: int = 0
    """Last tokens of a sequence that can be cut though prefixes cannot be shared."""

    @property
    def least_piece_tokens(self) -> int:
        """Least useful piece of a prompt in a step."""
        return LEAST_PIECE_TOKENS if self.is_flash else LEAST_PLAIN_TOKENS

    @property
    def most_drafts(self) -> int:
        """Drafts of all answers together in one step."""
        return MOST_DRAFTS if self.is_flash else MOST_PLAIN_DRAFTS

    @property
    def n_slots(self) -> int:
        return self.n_parallel + self.n_reserved

    @property
    def has_separate_passes(self) -> bool:
        """Whether prompts get passes of their own, which cost as much with few tokens as with many.

        On a processor the cost is by token; in a unified cache one pass has all tokens.
        """
        return self.is_gpu and not self.is_unified

    @property
    def n_seq_ids(self) -> int:
        """Sequence ids of the context: in a unified cache idle ones need ids of their own."""
        n_idle = (
            min(self.n_slots, _MOST_IDLE_SEQUENCES) if self.is_unified and self.can_share else 0
        )
        return min(self.n_slots + n_idle, MOST_SEQ_IDS)

    @property
    def n_rows(self) -> int:
        """Most rows of logits of one step; llama.cpp needs space for one of each id."""
        return max(self.n_seq_ids, self.n_slots + self.most_drafts)

    @property
    def n_cells_each(self) -> int | None:
        """Cells of one stream of a split cache."""
        return None if self.is_unified else self.n_cells // self.n_seq_ids


@dataclass(frozen=True, slots=True)
class TrimCells:
    """Free the cells of `seq_id` from position `n_keep` on."""

    seq_id: int
    n_keep: int


@dataclass(frozen=True, slots=True)
class CopyPrefix:
    """Copy the first `n_positions` of `source` to `target`, which is empty."""

    source: int
    target: int
    n_positions: int


@dataclass(frozen=True, slots=True)
class SaveToHost:
    """Save a sequence's cells to main memory under `key`."""

    seq_id: int
    key: int


@dataclass(frozen=True, slots=True)
class RestoreFromHost:
    """Restore the cells saved under `key` to `seq_id`, which is empty."""

    key: int
    seq_id: int


@dataclass(frozen=True, slots=True)
class DropFromHost:
    """Drop the cells saved under `key`."""

    key: int


@dataclass(frozen=True, slots=True)
class SequenceMove:
    """Move of a running sequence to a sequence id of another context.

    Its first `n_shared` positions are shared with `donor`, a sequence that was moved before.
    """

    source: int
    target: int
    n_tokens: int
    donor: int = -1
    n_shared: int = 0


CacheOperation = TrimCells | CopyPrefix | SaveToHost | RestoreFromHost | DropFromHost


@dataclass(frozen=True, slots=True)
class SequencePiece:
    """Consecutive tokens of one sequence in a batch, or rows of one image; `start` is their place.

    `n_rows` rows of logits are wanted: none within a prompt, one after its last token or an
    answer's, and one after each draft.
    """

    sequence: Sequence
    tokens: Tokens
    start: int
    n_rows: int

    @property
    def is_image(self) -> bool:
        return bool(self.tokens[0] < 0)

    @property
    def n_drafts(self) -> int:
        return max(0, self.n_rows - 1)


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """Cache operations in order, then one decode."""

    operations: tuple[CacheOperation, ...]
    pieces: tuple[SequencePiece, ...]
    prompt_budget: tuple[int, int] = (0, 0)
    """By which prompts were last divided: tokens of a step, and the most for a chat."""

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
