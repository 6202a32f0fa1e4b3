"""KV cache of a model: carry out cache operations, change the layout to suit the work.

The weights stay; a context is made in some 30 ms. Its streams are as long as the longest request
needs, not as long as the model could: memory is allocated when needed. Running sequences move to
the new context with their cells, through main memory, and continue at once. Only the owner thread
uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from typing import Generic

import numpy as np

from paddock.engine.llama.forward_context import ChatModel, State
from paddock.engine.llama.library import CacheFull, LoadFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.profile.context_layout import (
    ContextLayout,
    LayoutBounds,
    Workload,
    choose_layout,
    layout_s,
    n_chat_slots,
    split_streams,
    turn_tokens,
)
from paddock.engine.profile.profile import Agreement, Profile, prefill_s, step_s
from paddock.engine.settings import CacheLayout
from paddock.engine.system.hardware import read_memory
from paddock.engine.system.records import Struct, replace

from .context_limits import MOST_SEQ_IDS, PAD_CELLS, CellPrices, ContextLimits, padded_cells
from .prefix_cache import shared_prefix_length
from .scheduler_data import (
    CacheOperation,
    CopyPrefix,
    DropFromHost,
    RestoreFromHost,
    SaveToHost,
    Sequence,
    SequenceMove,
    TrimCells,
)
from .slots import SlotMigration, Slots

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

# Share of main memory that saved conversations leave to others.
_SPARED_MEMORY_SHARE = 0.05

# Share of free main memory that cells may take while they move.
_MOVE_MEMORY_SHARE = 0.5

LEAST_STREAM_TOKENS = 1024
SLACK_TOKENS = 256
# On 2 cores with SmolLM2-135M, a token of a 64-token batch takes a third of one alone. A few drafts
# can take as long as tokens alone, so the price is corrected by the first steps that have some.
UNMEASURED_PRICE = 0.35
_LEAST_PRICE, _MOST_PRICE, _PRICE_WEIGHT = 0.05, 0.95, 0.25
_PROBE_TOKENS, _DEPTH, _USUAL_GUESS = 64, 512, 6
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


class KvCache(Generic[State]):
    """The present context; it is replaced when the layout changes."""

    def __init__(
        self, model: ChatModel[State], options: CacheOptions, profile: Profile | None = None
    ) -> None:
        self.model = model
        self._cache_options = options
        self._profile = profile
        self.mtp_price = options.mtp_price
        self._saved: dict[int, State] = {}
        self._prices: dict[int, float] = {}
        self._seen_price = UNMEASURED_PRICE
        """Of a draft, by the steps so far, as long as it is not measured."""
        self._plain_s: dict[int, float] = {}
        """Last duration of a step without drafts, by the number of sequences."""
        self.n_computed = 0
        """Tokens that were computed since the cells were last compacted."""
        self._most_cells = 0
        self._failed_at = float("-inf")
        """Cells of the context when llama.cpp last failed to make a larger one, and the time."""
        self._n_undo_tokens = 0
        n_stream_tokens = self._n_stream_for(())
        n_usual = min(512, n_stream_tokens // 2)
        usual = Workload(self._cache_options.n_parallel, n_usual, n_usual // 8)
        layout = self._choose_layout(usual, n_stream_tokens)
        self._plan = ContextPlan(layout, n_stream_tokens, self._limits(layout, n_stream_tokens, 0))
        self.context = model.open_context(self._options(self._plan))

    @property
    def limits(self) -> ContextLimits:
        return self._plan.limits

    def close(self) -> None:
        self.context.close()

    def use_profile(self, profile: Profile) -> None:
        """Decide by another profile from now on; the layout changes when the work asks for it."""
        self._profile = profile
        self._prices.clear()
        self._plan = replace(self._plan, limits=self._with_turns(self._plan.limits))

    @property
    def n_idle_cores(self) -> int:
        """Cores that are free between steps: on a processor llama.cpp's threads keep spinning."""
        return self._cache_options.options.n_threads if self._cache_options.is_gpu else 1

    # Operations

    def apply_operations(self, operations: Iterable[CacheOperation]) -> None:
        """Carry out a scheduler's operations, in order.

        Raises:
            CacheFull: saved cells cannot be restored.
        """
        operations = tuple(operations)
        may_wait = _copies_that_may_wait(operations)
        for place, operation in enumerate(operations):
            match operation:
                case TrimCells(seq_id, n_keep):
                    self.context.trim(seq_id, n_keep)
                case CopyPrefix(source, target, n_positions):
                    self._copy(source, target, n_positions, may_wait=place in may_wait)
                case SaveToHost(seq_id, key):
                    self._saved[key] = self.context.save(seq_id)
                case RestoreFromHost(key, seq_id):
                    self.context.restore(seq_id, self._saved[key])
                case DropFromHost(key):
                    self._saved.pop(key, None)

    def clear(self) -> None:
        self.context.clear()
        self._saved.clear()
        self.n_computed = 0

    def wait(self) -> None:
        """Wait for a step without logits on one graphics device.

        Else the next step's time would contain this one's, and requests that arrive during this
        one would miss the next. llama.cpp's next decode on one device waits before its start in any
        case; several devices work on consecutive steps at once, and must not wait.
        """
        if self._cache_options.is_gpu and self._cache_options.n_devices == 1:
            self.context.synchronize()

    def n_host_cache_tokens(self, n_kept: int) -> int:
        """Return the limit of the host cache with `n_kept` tokens: lower if memory is short."""
        most = self.limits.n_host_cache_tokens
        if not n_kept or not self._saved:
            return most
        memory = read_memory()
        missing_bytes = int(memory.total_bytes * _SPARED_MEMORY_SHARE) - memory.free_bytes
        if missing_bytes <= 0:
            return most
        each = sum(map(len, self._saved.values())) / n_kept
        return max(0, min(most, n_kept - int(missing_bytes / each)))

    def tidy(self, slots: Slots) -> None:
        """Move idle sequences to the lowest cells; none may be running, no operation be pending.

        llama.cpp's attention runs up to the highest used cell, and idle cells stay where they are:
        with SmolLM2-135M a token of a chat of 200 took a sixth longer above 5,000 free cells than
        at the bottom. Moving the chat there took 4 ms.

        Raises:
            CacheFull: cells cannot be restored.
        """
        cells = slots.cells
        is_compact = self.n_computed <= 2 * cells.n_used + SLACK_TOKENS
        if is_compact or not self.limits.is_unified or self.limits.is_paged or cells.n_shared:
            return
        n_bytes = sum(self.context.saved_bytes(seq_id) for seq_id in slots.idle)
        if n_bytes > int(read_memory().free_bytes * _MOVE_MEMORY_SHARE):
            return
        states = {seq_id: self.context.save(seq_id) for seq_id in slots.idle}
        self.context.clear()
        for seq_id, state in states.items():
            self.context.restore(seq_id, state)
        self.n_computed = cells.n_used

    def _copy(self, source: int, target: int, n_positions: int, *, may_wait: bool) -> None:
        if self.limits.is_unified:
            self.context.copy(source, target, n_positions)
            return
        if self.model.memory == "window" or (self._cache_options.is_gpu and may_wait):
            # The whole stream, on its device, just before the next decode. A saved state would go
            # through main memory (4,000 tokens of 8 billion weights take 100 to 300 ms), and lacks
            # what a window has passed.
            self.context.copy(source, target, -1)
            self.context.trim(target, n_positions)
            return
        # llama.cpp copies streams only as a whole, unused cells included.
        self.context.restore(target, self.context.save(source))
        self.context.trim(target, n_positions)

    @property
    def agreement(self) -> Agreement:
        return self._profile.agreement if self._profile is not None else Agreement()

    def draft_price(self, n_sequences: int) -> float:
        if self._profile is None or not self._profile.prefill or not self._profile.decode:
            return self._seen_price
        if n_sequences not in self._prices:
            self._prices[n_sequences] = _draft_price(self._profile, self.limits, n_sequences)
        return self._prices[n_sequences]

    def note_answers(self, n_sequences: int, n_drafts: int, seconds: float) -> None:
        if not n_drafts:
            self._plain_s[n_sequences] = seconds
        elif n_sequences in self._plain_s:
            plain_s = self._plain_s[n_sequences]
            price = (seconds - plain_s) / n_drafts / (plain_s / n_sequences)
            price = min(_MOST_PRICE, max(_LEAST_PRICE, price))
            self._seen_price += _PRICE_WEIGHT * (price - self._seen_price)

    # Layout

    def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        if n_ctx_tokens > self._cache_options.n_ctx_tokens:
            self._cache_options = replace(
                self._cache_options, n_ctx_tokens=n_ctx_tokens, n_cells=n_cells
            )

    def allow_undo(self, n_tokens: int) -> bool:
        """Have the next context undo so many tokens of a recurrent or hybrid model, if it can.

        States are copied for each of them, at most as large as all that the context has.
        """
        state_bytes = n_tokens * self.context.buffers.by_device.total()
        if not self._n_undo_tokens and read_memory().free_bytes > 2 * state_bytes:
            self._n_undo_tokens = n_tokens
        return self._n_undo_tokens > 0

    def has_room_for(self, sequence: Sequence) -> bool:
        return sequence.n_likely_tokens <= (self.limits.n_cells_each or self.limits.n_cells)

    def has_layout_for(self, sequences: Items[Sequence], *, is_running: bool) -> bool:
        """Return whether the present layout is good enough for this work."""
        if not all(map(self.has_room_for, sequences)):
            return False
        if self._n_undo_tokens > self.limits.n_undo_tokens:
            return False
        better = self.plan(sequences)
        if self.limits.is_unified and self._lacks_cells(sequences, better):
            return False
        if len(sequences) < 2 or better.layout == self._plan.layout:
            return True
        if self._profile is None or not self._profile.prefill or not self._profile.decode:
            return is_running
        workload = _workload(sequences)
        present_s = layout_s(
            self._profile, workload, self._plan.layout, self._bounds(self._plan.n_stream_tokens)
        )
        better_s = layout_s(
            self._profile, workload, better.layout, self._bounds(better.n_stream_tokens)
        )
        least_s, share = WORTH_REMAKING
        least_s = max(least_s, share * present_s) + self._move_s(sequences)
        return present_s - better_s < least_s

    def plan(self, sequences: Items[Sequence]) -> ContextPlan:
        n_stream_tokens = self._n_stream_for(sequences)
        layout = self._choose_layout(_workload(sequences), n_stream_tokens)
        longest = max((sequence.n_likely_tokens for sequence in sequences), default=0)
        return ContextPlan(layout, n_stream_tokens, self._limits(layout, n_stream_tokens, longest))

    def replace_context(
        self, plan: ContextPlan, arrange: Callable[[ContextLimits], SlotMigration]
    ) -> tuple[SlotMigration, frozenset[int], LoadFailed | None]:
        """Replace the context, and move the running sequences to the new one.

        If llama.cpp cannot make it, a context as before is made.

        `arrange` plans the moves to a context with these limits.

        Returns:
            The moves, the new sequence ids whose cells were lost, and why the plan failed.

        Raises:
            LoadFailed: not even a context as before can be made.
        """
        before, options = self._plan, self._options(plan)
        keeps = self._keeps_cells
        states = self._save_moves(arrange(plan.limits).moves) if keeps else {}
        self._prices.clear()
        self.n_computed = 0
        self.context.close()
        failure = None
        try:
            self.context, self._plan = self.model.open_context(options), plan
        except LoadFailed as error:
            failure = error
            self._most_cells, self._failed_at = before.limits.n_cells, time.monotonic()
            self._n_undo_tokens = before.limits.n_undo_tokens
            self.context = self.model.open_context(self._options(before))
        migration = arrange(self.limits)
        if not keeps and failure is None:
            migration.slots.host_cache.clear()
            self._saved.clear()
        # Restore cells in the new context; return the ids of those that are lost.
        lost: set[int] = set()
        for move in migration.moves:
            if not move.n_tokens:
                continue
            state = states.pop(move.source, None)
            if state is None or move.donor in lost:
                lost.add(move.target)
                continue
            try:
                self.context.restore(move.target, state)
            except CacheFull:
                lost.add(move.target)
                continue
            if move.n_shared:
                self.context.drop_beginning(move.target, move.n_shared)
                self.context.copy(move.donor, move.target, move.n_shared)
        return migration, frozenset(lost), failure

    def can_be_made(self, plan: ContextPlan) -> bool:
        return plan.limits.n_cells <= max(self.n_cells_at_most, self.limits.n_cells)

    @property
    def _keeps_cells(self) -> bool:
        """Return whether cells of the present context can be restored in another one.

        A sliding window's saved state lacks what the window has passed.
        """
        return self.model.memory != "window"

    def _save_moves(self, moves: Items[SequenceMove]) -> dict[int, State]:
        """Save the cells of the moves, in their order, as far as main memory allows."""
        states: dict[int, State] = {}
        room_bytes = int(read_memory().free_bytes * _MOVE_MEMORY_SHARE)
        for move in moves:
            if not move.n_tokens:
                continue
            room_bytes -= self.context.saved_bytes(move.source)
            if room_bytes < 0:
                break
            states[move.source] = self.context.save(move.source)
        return states

    def _move_s(self, sequences: Items[Sequence]) -> float:
        """Return the seconds to move the computed cells, or to compute them again."""
        n_computed = sum(sequence.n_computed for sequence in sequences)
        if self._profile is None or not n_computed:
            return 0.0
        keeps = self._keeps_cells
        if self._cache_options.is_gpu:
            n_bytes = 2 * n_computed * self._profile.cell_bytes
            moved_s = n_bytes / _MOVE_GPU_BYTES_PER_S
            return _REMAKE_GPU_S + (moved_s if keeps else prefill_s(self._profile, n_computed))
        if keeps:
            return _MOVE_COPIES * (self._profile.copy_s or 0.0) * n_computed
        return prefill_s(self._profile, n_computed)

    def _lacks_cells(self, sequences: Items[Sequence], better: ContextPlan) -> bool:
        n_needed = sum(sequence.n_likely_tokens for sequence in sequences[: self.limits.n_slots])
        return self.limits.n_cells < min(n_needed, better.limits.n_cells)

    def _n_stream_for(self, sequences: Items[Sequence]) -> int:
        longest = max((sequence.n_likely_tokens for sequence in sequences), default=0)
        cache_options, length = self._cache_options, LEAST_STREAM_TOKENS
        # All cells are planned for. Growing costs 0.2 to 0.5 s on a graphics device. A sliding
        # window's cells cannot be moved and are computed again, so its streams take all when they
        # first grow; on a processor not at the start, since touching a GiB takes up to 3 s.
        grows_once = self.model.memory == "window" and longest > length
        if cache_options.is_gpu or grows_once:
            n_slots = cache_options.n_parallel + n_chat_slots(cache_options.n_parallel)
            length = max(length, self.n_cells_at_most // n_slots // PAD_CELLS * PAD_CELLS)
        while length < longest:
            length *= 2
        return min(length, cache_options.n_ctx_tokens)

    def _choose_layout(self, workload: Workload, n_stream_tokens: int) -> ContextLayout:
        bounds = self._bounds(n_stream_tokens)
        layout = choose_layout(self._profile, workload, bounds)
        if self._cache_options.layout != "auto":
            layout = replace(layout, is_unified=self._cache_options.layout == "unified")
        elif self.model.is_paged:
            layout = replace(layout, is_unified=True)  # a prefix is shared by its blocks' names
        elif self.model.memory == "window":
            layout = replace(layout, is_unified=False)  # a unified one shares no prefixes
        if not layout.is_unified:
            n_streams = bounds.n_cells // n_stream_tokens
            layout = replace(layout, n_parallel=max(1, min(layout.n_parallel, n_streams)))
        return layout

    def _bounds(self, n_stream_tokens: int) -> LayoutBounds:
        cache_options = self._cache_options
        n_cells = max(
            n_stream_tokens, min(self.n_cells_at_most, cache_options.n_parallel * n_stream_tokens)
        )
        n_batch = cache_options.options.n_batch_tokens
        return LayoutBounds(
            n_cells,
            cache_options.n_parallel,
            n_batch,
            cache_options.is_gpu,
            n_stream_tokens,
            n_devices=cache_options.n_devices,
            n_pass_max=cache_options.options.n_pass_tokens,
        )

    @property
    def n_cells_at_most(self) -> int:
        """Most cells of a context: as configured, or fewer after a recent failure."""
        is_known = time.monotonic() - self._failed_at < RETRY_LARGER_AFTER_S
        return (
            min(self._cache_options.n_cells, self._most_cells)
            if is_known
            else self._cache_options.n_cells
        )

    def _limits(
        self, layout: ContextLayout, n_stream_tokens: int, n_longest_tokens: int
    ) -> ContextLimits:
        cache_options, each = self._cache_options, padded_cells(n_stream_tokens)
        n_chats = n_chat_slots(cache_options.n_parallel)
        n_parallel = min(layout.n_parallel, MOST_SEQ_IDS - n_chats)
        if layout.is_unified:
            n_cells = min(self.n_cells_at_most, (cache_options.n_parallel + n_chats) * each)
            n_cells = max(n_cells, each, min(n_longest_tokens, cache_options.n_ctx_tokens))
            n_cells = padded_cells(n_cells)
        else:
            n_parallel, n_chats = split_streams(self.n_cells_at_most, each, n_parallel)
            n_cells = (n_parallel + n_chats) * each
        is_window = self.model.memory == "window" and not layout.is_unified
        limits = ContextLimits(
            n_cells=n_cells,
            n_parallel=n_parallel,
            n_batch_tokens=layout.n_batch_tokens,
            can_share=self.model.memory == "cells" or is_window,
            is_unified=layout.is_unified,
            is_gpu=cache_options.is_gpu,
            is_paged=self.model.is_paged,
            prefers_free_streams=is_window,
            n_reserved=n_chats,
            is_flash=cache_options.options.flash_attention != "off",
            n_host_cache_tokens=0 if is_window else cache_options.n_host_cache_tokens,
            n_undo_tokens=self._n_undo_tokens,
        )
        # A batch must hold each answer's next token and drafts, and some of a prompt.
        limits = replace(limits, n_batch_tokens=max(limits.n_batch_tokens, limits.n_rows))
        return self._with_turns(limits)

    def _with_turns(self, limits: ContextLimits) -> ContextLimits:
        chat_s = CHAT_TURN_S
        if limits.has_separate_passes and self._profile is not None:  # the answers' pass follows
            after_s = step_s(self._profile, limits.n_slots, _DEPTH, is_unified=False)
            chat_s = max(chat_s / 4, chat_s - after_s)
        near, chat = (self._turn_tokens(limits, seconds) for seconds in (NEAR_TURN_S, chat_s))
        prices, chat = self._cell_prices(), min(near, chat)
        return replace(limits, near_turn_tokens=near, chat_turn_tokens=chat, prices=prices)

    def _cell_prices(self) -> CellPrices:
        """Return what the profile has measured; else copies to main memory count as too dear."""
        profile, is_gpu = self._profile, self._cache_options.is_gpu
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
        n_tokens = turn_tokens(self._profile, turn_s, is_gpu=self._cache_options.is_gpu)
        return min(max(limits.least_piece_tokens, n_tokens), limits.n_batch_tokens)

    def _options(self, plan: ContextPlan) -> ContextOptions:
        limits = plan.limits
        return replace(
            self._cache_options.options,
            n_ctx_tokens=limits.n_cells,
            n_batch_tokens=max(self._cache_options.options.n_batch_tokens, limits.n_rows),
            n_seq_max=limits.branch_ids.stop,
            n_rows_max=limits.n_rows,
            n_pass_tokens=plan.layout.n_pass_tokens,
            is_unified=limits.is_unified,
            n_undo_tokens=limits.n_undo_tokens,
        )


def _copies_that_may_wait(operations: Items[CacheOperation]) -> set[int]:
    """Return the places of the copies between streams that may be left to the device.

    llama.cpp does these in their order, but only just before the next decode, after everything that
    goes through main memory. So nothing of the latter may touch their streams later.
    """
    places: set[int] = set()
    touched: set[int] = set()  # by what goes through main memory later
    for place, operation in reversed(tuple(enumerate(operations))):
        match operation:
            case SaveToHost(seq_id, _) | RestoreFromHost(_, seq_id):
                touched.add(seq_id)
            case CopyPrefix(source, target, _):
                if touched.isdisjoint({source, target}):
                    places.add(place)
                else:
                    touched |= {source, target}
            case _:
                pass
    return places


def _draft_price(profile: Profile, limits: ContextLimits, n_sequences: int) -> float:
    def one_step_s(n: float, depth: float) -> float:
        return step_s(profile, n, depth, limits.is_unified)

    extra_s = prefill_s(profile, _PROBE_TOKENS) / _PROBE_TOKENS
    if limits.is_flash and not profile.is_gpu:
        # Flash attention on a processor reads the cells again for each of few tokens.
        extra_s += max(0.0, one_step_s(1, _DEPTH) - one_step_s(1, 0))
    if n_sequences > 1 and not limits.is_unified:
        # Streams that have more tokens than the others get a pass of their own.
        alone_s, four_s = one_step_s(1, _DEPTH), one_step_s(4, _DEPTH)
        extra_s += max(0.0, alone_s - (four_s - alone_s) / 3) / _USUAL_GUESS
    return extra_s / (one_step_s(n_sequences, _DEPTH) / n_sequences)


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
