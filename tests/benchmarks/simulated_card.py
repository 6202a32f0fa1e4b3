"""Documents and chats before a card whose prices are known: no card is needed, nothing is timed.

python -m tests.benchmarks.simulated_card

Clients send to the real `Scheduler`; each pass of llama.cpp, each copy and each row of logits takes
what it took on the card (`Prices`). So an order of work can be judged on a processor.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass, field, replace

import numpy as np

from paddock.engine.decoding.context_limits import CellPrices, ContextLimits
from paddock.engine.decoding.scheduler import BLOCK_TOKENS, Scheduler
from paddock.engine.decoding.scheduler_data import (
    CopyPrefix,
    RestoreFromHost,
    SaveToHost,
    ScheduledStep,
    Sequence,
)
from paddock.engine.profile.context_layout import n_chat_slots
from paddock.engine.profile.profile import Agreement
from paddock.engine.request import Priority

N_CONVERSATION = 700
"""Tokens of a finished document, for the price of its copy."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Milliseconds of a card's operations: an H200 with a random 8B in Q8_0, 2026-11-27."""

    reading: tuple[tuple[int, float], ...] = (
        *((1, 6.5), (8, 7.1), (16, 7.8), (32, 9.4), (64, 11.9), (128, 17.0), (256, 27.2)),
        *((512, 44.9), (1024, 87.6), (2048, 165.6)),
    )
    """Tokens of a pass of prompts, and its duration."""
    writing: tuple[tuple[int, float], ...] = (
        *((1, 3.9), (8, 7.5), (16, 8.2), (32, 10.1), (48, 12.8), (64, 14.5), (96, 18.8)),
        *((128, 22.4), (160, 27.0)),
    )
    """Sequences of a pass of answers at some 650 tokens, and its duration."""
    save: float = 0.05
    """Of each token that is copied to main memory, or back."""
    first_copy: float = 2.2
    stream_copy: float = 0.85
    """Of a stream that is copied on the card; the first before a step takes longer."""
    reshaped: float = 2.0
    """Of a pass of another shape than the one before."""
    row: float = 0.008
    step: float = 0.5
    """In Python, for each row of logits and each step."""

    def of_pass(self, n_sequences: int, n_each: int) -> float:
        points = self.writing if n_each == 1 else self.reading
        n = n_sequences * n_each
        if n_each > 1 and n > BLOCK_TOKENS:  # kernels take as long for a part of a block
            n = -(-n // BLOCK_TOKENS) * BLOCK_TOKENS
        at = min(max(1, bisect_left([size for size, _ in points], n)), len(points) - 1)
        (low, low_ms), (high, high_ms) = points[at - 1], points[at]
        return low_ms + (high_ms - low_ms) * (n - low) / (high - low)

    @property
    def of_cells(self) -> CellPrices:
        """As the pool takes them from a profile."""
        return CellPrices(
            self.of_pass(1, 512) / 512e3,
            self.save / 1e3,
            (self.first_copy + self.stream_copy) / 1e3,
        )


@dataclass(frozen=True, slots=True)
class Client:
    """Clients of one kind: so many at once, or one every so many seconds."""

    priority: Priority
    n_at_once: int = 0
    every_s: float = 0.0
    n_shared: int = 150
    n_own: tuple[int, int] = (520, 640)
    n_answer: tuple[int, int] = (64, 64)


CHATS = Client("interactive", every_s=0.5, n_shared=12, n_own=(25, 35), n_answer=(24, 24))


@dataclass
class Outcome:
    """What was simulated."""

    seconds: float = 0.0
    n_done: int = 0
    first_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=dict)

    @property
    def per_minute(self) -> float:
        return 60 * self.n_done / self.seconds

    def spend(self, what: str, ms: float) -> float:
        self.spent_s[what] = self.spent_s.get(what, 0.0) + ms / 1e3
        return ms / 1e3


def needed_per_minute(client: Client, prices: Prices) -> float:
    """Return what llama.cpp's passes allow: prompts in passes of 512, answers all together."""
    each_ms = sum(client.n_own) / 2 * prices.of_pass(1, 512) / 512
    each_ms += sum(client.n_answer) / 2 * prices.of_pass(client.n_at_once, 1) / client.n_at_once
    return 60e3 / each_ms


