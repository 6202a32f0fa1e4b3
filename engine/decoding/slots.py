"""Slots of one context: running sequences, idle prefixes, and those saved to main memory. Pure.

Every change is recorded as a cache operation, which the owner of the context carries out in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from paddock.engine.arrays import Tokens
from paddock.engine.chat.prompt_images import n_positions, whole_prefix
from paddock.engine.request import Priority
from paddock.engine.system.records import Struct, replace

from .context_limits import ContextLimits
from .host_cache import HostCache
from .prefix_cache import (
    WORTH_REPEATING_TOKENS,
    PrefixCache,
    PromptRepeats,
    ReturnShares,
    cell_marks_from,
    longest_shared_prefix,
    shared_prefix_length,
)
from .scheduler_data import (
    CacheOperation,
    CopyPrefix,
    DropFromHost,
    Padding,
    RestoreFromHost,
    SaveToHost,
    Sequence,
    SequenceMove,
    SequencePiece,
    TrimCells,
)

# Fewer idle cells neither slow running sequences nor are worth a copy.
WORTH_MOVING_TOKENS = 128

# Most streams to copy in one step so that running ones follow one another: by estimate a copy takes
# 1 ms once, a pass over 8 billion weights 5 to 20 ms in each step.
MOST_GAPS_CLOSED = 4

# Least prefix to copy from one stream of a split cache to another.
WORTH_COPYING_TOKENS = 32

# A template may write the end of an answer in other tokens in the next turn.
SAME_END_TOKENS = 16

# A saved prefix must be this much longer than one in the cache.
WORTH_RESTORING_TOKENS = 32


class PrefixSource(Struct, frozen=True):
    """Where a prompt's prefix is: in the cells of `seq_id`, or in the host cache under `key`."""

    n_tokens: int = 0
    seq_id: int = -1
    key: int = -1


class SlotMigration(Struct, frozen=True):
    slots: Slots
    moves: tuple[SequenceMove, ...]
    seq_ids: dict[Sequence, int]


