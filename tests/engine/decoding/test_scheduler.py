from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.decoding.scheduler import Copy, Limits, Scheduler, Trim, Turn
from paddock.engine.decoding.sequence import Sequence
from paddock.engine.request import Priority


@dataclass
class Device:
    """Stands in for llama.cpp: remembers which token lies at which position of each sequence."""

    n_cells: int
    held: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    n_made: int = 0
    n_computed: int = 0

    def perform(self, turn: Turn) -> None:
        for operation in turn.operations:
            if isinstance(operation, Trim):
                self.held[operation.seq_id] = self.held.get(operation.seq_id, [])[
                    : operation.n_keep
                ]
            elif isinstance(operation, Copy):
                assert not self.held.get(operation.target), "a copy must go to an empty sequence"
                assert len(self.held[operation.source]) >= operation.n_tokens
                self.held[operation.target] = self.held[operation.source][: operation.n_tokens]
        for piece in turn.pieces:
            cells = self.held.setdefault(piece.sequence.seq_id, [])
            assert len(cells) == piece.pos, "positions follow one another"
            for token in piece.tokens.tolist():
                self.n_made += 1
                self.n_computed += 1
                cells.append((self.n_made, token))
        assert len({cell for cells in self.held.values() for cell, _ in cells}) <= self.n_cells


def run_all(scheduler: Scheduler, device: Device, max_turns: int = 10_000) -> list[int]:
    """Run until nothing is left; the 'model' answers with its sequence's length so far."""
    order: list[int] = []
    for _ in range(max_turns):
        turn = scheduler.next_turn()
        device.perform(turn)
        if not turn.pieces:
            assert not scheduler.has_work, "work is left, but nothing is computed"
            return order
        assert turn.n_tokens <= scheduler.limits.n_batch_tokens
        scheduler.computed(turn)
        for piece in turn.pieces:
            sequence = piece.sequence
            held = [token for _, token in device.held[sequence.seq_id]]
            expected = [*sequence.prompt.tolist(), *sequence.answer][: sequence.n_computed]
            assert held == expected, "no token is lost or changed"
            if piece.wants_logits:
                assert sequence.n_missing == 0
                sequence.answer.append(1000 + len(sequence.answer))
                if len(sequence.answer) == sequence.max_tokens:
                    scheduler.end(sequence)
                    order.append(sequence.request_id)
    raise AssertionError("a sequence starves")


