"""What the owner thread knows of one running request besides its sequence."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.arrays import Tokens
from paddock.engine.dialogue.images import PlacedImage
from paddock.engine.dialogue.listener import Listener
from paddock.engine.native.model import Model
from paddock.engine.request import DoneReason, Priority
from paddock.engine.sampling.picker import Choice, Picker

from .drafts import Drafter
from .seeing import text_of
from .sequence import Sequence
from .told import Told


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
    drafts: bool | None = None
    """As `ChatRequest.drafts`."""
    shift_at: int = 0
    """So long may prompt and answer become together before the history is shifted; 0: never."""
    n_keep_tokens: int = 0
    """At a shift, how many stay at the prompt's beginning."""
    images: tuple[PlacedImage, ...] = ()
    is_open: bool = False
    """`max_tokens` is where the context ends, not what anybody expects."""
    wants_tokens: bool = False
    """Whether the end tells the ids of prompt and answer."""


@dataclass(slots=True, eq=False)
class Answering:
    """One request on its way: what was said, since when, at what cost."""

    job: Job
    sequence: Sequence
    drafter: Drafter | None
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    first_token_at: float = 0.0
    n_answered: int = 0
    n_reused: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    n_shifted: int = 0
    ended: DoneReason | None = None
    has_started_over: bool = False
    """Whether the cache was emptied for it, since it did not fit although it ran alone."""

    def start(self, now: float) -> bool:
        """Note that it is being computed; tells whether that is new."""
        if self.started_at:
            return False
        self.started_at = now
        self.n_reused = self.sequence.n_reused
        return True

    def follow(self, most: int, model: Model, told: Told) -> None:
        """Add the tokens that its grammar forces, at most so many; they need no logits."""
        n_before, most = self.n_answered, min(most, self.n_left)
        while not self.ended and self.n_answered - n_before < most:
            choice = self.job.picker.follow()
            if choice is None:
                break
            self.accept(choice, model, told)
        n_added = self.n_answered - n_before
        self.n_drafted += n_added
        self.n_accepted += n_added
        told.n_drafted += n_added
        told.n_accepted += n_added

    def guess(self, most: int, price: float) -> list[int]:
        """Guess what it says next: what its grammar forces, else what it may be copying.

        What is forced was said already (`follow`), but where probabilities are wanted.

        Args:
            most: so many tokens at most.
            price: see `Drafter.n_worth`.
        """
        most = min(most, self.n_left)
        forced = self.job.picker.forced()[:most] if most > 0 else []
        if forced or self.drafter is None:
            return forced
        return self.drafter.guess(most, price)

    @property
    def n_left(self) -> int:
        """Tokens that could be guessed: the one after the last guess is said in any case."""
        n_room = self.sequence.max_tokens - len(self.sequence.answer)
        return min(self.job.max_tokens - self.n_answered, n_room) - 1

    @property
    def must_shift(self) -> bool:
        """Whether the context is full and the answer is to go on."""
        n_tokens = len(self.sequence.prompt) + len(self.sequence.answer)
        return not self.ended and 0 < self.job.shift_at <= n_tokens

    def accept(self, choice: Choice, model: Model, told: Told) -> None:
        """Add a token; `ended` is set where the answer ends."""
        if not self.first_token_at:
            self.first_token_at = time.monotonic()
        if choice.ends == "stop" and model.ends_generation(choice.token):
            self.ended = "stop"
            return
        job = self.job
        self.n_answered += 1
        self.sequence.answer.append(choice.token)
        if self.drafter is not None:
            self.drafter.add(choice.token)
        piece = model.piece(choice.token, shows_control=choice.token in job.shown)
        told.chunk(job.request_id, job.listener.feed(piece), choice)
        if choice.ends is not None:
            self.ended = choice.ends
        elif job.listener.is_stopped:
            self.ended = "stop"
        elif self.n_answered >= job.max_tokens:
            self.ended = "length"

    def learn(self, n_drafted: int, n_accepted: int, told: Told) -> None:
        """Note how a guess went."""
        self.n_drafted += n_drafted
        self.n_accepted += n_accepted
        told.n_drafted += n_drafted
        told.n_accepted += n_accepted
        if self.drafter is not None:
            self.drafter.learn(n_drafted, n_accepted)

    def finish(self, told: Told) -> None:
        """Say what was held back, and how it ended."""
        rest = self.job.listener.close()
        if rest:
            told.chunk(self.job.request_id, rest, None)
        done: dict[str, Any] = {
            "id": self.job.request_id,
            "reason": self.ended,
            "usage": self._usage(),
            "is_shortened": self.job.picker.is_shortened,
        }
        if self.job.wants_tokens:
            # Of a sequence that was put back, the prompt has what it said before.
            done["tokens"] = [*text_of(self.sequence.prompt).tolist(), *self.sequence.answer]
        if self.ended == "stop" and self.job.listener.is_stopped:
            done["stop"] = self.job.listener.stopped_by
        told.done.append(done)
        if self.drafter is not None:
            self.drafter.keep()

    def _usage(self) -> dict[str, Any]:
        """Give the fields of `request.Usage`."""
        return {
            "prompt_tokens": len(self.job.prompt),
            "prompt_reused_tokens": self.n_reused,
            "completion_tokens": self.n_answered,
            "drafted_tokens": self.n_drafted,
            "accepted_tokens": self.n_accepted,
            "n_preempted": self.sequence.n_preempted,
            "shifted_tokens": self.n_shifted,
            "queue_s": self.started_at - self.queued_at,
            "prefill_s": self.first_token_at - self.started_at,
            "decode_s": time.monotonic() - self.first_token_at,
        }