def passes(step: ScheduledStep, n_pass_tokens: int = 1 << 30) -> list[tuple[int, int]]:
    """Return (sequences, tokens of each) of the passes that llama.cpp makes of streams.

    `llama_batch_allocr::split_equal` with `sequential`: a pass takes equally many tokens of
    streams whose ids follow one another, and at most `n_pass_tokens` together.
    """
    left = {piece.sequence.seq_id: len(piece.tokens) for piece in step.pieces}
    for padding in step.padding:
        left[padding.seq_id] = left.get(padding.seq_id, 0) + padding.n_tokens
    found = []
    while left:
        ids = [min(left)]
        while ids[-1] + 1 in left:
            ids.append(ids[-1] + 1)
        n_each = min(n_pass_tokens // len(ids), *(left[seq_id] for seq_id in ids))
        left = {seq_id: n - n_each * (seq_id in ids) for seq_id, n in left.items()}
        left = {seq_id: n for seq_id, n in left.items() if n}
        found.append((len(ids), n_each))
    return found


def card_limits(
    n_parallel: int, prices: Prices, n_host_cache_tokens: int = 1 << 17
) -> ContextLimits:
    n_chats = n_chat_slots(n_parallel)
    return ContextLimits(
        (n_parallel + n_chats) * 2048,
        n_parallel,
        2048,
        is_unified=False,
        is_gpu=True,
        n_reserved=n_chats,
        near_turn_tokens=2048,
        chat_turn_tokens=1000,
        n_host_cache_tokens=n_host_cache_tokens,
        prices=prices.of_cells,
    )


class Simulation:
    """A scheduler, its clients and the clock."""

    def __init__(
        self, limits: ContextLimits, clients: list[Client], n_documents: int, prices: Prices
    ) -> None:
        self._scheduler = Scheduler(limits)
        self._clients, self._n_documents, self._prices = clients, n_documents, prices
        self._chance = random.Random(1)
        self._asked: dict[int, tuple[Client, float]] = {}
        self._spoke_s: dict[int, float] = {}
        self._next_s = dict.fromkeys((client for client in clients if client.every_s), 0.7)
        self._shape = (0, 0)
        self.outcome = Outcome()

    def run(self, n_pass_tokens: int = 1024) -> Outcome:
        """Run until all documents of the first kind of client are done."""
        outcome, scheduler = self.outcome, self._scheduler
        first = self._clients[0]
        for _ in range(first.n_at_once):
            self._ask(first, 0.0)
        n_left = self._n_documents - first.n_at_once
        while outcome.n_done < self._n_documents:
            for client in self._next_s:
                while self._next_s[client] <= outcome.seconds:
                    self._ask(client, self._next_s[client])
                    self._next_s[client] += client.every_s
            step = scheduler.schedule(outcome.seconds)
            outcome.seconds += self._took_s(step, n_pass_tokens)
            scheduler.computed(step, Agreement())
            for piece in step.pieces:
                if piece.n_rows and self._say(piece.sequence) and n_left > 0:
                    n_left -= 1
                    self._ask(first, outcome.seconds)
        return outcome

    def _ask(self, client: Client, at_s: float) -> None:
        own = self._chance.choices(range(10_000, 30_000), k=self._chance.randint(*client.n_own))
        prompt = np.array([self._clients.index(client)] * client.n_shared + own, np.int32)
        number, n_answer = len(self._asked), self._chance.randint(*client.n_answer)
        self._asked[number] = client, at_s
        self._scheduler.add(Sequence(number, prompt, n_answer, client.priority), at_s)

    def _took_s(self, step: ScheduledStep, n_pass_tokens: int) -> float:
        prices, spend = self._prices, self.outcome.spend
        took_s = spend("python", prices.step + prices.row * sum(p.n_rows for p in step.pieces))
        copies = [one for one in step.operations if isinstance(one, CopyPrefix)]
        took_s += spend(
            "copies", prices.stream_copy * len(copies) + prices.first_copy * bool(copies)
        )
        saved = [one for one in step.operations if isinstance(one, SaveToHost | RestoreFromHost)]
        took_s += spend("main memory", prices.save * N_CONVERSATION * len(saved))
        for shape in passes(step, n_pass_tokens):
            took_s += spend("answers" if shape[1] == 1 else "prompts", prices.of_pass(*shape))
            took_s += spend("reshaped", prices.reshaped * (shape != self._shape))
            self._shape = shape
        return took_s

    def _say(self, sequence: Sequence) -> bool:
        """Add a token to an answer; return whether a document is done."""
        (client, at_s), now_s = self._asked[sequence.request_id], self.outcome.seconds
        sequence.answer.append(self._chance.randrange(30_000, 40_000))
        if client.every_s:
            spoke_s = self._spoke_s.get(sequence.request_id)
            if spoke_s is None:
                self.outcome.first_s.append(now_s - at_s)
            else:
                self.outcome.gaps_s.append(now_s - spoke_s)
            self._spoke_s[sequence.request_id] = now_s
        if len(sequence.answer) < sequence.max_tokens:
            return False
        self._scheduler.end(sequence)
        self.outcome.n_done += not client.every_s
        return not client.every_s


def simulate(
    documents: Client, *others: Client, prices: Prices | None = None, n_slots: int = 0
) -> Outcome:
    """Simulate four times as many documents as are sent at once."""
    prices = prices or Prices()
    limits = card_limits(n_slots or documents.n_at_once, prices)
    return Simulation(limits, [documents, *others], 4 * documents.n_at_once, prices).run()


def at(values: list[float], part: float) -> float:
    """Return a quantile; infinite if there is none."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("inf")


def main() -> None:
    print("| sent at once | documents | documents/min | of what llama.cpp needs | beside chats | "
          "first token p95 | gap p95 |\n|--:|---|--:|--:|--:|--:|--:|")  # fmt: skip
    for n in (64, 128):
        for what, n_own, n_answer in (
            ("alike", (520, 640), (64, 64)),
            ("various", (60, 1100), (8, 120)),
        ):
            client = replace(Client("normal", n), n_own=n_own, n_answer=n_answer)
            alone, beside = simulate(client), simulate(client, CHATS)
            share = alone.per_minute / needed_per_minute(client, Prices())
            print(
                f"| {n} | {what} | {alone.per_minute:.0f} | {share:.2f} "
                f"| {beside.per_minute / alone.per_minute:.2f} "
                f"| {at(beside.first_s, 0.95):.2f} s | {1e3 * at(beside.gaps_s, 0.95):.0f} ms |"
            )
            print("   ", {k: round(v / beside.seconds, 3) for k, v in beside.spent_s.items()})


if __name__ == "__main__":
    main()
