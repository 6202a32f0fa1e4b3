"""Sequences, context limits, cache operations and scheduled steps: the scheduler's data. Pure.

A sequence is one request inside the engine: its tokens, how many of them are computed, what is
left. A scheduled step is a list of cache operations, carried out in order, and then the pieces of
sequences that one decode computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from paddock.engine.arrays import Tokens
from paddock.engine.request import Priority

SequenceStatus = Literal["waiting", "prefill", "decode", "finished"]
PRIORITY_RANK: dict[Priority, int] = {"interactive": 0, "normal": 1, "batch": 2}

# Ageing: so many seconds of waiting make up for the priority. A batch job that has waited for a
# minute is served before a chat that comes just then; chats have a place of their own besides.
PRIORITY_AGEING_S: dict[Priority, float] = {"interactive": 0.0, "normal": 15.0, "batch": 60.0}

# An answer that may go on to the context's end is given room for so many tokens first: most are
# shorter, and room for all of it would be 100 MB for each of a small model's answers.
LIKELY_ANSWER_TOKENS = 512


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and the answer that grows behind it.

    `seq_id` names its cells in the KV cache, -1 while it waits. `n_computed` tokens, counted from
    the beginning, have their cells. The newest token of an answer never has its cell yet, nor do
    those before it that were forced: the next decode computes them, and with them the `drafts`,
    tokens that are guessed to follow.
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
    """Of its prompt, what was in the cache, or about to be, when that was last looked at."""
    resident_since: int = 0
    """How many sequences had been placed before that was so."""
    n_overtaken: int = 0
    """How many later jobs of its priority went first, since their beginning was in the cache."""
    answer: list[int] = field(default_factory=list)
    """What was said since the prompt; on a preemption it becomes a part of the prompt."""
    drafts: list[int] = field(default_factory=list)
    is_open: bool = False
    """`max_tokens` is where the context ends, not what anybody expects."""

    @property
    def due(self) -> tuple[float, int]:
        """What is admitted first: who has waited longest for its priority."""
        return self.arrived_s + PRIORITY_AGEING_S[self.priority], self.arrival

    @property
    def rank(self) -> tuple[int, int]:
        """Who keeps its place when cells run out: the priority, then the older one."""
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
        """Length of prompt and answer when it ends at the latest."""
        return len(self.prompt) + self.max_tokens

    @property
    def n_likely_tokens(self) -> int:
        """Length of prompt and answer for which room is made."""
        if not self.is_open:
            return self.n_most_tokens
        n_slices = 1 + len(self.answer) // LIKELY_ANSWER_TOKENS
        return len(self.prompt) + min(self.max_tokens, n_slices * LIKELY_ANSWER_TOKENS)

    @property
    def n_owed_cells(self) -> int:
        """Cells that it will likely take until it ends."""
        return self.n_likely_tokens - self.n_computed


MOST_SEQ_IDS = 256  # LLAMA_MAX_SEQ
# Guesses of all answers together. From 64 tokens of a step on, llama.cpp's flash attention takes
# another path on a processor, and logits differ by up to 0.9. Below, most kernels compute each
# token as alone; those that do not (AMX) are found by the profile, see `Agreement.drafts`.
MOST_DRAFTS = 48
# A shorter piece of a prompt takes as much time: from 64 tokens of a sequence on, flash attention
# on a processor takes a path that is a third quicker. One more, since in a split cache the first
# token goes into the pass of those that decode.
LEAST_PIECE_TOKENS = 65
# Without flash attention there is no such step, and the pass over the weights counts alone.
LEAST_PLAIN_TOKENS, MOST_PLAIN_DRAFTS = 17, 96

# Idle sequences that a unified cache keeps beside the running ones.
_MOST_IDLE_SEQUENCES = 32


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """What one context can hold, and how its time is shared out."""

    n_cells: int
    n_parallel: int
    """Jobs that run at once."""
    n_batch_tokens: int = 512
    can_share: bool = True
    """Whether beginnings can be shared and the memory cut; else a sequence is kept as a whole."""
    is_unified: bool = True
    prefers_free_streams: bool = False
    """Idle sequences of a split cache cannot be kept elsewhere, so free streams are taken first."""
    is_gpu: bool = False
    """Whether a pass over the weights takes about as long with few tokens as with many."""
    n_reserved: int = 1
    """Sequences beyond `n_parallel` that only chats may use."""
    near_turn_tokens: int = 128
    """Prompt tokens of a turn while a chat may come at any moment: it waits for one turn."""
    chat_turn_tokens: int = 64
    """Prompt tokens of a turn while a chat is being answered: its next token waits for them."""
    n_shelf_tokens: int = 0
    """Tokens of finished conversations that are kept outside the cache."""
    is_flash: bool = True
    """Whether flash attention is on."""

    @property
    def least_piece_tokens(self) -> int:
        """Tokens of a prompt that are worth a place in a turn."""
        return LEAST_PIECE_TOKENS if self.is_flash else LEAST_PLAIN_TOKENS

    @property
    def most_drafts(self) -> int:
        """Guesses of all answers together in one step."""
        return MOST_DRAFTS if self.is_flash else MOST_PLAIN_DRAFTS

    @property
    def n_slots(self) -> int:
        """Sequences that run at once at most."""
        return self.n_parallel + self.n_reserved

    @property
    def has_separate_passes(self) -> bool:
        """Whether prompts get passes of their own that cost as much with few tokens as with many.

        On a processor a pass costs what its tokens do; in a unified cache one pass has them all.
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
        """Rows of logits that one step gives at most; llama.cpp wants room for one of each id."""
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
    """Give `target`, which is empty, the first `n_tokens` of `source`."""

    source: int
    target: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class SaveToHost:
    """Keep a copy of a sequence's cells outside the cache, under `key`."""

    seq_id: int
    key: int


@dataclass(frozen=True, slots=True)
class RestoreFromHost:
    """Give `seq_id`, which is empty, what was kept under `key`."""

    key: int
    seq_id: int


@dataclass(frozen=True, slots=True)
class DropFromHost:
    """Forget what was kept under `key`."""

    key: int


@dataclass(frozen=True, slots=True)
class SequenceMove:
    """Where a running sequence goes in another context: from one sequence id to another.

    Its first `n_shared` tokens are those of `donor`, a sequence that was moved before.
    """

    source: int
    target: int
    n_tokens: int
    donor: int = -1
    n_shared: int = 0


CacheOperation = TrimCells | CopyPrefix | SaveToHost | RestoreFromHost | DropFromHost


@dataclass(frozen=True, slots=True)
class SequencePiece:
    """Consecutive tokens of one sequence in a batch.

    `n_rows` logits are wanted: none within a prompt, one after its last token or an answer's, and
    one after each draft.
    """

    sequence: Sequence
    tokens: Tokens
    pos: int
    n_rows: int

    @property
    def n_drafts(self) -> int:
        """How many of the tokens are guesses."""
        return max(0, self.n_rows - 1)


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """One step: memory operations in order, then one decode."""

    operations: tuple[CacheOperation, ...]
    pieces: tuple[SequencePiece, ...]

    @property
    def n_tokens(self) -> int:
        """Size of the batch."""
        return sum(len(piece.tokens) for piece in self.pieces)
