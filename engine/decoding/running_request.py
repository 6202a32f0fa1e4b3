"""One running request: its answer so far, and the output of a step.

A `StepOutput` goes into one frame, so it holds plain lists.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from typing import Any

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.chat.prompt_images import PlacedImage
from paddock.engine.chat.stream_parser import AnswerDelta, StreamParser
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.request import DoneReason, Priority, TokenLogprob
from paddock.engine.sampling.picker import PickedToken, Picker
from paddock.engine.system.records import Struct, field
from paddock.engine.wire import to_plain

from .answer_scores import AnswerScores
from .drafts import LookupDrafter
from .scheduler_data import Sequence, SequencePiece


class StepOutput(Struct):
    progressed: list[int] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """`request.Chunk` as `wire.to_plain` writes it, and `id`."""
    done: list[dict[str, Any]] = field(default_factory=list)
    """`worker_protocol.AnswerEnd` as `to_plain` writes it, and `id`."""
    n_tokens: int = 0
    n_sequences: int = 0
    n_waiting: int = 0
    n_cells_used: int = 0
    n_cells_shared: int = 0
    """Counted once for each holder but the first."""
    n_preempted: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    step_s: float = 0.0
    is_urgent: bool = False
    """Whether a request waits for it: for a chat's first token, or its end."""
    is_read: bool = False
    """Whether it has a part of a streamed answer."""

    def as_head(self) -> dict[str, Any]:
        """Return a frame's head; `asdict` would take 0.1 ms for the copy."""
        return {name: getattr(self, name) for name in type(self).__match_args__}

    def chunk(self, request_id: int, delta: AnswerDelta, choice: PickedToken | None) -> None:
        fields: dict[str, Any] = {
            "id": request_id,
            "text": delta.text,
            "n_tokens": int(choice is not None),
        }
        if delta.reasoning:
            fields["reasoning"] = delta.reasoning
        if delta.tool_calls:
            fields["tool_calls"] = to_plain(delta.tool_calls)
        if choice is not None and choice.logprob is not None:
            fields["logprobs"] = [to_plain(choice.logprob)]
        self.chunks.append(fields)

    def logprobs(self, request_id: int, found: Items[TokenLogprob]) -> None:
        """Add log probabilities of tokens that no answer has."""
        plain = to_plain(list(found))
        self.chunks.append({"id": request_id, "text": "", "n_tokens": 0, "logprobs": plain})


def text_tokens(prompt: Tokens) -> Tokens:
    return prompt[prompt >= 0]


class DecodeRequest(Struct, frozen=True):
    """A request that is ready for the scheduler: tokenised, and known to fit."""

    request_id: int
    prompt: Tokens
    max_tokens: int
    priority: Priority
    picker: Picker
    parser: StreamParser
    shown: frozenset[int] = frozenset()
    """Control tokens that the parser wants as text."""
    drafts: bool | None = None
    shift_at: int = 0
    """Length of prompt and answer at which the history is shifted; 0: never."""
    n_keep_tokens: int = 0
    """Tokens at the prompt's beginning that a shift keeps."""
    images: tuple[PlacedImage, ...] = ()
    is_open: bool = False
    wants_tokens: bool = False
    """Whether the ids of prompt and answer are reported at the end."""
    scores: AnswerScores | None = None
    """Of tokens that are given."""


