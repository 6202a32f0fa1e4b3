"""Choose what the next decode computes. Pure: no threads, no llama_cpp, no clock.

Decode first, then pieces of prompts up to the token budget, so that running sequences never
stall behind a long prompt. Admission is by cells: a sequence comes in when its missing prompt and
its whole answer fit, so a running one never loses its place. A prompt takes over the longest
beginning that a resident sequence has, and waits for one that is just being computed.
The idea of a scheduler that decides and a runner that acts is nano-vllm's
(github.com/GeeeekExplorer/nano-vllm, engine/scheduler.py); the order is the other way round here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from paddock.engine.arrays import Tokens

from .prefixes import PrefixCache, shared_beginning
from .sequence import Sequence

# A chat that is being read gets its next token at the latest after a piece of this many tokens;
# without one, whole batches are computed at the best speed.
INTERACTIVE_PIECE_TOKENS = 128

# Waiting for a beginning that another sequence computes just now pays from here on.
WORTH_WAITING_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What one context can hold."""

    n_cells: int
    n_parallel: int
    n_batch_tokens: int = 512
    can_share: bool = True
    """False for models whose memory cannot be cut (recurrent, sliding window)."""


@dataclass(frozen=True, slots=True)
class Trim:
    """Free the cells of `seq_id` from position `n_keep` on."""

    seq_id: int
    n_keep: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `target` share the first `n_tokens` cells of `source`."""

    source: int
    target: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of one sequence in a batch; `wants_logits` after the last of them."""

    sequence: Sequence
    tokens: Tokens
    pos: int
    wants_logits: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """One step: memory operations in order, then one decode."""

    operations: tuple[Trim | Copy, ...]
    pieces: tuple[Piece, ...]

    @property
    def n_tokens(self) -> int:
        """Size of the batch."""
        return sum(len(piece.tokens) for piece in self.pieces)


