"""Decode loop of the owner thread: take requests, schedule, decode, pick tokens, report.

One thread owns the context; all others post messages to its inbox. It never waits while a sequence
can run. Each step's output is reported once, by one callback.
"""

from __future__ import annotations

import itertools
import queue
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.errors import BadRequest, EngineError, PromptTooLong
from paddock.engine.llama.library import CacheFull
from paddock.engine.profile.profile import Profile
from paddock.engine.sampling.picker import RowScan, RowScanner, start_masks
from paddock.engine.system.records import Struct, replace

from .context_limits import MOST_MTP_SEQUENCES
from .draft_model import DraftModel
from .drafts import MOST_MTP_TOKENS, DraftRequest, HiddenStates, LookupDrafter, PastAnswers
from .kv_cache import KvCache
from .mtp_head import MtpHead
from .numerics import fingerprint_numerics
from .running_request import DecodeRequest, RunningRequest, StepOutput
from .scheduler import Scheduler, StepSizer
from .scheduler_data import ScheduledStep, Sequence, SequencePiece, batch_arrays

# Interval of checks whether another layout would be quicker, while there is work.
RECHECK_LAYOUT_S = 2.0

# Requests of a job come one after the other; wait for the next, and at most so long for all of
# them, to choose a layout for all. One client alone has none, and waits with each document.
GATHER_PAUSE_S, GATHER_S = 0.005, 0.02


class CancelRequest(Struct, frozen=True):
    request_id: int


class WidenContext(Struct, frozen=True):
    """Allow longer requests; `request_id` is answered when that is done."""

    request_id: int
    n_ctx_tokens: int
    n_cells: int


class IdleWork(Struct, frozen=True):
    """Work for the owner thread while nothing else is to do."""

    run: Callable[[Callable[[], bool]], None]
    """Gets a function that returns whether it should end, since there is something else to do."""


class Shutdown(Struct, frozen=True):
    """End the loop."""


LoopMessage = DecodeRequest | CancelRequest | WidenContext | IdleWork | Shutdown


