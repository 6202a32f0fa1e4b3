"""The owner thread's work: take requests, let the scheduler decide, decode, pick, tell.

One thread owns the context; everybody else posts to its inbox. It never waits while a sequence
can run. What it tells goes out once a turn, through one function.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.dialogue.listener import Heard, Listener
from paddock.engine.native.context import Context
from paddock.engine.native.faults import CacheFull
from paddock.engine.request import DoneReason, Priority
from paddock.engine.sampling.picker import Choice, Picker, prepare

from .scheduler import Copy, Limits, Piece, Scheduler, Trim, Turn
from .sequence import Sequence


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is ready for the scheduler: counted, and sure to fit."""

    request_id: int
    prompt: Tokens
    max_tokens: int
    priority: Priority
    picker: Picker
    listener: Listener
    shown: frozenset[int] = frozenset()
    """Control tokens that the listener wants to read as text."""
    drafts: bool = True


@dataclass(frozen=True, slots=True)
class Cancel:
    """A request that nobody waits for any more."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Close:
    """The end of the loop."""


Post = Job | Cancel | Close


@dataclass(slots=True)
class Told:
    """What one turn has to say: lists that go into one frame."""

    started: list[int] = field(default_factory=list)
    progressed: list[int] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """Fields of `request.Chunk`, and `id`; what is empty is left out."""
    done: list[dict[str, Any]] = field(default_factory=list)
    """`id`, `reason`, `usage`, `is_shortened`."""
    n_tokens: int = 0
    """Size of the batch that was decoded."""

    def as_head(self) -> dict[str, Any]:
        """Give a frame's head; `dataclasses.asdict` would take 0.1 ms to copy what is ours."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True, eq=False)
class _Answer:
    """What the loop knows of a running request besides its sequence."""

    job: Job
    sequence: Sequence
    queued_at: float
    started_at: float = 0.0
    first_token_at: float = 0.0
    n_answered: int = 0
    n_reused: int = 0


