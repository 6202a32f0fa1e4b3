"""Decode loop of the owner thread: take requests, schedule, decode, pick tokens, report.

One thread owns the context; all others post to its inbox. It never waits while a sequence can run.
Each step's output is sent once, through one function.
"""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.errors import BadRequest, EngineError, PromptTooLong
from paddock.engine.llama.diagnostics import CacheFull
from paddock.engine.llama.llama_context import Context
from paddock.engine.sampling.picker import RowScan, RowScanner, start_masks

from .batch import ScheduledStep, Sequence, SequencePiece
from .drafts import DraftModel, DraftRequest, LookupDrafter, PastAnswers
from .kv_cache import KvCache
from .running_request import (
    DecodeRequest,
    RunningRequest,
    StepOutput,
    drop_image_cells,
    prefill_images,
)
from .scheduler import Scheduler, StepSizer

# So many greedy answers let the device choose their tokens, and so many go on with it. Copying and
# reading logits takes the host 25 µs a row at 151,936 tokens, a change a new plan of the graph; and
# a sequence may have one row only, so that nothing is guessed: with 25 and more it is not anyway.
CHOOSE_ON_DEVICE_FROM, CHOOSE_ON_DEVICE_TO = 32, 16

# While many wait, it is asked so often whether another layout would be quicker.
RECHECK_LAYOUT_S = 2.0

# Requests of a job come one after the other; a layout is chosen for all of them.
GATHER_S = 0.02


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A request that nobody waits for any more."""

    request_id: int


@dataclass(frozen=True, slots=True)
class WidenContext:
    """A longer context is wanted; `request_id` is told when it is there."""

    request_id: int
    n_ctx_tokens: int
    n_cells: int


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The end of the loop."""


LoopMessage = DecodeRequest | CancelRequest | WidenContext | Shutdown


