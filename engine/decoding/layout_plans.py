"""Layouts of a context: how many sequences and cells, in streams or not, for the work there is.

It decides by the profile, the options and what was possible before; `kv_cache` makes the contexts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Items

import numpy as np

from paddock.engine.llama.forward_context import MemoryKind
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.profile.context_layout import (
    ContextLayout,
    LayoutBounds,
    Workload,
    choose_layout,
    n_chat_slots,
    split_streams,
    turn_tokens,
    workload_in_layout_s,
)
from paddock.engine.profile.profile import Profile, prefill_s, step_s
from paddock.engine.settings import CacheLayout
from paddock.engine.system.records import Struct, replace

from .context_limits import MOST_SEQ_IDS, PAD_CELLS, CellPrices, ContextLimits, padded_cells
from .draft_prices import USUAL_DEPTH
from .prefix_cache import shared_prefix_length
from .scheduler_data import Sequence

# A chat's first token should come within 0.3 s: it waits for the present step, and for its own.
# Later tokens wait for one step each.
NEAR_TURN_S, CHAT_TURN_S = 0.2, 0.1

# Another layout must save this many seconds, this share of the work, and the cost of the move.
WORTH_REMAKING = (0.2, 0.05)
# Moving a token's cells takes three times as long as copying them to another stream.
_MOVE_COPIES = 3
# A graphics device's profile has no duration of a copy. Cells go through pageable memory there and
# back, taken to be a fifth as fast as PCIe 4.0; making the context took 0.2 to 0.5 s.
_MOVE_GPU_BYTES_PER_S, _REMAKE_GPU_S = 5e9, 0.5

# After llama.cpp could not make a larger context, none is tried for this long.
RETRY_LARGER_AFTER_S = 60.0

LEAST_STREAM_TOKENS = 1024
# From the durations of two prompts follow those of a pass and of a token.
_PRICED_TOKENS = (64, 512)


class CacheOptions(Struct, frozen=True):
    n_ctx_tokens: int
    """The longest request, answer included."""
    n_cells: int
    n_parallel: int
    options: ContextOptions
    layout: CacheLayout = "auto"
    n_host_cache_tokens: int = 0
    is_gpu: bool = False
    n_devices: int = 1
    mtp_price: float = 0.15
    """Cost of a guess by the MTP head, a layer and the output, as a share of a token's."""


class ContextPlan(Struct, frozen=True):
    layout: ContextLayout
    n_stream_tokens: int
    limits: ContextLimits