class Slots:
    def __init__(self, limits: ContextLimits) -> None:
        self.limits = limits
        self.cells = PrefixCache(limits.n_cells, limits.n_cells_each)
        self.host_cache = HostCache(limits.n_host_cache_tokens)
        self._running: dict[int, Sequence] = {}
        self._idle: dict[int, Priority] = {}
        """Finished sequences that keep their cells, oldest first."""
        self.returns = ReturnShares()
        self.waiting: Collection[Sequence] = ()
        # Saving some prefixes in vain costs less than computing one again, but not where a graphics
        # device computes: a split cache of it waits until jobs do repeat.
        has_host_cache = self.host_cache.n_most_tokens > 0
        is_cheap = has_host_cache if limits.is_unified else not limits.is_gpu
        self._repeats = PromptRepeats(2 * limits.n_slots, is_likely=is_cheap)
        self._operations: list[CacheOperation] = []

    @property
    def idle(self) -> tuple[int, ...]:
        return tuple(self._idle)

    def take_operations(self) -> tuple[CacheOperation, ...]:
        """Return and clear the operations to do before the next decode."""
        operations = tuple(self._operations)
        self._operations = []
        return operations

    # Finding a prefix

    def find(self, sequence: Sequence) -> PrefixSource:
        if not self.limits.can_share:
            return self._find_whole(sequence)
        # The last token is always computed: its logits are wanted.
        most = len(sequence.prompt) - 1
        seq_id, n_tokens = self.cells.best(sequence.prompt)
        n_tokens = whole_prefix(sequence.prompt[: min(n_tokens, most)])
        least = 1 if self.limits.is_unified else WORTH_COPYING_TOKENS
        resident = PrefixSource(n_tokens, seq_id) if n_tokens >= least else PrefixSource()
        key, n_kept = self.host_cache.best(sequence.prompt)
        n_kept = whole_prefix(sequence.prompt[: min(n_kept, most)])
        if n_kept < resident.n_tokens + WORTH_RESTORING_TOKENS:
            return resident
        if len(self.host_cache.tokens(key)) > self._n_free_at_best():
            return resident
        return PrefixSource(n_kept, key=key)

    def _find_whole(self, sequence: Sequence) -> PrefixSource:
        """Find the longest idle or saved sequence that is wholly a prefix of the prompt."""
        most = len(sequence.prompt) - 1
        idle = [PrefixSource(self.cells.n_tokens(seq_id), seq_id) for seq_id in self._idle]
        kept = [
            PrefixSource(len(self.host_cache.tokens(key)), key=key) for key in self.host_cache.keys
        ]
        continued = [
            source
            for source in idle + kept
            if source.n_tokens <= most
            and source.n_tokens
            == shared_prefix_length(
                sequence.prompt,
                self.cells.computed(source.seq_id)
                if source.seq_id >= 0
                else self.host_cache.tokens(source.key),
            )
        ]
        best = max(continued, key=lambda source: source.n_tokens, default=PrefixSource())
        return PrefixSource() if best.key >= 0 and best.n_tokens > self._n_free_at_best() else best

    def _n_free_at_best(self) -> int:
        return self.limits.n_cells_each or self.cells.n_free

    # Freeing cells

    def make_room(self, n_cells: int, spare: int = -1) -> bool:
        """Evict idle sequences until `n_cells` are free; jobs' first, then the oldest.

        In a split cache every sequence has its own cells, so there is nothing to do.
        """
        if not self.limits.is_unified:
            return True
        for seq_id in self._idle_in_order():
            if self.cells.n_free >= n_cells:
                break
            if seq_id != spare:
                self._evict(seq_id)
        return self.cells.n_free >= n_cells

    def shorten(self, source: PrefixSource) -> None:
        if source.seq_id in self._idle:
            self.cut(source.seq_id, source.n_tokens)

    def _idle_in_order(self) -> list[int]:
        return sorted(self._idle, key=lambda seq_id: self._idle[seq_id] != "batch")

    def _evict(self, seq_id: int, spare_key: int = -1, *, is_pause: bool = False) -> None:
        """Remove an idle sequence from the cache, and save it if it may be needed again.

        Not from a graphics device, which would wait, unless all do (`is_pause`). `spare_key`: the
        entry of the host cache that stays, since it is restored next.
        """
        priority = self._idle.pop(seq_id)
        if (is_pause or not self.limits.is_gpu) and self._is_worth_saving(seq_id, priority):
            self._save_to_host(seq_id, is_job=priority == "batch", spare_key=spare_key)
        self._free(seq_id)

    def save_next(self) -> bool:
        """Save an idle sequence that others may soon displace; return whether there was one.

        For pauses of a graphics device, when half of its room is taken.
        """
        limits, kept = self.limits, self.host_cache
        n_taken = self.cells.n_used if limits.is_unified else len(self._idle)
        if 2 * n_taken <= (limits.n_cells if limits.is_unified else limits.n_seq_ids):
            return False
        for seq_id, priority in self._idle.items():
            own = self.cells.computed(seq_id)
            has_room = kept.n_tokens + len(own) <= kept.n_most_tokens
            is_new = has_room and kept.best(own)[1] < len(own)
            if is_new and self._is_worth_saving(seq_id, priority):
                self._save_to_host(seq_id, is_job=priority == "batch")
                return True
        return False

    def _set_aside(self, seq_id: int, source: PrefixSource) -> bool:
        """Copy an idle sequence that may be needed again to a free stream of a graphics device.

        If no stream is free, the oldest idle sequence but the prompt's `source` is evicted.

        Returns:
            Whether it was copied; its own stream is no longer idle then.
        """
        on_device = self.limits.is_gpu and not self.limits.is_unified
        n_tokens, priority = self.cells.n_tokens(seq_id), self._idle[seq_id]
        is_cheap = self.limits.prices.is_worth_moving(n_tokens, self.returns[priority])
        if not on_device or not is_cheap or not self._may_return(seq_id, priority):
            return False
        taken = {*self._running, *self._idle}
        target = max(set(range(self.limits.n_seq_ids)) - taken, default=-1)
        if target < 0:
            others = (other for other in self._idle_in_order() if other != source.seq_id)
            target = next(others, seq_id)
            if target == seq_id:
                return False
            self._evict(target, spare_key=source.key)
        self._copy(seq_id, target, n_tokens)
        self._idle = {
            target if other == seq_id else other: priority for other, priority in self._idle.items()
        }
        return True

    def _is_worth_saving(self, seq_id: int, priority: Priority) -> bool:
        is_cheap = self.limits.prices.is_worth_saving(self.returns[priority])
        return is_cheap and self._may_return(seq_id, priority)

    def _may_return(self, seq_id: int, priority: Priority) -> bool:
        if priority == "batch":
            return self._may_be_repeated(seq_id)
        return self.cells.n_own(seq_id) >= WORTH_MOVING_TOKENS

    def _may_be_repeated(self, seq_id: int) -> bool:
        """Return whether another job may repeat more of a finished one than is held elsewhere."""
        own = self.cells.computed(seq_id)
        n_held = max(
            longest_shared_prefix(own, self._others(seq_id))[1], self.host_cache.best(own)[1]
        )
        if len(own) - n_held < WORTH_REPEATING_TOKENS:
            return False
        waiting = {sequence.request_id: sequence.prompt for sequence in self.waiting}
        n_waiting = longest_shared_prefix(own, waiting)[1]
        return self._repeats.is_likely or n_waiting - n_held >= WORTH_REPEATING_TOKENS

    def _others(self, seq_id: int) -> dict[int, Tokens]:
        return {
            other: self.cells.computed(other)
            for other in (*self._running, *self._idle)
            if other != seq_id and other in self.cells
        }

    def _save_to_host(self, seq_id: int, *, is_job: bool = False, spare_key: int = -1) -> None:
        computed = self.cells.computed(seq_id)
        key, gone = self.host_cache.put(
            computed, self.cells.marks(seq_id), is_job=is_job, spare=spare_key
        )
        self._operations += [DropFromHost(key) for key in gone]
        if key is not None:
            self._operations.append(SaveToHost(seq_id, key))

    def _free(self, seq_id: int) -> None:
        self._operations.append(TrimCells(seq_id, 0))
        if seq_id in self.cells:
            self.cells.trim(seq_id, 0)

    def cut(self, seq_id: int, n_keep: int) -> None:
        if n_keep < self.cells.n_tokens(seq_id):
            n_positions_kept = n_positions(self.cells.computed(seq_id)[:n_keep])
            self._operations.append(TrimCells(seq_id, n_positions_kept))
            self.cells.trim(seq_id, n_keep)

    def pad(self, seq_id: int, n_tokens: int, n_before: int = 0) -> Padding | None:
        """Plan padding behind a stream's cells and `n_before` more; None where it does not fit.

        The next step's first operations cut it off.
        """
        n_held = n_before + self.cells.n_tokens(seq_id)
        if n_held + n_tokens > self.limits.n_cells // self.limits.n_seq_ids:
            return None
        position = n_held
        if seq_id in self.cells:
            position = n_before + n_positions(self.cells.computed(seq_id))
        self._operations.append(TrimCells(seq_id, position))
        return Padding(seq_id, position, n_tokens)

    # Starting and ending sequences

    def place(self, sequence: Sequence, source: PrefixSource) -> None:
        if sequence.priority == "batch":
            running = {seq_id: other.prompt for seq_id, other in self._running.items()}
            _, n_running = longest_shared_prefix(sequence.prompt, running)
            self._repeats.begin(sequence.prompt, n_running)
        elif self.is_continued(source):
            self.returns.return_to(sequence.priority)
        if self._takes_over(source):
            seq_id = source.seq_id
            self._save_rest(source)
            self.cut(seq_id, source.n_tokens)
            self._idle.pop(seq_id, None)
        else:
            seq_id = self._open_seq_ids(spare=source.seq_id)[0]
            if seq_id in self._idle:
                if self._set_aside(seq_id, source):
                    self._free(seq_id)
                else:
                    self._evict(seq_id, spare_key=source.key)
            if source.key >= 0:
                key = source.key
                self._operations.append(RestoreFromHost(key, seq_id))
                self.cells.extend(seq_id, self.host_cache.tokens(key), self.host_cache.marks(key))
                self.host_cache.touch(key)
                self.cut(seq_id, source.n_tokens)
            elif source.n_tokens:
                self._copy(source.seq_id, seq_id, source.n_tokens)
        self._running[seq_id] = sequence
        sequence.seq_id = seq_id
        sequence.n_computed = sequence.n_reused = source.n_tokens
        sequence.state = "prefill"
        # Keep a unified cache compact: idle cells slow running sequences. On a graphics device the
        # copies cost more: cells stay until others need them.
        if not self.limits.is_unified or self.limits.is_gpu or self.limits.is_paged:
            return
        for seq_id, priority in tuple(self._idle.items()):
            is_worth_keeping = priority != "batch" or self._repeats.is_likely
            if is_worth_keeping and not self.host_cache.n_most_tokens:
                continue  # it can only be reused from here
            if self.cells.n_own(seq_id) >= WORTH_MOVING_TOKENS:
                self._evict(seq_id)

    def is_continued(self, source: PrefixSource) -> bool:
        """Return whether a prefix is all of a finished conversation, or nearly."""
        if self._idle.get(source.seq_id) == "batch":
            return False
        n_held = self.cells.n_tokens(source.seq_id) if source.seq_id in self._idle else 0
        n_kept = len(self.host_cache.tokens(source.key)) if source.key >= 0 else 0
        return source.n_tokens > max(n_held, n_kept, SAME_END_TOKENS) - SAME_END_TOKENS > 0

    def _takes_over(self, source: PrefixSource) -> bool:
        """Return whether to reuse the donor's own slot, since nothing else needs its cells."""
        if source.seq_id not in self._idle:
            return False
        is_job = self._idle[source.seq_id] == "batch"
        is_whole = source.n_tokens == self.cells.n_tokens(source.seq_id)
        seq_ids = self._open_seq_ids(spare=source.seq_id)
        if not seq_ids:
            return True
        if not self.limits.is_unified:
            return source.seq_id < seq_ids[0]
        return is_whole or (is_job and not self._may_be_repeated(source.seq_id))

    def _save_rest(self, source: PrefixSource) -> None:
        seq_id, priority = source.seq_id, self._idle[source.seq_id]
        n_rest = self.cells.n_tokens(seq_id) - source.n_tokens
        is_job = priority == "batch"
        if n_rest < (WORTH_REPEATING_TOKENS if is_job else WORTH_MOVING_TOKENS):
            return
        if self._set_aside(seq_id, source) or self.limits.is_gpu:
            return
        if self._is_worth_saving(seq_id, priority):
            self._save_to_host(seq_id, is_job=is_job)

    def _open_seq_ids(self, spare: int) -> list[int]:
        """Return the sequence ids of free and idle slots, the best first.

        In a split cache the lowest: llama.cpp computes neighbouring streams in one pass, and others
        in passes of their own (8 sequences in scattered streams took 52 ms a step instead of 32).
        There an idle slot is as good as a free one if what may be needed again is saved, or copied
        to another stream of a graphics device.
        """
        open_ids = [n for n in range(self.limits.n_seq_ids) if n not in self._running]
        others = [seq_id for seq_id in open_ids if seq_id != spare]
        oldest = {seq_id: age for age, seq_id in enumerate(self._idle_in_order(), start=1)}
        prefers_free = self.limits.prefers_free_streams and not self.limits.is_gpu
        if self.limits.is_unified or prefers_free:
            return sorted(others, key=lambda seq_id: (oldest.get(seq_id, 0), seq_id))
        return others

    def _copy(self, source: int, target: int, n_tokens: int) -> None:
        n_copied = n_positions(self.cells.computed(source)[:n_tokens])
        self._operations.append(CopyPrefix(source, target, n_copied))
        self.cells.share(source, target, n_tokens)

    def open_branch(self, sequence: Sequence, branch_id: int) -> None:
        """Share a sequence's cells with a branch, until `free_branches`."""
        n_shared = n_positions(sequence.prompt)
        self._operations.append(CopyPrefix(sequence.seq_id, branch_id, n_shared))

    def free_branches(self, pieces: Iterable[SequencePiece]) -> None:
        """Free the cells of a step's branches before the next decode."""
        ids = [piece.branch_id for piece in pieces if piece.branch_id >= 0]
        self._operations += [TrimCells(branch_id, 0) for branch_id in ids]

    def close_gaps(self) -> None:
        """Move running sequences of a graphics device to streams that follow one another.

        llama.cpp computes these in one pass. Call it only before a decode, which makes the copies.
        Few gaps are filled up, and many, too, while sequences wait for them.
        """
        if self.limits.is_unified or not self.limits.is_gpu:
            return
        first, last = min(self._running, default=0), max(self._running, default=0)
        n_gaps = last - first + 1 - len(self._running)
        is_wide = n_gaps >= max(MOST_GAPS_CLOSED, len(self._running) // 8) and not self.waiting
        if self.limits.may_pad and not is_wide:
            return
        for _ in range(MOST_GAPS_CLOSED):
            last = max(self._running, default=0)
            gaps = set(range(first, last)) - set(self._running)
            gap = min(gaps - set(self._idle), default=min(gaps, default=-1))
            if gap < 0:
                return
            if gap in self._idle:
                if not self._set_aside(gap, PrefixSource()):
                    if self._may_return(gap, self._idle[gap]):
                        return
                    del self._idle[gap]
                self._free(gap)
            sequence = self._running.pop(last)
            if last in self.cells:
                self._copy(last, gap, self.cells.n_tokens(last))
            self._free(last)
            self._running[gap] = sequence
            sequence.seq_id = gap

    def preempt(self, sequence: Sequence) -> None:
        seq_id = sequence.seq_id
        del self._running[seq_id]
        is_long = seq_id in self.cells and self.cells.n_own(seq_id) >= WORTH_MOVING_TOKENS
        if is_long and self.limits.prices.is_worth_saving():
            self._save_to_host(seq_id)
        self._free(seq_id)

    def release_sequence(self, sequence: Sequence) -> None:
        del self._running[sequence.seq_id]
        self._free(sequence.seq_id)

    def limit_host_cache(self, n_most_tokens: int) -> None:
        self._operations += [DropFromHost(key) for key in self.host_cache.limit(n_most_tokens)]

    def offload_idle(self) -> None:
        for seq_id in tuple(self._idle):
            self._evict(seq_id, is_pause=True)

    def retire(self, sequence: Sequence) -> None:
        """Free a finished sequence's slot; its cells stay if others may share them.

        In a unified cache a job's cells stay if no other sequence has its prefix, or while jobs
        repeat documents.
        """
        seq_id = sequence.seq_id
        del self._running[seq_id]
        if seq_id not in self.cells:
            return
        is_job = sequence.priority == "batch"
        if is_job:
            self._repeats.finish(self.cells.computed(seq_id))
        else:
            self.returns.end(sequence.priority)
        if is_job and not self._is_worth_keeping(seq_id):
            self._free(seq_id)
        else:
            self._idle[seq_id] = sequence.priority

    def _is_worth_keeping(self, seq_id: int) -> bool:
        """Return whether a finished job's cells stay; in a split cache they slow no other."""
        if not self.limits.can_share:
            return False  # a document's answer is not continued
        if not self.limits.is_unified or self._may_be_repeated(seq_id):
            return True
        return longest_shared_prefix(self.cells.computed(seq_id), self._others(seq_id))[1] == 0

    # Another context

    def moved(self, limits: ContextLimits) -> SlotMigration:
        """Plan the moves of the running sequences to a context with other limits.

        Changes nothing. The oldest of the highest priority come first; in a unified cache a common
        prefix is shared again. Sequences without a slot or cells are left out.
        """
        slots, moves, seq_ids = Slots(limits), list[SequenceMove](), dict[Sequence, int]()
        slots.host_cache, slots._repeats = self.host_cache, self._repeats
        slots.returns = self.returns
        for source, sequence in sorted(self._running.items(), key=lambda entry: entry[1].rank):
            target = len(moves)
            if sequence.priority == "interactive":
                has_free_slot = len(seq_ids) < limits.n_slots
            else:
                n_jobs = sum(other.priority != "interactive" for other in seq_ids)
                has_free_slot = n_jobs < limits.n_parallel and len(seq_ids) < limits.n_slots
            if not has_free_slot:
                continue
            n_tokens = self.cells.n_tokens(source)
            if n_tokens >= slots.cells.n_free_for(target):
                continue
            move = SequenceMove(source, target, n_tokens)
            if n_tokens:
                tokens, marks = self.cells.computed(source), self.cells.marks(source)
                donor = -1
                n_shared = 0
                if slots.limits.is_unified and slots.limits.can_share:
                    donor, n_shared = slots.cells.best(tokens)
                    n_shared = whole_prefix(tokens[:n_shared])
                if n_shared:
                    slots.cells.share(donor, move.target, n_shared)
                if n_shared < len(tokens):
                    slots.cells.extend(
                        move.target, tokens[n_shared:], cell_marks_from(marks, n_shared)
                    )
                move = replace(move, donor=donor, n_shared=n_positions(tokens[:n_shared]))
            moves.append(move)
            seq_ids[sequence] = target
            slots._running[target] = sequence
        return SlotMigration(slots, tuple(moves), seq_ids)
