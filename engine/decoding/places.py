"""Who sits where in the KV cache: running sequences, idle beginnings, and what was moved out. Pure.

Every change is written down as an operation for the owner of the context, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddock.engine.arrays import Tokens

from .prefixes import PrefixCache, shared_beginning
from .sequence import Sequence
from .shelf import Shelf
from .turn import Copy, Discard, Limits, Operation, Restore, Shelve, Trim

# Fewer cells than these of an idle sequence neither slow the living nor are worth a copy.
WORTH_MOVING_TOKENS = 128

# A beginning is copied from one stream of a split cache to another only if it is as long.
WORTH_COPYING_TOKENS = 32

# Bringing something back from main memory must save so much more than what is in the cache.
WORTH_RESTORING_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Source:
    """Where the beginning of a prompt is: in the cells of `seq_id`, or on the shelf as `key`."""

    n_tokens: int = 0
    seq_id: int = -1
    key: int = -1


class Places:
    """The seats of one context. One thread uses it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cells = PrefixCache(limits.n_cells, limits.n_cells_each)
        self.shelf = Shelf(limits.n_shelf_tokens)
        self._running: dict[int, Sequence] = {}
        self._idle: dict[int, bool] = {}
        """Finished sequences that keep their cells, oldest first; True: of a job."""
        self._operations: list[Operation] = []

    @property
    def idle(self) -> tuple[int, ...]:
        """Finished sequences that still have their cells."""
        return tuple(self._idle)

    def take_operations(self) -> tuple[Operation, ...]:
        """Give what is to be done before the next decode."""
        operations, self._operations = tuple(self._operations), []
        return operations

    # Finding a beginning

    def find(self, sequence: Sequence) -> Source:
        """Find the longest beginning of a prompt that is computed already."""
        if not self.limits.can_share:
            return self._find_whole(sequence)
        # The last token is computed in any case: its logits are wanted.
        most = len(sequence.prompt) - 1
        seq_id, n_tokens = self.cells.best(sequence.prompt)
        least = 1 if self.limits.is_unified else WORTH_COPYING_TOKENS
        resident = Source(min(n_tokens, most), seq_id) if min(n_tokens, most) >= least else Source()
        key, n_kept = self.shelf.best(sequence.prompt)
        if min(n_kept, most) < resident.n_tokens + WORTH_RESTORING_TOKENS:
            return resident
        if len(self.shelf.tokens(key)) > self._n_free_at_best():
            return resident
        return Source(min(n_kept, most), key=key)

    def _find_whole(self, sequence: Sequence) -> Source:
        """Find the longest idle or kept sequence that the prompt continues, token for token."""
        most = len(sequence.prompt) - 1
        idle = [Source(self.cells.n_tokens(seq_id), seq_id) for seq_id in self._idle]
        kept = [Source(len(self.shelf.tokens(key)), key=key) for key in self.shelf.keys]
        continued = [
            one
            for one in idle + kept
            if one.n_tokens <= most
            and shared_beginning(sequence.prompt, self._tokens_of(one)) == one.n_tokens
        ]
        best = max(continued, key=lambda one: one.n_tokens, default=Source())
        return Source() if best.key >= 0 and best.n_tokens > self._n_free_at_best() else best

    def _tokens_of(self, source: Source) -> Tokens:
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

    def shorten(self, source: Source) -> Source:
        """Give up what an idle donor holds beyond the part that is wanted."""
        if source.seq_id in self._idle:
            self.cut(source.seq_id, source.n_tokens)
        return source

    def _idle_in_order(self) -> list[int]:
        return sorted(self._idle, key=lambda seq_id: not self._idle[seq_id])

    def _displace(self, seq_id: int) -> None:
        """Take an idle sequence out of the cache, and keep what may be asked for again."""
        is_job = self._idle.pop(seq_id)
        if not is_job:
            self._shelve(seq_id)
        self._empty(seq_id)

    def _shelve(self, seq_id: int) -> None:
        if self.cells.n_own(seq_id) < WORTH_MOVING_TOKENS:
            return
        key, gone = self.shelf.put(self.cells.computed(seq_id))
        self._operations += [Discard(one) for one in gone]
        if key is not None:
            self._operations.append(Shelve(seq_id, key))

    def _empty(self, seq_id: int) -> None:
        self._operations.append(Trim(seq_id, 0))
        if seq_id in self.cells:
            self.cells.trim(seq_id, 0)

    def cut(self, seq_id: int, n_keep: int) -> None:
        """Let go of a sequence's cells from position `n_keep` on."""
        if n_keep < self.cells.n_tokens(seq_id):
            self._operations.append(Trim(seq_id, n_keep))
            self.cells.trim(seq_id, n_keep)

    # Coming and going

    def place(self, sequence: Sequence, source: Source) -> None:
        """Give a sequence its seat, with what is computed of it already."""
        if self._takes_over(source):
            seq_id = source.seq_id
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

    def _takes_over(self, source: Source) -> bool:
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
        return is_whole or is_job

    def _free_seq_id(self, spare: int) -> int:
        seq_id = self._open_seats(spare)[0]
        if seq_id in self._idle:
            self._displace(seq_id)
        return seq_id

    def _open_seats(self, spare: int) -> list[int]:
        """Give the ids that may be had, the best first.

        In a split cache the lowest: llama.cpp computes neighbouring streams in one pass, and
        others in passes of their own (8 sequences in scattered streams took 52 ms a step instead
        of 32). There an idle seat is as good as a free one if what may be asked for again is kept
        outside.
        """
        open_ids = [n for n in range(self.limits.n_seq_ids) if n not in self._running]
        others = [seq_id for seq_id in open_ids if seq_id != spare]
        oldest = {seq_id: age for age, seq_id in enumerate(self._idle_in_order(), start=1)}
        if self.limits.is_unified or self.limits.spares_idle:
            return sorted(others, key=lambda seq_id: (oldest.get(seq_id, 0), seq_id))
        return others

    def _bring(self, source: Source, seq_id: int) -> None:
        if source.key >= 0:
            self._operations.append(Restore(source.key, seq_id))
            self.cells.extend(seq_id, self.shelf.tokens(source.key))
            self.shelf.touch(source.key)
            self.cut(seq_id, source.n_tokens)
        elif source.n_tokens:
            self._operations.append(Copy(source.seq_id, seq_id, source.n_tokens))
            self.cells.share(source.seq_id, seq_id, source.n_tokens)

    def _move_idle_out(self) -> None:
        """Keep the unified cache compact: idle cells slow those that run."""
        if not self.limits.is_unified or not self.shelf.n_most_tokens:
            return
        for seq_id in tuple(self._idle):
            if self.cells.n_own(seq_id) >= WORTH_MOVING_TOKENS:
                self._displace(seq_id)

    def put_back(self, sequence: Sequence) -> None:
        """Free the seat of a sequence that will come again; what is computed is kept outside."""
        del self._running[sequence.seq_id]
        if sequence.seq_id in self.cells:
            self._shelve(sequence.seq_id)
        self._empty(sequence.seq_id)

    def retire(self, sequence: Sequence) -> None:
        """Free the seat of a finished sequence; what others can share of it stays, if that pays.

        The tail of a document is hardly asked for again: of jobs in a unified cache, only a
        beginning that nobody else holds stays.
        """
        seq_id = sequence.seq_id
        del self._running[seq_id]
        if seq_id not in self.cells:
            return
        is_job = sequence.priority == "batch"
        if self.limits.can_share:
            is_needless = is_job and self.limits.is_unified and self._is_represented(seq_id)
        else:
            is_needless = is_job  # nobody continues a document's answer
        if is_needless:
            self._empty(seq_id)
        else:
            self._idle[seq_id] = is_job

    def _is_represented(self, seq_id: int) -> bool:
        """Whether some other resident begins as this one does."""
        mine = self.cells.computed(seq_id)
        others = [*self._running, *self._idle]
        return any(
            shared_beginning(mine, self.cells.computed(other)) > 0
            for other in others
            if other != seq_id and other in self.cells
        )
