"""Slots of one context: running sequences, idle prefixes, and what is moved to main memory. Pure.

Every change is recorded as a cache operation for the owner of the context, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace

from paddock.engine.arrays import Tokens

from .batch import (
    CacheOperation,
    ContextLimits,
    CopyPrefix,
    DropFromHost,
    RestoreFromHost,
    SaveToHost,
    Sequence,
    SequenceMove,
    TrimCells,
)
from .prefix_cache import HostCache, PrefixCache, longest_shared_prefix, shared_prefix_length

# Fewer cells than these of an idle sequence neither slow the living nor are worth a copy.
WORTH_MOVING_TOKENS = 128

# More tokens than these of a document that another job may ask for: copying them out and in takes
# some milliseconds, computing them again a hundred.
WORTH_REPEATING_TOKENS = 64

# A beginning is copied from one stream of a split cache to another only if it is as long.
WORTH_COPYING_TOKENS = 32

# Bringing something back from main memory must save so much more than what is in the cache.
WORTH_RESTORING_TOKENS = 32


@dataclass(frozen=True, slots=True)
class PrefixSource:
    """Where the beginning of a prompt is: in the cells of `seq_id`, or on the shelf as `key`."""

    n_tokens: int = 0
    seq_id: int = -1
    key: int = -1


class PromptRepeats:
    """Whether jobs begin as finished ones did: several steps that read one document do."""

    def __init__(self, n_most: int, *, is_likely: bool) -> None:
        """Look at the last `n_most` jobs; `is_likely`: it is expected of the first ones."""
        self._finished: deque[Tokens] = deque(maxlen=n_most)
        self._n_most = n_most
        self._n_expected = n_most if is_likely else 0

    @property
    def is_likely(self) -> bool:
        """Whether the beginning of a job that has just finished may well be asked for again."""
        return self._n_expected > 0

    def finish(self, computed: Tokens) -> None:
        """Take what a finished job has in the cache."""
        self._finished.append(computed.copy())
        self._n_expected -= 1

    def begin(self, prompt: Tokens, n_running: int) -> None:
        """Take a new job's prompt; `n_running` of its tokens begin a running sequence as well."""
        _, n_tokens = longest_shared_prefix(prompt, dict(enumerate(self._finished)))
        if n_tokens >= n_running + WORTH_REPEATING_TOKENS:
            self._n_expected = self._n_most


@dataclass(frozen=True, slots=True)
class SlotMigration:
    """The seats of another context, and how the running sequences come there."""

    places: Slots
    moves: tuple[SequenceMove, ...]
    seats: dict[Sequence, int]