class DecodeLoop:
    """Runs in the owner thread; `post` may be called from any other."""

    def __init__(
        self,
        cache: KvCache,
        tell: Callable[[StepOutput], None],
        tell_widened: Callable[[int], None] = lambda _: None,
        tell_refused: Callable[[int, EngineError], None] = lambda _, error: None,
        draft_model: DraftModel | None = None,
        pace: StepSizer | None = None,
    ) -> None:
        self._cache = cache
        self._pace = pace or StepSizer()
        self._model = cache.model
        self._scheduler = Scheduler(cache.limits)
        self._tell = tell
        self._tell_widened = tell_widened
        self._tell_refused = tell_refused
        self._draft_model = draft_model
        self._past = PastAnswers()
        self._looker = RowScanner(cache.n_idle_cores)
        self._may_choose_on_device = cache.limits.is_gpu
        self._inbox: queue.SimpleQueue[LoopMessage] = queue.SimpleQueue()
        self._answers: dict[int, RunningRequest] = {}
        self._widen: list[WidenContext] = []
        self._ask_at = 0.0
        self._n_preempted_told = 0
        self._untold: StepOutput | None = None
        """The last step's, while a graphics device is given the next one."""
        self._is_open = True

    def post(self, post: LoopMessage) -> None:
        """Hand something to the owner thread."""
        self._inbox.put(post)

    def run(self) -> None:
        """Work until `Shutdown` comes.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        while self._is_open:
            self._take_posts()
            self._suit_context()
            if not self._scheduler.has_work:
                self._cache.tidy(self._scheduler.places)
            turn = self._scheduler.schedule(time.monotonic(), self._pace.n_most_tokens)
            try:
                self._cache.operate(turn.operations)
            except CacheFull:
                self._start_over()
                continue
            if turn.pieces:
                self._step(turn)
            else:
                self._tell_last()
        self._tell_last()

    # What comes in

    def _take_posts(self) -> None:
        """Empty the inbox; wait for a post only if there is nothing to do."""
        gather_until = 0.0
        while self._is_open:
            is_idle = not self._scheduler.has_work and not self._widen
            left_s = gather_until - time.monotonic()
            try:
                if is_idle or left_s <= 0:
                    post = self._inbox.get(block=is_idle)
                else:
                    post = self._inbox.get(timeout=left_s)
            except queue.Empty:
                if left_s <= 0:
                    return
                continue
            if is_idle and isinstance(post, DecodeRequest) and post.priority == "batch":
                gather_until = time.monotonic() + GATHER_S
            self._take(post)

    def _take(self, post: LoopMessage) -> None:
        if isinstance(post, DecodeRequest):
            self._begin(post)
        elif isinstance(post, CancelRequest):
            self._give_up(post.request_id)
        elif isinstance(post, WidenContext):
            self._widen.append(post)
        else:
            self._is_open = False

    def _begin(self, job: DecodeRequest) -> None:
        n_room = job.shift_at - len(job.prompt) if job.shift_at else job.max_tokens
        max_tokens = min(job.max_tokens, n_room)
        sequence = Sequence(
            job.request_id, job.prompt, max_tokens, job.priority, is_open=job.is_open
        )
        drafter = None
        if self._may_draft(job):
            drafter = LookupDrafter(job.prompt, self._past.like(job.prompt))
        self._answers[job.request_id] = RunningRequest(job, sequence, drafter)
        if not self._scheduler.has_work or not self._cache.fits(sequence):
            self._ask_at = 0.0
        self._scheduler.add(sequence, time.monotonic())

    def _may_draft(self, job: DecodeRequest) -> bool:
        """Return whether tokens may be guessed ahead; unasked only where answers stay the same.

        Who names a draft model has asked.
        """
        if not self._cache.limits.can_share:
            return False
        if job.drafts is None:
            is_asked = self._draft_model is not None
            return is_asked or self._cache.drafts_keep_answers is not False
        return job.drafts

    def _give_up(self, request_id: int) -> None:
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            self._scheduler.end(answer.sequence)
            answer.job.picker.close()

    def _suit_context(self) -> None:
        """Put another context over the same weights where the work asks for one.

        That is looked at when work begins, when a request is too long for the present one or has
        become so, and every few seconds. Those that run go on in the new one.
        """
        for one in self._widen:
            self._cache.widen(one.n_ctx_tokens, one.n_cells)
            if self._draft_model is not None:
                self._draft_model.widen(one.n_cells)
            self._tell_widened(one.request_id)
        self._widen.clear()
        now, scheduler = time.monotonic(), self._scheduler
        is_running = bool(scheduler.running)
        if is_running and now < self._ask_at and not scheduler.is_outgrown:
            return
        self._ask_at = now + RECHECK_LAYOUT_S
        places = scheduler.places
        places.limit_host_cache(self._cache.n_shelf_tokens(places.shelf.n_tokens))
        sequences = [one.sequence for one in self._answers.values()]
        is_suited = self._cache.suits(sequences, is_running=is_running)
        if scheduler.is_outgrown or not is_suited:
            self._remake(sequences)

    def _remake(self, sequences: list[Sequence]) -> None:
        """Put another context in the place of this one; a smaller one where memory fails."""
        for _ in range(2):
            plan = self._cache.plan(sequences)
            if not self._cache.can_be_made(plan):
                break
            self._cache.operate(self._scheduler.prepare_move(plan.limits))
            arrangement, lost, failure = self._cache.remake(plan, self._scheduler.places.moved)
            self._scheduler.move(arrangement, lost)
            if failure is None:
                return
            print(f"no room for a longer context: {failure}", file=sys.stderr, flush=True)
        self._end_too_long()

    def _end_too_long(self) -> None:
        """End what does not fit, since a larger context cannot be made."""
        self._tell_last()
        told = StepOutput()
        for answer in tuple(self._answers.values()):
            if self._cache.fits(answer.sequence):
                continue
            if answer.n_answered:
                answer.ended = "length"
                self._finish(answer, told)
            else:
                job = answer.job
                n_reserved = answer.sequence.n_likely_tokens - len(answer.sequence.prompt)
                error = PromptTooLong(len(job.prompt), n_reserved, self._n_ctx_tokens)
                self._give_up(job.request_id)
                self._tell_refused(job.request_id, error)
        if told.done:
            told.is_urgent = True
            self._tell(told)

    @property
    def _n_ctx_tokens(self) -> int:
        """The longest request that the present context can hold."""
        return self._cache.limits.n_cells_each or self._cache.limits.n_cells

    # One step

    def _step(self, turn: ScheduledStep) -> None:
        told = StepOutput(n_tokens=turn.n_tokens, n_sequences=len(turn.pieces))
        self._note_started(turn, told)
        pickers = [self._answers[p.sequence.request_id].job.picker for p in turn.pieces if p.n_rows]
        start_masks(pickers, has_idle_cores=self._cache.n_idle_cores > 1)
        self._suit_choice(turn)
        began = time.perf_counter()
        try:
            seen = self._seen(turn)
            n_rows = self._decode(self._cache.context, seen.pieces) if seen.pieces else 0
        except CacheFull:
            drop_image_cells(self._cache.context, turn.pieces)
            self._make_way()
            return
        finally:
            # A graphics device has only been handed the step, and computes it meanwhile.
            self._tell_last()
        logits = self._cache.context.logits(n_rows) if n_rows else None  # waits for the device
        told.step_s = time.perf_counter() - began
        self._pace.note(turn.n_tokens, told.step_s)
        self._cache.n_computed += turn.n_tokens
        self._scheduler.computed(turn)
        if logits is not None:
            self._pick(seen, logits, told)
        self._guess()
        self._fill(turn, told)
        self._untold = told
        if not self._scheduler.limits.is_gpu or not self._scheduler.has_work:
            self._tell_last()

    def _suit_choice(self, turn: ScheduledStep) -> None:
        """Choose tokens on the device while many answers want the likeliest and nothing else."""
        context, running = self._cache.context, self._scheduler.running
        is_on = context.chooses_on_device
        least = CHOOSE_ON_DEVICE_TO if is_on else CHOOSE_ON_DEVICE_FROM
        is_wanted = (
            self._may_choose_on_device
            and len(running) >= least
            and not any(piece.n_drafts for piece in turn.pieces)
            and not any(self._answers[one.request_id].job.picker.needs_logits for one in running)
        )
        if is_wanted != is_on:
            self._may_choose_on_device = context.choose_on_device(is_wanted) or is_on

    def _tell_last(self) -> None:
        """Send what the last step has to say, if that has not been done."""
        told, self._untold = self._untold, None
        if told is not None:
            self._tell(told)

    def _make_way(self) -> None:
        """Put the youngest back, since llama.cpp finds no room where the books have some.

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
        self._give_up(alone.request_id)
        why = f"{n_tokens} tokens do not fit into the model's cache, although nothing else runs"
        self._tell_refused(alone.request_id, BadRequest(why))

    def _start_over(self) -> None:
        """Empty the cache, whose cells the books do not know any more; what ran is put back."""
        self._scheduler.start_over()
        self._cache.clear()

    def _note_started(self, turn: ScheduledStep, told: StepOutput) -> None:
        now = time.monotonic()
        for piece in turn.pieces:
            request_id = piece.sequence.request_id
            if self._answers[request_id].start(now):
                told.started.append(request_id)

    def _seen(self, turn: ScheduledStep) -> ScheduledStep:
        """Compute the turn's images; gives what is left for its batch."""
        images = {
            answer.job.request_id: answer.job.images
            for answer in self._answers.values()
            if answer.job.images
        }
        if not images:
            return turn
        left = []
        for piece in turn.pieces:
            own = images.get(piece.sequence.request_id, ())
            left.append(prefill_images(self._cache.context, piece, own))
        return replace(turn, pieces=tuple(piece for piece in left if len(piece.tokens)))

    @staticmethod
    def _decode(context: Context, pieces: tuple[SequencePiece, ...]) -> int:
        lengths = np.array([len(piece.tokens) for piece in pieces])
        n_rows = np.array([piece.n_rows for piece in pieces])
        ends = np.cumsum(lengths)
        # Of each piece, the last `n_rows` tokens are wanted.
        within = np.arange(int(ends[-1])) - np.repeat(ends - n_rows, lengths)
        return context.decode(
            np.concatenate([piece.tokens for piece in pieces]),
            np.arange(int(ends[-1]), dtype=np.int32)
            - np.repeat(ends - lengths - [piece.pos for piece in pieces], lengths).astype(np.int32),
            np.repeat(np.array([p.sequence.seq_id for p in pieces], np.int32), lengths),
            (within >= 0).astype(np.int8),
        )

    def _pick(self, turn: ScheduledStep, logits: Logits, told: StepOutput) -> None:
        asked: list[tuple[RunningRequest, SequencePiece, Logits]] = []
        row, end, ends = 0, 0, []
        for piece in turn.pieces:
            end += len(piece.tokens)
            if piece.n_rows:
                ends.append(end - 1)
                rows = logits[row : row + piece.n_rows]
                asked.append((self._answers[piece.sequence.request_id], piece, rows))
                row += piece.n_rows
        context = self._cache.context
        if context.chooses_on_device:
            looks = [RowScan(token) for token in context.chosen(ends)]
        else:
            looks = self._looker.look([(answer.job.picker, rows[0]) for answer, _, rows in asked])
        for (answer, piece, rows), look in zip(asked, looks, strict=True):
            self._pick_piece(answer, piece, rows, look, told)

    def _pick_piece(
        self,
        answer: RunningRequest,
        piece: SequencePiece,
        rows: Logits,
        look: RowScan,
        told: StepOutput,
    ) -> None:
        """Choose along the drafts as long as they are what would have been said."""
        n_drafts, n_accepted = piece.n_drafts, 0
        drafts = piece.tokens[len(piece.tokens) - n_drafts :].tolist() if n_drafts else []
        for number, row in enumerate(rows):
            choice = answer.job.picker.choose(row, None if number else look)
            told.is_urgent |= not answer.first_token_at and answer.job.priority != "batch"
            answer.accept(choice, self._model, told)
            is_guessed = number < n_drafts and choice.token == drafts[number]
            n_accepted += is_guessed
            if answer.ended or not is_guessed:
                break
        answer.learn(n_drafts, n_accepted, told)
        if not answer.ended:
            n_most = min(self._n_ahead(), self._scheduler.n_free_for(piece.sequence) - 1)
            answer.follow(n_most, self._model, told)
        if answer.must_shift:  # nothing of it stays in the cache
            self._shift(answer)
            return
        self._scheduler.reject(piece.sequence, n_drafts - n_accepted)
        if answer.ended:
            self._finish(answer, told)

    def _shift(self, answer: RunningRequest) -> None:
        job = answer.job
        n_left = job.max_tokens - answer.n_answered
        answer.n_shifted += self._scheduler.shift(
            answer.sequence, job.n_keep_tokens, job.shift_at, n_left
        )

    def _finish(self, answer: RunningRequest, told: StepOutput) -> None:
        answer.finish(told)
        self._scheduler.end(answer.sequence)
        self._answers.pop(answer.job.request_id)
        answer.job.picker.close()

    def _n_ahead(self) -> int:
        """Return how many tokens beyond the newest one each answer may have in the next step."""
        if self._cache.context.chooses_on_device:
            return 0
        n_answers = sum(one.state == "decode" for one in self._scheduler.running)
        return max(0, self._cache.limits.most_drafts - n_answers) // max(1, n_answers)

    def _guess(self) -> None:
        """Guess ahead for those that answer, the fewer tokens the more of them there are."""
        running = [one for one in self._scheduler.running if one.state == "decode"]
        answering = [self._answers[one.request_id] for one in running]
        if not answering:
            return
        most = self._n_ahead()
        price = self._cache.draft_price(len(answering))
        for answer in answering:
            n_followed = answer.sequence.n_pending - 1
            answer.sequence.drafts[:] = answer.guess(most - n_followed, price)
        if self._draft_model is not None:
            self._guess_with(self._draft_model, answering, most, price)

    @staticmethod
    def _guess_with(
        model: DraftModel, answering: list[RunningRequest], most: int, price: float
    ) -> None:
        """Let the draft model guess where nothing else did."""
        wishes = {}
        for answer in answering:
            drafter = answer.drafter
            if drafter is not None and not answer.sequence.drafts:
                n_most = most - (answer.sequence.n_pending - 1)
                n_ahead = drafter.n_worth(min(n_most, answer.n_left), price)
                if n_ahead:
                    wishes[answer.job.request_id] = DraftRequest(drafter.tokens, n_ahead)
        living = {answer.job.request_id for answer in answering}
        guesses = model.guess(wishes, living)
        for answer in answering:
            if answer.job.request_id in guesses:
                answer.sequence.drafts[:] = guesses[answer.job.request_id]

    def _fill(self, turn: ScheduledStep, told: StepOutput) -> None:
        told.progressed = [piece.sequence.request_id for piece in turn.pieces]
        told.n_waiting = len(self._scheduler.waiting)
        told.n_cells_used = self._scheduler.places.cells.n_used
        told.n_cells_shared = self._scheduler.places.cells.n_shared
        told.n_preempted = self._scheduler.n_preempted - self._n_preempted_told
        self._n_preempted_told = self._scheduler.n_preempted
        is_job = all(piece.sequence.priority == "batch" for piece in turn.pieces)
        told.is_urgent |= bool(told.started or told.done)
        told.is_read = not is_job