def sequence(
    number: int, ids: list[int], max_tokens: int = 4, priority: Priority = "batch"
) -> Sequence:
    return Sequence(number, np.array(ids, np.int32), max_tokens, priority)


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which instructions
        st.integers(0, 40),  # length of the instructions
        st.lists(st.integers(10, 12), min_size=1, max_size=60),
        st.integers(1, 20),
        st.sampled_from(["interactive", "normal", "batch"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.integers(1, 6), st.integers(8, 64), st.booleans())
def test_every_sequence_is_answered_and_no_token_is_lost(
    requests: list[tuple[int, int, list[int], int, Priority]],
    n_parallel: int,
    n_batch: int,
    can_share: bool,
) -> None:
    scheduler = Scheduler(Limits(130, n_parallel, n_batch, can_share))
    for number, (kind, n_shared, ids, max_tokens, priority) in enumerate(requests):
        prompt = [kind] * n_shared + ids
        scheduler.add(sequence(number, prompt, max_tokens, priority))
    order = run_all(scheduler, Device(130))
    assert sorted(order) == list(range(len(requests)))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_cancelling_at_any_moment_loses_nothing_of_the_others(data: st.DataObject) -> None:
    scheduler, device = Scheduler(Limits(200, 3, 16)), Device(200)
    living = {n: sequence(n, [1] * 20 + [n] * 10, 6) for n in range(8)}
    for one in living.values():
        scheduler.add(one)
    doomed = data.draw(st.sets(st.sampled_from(sorted(living)), max_size=4))
    for number in sorted(doomed):
        for _ in range(data.draw(st.integers(0, 3))):
            turn = scheduler.next_turn()
            device.perform(turn)
            scheduler.computed(turn)
            for piece in turn.pieces:
                if piece.wants_logits:
                    piece.sequence.answer.append(1000 + len(piece.sequence.answer))
        scheduler.end(living[number])
    for one in living.values():
        if one.state == "decode" and len(one.answer) >= one.max_tokens:
            scheduler.end(one)
    run_all(scheduler, device)
    assert not scheduler.has_work


def test_the_same_instructions_are_computed_once() -> None:
    scheduler, device = Scheduler(Limits(4000, 8, 512)), Device(4000)
    instructions = list(range(100, 300))
    for number in range(8):
        scheduler.add(sequence(number, [*instructions, *([number] * 50)], max_tokens=2))
    run_all(scheduler, device)
    n_answers = 8 * 1  # the last token of an answer is never computed
    assert device.n_computed == 200 + 8 * 50 + n_answers


def test_a_finished_prompt_is_reused_by_one_that_continues_it() -> None:
    scheduler, device = Scheduler(Limits(1000, 2, 64)), Device(1000)
    scheduler.add(sequence(0, [1] * 50, max_tokens=3, priority="interactive"))
    run_all(scheduler, device)
    longer = sequence(1, [1] * 50 + [1000, 1001, 7, 8], max_tokens=3, priority="interactive")
    scheduler.add(longer)
    run_all(scheduler, device)
    assert longer.n_reused == 52


def test_a_long_prompt_never_delays_running_sequences() -> None:
    scheduler, device = Scheduler(Limits(4000, 4, 64)), Device(4000)
    short = sequence(0, [1, 2, 3], max_tokens=50)
    scheduler.add(short)
    device.perform(turn := scheduler.next_turn())
    scheduler.computed(turn)
    short.answer.append(9)
    scheduler.add(sequence(1, [5] * 3000))
    for n_answered in range(2, 20):
        device.perform(turn := scheduler.next_turn())
        scheduler.computed(turn)
        assert turn.pieces[0].sequence is short
        assert turn.n_tokens == 64, "the rest of the batch reads the long prompt"
        short.answer.append(9)
        assert len(short.answer) == n_answered


def test_a_short_prompt_is_read_beside_a_long_one() -> None:
    scheduler, device = Scheduler(Limits(4000, 4, 64)), Device(4000)
    scheduler.add(sequence(0, [5] * 3000))
    device.perform(turn := scheduler.next_turn())
    scheduler.computed(turn)
    short = sequence(1, [6] * 20)
    scheduler.add(short)
    device.perform(turn := scheduler.next_turn())
    scheduler.computed(turn)
    assert short.state == "decode"


def test_a_chat_goes_before_jobs() -> None:
    scheduler = Scheduler(Limits(4000, 1, 64))
    for number in range(3):
        scheduler.add(sequence(number, [number] * 10))
    scheduler.add(sequence(3, [9] * 10, priority="interactive"))
    assert run_all(scheduler, Device(4000)) == [3, 0, 1, 2]


def test_a_large_prompt_is_not_starved_by_small_ones() -> None:
    scheduler = Scheduler(Limits(100, 4, 64))
    scheduler.add(sequence(0, [1] * 30, max_tokens=20))
    scheduler.add(sequence(1, [2] * 80, max_tokens=20))
    for number in range(2, 8):
        scheduler.add(sequence(number, [number] * 10, max_tokens=5))
    assert run_all(scheduler, Device(100))[:2] == [0, 1]


def test_finished_documents_leave_no_idle_cells_beside_running_ones() -> None:
    scheduler, device = Scheduler(Limits(4000, 2, 512)), Device(4000)
    for number in range(10):
        scheduler.add(sequence(number, [1] * 40 + [number + 2] * 300, max_tokens=3))
    n_most = 0
    for _ in range(200):
        turn = scheduler.next_turn()
        device.perform(turn)
        scheduler.computed(turn)
        n_most = max(n_most, scheduler.cells.n_used)
        for piece in turn.pieces:
            if piece.wants_logits:
                piece.sequence.answer.append(0)
                if len(piece.sequence.answer) == 3:
                    scheduler.end(piece.sequence)
    assert not scheduler.has_work
    assert n_most <= 2 * 350
    assert scheduler.cells.n_used <= 350, "one beginning stays for those who come next"


def test_a_sequence_that_was_put_back_says_the_same() -> None:
    scheduler, device = Scheduler(Limits(1000, 2, 64)), Device(1000)
    one = sequence(0, [1] * 30, max_tokens=6)
    scheduler.add(one)
    for _ in range(3):
        device.perform(turn := scheduler.next_turn())
        scheduler.computed(turn)
        if turn.pieces[0].wants_logits:
            one.answer.append(1000 + len(one.answer))
    said = list(one.answer)
    scheduler.put_back(one)
    assert one.prompt.tolist() == [1] * 30 + said
    assert one.max_tokens == 6 - len(said)
    run_all(scheduler, device)