class LayoutPlanner:
    def __init__(
        self, memory: MemoryKind, options: CacheOptions, profile: Profile | None, *, is_paged: bool
    ) -> None:
        self._memory, self._is_paged = memory, is_paged
        self.options = options
        self.profile = profile
        self.n_undo_tokens = 0
        """Last tokens of a recurrent or hybrid model's sequence that the next context can undo."""
        self._most_cells = 0
        self._failed_at = float("-inf")
        """Cells of the context when llama.cpp last failed to make a larger one, and the time."""

    @property
    def keeps_cells(self) -> bool:
        """Whether cells of one context can be restored in another one.

        A sliding window's saved state lacks what the window has passed.
        """
        return self._memory != "window"

    def note_failure(self, present: ContextLimits) -> None:
        """Note that no larger context could be made."""
        self._most_cells, self._failed_at = present.n_cells, time.monotonic()
        self.n_undo_tokens = present.n_undo_tokens

    def first_plan(self) -> ContextPlan:
        n_stream_tokens = self._n_stream_for(())
        n_usual = min(512, n_stream_tokens // 2)
        usual = Workload(self.options.n_parallel, n_usual, n_usual // 8)
        layout = self._choose_layout(usual, n_stream_tokens)
        return ContextPlan(layout, n_stream_tokens, self._limits(layout, n_stream_tokens, 0))

    def plan(self, sequences: Items[Sequence]) -> ContextPlan:
        n_stream_tokens = self._n_stream_for(sequences)
        layout = self._choose_layout(_workload(sequences), n_stream_tokens)
        longest = max((sequence.n_likely_tokens for sequence in sequences), default=0)
        return ContextPlan(layout, n_stream_tokens, self._limits(layout, n_stream_tokens, longest))

    def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        if n_ctx_tokens > self.options.n_ctx_tokens:
            self.options = replace(self.options, n_ctx_tokens=n_ctx_tokens, n_cells=n_cells)

    def is_suited(
        self, present: ContextPlan, sequences: Items[Sequence], *, is_running: bool
    ) -> bool:
        """Return whether the present layout is good enough for this work."""
        limits = present.limits
        if any(sequence.n_likely_tokens > limits.n_longest_tokens for sequence in sequences):
            return False
        if self.n_undo_tokens > limits.n_undo_tokens:
            return False
        better = self.plan(sequences)
        if limits.is_unified and _lacks_cells(limits, sequences, better):
            return False
        if len(sequences) < 2 or better.layout == present.layout:
            return True
        if self.profile is None or not self.profile.prefill or not self.profile.decode:
            return is_running
        workload = _workload(sequences)
        present_s = workload_in_layout_s(
            self.profile, workload, present.layout, self._bounds(present.n_stream_tokens)
        )
        better_s = workload_in_layout_s(
            self.profile, workload, better.layout, self._bounds(better.n_stream_tokens)
        )
        least_s, share = WORTH_REMAKING
        least_s = max(least_s, share * present_s) + self._move_s(sequences)
        return present_s - better_s < least_s

    def can_be_made(self, plan: ContextPlan, present: ContextLimits) -> bool:
        return plan.limits.n_cells <= max(self.n_cells_at_most, present.n_cells)

    def context_options(self, plan: ContextPlan) -> ContextOptions:
        limits = plan.limits
        return replace(
            self.options.options,
            n_ctx_tokens=limits.n_cells,
            n_batch_tokens=max(self.options.options.n_batch_tokens, limits.n_rows),
            n_seq_max=limits.branch_ids.stop,
            n_rows_max=limits.n_rows,
            n_pass_tokens=plan.layout.n_pass_tokens,
            is_unified=limits.is_unified,
            n_undo_tokens=limits.n_undo_tokens,
        )

    def with_turns(self, limits: ContextLimits) -> ContextLimits:
        chat_s = CHAT_TURN_S
        if limits.has_separate_passes and self.profile is not None:  # the answers' pass follows
            after_s = step_s(self.profile, limits.n_slots, USUAL_DEPTH, is_unified=False)
            chat_s = max(chat_s / 4, chat_s - after_s)
        near, chat = (self._turn_tokens(limits, seconds) for seconds in (NEAR_TURN_S, chat_s))
        prices, chat = self._cell_prices(), min(near, chat)
        return replace(limits, near_turn_tokens=near, chat_turn_tokens=chat, prices=prices)

    @property
    def n_cells_at_most(self) -> int:
        """Most cells of a context: as configured, or fewer after a recent failure."""
        is_known = time.monotonic() - self._failed_at < RETRY_LARGER_AFTER_S
        return min(self.options.n_cells, self._most_cells) if is_known else self.options.n_cells

    def _limits(
        self, layout: ContextLayout, n_stream_tokens: int, n_longest_tokens: int
    ) -> ContextLimits:
        options, each = self.options, padded_cells(n_stream_tokens)
        n_chats = n_chat_slots(options.n_parallel)
        n_parallel = min(layout.n_parallel, MOST_SEQ_IDS - n_chats)
        if layout.is_unified:
            n_cells = min(self.n_cells_at_most, (options.n_parallel + n_chats) * each)
            n_cells = max(n_cells, each, min(n_longest_tokens, options.n_ctx_tokens))
            n_cells = padded_cells(n_cells)
        else:
            n_parallel, n_chats = split_streams(self.n_cells_at_most, each, n_parallel)
            n_cells = (n_parallel + n_chats) * each
        is_window = self._memory == "window" and not layout.is_unified
        limits = ContextLimits(
            n_cells=n_cells,
            n_parallel=n_parallel,
            n_batch_tokens=layout.n_batch_tokens,
            can_share=self._memory == "cells" or is_window,
            is_unified=layout.is_unified,
            is_gpu=options.is_gpu,
            is_paged=self._is_paged,
            prefers_free_streams=is_window,
            n_reserved=n_chats,
            is_flash=options.options.flash_attention != "off",
            n_host_cache_tokens=0 if is_window else options.n_host_cache_tokens,
            n_undo_tokens=self.n_undo_tokens,
        )
        # A batch must hold each answer's next token and drafts, and some of a prompt.
        limits = replace(limits, n_batch_tokens=max(limits.n_batch_tokens, limits.n_rows))
        return self.with_turns(limits)

    def _n_stream_for(self, sequences: Items[Sequence]) -> int:
        longest = max((sequence.n_likely_tokens for sequence in sequences), default=0)
        options, length = self.options, LEAST_STREAM_TOKENS
        # All cells are planned for. Growing costs 0.2 to 0.5 s on a graphics device. A sliding
        # window's cells cannot be moved and are computed again, so its streams take all when they
        # first grow; on a processor not at the start, since touching a GiB takes up to 3 s.
        grows_once = self._memory == "window" and longest > length
        if options.is_gpu or grows_once:
            n_slots = options.n_parallel + n_chat_slots(options.n_parallel)
            length = max(length, self.n_cells_at_most // n_slots // PAD_CELLS * PAD_CELLS)
        while length < longest:
            length *= 2
        return min(length, options.n_ctx_tokens)

    def _choose_layout(self, workload: Workload, n_stream_tokens: int) -> ContextLayout:
        bounds = self._bounds(n_stream_tokens)
        layout = choose_layout(self.profile, workload, bounds)
        if self.options.layout != "auto":
            layout = replace(layout, is_unified=self.options.layout == "unified")
        elif self._is_paged:
            layout = replace(layout, is_unified=True)  # a prefix is shared by its blocks' names
        elif self._memory == "window":
            layout = replace(layout, is_unified=False)  # a unified one shares no prefixes
        if not layout.is_unified:
            n_streams = bounds.n_cells // n_stream_tokens
            layout = replace(layout, n_parallel=max(1, min(layout.n_parallel, n_streams)))
        return layout

    def _bounds(self, n_stream_tokens: int) -> LayoutBounds:
        options = self.options
        n_cells = min(self.n_cells_at_most, options.n_parallel * n_stream_tokens)
        n_cells = max(n_stream_tokens, n_cells)
        return LayoutBounds(
            n_cells,
            options.n_parallel,
            options.options.n_batch_tokens,
            options.is_gpu,
            n_stream_tokens,
            n_devices=options.n_devices,
            n_pass_max=options.options.n_pass_tokens,
        )

    def _move_s(self, sequences: Items[Sequence]) -> float:
        """Return the seconds to move the computed cells, or to compute them again."""
        n_computed = sum(sequence.n_computed for sequence in sequences)
        if self.profile is None or not n_computed:
            return 0.0
        keeps = self.keeps_cells
        if self.options.is_gpu:
            n_bytes = 2 * n_computed * self.profile.cell_bytes
            moved_s = n_bytes / _MOVE_GPU_BYTES_PER_S
            return _REMAKE_GPU_S + (moved_s if keeps else prefill_s(self.profile, n_computed))
        if keeps:
            return _MOVE_COPIES * (self.profile.copy_s or 0.0) * n_computed
        return prefill_s(self.profile, n_computed)

    def _cell_prices(self) -> CellPrices:
        """Return what the profile has measured; else copies to main memory count as too dear."""
        profile, is_gpu = self.profile, self.options.is_gpu
        if profile is None or not profile.prefill:
            return CellPrices(save_s=float(is_gpu))
        few_s, many_s = (prefill_s(profile, n) for n in _PRICED_TOKENS)
        few, many = _PRICED_TOKENS
        each_s = max((many_s - few_s) / (many - few), 1e-9)
        compute_s = many_s / many
        save_s = profile.save_s or compute_s if is_gpu else profile.copy_s or 0.0
        return CellPrices(
            compute_s, save_s, profile.stream_s or 0.0, max(1, int(few_s / each_s) - few)
        )

    def _turn_tokens(self, limits: ContextLimits, turn_s: float) -> int:
        n_tokens = turn_tokens(self.profile, turn_s, is_gpu=self.options.is_gpu)
        return min(max(limits.least_piece_tokens, n_tokens), limits.n_batch_tokens)


def _lacks_cells(limits: ContextLimits, sequences: Items[Sequence], better: ContextPlan) -> bool:
    n_needed = sum(sequence.n_likely_tokens for sequence in sequences[: limits.n_slots])
    return limits.n_cells < min(n_needed, better.limits.n_cells)


def _workload(sequences: Items[Sequence]) -> Workload:
    """Return the means over the sequences, and the length of their common prefix."""
    first, *others = [sequence.prompt for sequence in sequences] or [np.empty(0, np.int32)]
    n_shared = min((shared_prefix_length(first, other) for other in others), default=0)
    n = max(1, len(sequences))
    return Workload(
        n_sequences=n,
        n_prompt_tokens=sum(len(sequence.prompt) for sequence in sequences) / n,
        n_answer_tokens=sum(
            sequence.n_likely_tokens - len(sequence.prompt) for sequence in sequences
        )
        / n,
        n_shared_tokens=n_shared,
    )