class Loop:
    """Runs in the owner thread; `post` may be called from any other."""

    def __init__(self, context: Context, limits: Limits, tell: Callable[[Told], None]) -> None:
        self._context = context
        self._model = context.model
        self._scheduler = Scheduler(limits)
        self._tell = tell
        self._inbox: queue.SimpleQueue[Post] = queue.SimpleQueue()
        self._answers: dict[int, _Answer] = {}
        self._is_open = True

    def post(self, post: Post) -> None:
        """Hand something to the owner thread."""
        self._inbox.put(post)

    def run(self) -> None:
        """Work until `Close` comes.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        while self._is_open:
            self._take_posts()
            turn = self._scheduler.next_turn()
            self._operate(turn)
            if turn.pieces:
                self._step(turn)

    def _take_posts(self) -> None:
        """Empty the inbox; wait for a post only if there is nothing to do."""
        while True:
            try:
                post = self._inbox.get(block=not self._scheduler.has_work and self._is_open)
            except queue.Empty:
                return
            if isinstance(post, Job):
                self._begin(post)
            elif isinstance(post, Cancel):
                self._give_up(post.request_id)
            else:
                self._is_open = False
                return

    def _begin(self, job: Job) -> None:
        sequence = Sequence(job.request_id, job.prompt, job.max_tokens, job.priority)
        answer = _Answer(job, sequence, time.monotonic())
        self._answers[job.request_id] = answer
        self._scheduler.add(sequence)

    def _give_up(self, request_id: int) -> None:
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            self._scheduler.end(answer.sequence)
            answer.job.picker.close()

    def _operate(self, turn: Turn) -> None:
        for operation in turn.operations:
            if isinstance(operation, Trim):
                self._context.trim(operation.seq_id, operation.n_keep)
            elif isinstance(operation, Copy):
                self._context.copy(operation.source, operation.target, operation.n_tokens)

    def _step(self, turn: Turn) -> None:
        told = Told(n_tokens=turn.n_tokens)
        self._note_started(turn, told)
        prepare(self._answers[p.sequence.request_id].job.picker for p in turn.pieces)
        try:
            n_rows = self._decode(turn.pieces)
        except CacheFull:
            # The books say that there is room, so this is llama.cpp's padding: the youngest waits.
            youngest = max(self._scheduler.running, key=lambda one: one.rank)
            self._scheduler.put_back(youngest)
            return
        self._scheduler.computed(turn)
        self._pick(turn, n_rows, told)
        told.progressed = [piece.sequence.request_id for piece in turn.pieces]
        self._tell(told)

    def _note_started(self, turn: Turn, told: Told) -> None:
        now = time.monotonic()
        for piece in turn.pieces:
            answer = self._answers[piece.sequence.request_id]
            if not answer.started_at:
                answer.started_at = now
                answer.n_reused = piece.sequence.n_reused
                told.started.append(piece.sequence.request_id)

    def _decode(self, pieces: tuple[Piece, ...]) -> int:
        lengths = [len(piece.tokens) for piece in pieces]
        wanted = np.zeros(sum(lengths), np.int8)
        wanted[np.cumsum(lengths) - 1] = [piece.wants_logits for piece in pieces]
        return self._context.decode(
            np.concatenate([piece.tokens for piece in pieces]),
            np.concatenate(
                [np.arange(p.pos, p.pos + len(p.tokens), dtype=np.int32) for p in pieces]
            ),
            np.repeat(np.array([p.sequence.seq_id for p in pieces], np.int32), lengths),
            wanted,
        )

    def _pick(self, turn: Turn, n_rows: int, told: Told) -> None:
        if not n_rows:
            return
        logits = self._context.logits(n_rows)
        row, batch_index = 0, -1
        for piece in turn.pieces:
            batch_index += len(piece.tokens)
            if not piece.wants_logits:
                continue
            answer = self._answers[piece.sequence.request_id]
            choice = answer.job.picker.choose(self._context, logits[row], batch_index)
            self._accept(answer, choice, told)
            row += 1

    def _accept(self, answer: _Answer, choice: Choice, told: Told) -> None:
        """Add a token to its answer; end the answer where it ends."""
        if not answer.first_token_at:
            answer.first_token_at = time.monotonic()
        if choice.ends == "stop" and self._model.ends_generation(choice.token):
            self._finish(answer, "stop", told)
            return
        job = answer.job
        answer.n_answered += 1
        answer.sequence.answer.append(choice.token)
        shows = choice.token in job.shown
        heard = job.listener.feed(self._model.piece(choice.token, shows_control=shows))
        told.chunks.append(_chunk(job.request_id, heard, choice))
        if choice.ends is not None:
            self._finish(answer, choice.ends, told)
        elif job.listener.is_stopped:
            self._finish(answer, "stop", told)
        elif answer.n_answered >= job.max_tokens:
            self._finish(answer, "length", told)

    def _finish(self, answer: _Answer, reason: DoneReason, told: Told) -> None:
        job = answer.job
        rest = job.listener.close()
        if rest:
            told.chunks.append(_chunk(job.request_id, rest, None))
        told.done.append(
            {
                "id": job.request_id,
                "reason": reason,
                "usage": _usage(answer),
                "is_shortened": job.picker.is_shortened,
            }
        )
        self._scheduler.end(answer.sequence)
        self._answers.pop(job.request_id)
        job.picker.close()


def _chunk(request_id: int, heard: Heard, choice: Choice | None) -> dict[str, Any]:
    """Give the fields of `request.Chunk` that are not empty."""
    chunk: dict[str, Any] = {
        "id": request_id,
        "text": heard.text,
        "n_tokens": int(choice is not None),
    }
    if heard.reasoning:
        chunk["reasoning"] = heard.reasoning
    if heard.tool_calls:
        chunk["tool_calls"] = [asdict(call) for call in heard.tool_calls]
    if choice is not None and choice.logprob is not None:
        chunk["logprobs"] = [choice.logprob]
    return chunk


def _usage(answer: _Answer) -> dict[str, float | int]:
    """Give the fields of `request.Usage`."""
    now = time.monotonic()
    return {
        "prompt_tokens": len(answer.job.prompt),
        "prompt_reused_tokens": answer.n_reused,
        "completion_tokens": answer.n_answered,
        "queue_s": answer.started_at - answer.queued_at,
        "prefill_s": answer.first_token_at - answer.started_at,
        "decode_s": now - answer.first_token_at,
    }
