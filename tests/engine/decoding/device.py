"""A device that stands in for llama.cpp, and a scheduler that is driven as the loop does it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from paddock.engine.decoding.context_limits import ContextLimits
from paddock.engine.decoding.scheduler import Scheduler
from paddock.engine.decoding.scheduler_data import (
    CacheOperation,
    CopyPrefix,
    DropFromHost,
    RestoreFromHost,
    SaveToHost,
    ScheduledStep,
    Sequence,
    SequenceMove,
    SequencePiece,
    TrimCells,
)
from paddock.engine.profile.profile import Agreement
from paddock.engine.request import Priority

Cells = list[tuple[int, int]]


@dataclass
class Device:
    """Stands in for llama.cpp: remembers which token lies at which position of each sequence."""

    limits: ContextLimits
    held: dict[int, Cells] = field(default_factory=dict)
    kept: dict[int, Cells] = field(default_factory=dict)
    n_made: int = 0
    n_computed: int = 0

    def apply_operations(self, operations: tuple[CacheOperation, ...]) -> None:
        for operation in operations:
            match operation:
                case TrimCells(seq_id, n_keep):
                    self._check_whole(seq_id, n_keep)
                    self.held[seq_id] = self.held.get(seq_id, [])[:n_keep]
                case CopyPrefix(source, target, n_tokens):
                    assert len(self.held[source]) >= n_tokens
                    self._check_whole(source, n_tokens)
                    self._fill(target, self.held[source][:n_tokens])
                case SaveToHost(seq_id, key):
                    self.kept[key] = self.held[seq_id]
                case RestoreFromHost(key, seq_id):
                    self._fill(seq_id, self._new_cells(self.kept[key]))
                case DropFromHost(key):
                    del self.kept[key]

    def moved(
        self, limits: ContextLimits, moves: tuple[SequenceMove, ...], lost: frozenset[int]
    ) -> Device:
        """Return another context, into which all cells were brought but those that are lost."""
        other = Device(limits, {}, self.kept, self.n_made, self.n_computed)
        for move in moves:
            if move.target in lost:
                continue
            cells = self.held[move.source] if move.n_tokens else []
            assert len(cells) == move.n_tokens
            shared = other.held[move.donor][: move.n_shared] if move.n_shared else []
            own = cells[move.n_shared :]
            other.held[move.target] = shared + other._new_cells(own)
        other.check()
        return other

    def perform(self, turn: ScheduledStep) -> None:
        self.apply_operations(turn.operations)
        for piece in turn.pieces:
            cells = self.held.setdefault(piece.sequence.seq_id, [])
            assert len(cells) == piece.start, "positions follow one another"
            cells += self._new_cells([(0, token) for token in piece.tokens.tolist()])
            self.n_computed += len(piece.tokens)
        self.check()
        for padding in turn.padding:
            cells = self.held.setdefault(padding.seq_id, [])
            assert len(cells) == padding.position, "padding follows the cells"
            cells += self._new_cells([(0, -1)] * padding.n_tokens)
        self.check()

    def _check_whole(self, seq_id: int, n_tokens: int) -> None:
        is_part = 0 < n_tokens < len(self.held.get(seq_id, []))
        assert self.limits.can_share or not is_part, "this memory is kept or dropped as a whole"

    def _new_cells(self, cells: Cells) -> Cells:
        self.n_made += len(cells)
        return [(self.n_made - number, token) for number, (_, token) in enumerate(cells)]

    def _fill(self, target: int, cells: Cells) -> None:
        assert not self.held.get(target), "a copy must go to an empty sequence"
        self.held[target] = cells if self.limits.is_unified else self._new_cells(cells)

    def check(self) -> None:
        n_each = self.limits.n_cells_each
        if n_each is not None:
            assert all(len(cells) <= n_each for cells in self.held.values())
        else:
            owned = {cell for cells in self.held.values() for cell, _ in cells}
            assert len(owned) <= self.limits.n_cells
        assert all(seq_id < self.limits.n_seq_ids for seq_id in self.held)
        assert sum(map(len, self.kept.values())) <= self.limits.n_host_cache_tokens


def next_token(sequence: Sequence, n_known: int) -> int:
    """The 'model': what it says depends on all that came before, and on nothing else."""
    known = [*sequence.prompt.tolist(), *sequence.answer][:n_known]
    return 1000 + int(sum((place + 1) * token for place, token in enumerate(known)) % 7919)


@dataclass
class Run:
    """A scheduler and its device, driven as the loop does it."""

    scheduler: Scheduler
    device: Device
    now_s: float = 0.0
    answers: dict[int, list[int]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    operations: list[CacheOperation] = field(default_factory=list)
    drafts: tuple[int, ...] = ()
    n_forced: int = 0
    """Tokens that follow each chosen one without a choice."""

    expected: dict[int, list[int]] = field(default_factory=dict)
    """What those that were added as checked must say."""

    def add(self, request: Sequence, *, is_checked: bool = False) -> Sequence:
        """Add a request now; return it."""
        if is_checked:
            self.expected[request.request_id] = alone(request)
        self.scheduler.add(request, self.now_s)
        return request

    def serve(self, request: Sequence) -> Sequence:
        """Add a request and go on until all is done; return it."""
        self.add(request)
        self.all()
        return request

    def check(self) -> None:
        """Go on until all is done, and compare what was said with what each says alone."""
        assert sorted(self.all()) == sorted(self.expected)
        assert self.answers == self.expected

    def turn(self) -> ScheduledStep:
        self.now_s += 1.0
        turn = self.scheduler.schedule(self.now_s)
        self.device.perform(turn)
        self.operations += turn.operations
        limits = self.scheduler.limits
        if not limits.is_unified or not limits.can_share:
            seq_ids = [piece.sequence.seq_id for piece in turn.pieces]
            assert seq_ids == sorted(seq_ids), "others would be computed in passes of their own"
        assert turn.n_tokens <= self.scheduler.limits.n_batch_tokens + len(turn.pieces) * 8
        self.scheduler.computed(turn, Agreement())
        for piece in turn.pieces:
            self._check(piece)
            if piece.n_rows:
                self._say(piece)
        return turn

    def _check(self, piece: SequencePiece) -> None:
        sequence = piece.sequence
        held = [token for _, token in self.device.held[sequence.seq_id] if token >= 0]
        known = [*sequence.prompt.tolist(), *sequence.answer]
        n_sure = sequence.n_computed - piece.n_drafts
        assert held[:n_sure] == known[:n_sure], "no token is lost or changed"
        assert len(held) == sequence.n_computed

    def _say(self, piece: SequencePiece) -> None:
        sequence = piece.sequence
        guesses = piece.tokens.tolist()[len(piece.tokens) - piece.n_drafts :]
        n_accepted = 0
        for number in range(piece.n_rows):
            known = len(sequence.prompt) + len(sequence.answer)
            token = next_token(sequence, known)
            sequence.answer.append(token)
            self.answers.setdefault(sequence.request_id, []).append(token)
            is_full = len(sequence.answer) == sequence.max_tokens
            is_right = number < piece.n_drafts and guesses[number] == token
            n_accepted += is_right
            if is_full or not is_right:
                break
        n_left = sequence.max_tokens - len(sequence.answer)
        n_free = self.scheduler.n_free_for(sequence)
        for _ in range(min(self.n_forced, n_left - 1, n_free - 1)):
            token = next_token(sequence, len(sequence.prompt) + len(sequence.answer))
            sequence.answer.append(token)
            self.answers[sequence.request_id].append(token)
        self.scheduler.reject(sequence, piece.n_drafts - n_accepted)
        if len(sequence.answer) == sequence.max_tokens:
            self.scheduler.end(sequence)
            self.order.append(sequence.request_id)
        elif sequence.state == "decode":
            sequence.drafts[:] = self._guess(sequence)

    def _guess(self, sequence: Sequence) -> list[int]:
        """Guess some tokens, the first ones rightly."""
        right, known = [], list(sequence.answer)
        for _ in range(self.drafts[0] if self.drafts else 0):
            right.append(next_token(sequence, len(sequence.prompt) + len(sequence.answer)))
            sequence.answer.append(right[-1])
        sequence.answer[:] = known
        wrong = [7] * (self.drafts[1] if self.drafts else 0)
        return (right + wrong)[: sequence.max_tokens - len(known) - 1]

    def all(self, max_turns: int = 20_000) -> list[int]:
        for _ in range(max_turns):
            if not self.turn().pieces:
                assert not self.scheduler.has_work, "work is left, but nothing is computed"
                while self.scheduler.limits.is_gpu and self.scheduler.slots.save_next():
                    self.device.apply_operations(self.scheduler.slots.take_operations())
                return self.order
        raise AssertionError("a sequence starves")


def run(limits: ContextLimits) -> Run:
    return Run(Scheduler(limits), Device(limits))


def sequence(
    number: int, ids: list[int], max_tokens: int = 4, priority: Priority = "batch"
) -> Sequence:
    return Sequence(number, np.array(ids, np.int32), max_tokens, priority)


def chat_turn(number: int, ids: list[int], max_tokens: int = 3) -> Sequence:
    return sequence(number, ids, max_tokens, "interactive")


def following(number: int, first: Sequence, *ids: int) -> Sequence:
    """Return the next turn of a conversation."""
    return chat_turn(number, [*first.prompt.tolist(), *first.answer, *ids])


def alone(request: Sequence) -> list[int]:
    copy = sequence(0, request.prompt.tolist(), request.max_tokens)
    for _ in range(copy.max_tokens):
        copy.answer.append(next_token(copy, len(copy.prompt) + len(copy.answer)))
    return copy.answer