class DecodeLoop:
    """The owner thread's loop; `post` may be called from any thread."""

    def __init__(
        self,
        cache: KvCache[Any],
        on_step: Callable[[StepOutput], None],
        on_widened: Callable[[int], None] = lambda _: None,
        on_refused: Callable[[int, EngineError], None] = lambda _, error: None,
        draft_model: DraftModel | MtpHead | None = None,
        step_sizer: StepSizer | None = None,
        configuration: object = None,
    ) -> None:
        """`configuration`: all else by which this process computes, for fingerprints."""
        self._cache = cache
        self._step_sizer = step_sizer or StepSizer()
        self._model = cache.model
        self._scheduler = Scheduler(cache.limits)
        self._on_step = on_step
        self.on_started: Callable[[list[int]], None] = lambda _: None
        """Gets requests before their first step: the process may die of it."""
        self._on_widened = on_widened
        self._on_refused = on_refused
        self._draft_model = draft_model if isinstance(draft_model, DraftModel) else None
        self._mtp_head = draft_model if isinstance(draft_model, MtpHead) else None
        self._past_answers = PastAnswers()
        self._scanner = RowScanner(cache.n_idle_cores)
        # No SimpleQueue: CPython 3.11.7's waits for ever where a short timeout ends as it begins.
        self._inbox: queue.Queue[LoopMessage] = queue.Queue()
        self._answers: dict[int, RunningRequest] = {}
        self._widen: list[WidenContext] = []
        self._recheck_at = 0.0
        self._n_preempted_sent = 0
        self._unsent: StepOutput | None = None
        """The last step's output, until a graphics device has got the next step."""
        self._is_open = True
        self._configuration = configuration

    def post(self, message: LoopMessage) -> None:
        self._inbox.put(message)

    def use_profile(self, profile: Profile) -> None:
        self._cache.use_profile(profile)
        self._scheduler.limits = self._cache.limits

    def run(self) -> None:
        """Run until a `Shutdown` message.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        while self._is_open:
            self._take_messages()
            self._suit_context()
            step = self._scheduler.schedule(time.monotonic(), self._step_sizer.n_most_tokens)
            try:
                self._cache.apply_operations(step.operations)
            except CacheFull:
                self._start_over()
                continue
            if step.pieces:
                self._step(step)
            else:
                self._send_last()
        self._send_last()

    # Messages

    def _take_messages(self) -> None:
        """Empty the inbox; wait for a message only if there is nothing to do."""
        gather_until = wait_until = 0.0
        while self._is_open:
            is_idle = not self._scheduler.has_work and not self._widen
            if is_idle and self._inbox.empty():
                self._rest()
            left_s = wait_until - time.monotonic()
            if not is_idle and left_s <= 0 and self._inbox.empty():
                return
            try:
                message = self._inbox.get(timeout=None if is_idle else max(0.0, left_s))
            except queue.Empty:
                continue
            if isinstance(message, DecodeRequest) and message.priority == "batch":
                now = time.monotonic()
                gather_until = now + GATHER_S if is_idle else gather_until
                wait_until = min(gather_until, now + GATHER_PAUSE_S)
            self._take_message(message)

    def _rest(self) -> None:
        """Send and carry out what is left to do, and compact the cells, before waiting."""
        self._send_last()
        slots = self._scheduler.slots
        if self._cache.limits.is_gpu:  # not compacted: all idle cells would go through main memory
            while self._inbox.empty() and slots.save_next():
                self._cache.apply_operations(slots.take_operations())
            return
        try:
            self._cache.apply_operations(slots.take_operations())
            self._cache.tidy(slots)
        except CacheFull:
            self._start_over()

    def _take_message(self, message: LoopMessage) -> None:
        if isinstance(message, DecodeRequest):
            self._add(message)
        elif isinstance(message, CancelRequest):
            self._cancel(message.request_id)
        elif isinstance(message, WidenContext):
            self._widen.append(message)
        elif isinstance(message, IdleWork):
            is_busy = self._scheduler.has_work or bool(self._widen)
            message.run(lambda: is_busy or not self._inbox.empty())
        else:
            self._is_open = False

    def _add(self, request: DecodeRequest) -> None:
        n_room = request.shift_at - len(request.prompt) if request.shift_at else request.max_tokens
        max_tokens = max(1, min(request.max_tokens, n_room))
        sequence = Sequence(
            request.request_id,
            request.prompt,
            max_tokens,
            request.priority,
            is_open=request.is_open,
            has_images=bool(request.images),
        )
        if request.scores is not None:
            sequence.branches = request.scores.branches()
            if request.scores.is_echo:
                sequence.keeps_branch, sequence.prompt = True, request.prompt[:1]
                sequence.max_tokens += len(request.prompt) - 1
        drafter = None
        if self._may_draft(request):
            drafter = LookupDrafter(request.prompt, self._past_answers.like(request.prompt))
        self._answers[request.request_id] = RunningRequest(request, sequence, drafter)
        n_room = self._cache.limits.n_longest_tokens
        if not self._scheduler.has_work or sequence.n_likely_tokens > n_room:
            self._recheck_at = 0.0
        self._scheduler.add(sequence, time.monotonic())

    def _may_draft(self, request: DecodeRequest) -> bool:
        """Return whether drafts may be used; by default only if they cannot change answers.

        A configured draft model counts as a request for drafts. Of recurrent and hybrid models it
        is not measured whether answers change, and undoing a guess takes memory: on request only.
        """
        if not self._cache.limits.can_share:
            can_guess = self._mtp_head is not None and self._model.memory == "state"
            return can_guess and bool(request.drafts) and self._cache.allow_undo(MOST_MTP_TOKENS)
        if request.drafts is None:
            is_requested = self._draft_model is not None
            return is_requested or self._cache.agreement.drafts is not False
        return request.drafts

    def _cancel(self, request_id: int) -> None:
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            self._scheduler.end(answer.sequence)
            self._scheduler.is_outgrown = False  # the next step sets it if another one is too long
            answer.request.picker.close()

    def _suit_context(self) -> None:
        """Replace the context if another layout suits the work better.

        Checked when work begins, when a request is or becomes too long for the present context, and
        every few seconds. Running requests continue in the new one.
        """
        for message in self._widen:
            self._cache.planner.widen(message.n_ctx_tokens, message.n_cells)
            if self._draft_model is not None:
                self._draft_model.widen(message.n_cells)
            self._on_widened(message.request_id)
        self._widen.clear()
        now, scheduler = time.monotonic(), self._scheduler
        is_running = bool(scheduler.running)
        if is_running and now < self._recheck_at and not scheduler.is_outgrown:
            return
        self._recheck_at = now + RECHECK_LAYOUT_S
        slots = scheduler.slots
        slots.limit_host_cache(self._cache.n_host_cache_tokens(slots.host_cache.n_tokens))
        sequences = [answer.sequence for answer in self._answers.values()]
        is_suited = self._cache.planner.is_suited(
            self._cache.present, sequences, is_running=is_running
        )
        if scheduler.is_outgrown or not is_suited:
            self._remake(sequences)

    def _remake(self, sequences: list[Sequence]) -> None:
        """Replace the context; if memory fails, by one as large as before."""
        for _ in range(2):
            plan = self._cache.planner.plan(sequences)
            if not self._cache.planner.can_be_made(plan, self._cache.limits):
                break
            self._cache.apply_operations(self._scheduler.prepare_move(plan.limits))
            moved = self._scheduler.slots.moved
            migration, lost, failure = self._cache.replace_context(plan, moved)
            self._scheduler.move(migration, lost)
            if failure is None:
                return
            print(f"no memory for a larger context: {failure}", file=sys.stderr, flush=True)
        # End requests that do not fit, since a larger context cannot be made
        self._send_last()
        output = StepOutput()
        for answer in tuple(self._answers.values()):
            n_room = self._cache.limits.n_longest_tokens
            if answer.sequence.n_likely_tokens <= n_room:
                continue
            if answer.n_answered:
                answer.ended = "length"
                self._finish(answer, output)
            else:
                request = answer.request
                n_reserved = answer.sequence.n_likely_tokens - len(answer.sequence.prompt)
                error = PromptTooLong(len(request.prompt), n_reserved, n_room)
                self._cancel(request.request_id)
                self._on_refused(request.request_id, error)
        self._scheduler.is_outgrown = False
        if output.done:
            output.is_urgent = True
            self._on_step(output)

    # One step

    def _step(self, step: ScheduledStep) -> None:
        output = StepOutput(n_tokens=step.n_tokens, n_sequences=len(step.pieces))
        now = time.monotonic()
        ids = [piece.sequence.request_id for piece in step.pieces]
        new = [request_id for request_id in ids if self._answers[request_id].start(now)]
        if new:
            self.on_started(new)
        computed = self._compute(step, output)
        if computed is None:
            return
        text_step, logits = computed
        if logits is not None:
            self._pick(text_step, logits, output)
        self._guess(text_step)
        output.progressed = ids
        self._count(output)
        is_job = all(piece.sequence.priority == "batch" for piece in step.pieces)
        output.is_urgent |= bool(output.done)
        output.is_read = not is_job
        self._unsent = output
        if not self._scheduler.limits.is_gpu or not self._scheduler.has_work:
            self._send_last()

    def _compute(
        self, step: ScheduledStep, output: StepOutput
    ) -> tuple[ScheduledStep, Logits | None] | None:
        """Decode a step; return it without its images, and the logits if rows are wanted.

        None: llama.cpp lacked cells, of which some are free now. The last step's output is sent
        while a graphics device computes this one.
        """
        n_tokens = step.n_tokens
        if not self._cache.limits.is_gpu:
            self._start_masks(step)
        if self._mtp_head is not None:
            running = [self._answers[sequence.request_id] for sequence in self._scheduler.running]
            has_drafts = any(answer.has_model_guesses for answer in running)
            can_guess = self._mtp_head.is_open and len(running) <= MOST_MTP_SEQUENCES
            self._cache.context.keep_states(can_guess and has_drafts)
        began = time.perf_counter()
        try:
            text_step = self._decode_images(step)
            n_rows = self._decode(text_step) if text_step.pieces else 0
        except CacheFull:
            self._scheduler.slots.free_branches(step.pieces)
            self._free_cells()
            return None
        finally:
            # A graphics device has only received the step, and computes it meanwhile.
            self._send_last()
        if self._cache.limits.is_gpu:
            self._start_masks(step)
        self._scheduler.computed(
            text_step, self._cache.agreement, self._cache.context.fewer_threads
        )
        logits = None
        if n_rows:
            logits = self._cache.context.logits(n_rows)  # waits for the device
        else:
            self._cache.wait()
        output.step_s = time.perf_counter() - began
        self._step_sizer.note(n_tokens, output.step_s)
        has_branches = any(piece.branch is not None for piece in step.pieces)
        if n_rows == n_tokens and not has_branches:  # answers and their drafts
            n_drafts = n_tokens - len(step.pieces)
            self._cache.draft_prices.note_step(len(step.pieces), n_drafts, output.step_s)
        self._cache.n_computed += n_tokens if text_step is step else text_step.n_tokens
        return text_step, logits

    def _count(self, output: StepOutput) -> None:
        """Note what waits, the cells in use, and what was preempted since the last step."""
        output.n_waiting = len(self._scheduler.waiting)
        output.n_cells_used = self._scheduler.slots.cells.n_used
        output.n_cells_shared = self._scheduler.slots.cells.n_shared
        output.n_preempted = self._scheduler.n_preempted - self._n_preempted_sent
        self._n_preempted_sent = self._scheduler.n_preempted

    def _start_masks(self, step: ScheduledStep) -> None:
        pickers = [
            self._answers[p.sequence.request_id].request.picker for p in step.pieces if p.n_rows
        ]
        start_masks(pickers, has_idle_cores=self._cache.n_idle_cores > 1)

    def _send_last(self) -> None:
        output = self._unsent
        self._unsent = None
        if output is None:
            return
        for request_id in output.progressed:
            answer = self._answers.get(request_id)
            if answer is not None:
                answer.write(self._model, output)
        self._on_step(output)

    def _free_cells(self) -> None:
        """Preempt the youngest sequence, since llama.cpp finds fewer free cells than we count.

        One that runs alone starts over in an empty cache, and is refused if it does not fit there.
        """
        if len(self._scheduler.running) > 1:
            self._scheduler.preempt_youngest()
            return
        (alone,) = self._scheduler.running
        answer = self._answers[alone.request_id]
        if not answer.has_started_over:
            answer.has_started_over = True
            self._start_over()
            return
        n_tokens = len(alone.prompt) + len(alone.answer)
        self._cancel(alone.request_id)
        why = f"{n_tokens} tokens do not fit into the model's cache, although nothing else runs"
        self._on_refused(alone.request_id, BadRequest(why))

    def _start_over(self) -> None:
        self._scheduler.start_over()
        self._cache.clear()

    def _decode_images(self, step: ScheduledStep) -> ScheduledStep:
        """Compute the step's rows of images, each image by itself; return the rest of the step."""
        seen = tuple(piece for piece in step.pieces if piece.is_image)
        if not seen:
            return step
        for piece in seen:
            sequence = piece.sequence
            images = self._answers[sequence.request_id].request.images
            placed = max(
                (image for image in images if image.start <= piece.start),
                key=lambda image: image.start,
            )
            own = slice(piece.start - placed.start, piece.start - placed.start + len(piece.tokens))
            image, start = placed.piece, sequence.position(placed.start)
            pos = image.positions_from(start)[:, own]
            self._cache.context.decode_image(
                image.rows[own], pos, sequence.seq_id, is_causal=image.is_causal
            )
            self._cache.n_computed += len(piece.tokens)
            computed = ScheduledStep((), (piece,), step.prompt_budget)
            self._scheduler.computed(computed, self._cache.agreement)  # even if no cells are left
        return replace(step, pieces=tuple(p for p in step.pieces if not p.is_image))

    def _decode(self, step: ScheduledStep) -> int:
        rows = [
            (piece.seq_id, piece.sequence.position(piece.start), piece.tokens, piece.n_rows)
            for piece in step.pieces
        ]
        if step.padding and not self._cache.context.keeps_states:  # which are read by pieces
            for padding in step.padding:
                filler = np.zeros(padding.n_tokens, np.int32)
                rows.append((padding.seq_id, padding.position, filler, 0))
            rows.sort(key=lambda row: row[:2])
        seq_ids, starts, tokens, n_rows = zip(*rows, strict=True)
        return self._cache.context.decode(*batch_arrays(tokens, starts, seq_ids, n_rows))

    def _pick(self, step: ScheduledStep, logits: Logits, output: StepOutput) -> None:
        pieces = [piece for piece in step.pieces if piece.n_rows]
        ends = itertools.accumulate(piece.n_rows for piece in pieces)
        picked: list[tuple[RunningRequest, SequencePiece, Logits]] = []
        for piece, end in zip(pieces, ends, strict=True):
            answer = self._answers[piece.sequence.request_id]
            rows = logits[end - piece.n_rows : end]
            if answer.is_picked(piece):
                picked.append((answer, piece, rows))
            elif self._score(answer, piece, rows, output):
                picked.append((answer, replace(piece, n_rows=1), rows[-1:]))
        firsts = [(answer.request.picker, rows[0]) for answer, _, rows in picked]
        scans = self._scanner.scan(firsts)
        n_ahead = self._n_ahead()
        for (answer, piece, rows), scan in zip(picked, scans, strict=True):
            self._pick_piece(answer, piece, rows, scan, n_ahead, output)

    def _score(
        self, answer: RunningRequest, piece: SequencePiece, rows: Logits, output: StepOutput
    ) -> bool:
        """Take rows of given tokens; return whether a token is to be picked from the last row."""
        sequence, branch = piece.sequence, piece.branch
        answer.score(piece, rows)
        if branch is not None:
            n_left = len(sequence.prompt) + len(branch.tokens) - piece.start
            if n_left == len(piece.tokens):
                self._scheduler.end_branch(sequence, branch)
        if sequence.branches:
            return False
        answer.end_scores(output)
        if answer.ended:
            self._finish(answer, output)
        return not answer.ended

    def _pick_piece(
        self,
        answer: RunningRequest,
        piece: SequencePiece,
        rows: Logits,
        scan: RowScan,
        n_ahead: int,
        output: StepOutput,
    ) -> None:
        """Pick tokens along the drafts as long as these agree, and up to `n_ahead` forced ones."""
        n_drafts = piece.n_rows - 1
        n_accepted = 0
        picker = answer.request.picker
        drafts = piece.tokens[len(piece.tokens) - n_drafts :].tolist() if n_drafts else []
        if not answer.first_token_at:
            output.is_urgent |= answer.request.priority != "batch"
        for number in range(piece.n_rows):
            choice = picker.pick(rows[number], None if number else scan)
            answer.accept(choice, self._model, output)
            is_guessed = number < n_drafts and choice.token == drafts[number]
            n_accepted += is_guessed
            if answer.ended or not is_guessed:
                break
        if n_drafts:
            answer.learn(n_drafts, n_accepted, output)
        if not answer.ended and n_ahead and picker.constrained is not None:
            n_most = min(n_ahead, self._scheduler.n_free_for(piece.sequence) - 1)
            answer.follow(n_most, self._model, output)
        if answer.must_shift:  # nothing of it stays in the cache
            request = answer.request
            answer.n_shifted += self._scheduler.shift(
                answer.sequence,
                request.n_keep_tokens,
                request.shift_at,
                request.max_tokens - answer.n_answered,
            )
            return
        if n_drafts > n_accepted:
            self._scheduler.reject(piece.sequence, n_drafts - n_accepted)
        if answer.ended:
            self._finish(answer, output)

    def _finish(self, answer: RunningRequest, output: StepOutput) -> None:
        marks = self._scheduler.slots.cells.marks(answer.sequence.seq_id)
        n_after = 0
        if answer.n_reused and not self._cache.agreement.company:
            n_after = len(answer.request.prompt) - answer.n_reused
        found = fingerprint_numerics(self._configuration, self._cache.limits, marks, n_after)
        answer.finish(self._model, output, found)
        self._scheduler.end(answer.sequence)
        self._answers.pop(answer.request.request_id)
        answer.request.picker.close()

    def _n_ahead(self) -> int:
        """Return how many tokens after its newest one each answer may have in the next step."""
        n_answers = sum(sequence.state == "decode" for sequence in self._scheduler.running)
        if any(sequence.state == "score" for sequence in self._scheduler.running):
            return 0  # the rows are theirs
        most = max(0, self._cache.limits.most_drafts - n_answers) // max(1, n_answers)
        # On a graphics device the passes of sequences with more tokens may cost more than steps.
        return most if most and self._cache.draft_price(max(1, n_answers)) < 1 else 0

    def _guess(self, step: ScheduledStep) -> None:
        """Set the drafts of all answers after a step; the more answers, the fewer tokens each."""
        if not any(
            answer.drafter is not None or answer.request.picker.constrained is not None
            for answer in self._answers.values()
        ):
            return
        most, limits = self._n_ahead(), self._cache.limits
        most = most if limits.can_share else min(most, limits.n_undo_tokens)
        if not most and self._draft_model is None and self._mtp_head is None:
            return
        running = [sequence for sequence in self._scheduler.running if sequence.state == "decode"]
        answers = {sequence.request_id: self._answers[sequence.request_id] for sequence in running}
        price = self._cache.draft_price(len(answers)) if answers else 1.0
        for answer in answers.values():
            n_forced = answer.sequence.n_pending - 1
            answer.sequence.drafts[:] = answer.guess(most - n_forced, price)
        for request_id, guess in self._model_guesses(step, answers, most, price).items():
            answers[request_id].sequence.drafts[:] = guess

    def _model_guesses(
        self, step: ScheduledStep, answers: dict[int, RunningRequest], most: int, price: float
    ) -> dict[int, list[int]]:
        model, head = self._draft_model, self._mtp_head
        if model is not None:
            requests = {
                request_id: DraftRequest(drafter.tokens, n_ahead)
                for request_id, (drafter, n_ahead) in _worth_guessing(answers, most, price).items()
            }
            return model.guess(requests, answers)
        context = self._cache.context
        if head is None or not context.keeps_states:
            return {}
        drafters = _worth_guessing(answers, most, price + self._cache.planner.options.mtp_price)
        ahead = {request_id: n_ahead for request_id, (_, n_ahead) in drafters.items()}
        present = {sequence.request_id for sequence in self._scheduler.running}
        return head.guess(self._hidden_states(step), ahead, present, context.options)

    def _hidden_states(self, step: ScheduledStep) -> list[HiddenStates]:
        if not step.pieces:
            return []
        states = self._cache.context.states(step.n_tokens)
        end = 0
        found = []
        for piece in step.pieces:
            start, end = end, end + len(piece.tokens)
            n_right = min(len(piece.tokens), piece.sequence.n_computed - piece.start)
            answer = self._answers.get(piece.sequence.request_id)
            if answer and answer.drafter and answer.has_model_guesses and n_right > 0:
                tokens = answer.drafter.tokens
                request_id = answer.request.request_id
                rows = states[start : start + n_right]
                found.append(HiddenStates(request_id, tokens, piece.start, rows))
        return found


def _worth_guessing(
    answers: dict[int, RunningRequest], most: int, price: float
) -> dict[int, tuple[LookupDrafter, int]]:
    drafters = {}
    for request_id, answer in answers.items():
        if answer.drafter and answer.has_model_guesses and not answer.sequence.drafts:
            n_most = min(most - (answer.sequence.n_pending - 1), answer.n_left)
            n_ahead = answer.drafter.n_worth(n_most, price)
            if n_ahead:
                drafters[request_id] = answer.drafter, n_ahead
    return drafters