class Scheduler:
    """Owns the waiting and running sequences of one context. One thread uses it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cells = PrefixCache(limits.n_cells)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._idle: dict[int, bool] = {}
        """Finished sequences that keep their cells, oldest first; True: nobody will miss it."""
        self._operations: list[Trim | Copy] = []
        self._n_arrived = 0

    @property
    def n_seq_ids(self) -> int:
        """How many sequence ids the context must have: running and idle ones."""
        return 2 * self.limits.n_parallel

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; the caller has checked that it fits into the context alone."""
        self._n_arrived += 1
        sequence.arrival = self._n_arrived
        self.waiting.append(sequence)
        self.waiting.sort(key=lambda one: one.rank)

    def end(self, sequence: Sequence) -> None:
        """Take a sequence out, finished or given up; what others can share of it stays."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self._retire(sequence)
        sequence.state = "finished"

    def put_back(self, sequence: Sequence) -> None:
        """Return a running sequence to the queue; what it has said is computed again later."""
        self.running.remove(sequence)
        self._drop(sequence.seq_id)
        sequence.prompt = np.concatenate([sequence.prompt, np.array(sequence.answer, np.int32)])
        sequence.max_tokens -= len(sequence.answer)
        sequence.answer.clear()
        sequence.seq_id, sequence.n_computed, sequence.state = -1, 0, "waiting"
        self.waiting.append(sequence)
        self.waiting.sort(key=lambda one: one.rank)

    def next_turn(self) -> Turn:
        """Decide the next step; without pieces there is nothing to compute."""
        self._admit()
        pieces = [self._decode_piece(one) for one in self.running if one.state == "decode"]
        pieces += self._prefill_pieces(self.limits.n_batch_tokens - len(pieces))
        operations, self._operations = tuple(self._operations), []
        return Turn(operations, tuple(pieces))

    def computed(self, turn: Turn) -> None:
        """Note that the turn's tokens have their cells."""
        for piece in turn.pieces:
            sequence = piece.sequence
            self.cells.extend(sequence.seq_id, piece.tokens)
            sequence.n_computed += len(piece.tokens)
            if sequence.state == "prefill" and sequence.n_missing == 0:
                sequence.state = "decode"

    # Admission

    def _admit(self) -> None:
        for sequence in tuple(self.waiting):
            if len(self.running) >= self.limits.n_parallel:
                return
            donor, n_shared = self._donor(sequence)
            if self._awaits_beginning(sequence, n_shared):
                continue
            # Nobody overtakes the first that does not fit: a large prompt must not starve.
            n_wanted = sequence.n_owed_cells - n_shared
            if not self._make_room(n_wanted, spare=donor):
                self._shorten_idle(donor, n_shared)
                if not self._make_room(n_wanted, spare=donor):
                    return
            self._place(sequence, donor, n_shared)

    def _donor(self, sequence: Sequence) -> tuple[int, int]:
        if not self.limits.can_share:
            return -1, 0
        donor, n_shared = self.cells.best(sequence.prompt)
        # The last token is computed in any case: its logits are wanted.
        n_shared = min(n_shared, len(sequence.prompt) - 1)
        return (donor, n_shared) if n_shared > 0 else (-1, 0)

    def _awaits_beginning(self, sequence: Sequence, n_shared: int) -> bool:
        """Whether a running prompt is about to compute much more of the same beginning."""
        if not self.limits.can_share:
            return False
        coming = max(
            (
                shared_beginning(sequence.prompt, other.prompt)
                for other in self.running
                if other.state == "prefill"
            ),
            default=0,
        )
        return min(coming, len(sequence.prompt) - 1) - n_shared >= WORTH_WAITING_TOKENS

    def _make_room(self, n_cells: int, spare: int) -> bool:
        """Drop idle sequences, oldest first, until `n_cells` are free beyond what is promised."""
        promised = sum(one.n_owed_cells for one in self.running)
        for seq_id in tuple(self._idle):
            if self.cells.n_free - promised >= n_cells:
                break
            if seq_id != spare:
                self._drop(seq_id)
        return self.cells.n_free - promised >= n_cells

    def _shorten_idle(self, donor: int, n_shared: int) -> None:
        """Give up what an idle donor holds beyond the part that is wanted."""
        if donor in self._idle and n_shared < len(self.cells.computed(donor)):
            self._operations.append(Trim(donor, n_shared))
            self.cells.trim(donor, n_shared)

    def _place(self, sequence: Sequence, donor: int, n_shared: int) -> None:
        takes_over = donor in self._idle and (
            self._idle[donor] or n_shared == len(self.cells.computed(donor))
        )
        if takes_over:
            self._shorten_idle(donor, n_shared)
            self._idle.pop(donor)
            sequence.seq_id = donor
        else:
            sequence.seq_id = self._free_seq_id(spare=donor)
            if n_shared:
                self._operations.append(Copy(donor, sequence.seq_id, n_shared))
                self.cells.share(donor, sequence.seq_id, n_shared)
        sequence.n_computed = sequence.n_reused = n_shared
        sequence.state = "prefill"
        self.waiting.remove(sequence)
        self.running.append(sequence)

    def _free_seq_id(self, spare: int) -> int:
        taken = {one.seq_id for one in self.running} | set(self._idle)
        for seq_id in range(self.n_seq_ids):
            if seq_id not in taken:
                return seq_id
        oldest = next(seq_id for seq_id in self._idle if seq_id != spare)
        self._drop(oldest)
        return oldest

    # What stays after the end

    def _retire(self, sequence: Sequence) -> None:
        """Keep a finished sequence's cells for those that begin alike, if that can pay.

        Attention runs up to the highest used cell, so idle cells slow the living. The tail of a
        document is hardly asked for again: of jobs, only a beginning that nobody else holds stays.
        """
        seq_id = sequence.seq_id
        if seq_id not in self.cells:
            return
        is_job = sequence.priority == "batch"
        if not self.limits.can_share or (is_job and self._is_represented(seq_id)):
            self._drop(seq_id)
        else:
            self._idle[seq_id] = is_job

    def _is_represented(self, seq_id: int) -> bool:
        """Whether some other resident begins as this one does."""
        mine = self.cells.computed(seq_id)
        others = [one.seq_id for one in self.running] + list(self._idle)
        return any(
            shared_beginning(mine, self.cells.computed(other)) > 0
            for other in others
            if other != seq_id and other in self.cells
        )

    def _drop(self, seq_id: int) -> None:
        self._idle.pop(seq_id, None)
        self._operations.append(Trim(seq_id, 0))
        if seq_id in self.cells:
            self.cells.trim(seq_id, 0)

    # The batch

    @staticmethod
    def _decode_piece(sequence: Sequence) -> Piece:
        newest = np.array(sequence.answer[-1:], np.int32)
        return Piece(sequence, newest, sequence.n_computed, wants_logits=True)

    def _prefill_pieces(self, budget: int) -> Iterable[Piece]:
        """Share the budget out: half to the oldest prompt, the rest to the shortest ones first."""
        if any(one.state == "decode" and one.priority == "interactive" for one in self.running):
            budget = min(budget, INTERACTIVE_PIECE_TOKENS)
        prompts = sorted(
            (one for one in self.running if one.state == "prefill"), key=lambda one: one.rank
        )
        if not prompts or budget <= 0:
            return []
        oldest, *others = prompts
        half = budget if not others else -(-budget // 2)
        shares = {oldest: min(oldest.n_missing, half)}
        left = budget - shares[oldest]
        for one in sorted(others, key=lambda one: one.n_missing):
            shares[one] = min(one.n_missing, left)
            left -= shares[one]
        shares[oldest] += min(left, oldest.n_missing - shares[oldest])
        return [self._prefill_piece(one, n) for one, n in shares.items() if n]

    @staticmethod
    def _prefill_piece(sequence: Sequence, n_tokens: int) -> Piece:
        start = sequence.n_computed
        tokens = sequence.prompt[start : start + n_tokens]
        return Piece(sequence, tokens, start, start + n_tokens == len(sequence.prompt))
