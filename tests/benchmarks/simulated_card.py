"""A scheduler before a card whose prices are known: documents a minute, without any card.

Clients send documents to the real `Scheduler`; each pass of llama.cpp, copy and row of logits takes
what it takes on the card (`Prices`), so changes of the order of work can be judged on a processor.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

from paddock.engine.decoding.context_limits import ContextLimits
from paddock.engine.decoding.scheduler import Scheduler
from paddock.engine.decoding.scheduler_data import (
    CopyPrefix,
    RestoreFromHost,
    SaveToHost,
    ScheduledStep,
    Sequence,
)
from paddock.engine.profile.profile import Agreement
from paddock.engine.request import Priority


@dataclass(frozen=True, slots=True)
class Prices:
    """Seconds of a card's operations with one model: here an H200 with a random 8B in Q8_0."""

    passes: tuple[tuple[int, float], ...] = (
        (1, 0.0065), (8, 0.0071), (16, 0.0078), (64, 0.0119), (128, 0.017), (256, 0.0272), (512, 0.0449), (1024, 0.0876), (2048, 0.1656),
    )  # fmt: skip
    """Tokens of a pass of prompts, and its duration."""
    steps: tuple[tuple[int, float], ...] = (
        (1, 0.00394), (8, 0.0075), (16, 0.0082), (32, 0.0101), (48, 0.0128), (64, 0.0145), (96, 0.0188), (128, 0.0224), (160, 0.027),
    )  # fmt: skip
    """Sequences of a pass of answers, and its duration."""
    save_s: float = 50e-6
    """Of each token that is copied to main memory, or back."""
    stream_copy_s: float = 0.00085
    first_copy_s: float = 0.0022
    """Of the first copy before a step, in addition."""
    row_s: float = 30e-6
    """Of each row of logits, in Python."""
    step_s: float = 0.0005
    """Of each step, in Python."""
    reshaped_s: float = 0.002
    """Of a pass with another number of sequences than the one before."""

    def pass_s(self, n_sequences: int, n_each: int) -> float:
        points = self.steps if n_each == 1 else self.passes
        n_tokens = n_sequences * n_each
        at = min(max(1, bisect_left([size for size, _ in points], n_tokens)), len(points) - 1)
        (low, low_s), (high, high_s) = points[at - 1], points[at]
        return low_s + (high_s - low_s) * (n_tokens - low) / (high - low)


def split_passes(pieces: list[tuple[int, int]], n_pass_tokens: int) -> list[tuple[int, int]]:
    """Return (sequences, tokens of each) of the passes that llama.cpp makes of a split batch.

    `llama_batch_allocr::split_equal` with `sequential`: a pass takes equally many tokens of
    streams whose ids follow one another, and at most `n_pass_tokens` together.
    """
    left, passes = list(pieces), []
    while left:
        ids = [left[0][0]]
        for seq_id, _ in left[1:]:
            if seq_id == ids[-1] + 1 and len(ids) < n_pass_tokens:
                ids.append(seq_id)
        n_each = min(n for seq_id, n in left if seq_id in ids)
        n_each = min(n_each, n_pass_tokens // len(ids))
        left = [(seq_id, n - n_each if seq_id in ids else n) for seq_id, n in left]
        left = [(seq_id, n) for seq_id, n in left if n]
        passes.append((len(ids), n_each))
    return passes


@dataclass
class Client:
    """Clients of one kind: so many at once, or one every so many seconds."""

    priority: Priority
    n_at_once: int = 0
    every_s: float = 0.0
    n_shared: int = 150
    n_own: tuple[int, int] = (520, 640)
    n_answer: tuple[int, int] = (64, 64)


@dataclass
class Outcome:
    """What was simulated."""

    seconds: float = 0.0
    n_done: int = 0
    first_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=dict)
    n_passes: dict[str, int] = field(default_factory=dict)

    @property
    def per_minute(self) -> float:
        return 60 * self.n_done / self.seconds

    def spend(self, what: str, seconds: float, n: int = 1) -> float:
        self.spent_s[what] = self.spent_s.get(what, 0.0) + seconds
        self.n_passes[what] = self.n_passes.get(what, 0) + n
        return seconds


