"""Capacity of a context, and the token budgets of its steps. Pure; imports no numpy."""

from __future__ import annotations

from paddock.engine.system.records import Struct

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

# Branches of a step that have sequence ids of their own: as many as have rows in most steps.
_MOST_BRANCHES = 32

# Idle sequences that a unified cache keeps, besides the running ones.
_MOST_IDLE_SEQUENCES = 32


PAD_CELLS = 256  # llama.cpp's own


def padded_cells(n_cells: int) -> int:
    return -(-n_cells // PAD_CELLS) * PAD_CELLS


class CellPrices(Struct, frozen=True):
    """Seconds of what is done to cells on this device; by default a copy costs nothing."""

    compute_s: float = 1.0
    """Computing a token of a prompt."""
    save_s: float = 0.0
    """Copying a token's cells to main memory, or back."""
    stream_s: float = 0.0
    """Copying a stream to another one on the device."""
    pass_cost_tokens: int = 90
    """Tokens of a prompt that take as long as a pass costs besides its tokens."""

    def is_worth_saving(self, share: float = 1.0) -> bool:
        """Return whether to copy cells that come back with this probability to main memory."""
        return share * (self.compute_s - self.save_s) > self.save_s

    def is_worth_moving(self, n_tokens: int, share: float) -> bool:
        """Return whether to copy cells that come back with this probability to another stream."""
        return share * self.compute_s * n_tokens > self.stream_s


class ContextLimits(Struct, frozen=True):
    n_cells: int
    n_parallel: int
    n_batch_tokens: int = 512
    can_share: bool = True
    """Whether prefixes can be shared and sequences cut; else a sequence is kept whole."""
    is_unified: bool = True
    is_paged: bool = False
    """Whether tables name a sequence's cells: idle ones slow no other, wherever they lie."""
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
    n_undo_tokens: int = 0
    """Last tokens of a sequence that can be cut though prefixes cannot be shared."""
    prices: CellPrices = CellPrices()

    @property
    def least_piece_tokens(self) -> int:
        return LEAST_PIECE_TOKENS if self.is_flash else LEAST_PLAIN_TOKENS

    @property
    def most_drafts(self) -> int:
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
    def may_pad(self) -> bool:
        """Whether streams may get tokens that only fill up a pass, and are cut off again."""
        return self.has_separate_passes and self.can_share and not self.prefers_free_streams

    @property
    def n_seq_ids(self) -> int:
        n_idle = (
            min(self.n_slots, _MOST_IDLE_SEQUENCES) if self.is_unified and self.can_share else 0
        )
        return min(self.n_slots + n_idle, MOST_SEQ_IDS)

    @property
    def branch_ids(self) -> range:
        """Sequence ids of branches, which share the cells of their prompt for one step.

        In a split cache each would be a stream with cells of its own.
        """
        n_branches = _MOST_BRANCHES if self.is_unified and self.can_share else 0
        return range(self.n_seq_ids, min(self.n_seq_ids + n_branches, MOST_SEQ_IDS))

    @property
    def n_rows(self) -> int:
        return max(self.branch_ids.stop, self.n_slots + self.most_drafts)

    @property
    def n_longest_tokens(self) -> int:
        """Length of the longest request for which there is room."""
        return self.n_cells_each or self.n_cells

    @property
    def n_cells_each(self) -> int | None:
        """Cells of one stream of a split cache."""
        return None if self.is_unified else self.n_cells // self.n_seq_ids
