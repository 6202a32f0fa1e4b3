"""What a scheduler decides: memory operations, and pieces of sequences for one decode."""

from __future__ import annotations

from dataclasses import dataclass

from paddock.engine.arrays import Tokens

from .sequence import Sequence

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
_MOST_IDLE = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What one context can hold, and how its time is shared out."""

    n_cells: int
    n_parallel: int
    """Jobs that run at once."""
    n_batch_tokens: int = 512
    can_share: bool = True
    """Whether beginnings can be shared and the memory cut; else a sequence is kept as a whole."""
    is_unified: bool = True
    spares_idle: bool = False
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
    def has_pass_each(self) -> bool:
        """Whether prompts get passes of their own that cost as much with few tokens as with many.

        On a processor a pass costs what its tokens do; in a unified cache one pass has them all.
        """
        return self.is_gpu and not self.is_unified

    @property
    def n_seq_ids(self) -> int:
        """Sequence ids of the context: in a unified cache idle ones need ids of their own."""
        n_idle = min(self.n_slots, _MOST_IDLE) if self.is_unified and self.can_share else 0
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
class Trim:
    """Free the cells of `seq_id` from position `n_keep` on."""

    seq_id: int
    n_keep: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Give `target`, which is empty, the first `n_tokens` of `source`."""

    source: int
    target: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Shelve:
    """Keep a copy of a sequence's cells outside the cache, under `key`."""

    seq_id: int
    key: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Give `seq_id`, which is empty, what was kept under `key`."""

    key: int
    seq_id: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget what was kept under `key`."""

    key: int


@dataclass(frozen=True, slots=True)
class Move:
    """Where a running sequence goes in another context: from one sequence id to another.

    Its first `n_shared` tokens are those of `donor`, a sequence that was moved before.
    """

    source: int
    target: int
    n_tokens: int
    donor: int = -1
    n_shared: int = 0


Operation = Trim | Copy | Shelve | Restore | Discard


@dataclass(frozen=True, slots=True)
class Piece:
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
class Turn:
    """One step: memory operations in order, then one decode."""

    operations: tuple[Operation, ...]
    pieces: tuple[Piece, ...]

    @property
    def n_tokens(self) -> int:
        """Size of the batch."""
        return sum(len(piece.tokens) for piece in self.pieces)
