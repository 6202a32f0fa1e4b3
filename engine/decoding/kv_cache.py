"""KV cache of a model: carry out cache operations, replace the context by one of another layout.

The weights stay; a context is made in some 30 ms. Its streams are as long as the longest request
needs, not as long as the model could: memory is allocated when needed. Running sequences move to
the new context with their cells, through main memory, and continue at once. Only the owner thread
uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from typing import Generic

from paddock.engine.llama.forward_context import ChatModel, State
from paddock.engine.llama.library import CacheFull, LoadFailed
from paddock.engine.profile.profile import Agreement, Profile
from paddock.engine.system.hardware import read_memory
from paddock.engine.system.records import replace

from .context_limits import ContextLimits
from .draft_prices import DraftPrices
from .layout_plans import CacheOptions, ContextPlan, LayoutPlanner
from .scheduler_data import (
    CacheOperation,
    CopyPrefix,
    DropFromHost,
    RestoreFromHost,
    SaveToHost,
    SequenceMove,
    TrimCells,
)
from .slots import SlotMigration, Slots

# Share of main memory that saved conversations leave to others.
_SPARED_MEMORY_SHARE = 0.05

# Share of free main memory that cells may take while they move.
_MOVE_MEMORY_SHARE = 0.5

SLACK_TOKENS = 256


class KvCache(Generic[State]):
    """The present context; it is replaced when the layout changes."""

    def __init__(
        self, model: ChatModel[State], options: CacheOptions, profile: Profile | None = None
    ) -> None:
        self.model = model
        self.planner = LayoutPlanner(model.memory, options, profile, is_paged=model.is_paged)
        self.draft_prices = DraftPrices()
        self.present = self.planner.first_plan()
        self.n_computed = 0
        """Tokens that were computed since the cells were last compacted."""
        self._is_gpu, self._n_devices = options.is_gpu, options.n_devices
        self._n_threads = options.options.n_threads
        self._saved: dict[int, State] = {}
        self.context = model.open_context(self.planner.context_options(self.present))

    @property
    def limits(self) -> ContextLimits:
        return self.present.limits

    def close(self) -> None:
        self.context.close()

    def use_profile(self, profile: Profile) -> None:
        """Decide by another profile from now on; the layout changes when the work asks for it."""
        self.planner.profile = profile
        self.draft_prices.forget_measured()
        self.present = replace(self.present, limits=self.planner.with_turns(self.limits))

    @property
    def n_idle_cores(self) -> int:
        """Cores that are free between steps: on a processor llama.cpp's threads keep spinning."""
        return self._n_threads if self._is_gpu else 1

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
        if self._is_gpu and self._n_devices == 1:
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
        if self.model.memory == "window" or (self._is_gpu and may_wait):
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
        profile = self.planner.profile
        return profile.agreement if profile is not None else Agreement()

    def draft_price(self, n_sequences: int) -> float:
        return self.draft_prices.of(n_sequences, self.limits, self.planner.profile)

    # Another context

    def allow_undo(self, n_tokens: int) -> bool:
        """Have the next context undo so many tokens of a recurrent or hybrid model, if it can.

        States are copied for each of them, at most as large as all that the context has.
        """
        state_bytes = n_tokens * self.context.buffers.by_device.total()
        if not self.planner.n_undo_tokens and read_memory().free_bytes > 2 * state_bytes:
            self.planner.n_undo_tokens = n_tokens
        return self.planner.n_undo_tokens > 0

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
        planner, keeps = self.planner, self.planner.keeps_cells
        states = self._save_moves(arrange(plan.limits).moves) if keeps else {}
        self.draft_prices.forget_measured()
        self.n_computed = 0
        self.context.close()
        failure = None
        try:
            self.context = self.model.open_context(planner.context_options(plan))
            self.present = plan
        except LoadFailed as error:
            failure = error
            planner.note_failure(self.limits)
            self.context = self.model.open_context(planner.context_options(self.present))
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