class RunningRequest(Struct, eq=False):
    """One running request: its sequence, and its counters for `request.Usage`."""

    request: DecodeRequest
    sequence: Sequence
    drafter: LookupDrafter | None
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    first_token_at: float = 0.0
    n_answered: int = 0
    n_reused: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    n_shifted: int = 0
    ended: DoneReason | None = None
    unwritten: list[PickedToken] = field(default_factory=list)
    """The newest tokens, whose text is made while a device computes the next step."""
    has_started_over: bool = False
    """Whether the cache was cleared because it did not fit although it ran alone."""

    def start(self, now: float) -> bool:
        if self.started_at:
            return False
        self.started_at = now
        self.n_reused = self.sequence.n_reused
        return True

    def follow(self, most: int, model: Vocabulary, output: StepOutput) -> None:
        """Add up to `most` tokens that the grammar forces; they need no logits."""
        n_before, most = self.n_answered, min(most, self.n_left)
        while not self.ended and self.n_answered - n_before < most:
            choice = self.request.picker.follow()
            if choice is None:
                break
            self.accept(choice, model, output)
        n_added = self.n_answered - n_before
        self.n_drafted += n_added
        self.n_accepted += n_added
        output.n_drafted += n_added
        output.n_accepted += n_added

    def guess(self, most: int, price: float) -> list[int]:
        """Guess up to `most` tokens: those that the grammar forces, else by lookup.

        Forced tokens were added already (`follow`); left are those of an ending whose probabilities
        are wanted. `price` is that of `DraftOdds.n_worth`.
        """
        most = min(most, self.n_left)
        forced = self.request.picker.forced()[:most] if most > 0 else []
        if forced or self.drafter is None:
            return forced
        return self.drafter.guess(most, price)

    @property
    def has_model_guesses(self) -> bool:
        """Whether a draft model or an MTP head may guess: they cannot read images."""
        return self.drafter is not None and not self.request.images

    @property
    def n_left(self) -> int:
        """Tokens that could be guessed; the one after the last guess is always computed."""
        n_room = self.sequence.max_tokens - len(self.sequence.answer)
        return min(self.request.max_tokens - self.n_answered, n_room) - 1

    @property
    def must_shift(self) -> bool:
        if not self.request.shift_at or self.ended:
            return False
        return self.request.shift_at <= len(self.sequence.prompt) + len(self.sequence.answer)

    def accept(self, choice: PickedToken, model: Vocabulary, output: StepOutput) -> None:
        if not self.first_token_at:
            self.first_token_at = time.monotonic()
        request, token = self.request, choice.token
        if not request.max_tokens:  # the prompt alone was to be read
            self.ended = "length"
            return
        if choice.ends == "stop" and (
            model.ends_generation(token) or token in request.picker.stop_tokens
        ):
            self.ended = "stop"
            return
        self.n_answered += 1
        self.sequence.answer.append(choice.token)
        if self.drafter is not None:
            self.drafter.add(choice.token)
        self.unwritten.append(choice)
        if request.parser.may_stop:
            self.write(model, output)
        if choice.ends is not None:
            self.ended = choice.ends
        elif request.parser.may_stop and request.parser.is_stopped:
            self.ended = "stop"
        elif self.n_answered >= request.max_tokens:
            self.ended = "length"

    def write(self, model: Vocabulary, output: StepOutput) -> None:
        request = self.request
        unwritten = self.unwritten
        self.unwritten = []
        for choice in unwritten:
            piece = model.piece(choice.token, shows_control=choice.token in request.shown)
            output.chunk(request.request_id, request.parser.feed(piece), choice)

    def is_picked(self, piece: SequencePiece) -> bool:
        """Return whether tokens are picked from a piece's rows; else these score given ones."""
        scores = self.request.scores
        is_after = self.sequence.state == "decode" and piece.branch is None
        return scores is None or (scores.is_echo and is_after)

    def score(self, piece: SequencePiece, rows: Logits) -> None:
        """Take the rows of given tokens; the request ends with the last of its answers."""
        request = self.request
        assert request.scores is not None
        if piece.branch is None:
            self.first_token_at = self.first_token_at or time.monotonic()
            request.scores.take_first(rows[-1])
        else:
            request.scores.take(piece.branch, piece.start - len(self.sequence.prompt), rows)

    def end_scores(self, output: StepOutput) -> None:
        """Report the log probabilities of all given tokens."""
        request = self.request
        assert request.scores is not None
        if request.scores.is_echo:
            echoed = request.scores.logprobs[0]
            output.logprobs(request.request_id, [echoed[place] for place in sorted(echoed)])
            return
        self.ended = "stop"
        self.n_answered = sum(map(len, request.scores.logprobs))

    def learn(self, n_drafted: int, n_accepted: int, output: StepOutput) -> None:
        self.n_drafted += n_drafted
        self.n_accepted += n_accepted
        output.n_drafted += n_drafted
        output.n_accepted += n_accepted
        if self.drafter is not None:
            self.drafter.learn(n_drafted, n_accepted)

    def finish(self, model: Vocabulary, output: StepOutput, fingerprint: str) -> None:
        self.write(model, output)
        rest = self.request.parser.close(is_cut=self.ended != "stop")
        if rest:
            output.chunk(self.request.request_id, rest, None)
        done: dict[str, Any] = {
            "id": self.request.request_id,
            "reason": self.ended,
            "usage": {
                "prompt_tokens": len(self.request.prompt),
                "prompt_reused_tokens": self.n_reused,
                "completion_tokens": self.n_answered,
                "drafted_tokens": self.n_drafted,
                "accepted_tokens": self.n_accepted,
                "n_preempted": self.sequence.n_preempted,
                "shifted_tokens": self.n_shifted,
                "queue_s": self.started_at - self.queued_at,
                "prefill_s": self.first_token_at - self.started_at,
                "decode_s": time.monotonic() - self.first_token_at,
            },
            "is_shortened": self.request.picker.is_shortened,
            "fingerprint": fingerprint,
        }
        if self.request.wants_tokens:
            # A preempted sequence's prompt includes its answer until then.
            done["tokens"] = [*text_tokens(self.sequence.prompt).tolist(), *self.sequence.answer]
        scores = self.request.scores
        if scores is not None and not scores.is_echo:
            lengths = map(len, scores.logprobs)
            pairs = zip(scores.totals(), lengths, strict=True)
            done["scores"] = [{"logprob": total, "n_tokens": n} for total, n in pairs]
        if self.ended == "stop" and self.request.parser.is_stopped:
            done["stop"] = self.request.parser.stopped_by
        output.done.append(done)
        if self.drafter is not None:
            self.drafter.keep()
