"""Who is in the next batch: nothing is lost or changed, no one starves, what is known is reused."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.decoding import scheduler_data as sequences
from paddock.engine.decoding.context_limits import CellPrices, ContextLimits
from paddock.engine.decoding.scheduler import Scheduler, StepSizer
from paddock.engine.decoding.scheduler_data import CopyPrefix, SaveToHost
from paddock.engine.profile.profile import Agreement
from paddock.engine.request import Priority
from paddock.engine.system.records import replace
from tests.benchmarks import simulated_card as card
from tests.engine.decoding.device import Run, chat_turn, following, run, sequence

REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which instructions
        st.integers(0, 40),  # length of the instructions
        st.lists(st.integers(10, 12), min_size=1, max_size=60),
        st.integers(1, 20),
        st.sampled_from(["interactive", "normal", "batch"]),
        st.integers(0, 30),  # turns before it arrives
    ),
    min_size=1,
    max_size=25,
)

LIMITS = st.builds(
    ContextLimits,
    n_cells=st.integers(0, 900),
    n_parallel=st.integers(1, 6),
    n_batch_tokens=st.integers(8, 64),
    can_share=st.booleans(),
    is_unified=st.booleans(),
    is_gpu=st.booleans(),
    prefers_free_streams=st.booleans(),
    n_reserved=st.integers(0, 1),
    near_turn_tokens=st.integers(4, 64),
    chat_turn_tokens=st.integers(4, 64),
    n_host_cache_tokens=st.sampled_from([0, 100, 2000]),
)


def with_room(limits: ContextLimits) -> ContextLimits:
    """The longest request, 120 tokens, must fit alone."""
    n_streams = 1 if limits.is_unified else limits.n_seq_ids
    return replace(limits, n_cells=120 * n_streams + limits.n_cells)


@settings(max_examples=150, deadline=None)
@given(
    REQUESTS,
    LIMITS.map(with_room),
    st.tuples(st.integers(0, 4), st.integers(0, 3)),
    st.integers(0, 5),
)
def test_every_sequence_says_what_it_would_say_alone(
    requests: list[tuple[int, int, list[int], int, Priority, int]],
    limits: ContextLimits,
    drafts: tuple[int, int],
    n_forced: int,
) -> None:
    world = run(limits)
    world.drafts, world.n_forced = drafts, n_forced
    coming = sorted(enumerate(requests), key=lambda numbered: numbered[1][5])
    for number, (kind, n_shared, ids, max_tokens, priority, at_turn) in coming:
        while world.now_s < at_turn:
            world.turn()
        world.add(sequence(number, [kind] * n_shared + ids, max_tokens, priority), is_checked=True)
    world.check()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # which document
            st.integers(100, 300),  # how much of it
            st.lists(st.integers(10, 12), min_size=1, max_size=40),
            st.sampled_from(["interactive", "normal", "batch"]),
            st.integers(0, 40),  # turns before it arrives
        ),
        min_size=3,
        max_size=25,
    ),
    LIMITS,
    st.sampled_from([300, 800]),
)
def test_prefixes_that_come_and_go_in_a_full_host_cache_are_what_they_were(
    requests: list[tuple[int, int, list[int], Priority, int]],
    limits: ContextLimits,
    n_host_cache_tokens: int,
) -> None:
    n_streams = 1 if limits.is_unified else limits.n_seq_ids
    limits = replace(
        limits,
        n_cells=350 * n_streams + limits.n_cells,
        n_batch_tokens=256,
        prefers_free_streams=False,
        n_host_cache_tokens=n_host_cache_tokens,
    )
    world = run(limits)
    coming = sorted(enumerate(requests), key=lambda numbered: numbered[1][4])
    for number, (document, n_read, ids, priority, at_turn) in coming:
        while world.now_s < at_turn:
            world.turn()
        world.add(sequence(number, [100 + document] * n_read + ids, 4, priority), is_checked=True)
    world.check()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_cancelling_at_any_moment_loses_nothing_of_the_others(
    data: st.DataObject, is_unified: bool
) -> None:
    world = run(ContextLimits(200 if is_unified else 400, 3, 16, is_unified=is_unified))
    living = {n: sequence(n, [1] * 20 + [n] * 10, 6) for n in range(8)}
    for request in living.values():
        world.scheduler.add(request)
    doomed = data.draw(st.sets(st.sampled_from(sorted(living)), max_size=4))
    for number in sorted(doomed):
        for _ in range(data.draw(st.integers(0, 3))):
            world.turn()
        world.scheduler.end(living[number])
    world.all()
    assert {number for number in living if number not in doomed} <= set(world.order)


def test_a_long_prompt_never_delays_running_sequences() -> None:
    world = run(ContextLimits(4000, 4, 64))
    short = sequence(0, [1, 2, 3], max_tokens=50)
    world.scheduler.add(short)
    world.turn()
    world.scheduler.add(sequence(1, [5] * 3000))
    for n_answered in range(2, 20):
        turn = world.turn()
        assert turn.pieces[0].sequence is short
        assert turn.n_tokens == 64, "the rest of the batch reads the long prompt"
        assert len(short.answer) == n_answered


def test_a_slow_machine_reads_a_prompt_in_steps_that_end_in_time() -> None:
    pace = StepSizer(step_s=30, s_per_token=0.4)  # 32 billion weights on 4 cores
    scheduler = Scheduler(ContextLimits(4096, 2, 512))
    scheduler.add(sequence(1, [1] * 600, 5))
    sizes = []
    for s_per_token in (0.4, 1.2, 5.0, 0.001):
        turn = scheduler.schedule(n_most_tokens=pace.n_most_tokens)
        scheduler.computed(turn, Agreement())
        pace.note(turn.n_tokens, turn.n_tokens * s_per_token)
        sizes.append(turn.n_tokens)
    assert sizes == [75, 75, 25, 16], "a little is read however slow it is"
    assert scheduler.schedule(n_most_tokens=pace.n_most_tokens).n_tokens == 600 - sum(sizes)
    assert StepSizer().n_most_tokens > 1_000_000


def test_a_chat_goes_before_jobs() -> None:
    world = run(ContextLimits(4000, 1, 64, n_reserved=0))
    for number in range(3):
        world.scheduler.add(sequence(number, [number] * 10))
    world.scheduler.add(chat_turn(3, [9] * 10))
    assert world.all() == [3, 0, 1, 2]


def test_a_chat_has_a_place_of_its_own_next_to_the_jobs() -> None:
    world = run(ContextLimits(4000, 2, 64))
    for number in range(6):
        world.scheduler.add(sequence(number, [number] * 10, max_tokens=30))
    world.turn()
    world.add(chat_turn(9, [9] * 10, 2))
    world.turn()
    world.turn()
    assert world.order == [9]
    assert world.scheduler.n_preempted == 0


def test_a_second_chat_takes_the_place_of_the_youngest_job() -> None:
    world = run(ContextLimits(4000, 2, 64))
    for number in range(2):
        world.scheduler.add(sequence(number, [number] * 10, max_tokens=30))
    world.turn()
    for number in (8, 9):
        world.add(chat_turn(number, [number] * 10, 2))
    world.turn()
    world.turn()
    assert sorted(world.order) == [8, 9]
    assert world.scheduler.n_preempted == 1
    assert sorted(world.all()) == [0, 1, 8, 9]


def test_a_job_that_has_waited_long_goes_before_a_chat_that_comes_now() -> None:
    world = run(ContextLimits(4000, 1, 64, n_reserved=0))
    world.scheduler.add(sequence(0, [1] * 10, priority="batch"), 0.0)
    world.scheduler.add(chat_turn(1, [2] * 10), 61.0)
    assert world.all() == [0, 1]


GPU = ContextLimits(8 * 512, 8, 256, is_unified=False, is_gpu=True, n_reserved=0)


def test_on_a_graphics_device_prompts_are_read_in_the_fewest_passes() -> None:
    n_passes = {}
    for is_gpu in (True, False):
        world = run(replace(GPU, is_gpu=is_gpu))
        for number in range(24):
            n_prompt = 100 + number * 37 % 130
            world.scheduler.add(sequence(number, [number] * n_prompt, max_tokens=12))
        n_passes[is_gpu] = 0
        while (turn := world.turn()).pieces:
            n_passes[is_gpu] += len(card.passes(turn))
        assert len(world.order) == 24
    assert n_passes[True] <= 0.8 * n_passes[False]


@pytest.mark.parametrize(("priority", "n_most"), [("interactive", 1), ("normal", 8), ("batch", 8)])
def test_on_a_graphics_device_answers_are_decoded_in_passes_of_one_shape(
    priority: Priority, n_most: int
) -> None:
    limits = replace(GPU, chat_turn_tokens=50)
    world = run(limits)
    for number in range(3):
        world.scheduler.add(sequence(number, [number] * 10, 200, priority), 0.0)
    world.turn()
    for number in range(3, 8):
        world.add(sequence(number, [number] * 400, 5))
    n_waited = 0
    for _ in range(30):
        turn = world.turn()
        assert len({len(piece.tokens) == 1 for piece in turn.pieces}) == 1, "never both"
        if len(turn.pieces[0].tokens) == 1:
            n_waited = 0
            continue
        n_waited += 1
        assert n_waited <= n_most
        assert turn.n_tokens <= (50 if priority == "interactive" else 256)


def test_on_a_graphics_device_a_long_chat_holds_up_no_short_one() -> None:
    world = run(replace(GPU, n_cells=8 * 4096, chat_turn_tokens=50, near_turn_tokens=50))
    world.add(chat_turn(0, [0] * 10, 300))
    world.turn()
    world.add(chat_turn(1, [1] * 3000, 2))
    world.turn()
    short = world.add(chat_turn(2, [2] * 20, 2))
    for _ in range(12):
        world.turn()
    assert short.state == "finished"


def test_an_overdue_job_that_lacks_room_is_not_overtaken_by_chats() -> None:
    world = run(ContextLimits(400, 4, 64))
    world.scheduler.add(sequence(0, [1] * 20, max_tokens=150), 0.0)
    world.turn()
    world.scheduler.add(sequence(1, [2] * 350, max_tokens=10), 0.0)
    for _ in range(125):
        world.turn()
    for number in range(5, 25):
        world.add(chat_turn(number, [number] * 30, 40))
    assert world.all()[:2] == [0, 1]


def test_turns_are_short_while_a_chat_is_near_and_long_without_one() -> None:
    limits = ContextLimits(4000, 4, 512, near_turn_tokens=100, chat_turn_tokens=50)
    world = run(limits)
    world.scheduler.add(sequence(0, [1] * 3000), 0.0)
    assert world.turn().n_tokens == 512
    world.add(chat_turn(1, [2] * 10, 3))
    assert world.turn().n_tokens == 100
    assert world.turn().n_tokens == 1 + 50
    world.turn()
    assert world.order == [1]
    assert world.turn().n_tokens == 100
    world.now_s += 60
    assert world.turn().n_tokens == 512


def test_a_large_prompt_is_not_starved_by_small_ones() -> None:
    world = run(ContextLimits(100, 4, 64))
    world.scheduler.add(sequence(0, [1] * 30, max_tokens=20))
    world.scheduler.add(sequence(1, [2] * 80, max_tokens=20))
    for number in range(2, 8):
        world.scheduler.add(sequence(number, [number] * 10, max_tokens=5))
    assert world.all()[:2] == [0, 1]


def test_when_cells_run_out_the_youngest_waits_and_nothing_is_lost() -> None:
    world = run(ContextLimits(256, 4, 64))
    for number in range(4):
        world.add(sequence(number, [number + 1] * 20, max_tokens=100), is_checked=True)
    assert world.all()[0] == 0, "the oldest keeps its place"
    assert world.scheduler.n_preempted > 0
    assert world.answers == world.expected


def test_finished_documents_leave_no_idle_cells_next_to_running_ones() -> None:
    world = run(ContextLimits(4000, 2, 512))
    for number in range(10):
        world.scheduler.add(sequence(number, [1] * 40 + [number + 2] * 300, max_tokens=3))
    n_most = 0
    while world.turn().pieces:
        n_most = max(n_most, world.scheduler.slots.cells.n_used)
    assert not world.scheduler.has_work
    assert n_most <= 2 * 350
    assert world.scheduler.slots.cells.n_used <= 350, "one beginning stays for the next"


def test_a_finished_conversation_makes_way_for_others_and_is_brought_back() -> None:
    world = run(ContextLimits(4000, 2, 512, n_host_cache_tokens=1000))
    first = world.serve(chat_turn(0, [1] * 300, 3))
    world.serve(sequence(1, [2] * 50, max_tokens=3))
    assert world.scheduler.slots.cells.n_used <= 60, "idle cells would slow the living"
    again = world.serve(following(2, first, 7, 8))
    assert again.n_reused == 302


LAYOUTS = [
    ContextLimits(6 * 400, 4, 256, is_unified=False, n_reserved=2, n_host_cache_tokens=4000),
    ContextLimits(6 * 400, 4, 256, n_reserved=2, n_host_cache_tokens=4000),
]
SYSTEM, DOCUMENT, INSTRUCTION = 40, 90, 10


def prompt_over(document: int, step: int) -> list[int]:
    return [1] * SYSTEM + [100 + document] * DOCUMENT + [500 + step] * INSTRUCTION


def answer_tokens(world: Run) -> int:
    """Tokens of answers that were computed: the last one of each never is."""
    return sum(len(answer) - 1 for answer in world.answers.values())


@pytest.mark.parametrize("limits", LAYOUTS, ids=["split", "unified"])
def test_steps_that_read_one_document_compute_it_once(limits: ContextLimits) -> None:
    n_documents, n_steps = 12, 3
    world = run(limits)
    coming = [sequence(number, prompt_over(number, 0)) for number in range(n_documents)]
    n_answered = 0
    while len(world.order) < n_documents * n_steps:
        while coming and len(world.scheduler.waiting) + len(world.scheduler.running) < 8:
            world.add(coming.pop(0))
        world.turn()
        world.turn()  # a step's answer is recorded before the next step asks
        for number in world.order[n_answered:]:
            step, document = divmod(number, 100)
            if step + 1 < n_steps:
                prompt = prompt_over(document, step + 1)
                coming.insert(0, sequence(100 * (step + 1) + document, prompt))
        n_answered = len(world.order)
    n_least = SYSTEM + n_documents * (DOCUMENT + n_steps * INSTRUCTION)
    assert world.device.n_computed - answer_tokens(world) == n_least


@pytest.mark.parametrize("limits", LAYOUTS, ids=["split", "unified"])
def test_the_first_in_line_is_overtaken_as_often_as_there_are_places(limits: ContextLimits) -> None:
    world = run(limits)
    for number in range(4):
        world.scheduler.add(sequence(number, prompt_over(0, number)))
    world.turn()
    world.add(sequence(4, prompt_over(1, 0)))
    for number in range(5, 30):
        world.add(sequence(number, prompt_over(0, number)))
    world.all()
    assert 4 <= world.order.index(4) <= 4 + 2 * limits.n_parallel


@pytest.mark.parametrize("limits", LAYOUTS, ids=["split", "unified"])
def test_documents_that_are_read_once_are_soon_not_kept_outside(limits: ContextLimits) -> None:
    world = run(limits)
    for number in range(40):
        world.scheduler.add(sequence(number, prompt_over(number, 0)))
    n_kept_outside = 0
    while (turn := world.turn()).pieces:
        n_kept_outside += sum(isinstance(operation, SaveToHost) for operation in turn.operations)
    assert n_kept_outside <= 2 * limits.n_slots
    assert world.order == sorted(world.order), "nothing goes before its turn"


def test_a_conversation_is_kept_where_another_takes_its_seat_for_the_same_system_prompt() -> None:
    world = run(
        ContextLimits(4 * 600, 2, 512, is_unified=False, n_reserved=2, n_host_cache_tokens=1000)
    )
    first = world.serve(chat_turn(0, [1] * 50 + [2] * 300, 3))
    world.serve(chat_turn(1, [1] * 50 + [3] * 20, 3))
    again = world.serve(following(2, first, 7, 8))
    assert again.n_reused == 352


SPLIT_GPU = ContextLimits(
    4 * 600, 2, 512, is_unified=False, is_gpu=True, n_reserved=2, n_host_cache_tokens=4000
)


@pytest.mark.parametrize("n_shared", [0, 50])
@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_a_finished_conversation_stays_in_another_stream_of_a_graphics_device(
    n_shared: int, priority: Priority
) -> None:
    world = run(SPLIT_GPU)
    system = [9] * n_shared
    first = world.serve(chat_turn(0, [*system, *[1] * 300]))
    for number in (1, 2):
        world.serve(sequence(number, [*system, *[number + 1] * 50], 3, priority))
    assert not world.device.kept, "nothing was copied to main memory"
    again = following(3, first, 7)
    world.scheduler.add(again)
    world.turn()
    assert again.n_reused == n_shared + 302
    world.all()


def test_conversations_are_saved_in_the_pauses_of_a_graphics_device_whose_streams_are_taken() -> (
    None
):
    world = run(SPLIT_GPU)
    chats = [world.serve(chat_turn(number, [number + 1] * 300)) for number in range(6)]
    assert world.device.kept
    for number, chat in enumerate(chats, start=6):
        again = world.serve(following(number, chat, 7))
        assert again.n_reused == 302


def test_copies_that_cost_more_than_they_save_are_not_made() -> None:
    prices = CellPrices(compute_s=80e-6, save_s=50e-6, stream_s=1e-3)
    world = run(replace(SPLIT_GPU, prices=prices))
    first = world.serve(chat_turn(0, [1] * 300))
    for number in range(1, 100):
        world.serve(chat_turn(number, [10 + number] * 300))
    assert not world.device.kept, "to main memory never, at these prices"
    copies = [operation for operation in world.operations if isinstance(operation, CopyPrefix)]
    assert len(copies) < 60, "within the device no longer, since no conversation is continued"
    last = world.serve(chat_turn(100, [999] * 300))
    assert world.serve(following(101, last, 7)).n_reused == 302, "cells stay until others need them"
    assert world.serve(following(102, first, 7)).n_reused == 0, "the oldest were displaced"


def test_documents_leave_a_graphics_device_only_once_they_are_seen_to_be_read_again() -> None:
    world, n_documents = run(SPLIT_GPU), 8
    for number in range(n_documents):
        world.scheduler.add(sequence(number, prompt_over(number, 0)))
    world.all()
    assert not world.device.kept
    for step in (1, 2):
        for document in range(n_documents):
            number = step * n_documents + document
            world.serve(sequence(number, prompt_over(document, step)))
    n_once = SYSTEM + n_documents * (DOCUMENT + 3 * INSTRUCTION)
    n_again = world.device.n_computed - answer_tokens(world) - n_once
    assert n_again <= n_documents * DOCUMENT, "kept from the second reading on"


@pytest.mark.parametrize("is_unified", [True, False])
@pytest.mark.parametrize("n_parallel", [1, 8, 124, 128, 252])
def test_ids_for_all_seats_and_some_idle_ones_are_within_those_of_llama_cpp(
    n_parallel: int, is_unified: bool
) -> None:
    limits = ContextLimits(1 << 20, n_parallel, is_unified=is_unified, n_reserved=4)
    assert limits.n_slots <= limits.n_seq_ids <= 256


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=4, max_size=40))
def test_answers_of_various_lengths_are_decoded_in_one_pass(lengths: list[tuple[int, int]]) -> None:
    world = run(ContextLimits(8 * 512, 8, 512, is_unified=False, n_reserved=0))
    for number, (n_prompt, n_answer) in enumerate(lengths):
        world.scheduler.add(sequence(number, [number] * n_prompt, max_tokens=n_answer))
    while (turn := world.turn()).pieces:
        if all(len(piece.tokens) == 1 for piece in turn.pieces):
            ids = [piece.sequence.seq_id for piece in turn.pieces]
            n_gaps = sum(after != before + 1 for before, after in pairwise(ids))
            assert len(card.passes(turn)) == 1 + n_gaps
    assert not world.scheduler.has_work


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 30)), min_size=4, max_size=40),
    st.booleans(),
    st.booleans(),
)
def test_a_graphics_device_decodes_jobs_of_various_lengths_in_one_pass(
    lengths: list[tuple[int, int]], can_share: bool, is_window: bool
) -> None:
    limits = replace(GPU, can_share=can_share, prefers_free_streams=is_window, n_reserved=2)
    world = run(limits)
    for number, (n_prompt, n_answer) in enumerate(lengths):
        world.add(sequence(number, [number] * n_prompt, max_tokens=n_answer), is_checked=True)
    while (turn := world.turn()).pieces:
        if all(request.state == "decode" for request in world.scheduler.running):
            is_answers = len(turn.pieces) == turn.n_tokens == len(world.scheduler.running)
            assert not is_answers or len(card.passes(turn)) == 1
    assert world.answers == world.expected


@settings(max_examples=50, deadline=None)
@given(REQUESTS, st.lists(LIMITS.map(with_room), min_size=2, max_size=4), st.data())
def test_nothing_is_lost_or_changed_when_all_move_to_another_context(
    requests: list[tuple[int, int, list[int], int, Priority, int]],
    contexts: list[ContextLimits],
    data: st.DataObject,
) -> None:
    first, *others = [replace(context, can_share=True) for context in contexts]
    world = run(first)
    for number, (kind, n_shared, ids, max_tokens, priority, _) in enumerate(requests):
        world.add(sequence(number, [kind] * n_shared + ids, max_tokens, priority), is_checked=True)
    for limits in others:
        for _ in range(data.draw(st.integers(0, 6))):
            world.turn()
        n_running = len(world.scheduler.running)
        lost = data.draw(st.frozensets(st.integers(0, n_running), max_size=2))
        move(world, limits, lost)
    world.check()


def test_those_that_move_to_a_larger_context_compute_nothing_again() -> None:
    world = run(ContextLimits(3 * 64, 2, 64, is_unified=False))
    running = [sequence(number, [number + 1] * 30, 20) for number in range(2)]
    for request in running:
        world.scheduler.add(request)
    world.turn()
    world.add(sequence(7, [7] * 100, 20))
    chat = world.add(chat_turn(9, [9] * 10, 2))
    move(world, ContextLimits(3 * 128, 2, 64, is_unified=False))
    n_computed = world.device.n_computed
    assert {piece.sequence for piece in world.turn().pieces} == {*running, chat}
    assert world.device.n_computed == n_computed + 2 + 10


@settings(max_examples=60, deadline=None)
@given(REQUESTS, LIMITS.map(with_room), st.integers(1, 8))
def test_answers_without_an_end_outgrow_their_room_and_lose_nothing(
    requests: list[tuple[int, int, list[int], int, Priority, int]],
    limits: ContextLimits,
    times: int,
) -> None:
    world = run(limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "LIKELY_ANSWER_TOKENS", 8)
        for number, (_, _, ids, n_tokens, priority, _) in enumerate(requests):
            request = sequence(number, ids, n_tokens * times, priority)
            request.is_open = True
            world.add(request, is_checked=True)
        for _ in range(20_000):
            if not world.scheduler.has_work:
                break
            grown_if_need_be(world)
            world.turn()
    assert world.answers == world.expected


def grown_if_need_be(world: Run) -> None:
    """Go on in a larger context, as the loop does."""
    scheduler = world.scheduler
    most = scheduler.limits.n_cells_each or scheduler.limits.n_cells
    is_too_long = any(request.n_likely_tokens > most for request in scheduler.waiting)
    if scheduler.is_outgrown or is_too_long:
        move(world, replace(scheduler.limits, n_cells=2 * scheduler.limits.n_cells))


def move(world: Run, limits: ContextLimits, lost: frozenset[int] = frozenset()) -> None:
    world.device.apply_operations(world.scheduler.prepare_move(limits))
    arrangement = world.scheduler.slots.moved(limits)
    for move in arrangement.moves:  # what shares the cells of a lost one is lost with it
        lost |= {move.target} if move.donor in lost else set()
    world.device = world.device.moved(limits, arrangement.moves, lost)
    world.scheduler.move(arrangement, lost)


def test_a_card_is_busy_with_documents_and_chats_beside_them_do_not_wait() -> None:
    """By the prices of a real card: nothing is timed."""
    documents = card.Client("normal", 64)
    alone = card.simulate(documents)
    assert alone.per_minute >= 0.85 * card.needed_per_minute(documents, card.Prices())
    various = dataclasses.replace(documents, n_own=(60, 1100), n_answer=(8, 120))
    needed = card.needed_per_minute(various, card.Prices())
    alone = card.simulate(various)
    assert alone.per_minute >= 0.78 * needed
    assert "main memory" not in {what for what, seconds in alone.spent_s.items() if seconds}
    beside = card.simulate(various, card.CHATS)
    assert beside.per_minute >= 0.85 * alone.per_minute
    assert card.at(beside.first_s, 0.95) <= 0.5
    assert card.at(beside.gaps_s, 0.95) <= 0.12