def ideal_per_minute(client: Client, prices: Prices, n_at_once: int) -> float:
    """Return what the passes alone allow: prompts in full passes, answers all together."""
    n_read = sum(client.n_own) / 2
    each_s = n_read * prices.pass_s(1, 512) / 512
    each_s += sum(client.n_answer) / 2 * prices.pass_s(n_at_once, 1) / n_at_once
    return 60 / each_s


def simulate(
    limits: ContextLimits,
    clients: list[Client],
    n_documents: int,
    prices: Prices | None = None,
    n_pass_tokens: int = 512,
) -> Outcome:
    """Run until so many documents of the first kind of client are done."""
    prices = prices or Prices()
    chance, outcome = random.Random(1), Outcome()
    scheduler, now_s, n_made = Scheduler(limits), 0.0, 0
    n_asked = clients[0].n_at_once
    born: dict[int, tuple[Client, float]] = {}
    last_token: dict[int, float] = {}
    next_s = [0.7 for _ in clients]
    shape = (0, 0)

    def ask(client: Client, at_s: float) -> None:
        nonlocal n_made
        n_made += 1
        kind = 1 + clients.index(client)
        own = [chance.randrange(10_000, 30_000) for _ in range(chance.randint(*client.n_own))]
        prompt = np.array([kind] * client.n_shared + own, np.int32)
        sequence = Sequence(n_made, prompt, chance.randint(*client.n_answer), client.priority)
        born[n_made] = (client, at_s)
        scheduler.add(sequence, at_s)

    for client in clients:
        for _ in range(client.n_at_once):
            ask(client, 0.0)
    while outcome.n_done < n_documents:
        for number, client in enumerate(clients):
            while client.every_s and next_s[number] <= now_s:
                ask(client, next_s[number])
                next_s[number] += client.every_s
        step: ScheduledStep = scheduler.schedule(now_s)
        took_s = 0.0
        if any(isinstance(operation, CopyPrefix) for operation in step.operations):
            took_s += outcome.spend("first copy", prices.first_copy_s)
        for operation in step.operations:
            match operation:
                case SaveToHost(seq_id, key):
                    n = (
                        len(scheduler.slots.host_cache.tokens(key))
                        if key in scheduler.slots.host_cache.keys
                        else 700
                    )
                    took_s += outcome.spend("save", prices.save_s * n)
                case RestoreFromHost(key, _):
                    took_s += outcome.spend("restore", prices.save_s * 700)
                case CopyPrefix():
                    took_s += outcome.spend("copy", prices.stream_copy_s)
                case _:
                    pass
        if not step.pieces:
            waiting = [s for s, c in zip(next_s, clients, strict=True) if c.every_s]
            now_s = max(now_s + 0.001, min(waiting, default=0))
            continue
        lengths: dict[int, int] = {}
        for seq_id, n in [(p.sequence.seq_id, len(p.tokens)) for p in step.pieces] + [
            (p.seq_id, p.n_tokens) for p in step.padding
        ]:
            lengths[seq_id] = lengths.get(seq_id, 0) + n
        pieces = sorted(lengths.items())
        for n_sequences, n_each in split_passes(pieces, n_pass_tokens):
            what = "answers" if n_each == 1 else "prompts"
            took_s += outcome.spend(what, prices.pass_s(n_sequences, n_each))
            if shape != (n_sequences, n_each):
                took_s += outcome.spend("reshaped", prices.reshaped_s)
            shape = (n_sequences, n_each)
        n_rows = sum(piece.n_rows for piece in step.pieces)
        took_s += outcome.spend("python", prices.step_s + prices.row_s * n_rows)
        now_s += took_s
        scheduler.computed(step, Agreement())
        for piece in step.pieces:
            if not piece.n_rows:
                continue
            sequence = piece.sequence
            client, at_s = born[sequence.request_id]
            sequence.answer.append(chance.randrange(30_000, 40_000))
            if client.every_s:
                if sequence.request_id in last_token:
                    outcome.gaps_s.append(now_s - last_token[sequence.request_id])
                else:
                    outcome.first_s.append(now_s - at_s)
                last_token[sequence.request_id] = now_s
            if len(sequence.answer) >= sequence.max_tokens:
                scheduler.end(sequence)
                if client is clients[0]:
                    outcome.n_done += 1
                if client.n_at_once and n_asked < n_documents:
                    n_asked += 1
                    ask(client, now_s)
    outcome.seconds = now_s
    return outcome