class Slots:
    """The seats of one context. One thread uses it."""

    def __init__(self, limits: ContextLimits) -> None:
        self.limits = limits
        self.cells = PrefixCache(limits.n_cells, limits.n_cells_each)
        self.shelf = HostCache(limits.n_shelf_tokens)
        self._running: dict[int, Sequence] = {}
        self._idle: dict[int, bool] = {}
        """Finished sequences that keep their cells, oldest first; True: of a job."""
        self.awaited: Collection[Sequence] = ()
        """Sequences that wait, whose beginnings may be those of idle ones."""
        # Keeping some beginnings elsewhere in vain costs less than computing one again.
        is_cheap = not limits.is_unified or self.shelf.n_most_tokens > 0
        self._repeats = PromptRepeats(2 * limits.n_slots, is_likely=is_cheap)
        self._operations: list[CacheOperation] = []

    @property
    def idle(self) -> tuple[int, ...]:
        """Finished sequences that still have their cells."""
        return tuple(self._idle)

    def take_operations(self) -> tuple[CacheOperation, ...]:
        """Return what is to be done before the next decode."""
        operations, self._operations = tuple(self._operations), []
        return operations

    # Finding a beginning

    def find(self, sequence: Sequence) -> PrefixSource:
        """Find the longest beginning of a prompt that is computed already."""
        if not self.limits.can_share:
            return self._find_whole(sequence)
        # The last token is computed in any case: its logits are wanted.
        most = len(sequence.prompt) - 1
        seq_id, n_tokens = self.cells.best(sequence.prompt)
        least = 1 if self.limits.is_unified else WORTH_COPYING_TOKENS
        resident = (
            PrefixSource(min(n_tokens, most), seq_id)
            if min(n_tokens, most) >= least
            else PrefixSource()
        )
        key, n_kept = self.shelf.best(sequence.prompt)
        if min(n_kept, most) < resident.n_tokens + WORTH_RESTORING_TOKENS:
            return resident
        if len(self.shelf.tokens(key)) > self._n_free_at_best():
            return resident
        return PrefixSource(min(n_kept, most), key=key)

    def _find_whole(self, sequence: Sequence) -> PrefixSource:
        """Find the longest idle or kept sequence that the prompt continues, token for token."""
        most = len(sequence.prompt) - 1
        idle = [PrefixSource(self.cells.n_tokens(seq_id), seq_id) for seq_id in self._idle]
        kept = [PrefixSource(len(self.shelf.tokens(key)), key=key) for key in self.shelf.keys]
        continued = [
            one
            for one in idle + kept
            if one.n_tokens <= most
            and shared_prefix_length(sequence.prompt, self._tokens_of(one)) == one.n_tokens
        ]
        best = max(continued, key=lambda one: one.n_tokens, default=PrefixSource())
        return PrefixSource() if best.key >= 0 and best.n_tokens > self._n_free_at_best() else best

    def _tokens_of(self, source: PrefixSource) -> Tokens:
        in_cache = source.seq_id >= 0
        return self.cells.computed(source.seq_id) if in_cache else self.shelf.tokens(source.key)

    def _n_free_at_best(self) -> int:
        return self.limits.n_cells_each or self.cells.n_free

    # Making room

    def make_room(self, n_cells: int, spare: int = -1) -> bool:
        """Move idle sequences out until `n_cells` are free; jobs' first, then the oldest.

        In a split cache every sequence has its own room, so there is nothing to do.
        """
        if not self.limits.is_unified:
            return True
        for seq_id in self._idle_in_order():
            if self.cells.n_free >= n_cells:
                break
            if seq_id != spare:
                self._displace(seq_id)
        return self.cells.n_free >= n_cells

    def shorten(self, source: PrefixSource) -> PrefixSource:
        """Give up what an idle donor holds beyond the part that is wanted."""
        if source.seq_id in self._idle:
            self.cut(source.seq_id, source.n_tokens)
        return source

    def _idle_in_order(self) -> list[int]:
        return sorted(self._idle, key=lambda seq_id: not self._idle[seq_id])

    def _displace(self, seq_id: int) -> None:
        """Take an idle sequence out of the cache, and keep what may be asked for again."""
        is_job = self._idle.pop(seq_id)
        if not is_job or self._may_be_repeated(seq_id):
            self._shelve(seq_id, is_job=is_job)
        self._empty(seq_id)

    def _may_be_repeated(self, seq_id: int) -> bool:
        """Whether another job may ask for more of a finished one than is held elsewhere."""
        mine = self.cells.computed(seq_id)
        n_held = max(longest_shared_prefix(mine, self._others(seq_id))[1], self.shelf.best(mine)[1])
        if len(mine) - n_held < WORTH_REPEATING_TOKENS:
            return False
        awaited = {one.request_id: one.prompt for one in self.awaited}
        n_awaited = longest_shared_prefix(mine, awaited)[1]
        return self._repeats.is_likely or n_awaited - n_held >= WORTH_REPEATING_TOKENS

    def _others(self, seq_id: int) -> dict[int, Tokens]:
        """Return what the other sequences have in the cache."""
        return {
            other: self.cells.computed(other)
            for other in (*self._running, *self._idle)
            if other != seq_id and other in self.cells
        }

    def _shelve(self, seq_id: int, *, is_job: bool = False) -> None:
        if not is_job and self.cells.n_own(seq_id) < WORTH_MOVING_TOKENS:
            return
        key, gone = self.shelf.put(self.cells.computed(seq_id), is_job=is_job)
        self._operations += [DropFromHost(one) for one in gone]
        if key is not None:
            self._operations.append(SaveToHost(seq_id, key))

    def _empty(self, seq_id: int) -> None:
        self._operations.append(TrimCells(seq_id, 0))
        if seq_id in self.cells:
            self.cells.trim(seq_id, 0)

    def cut(self, seq_id: int, n_keep: int) -> None:
        """Let go of a sequence's cells from position `n_keep` on."""
        if n_keep < self.cells.n_tokens(seq_id):
            self._operations.append(TrimCells(seq_id, n_keep))
            self.cells.trim(seq_id, n_keep)

    # Coming and going

    def place(self, sequence: Sequence, source: PrefixSource) -> None:
        """Give a sequence its seat, with what is computed of it already."""
        if sequence.priority == "batch":
            self._note_beginning(sequence)
        if self._takes_over(source):
            seq_id = source.seq_id
            self._keep_rest(source)
            self.cut(seq_id, source.n_tokens)
            del self._idle[seq_id]
        else:
            seq_id = self._free_seq_id(spare=source.seq_id)
            self._bring(source, seq_id)
        self._running[seq_id] = sequence
        sequence.seq_id = seq_id
        sequence.n_computed = sequence.n_reused = source.n_tokens
        sequence.state = "prefill"
        self._move_idle_out()

    def _note_beginning(self, sequence: Sequence) -> None:
        running = {seq_id: one.prompt for seq_id, one in self._running.items()}
        _, n_running = longest_shared_prefix(sequence.prompt, running)
        self._repeats.begin(sequence.prompt, n_running)

    def _takes_over(self, source: PrefixSource) -> bool:
        """Whether the donor's own seat is used: nobody else will miss what it holds."""
        if source.seq_id not in self._idle:
            return False
        is_job = self._idle[source.seq_id]
        is_whole = source.n_tokens == self.cells.n_tokens(source.seq_id)
        seats = self._open_seats(spare=source.seq_id)
        if not seats:
            return True
        if not self.limits.is_unified:
            return source.seq_id < seats[0]
        return is_whole or (is_job and not self._may_be_repeated(source.seq_id))

    def _keep_rest(self, source: PrefixSource) -> None:
        """Keep outside what an idle donor holds beyond the part that is wanted, if that pays."""
        seq_id, is_job = source.seq_id, self._idle[source.seq_id]
        n_rest = self.cells.n_tokens(seq_id) - source.n_tokens
        if n_rest < (WORTH_REPEATING_TOKENS if is_job else WORTH_MOVING_TOKENS):
            return
        if not is_job or self._may_be_repeated(seq_id):
            self._shelve(seq_id, is_job=is_job)

    def _free_seq_id(self, spare: int) -> int:
        seq_id = self._open_seats(spare)[0]
        if seq_id in self._idle:
            self._displace(seq_id)
        return seq_id

    def _open_seats(self, spare: int) -> list[int]:
        """Return the ids that may be had, the best first.

        In a split cache the lowest: llama.cpp computes neighbouring streams in one pass, and
        others in passes of their own (8 sequences in scattered streams took 52 ms a step instead
        of 32). There an idle seat is as good as a free one if what may be asked for again is kept
        outside.
        """
        open_ids = [n for n in range(self.limits.n_seq_ids) if n not in self._running]
        others = [seq_id for seq_id in open_ids if seq_id != spare]
        oldest = {seq_id: age for age, seq_id in enumerate(self._idle_in_order(), start=1)}
        if self.limits.is_unified or self.limits.prefers_free_streams:
            return sorted(others, key=lambda seq_id: (oldest.get(seq_id, 0), seq_id))
        return others

    def _bring(self, source: PrefixSource, seq_id: int) -> None:
        if source.key >= 0:
            self._operations.append(RestoreFromHost(source.key, seq_id))
            self.cells.extend(seq_id, self.shelf.tokens(source.key))
            self.shelf.touch(source.key)
            self.cut(seq_id, source.n_tokens)
        elif source.n_tokens:
            self._operations.append(CopyPrefix(source.seq_id, seq_id, source.n_tokens))
            self.cells.share(source.seq_id, seq_id, source.n_tokens)

    def _move_idle_out(self) -> None:
        """Keep the unified cache compact: idle cells slow those that run.

        On a graphics device the copies cost more: cells stay there until others need them.
        """
        if not self.limits.is_unified or self.limits.is_gpu:
            return
        for seq_id, is_job in tuple(self._idle.items()):
            is_wanted = not is_job or self._repeats.is_likely
            if is_wanted and not self.shelf.n_most_tokens:
                continue  # here it can be found again
            if self.cells.n_own(seq_id) >= WORTH_MOVING_TOKENS:
                self._displace(seq_id)

    def preempt(self, sequence: Sequence) -> None:
        """Free the seat of a sequence that will come again; what is computed is kept outside."""
        del self._running[sequence.seq_id]
        if sequence.seq_id in self.cells:
            self._shelve(sequence.seq_id)
        self._empty(sequence.seq_id)

    def lose(self, sequence: Sequence) -> None:
        """Free the seat of a sequence whose cells are lost."""
        del self._running[sequence.seq_id]
        self._empty(sequence.seq_id)

    def limit_host_cache(self, n_most_tokens: int) -> None:
        """Keep no more than so many tokens outside the cache."""
        self._operations += [DropFromHost(key) for key in self.shelf.limit(n_most_tokens)]

    def offload_idle(self) -> None:
        """Take every idle sequence out of the cache; conversations are kept outside."""
        for seq_id in tuple(self._idle):
            self._displace(seq_id)

    def retire(self, sequence: Sequence) -> None:
        """Free the seat of a finished sequence; what others can share of it stays, if that pays.

        Of jobs in a unified cache a beginning stays that no other resident holds: whole
        documents only while jobs come that read the same ones again.
        """
        seq_id = sequence.seq_id
        del self._running[seq_id]
        if seq_id not in self.cells:
            return
        is_job = sequence.priority == "batch"
        if is_job:
            self._repeats.finish(self.cells.computed(seq_id))
        if is_job and not self._is_worth_keeping(seq_id):
            self._empty(seq_id)
        else:
            self._idle[seq_id] = is_job

    def _is_worth_keeping(self, seq_id: int) -> bool:
        """Whether a finished job's cells stay; in a split cache they slow no other."""
        if not self.limits.can_share:
            return False  # a document's answer is not continued
        if not self.limits.is_unified or self._may_be_repeated(seq_id):
            return True
        return longest_shared_prefix(self.cells.computed(seq_id), self._others(seq_id))[1] == 0

    # Another context

    def moved(self, limits: ContextLimits) -> SlotMigration:
        """Return where the running sequences go in a context with other limits. Changes nothing.

        The oldest of the highest priority come first; in a unified cache a common beginning is
        shared again. What finds no seat or no cells is left out.
        """
        places, moves, seats = Slots(limits), list[SequenceMove](), dict[Sequence, int]()
        places.shelf, places._repeats = self.shelf, self._repeats
        for source, sequence in sorted(self._running.items(), key=lambda one: one[1].rank):
            target = len(moves)
            if not _has_free_slot(sequence, seats, limits):
                continue
            n_tokens = self.cells.n_tokens(source)
            if n_tokens >= places.cells.n_free_for(target):
                continue
            move = SequenceMove(source, target, n_tokens)
            moves.append(places._enter(move, self.cells.computed(source)) if n_tokens else move)
            seats[sequence] = target
            places._running[target] = sequence
        return SlotMigration(places, tuple(moves), seats)

    def _enter(self, move: SequenceMove, tokens: Tokens) -> SequenceMove:
        """Enter the cells of a moved sequence; it shares the beginning of one that came before."""
        donor, n_shared = -1, 0
        if self.limits.is_unified and self.limits.can_share:
            donor, n_shared = self.cells.best(tokens)
        if n_shared:
            self.cells.share(donor, move.target, n_shared)
        if n_shared < len(tokens):
            self.cells.extend(move.target, tokens[n_shared:])
        return replace(move, donor=donor, n_shared=n_shared)


def _has_free_slot(sequence: Sequence, seated: Collection[Sequence], limits: ContextLimits) -> bool:
    if sequence.priority == "interactive":
        return len(seated) < limits.n_slots
    n_jobs = sum(one.priority != "interactive" for one in seated)
    return n_jobs < limits.n_parallel and len(seated) < limits.n_slots
