"""A person who chats while a job runs: time to the first token, and what the job has left.

uv run python tests/benchmarks/chat.py

A short chat arrives every second while documents are summarised, eight of them in flight at any
time. Chats are `interactive` and documents `batch` in our pool; the servers have no priorities.
It ends with the last document; chats that wait then are waited for, and counted, and so are those
that were answered before: who lets chats wait has more time for documents. How many documents a
minute there are without chats is asked just before, with half of the documents.

Last, while such a half runs again, a request arrives whose prompt is longer than all before, and a
chat half a second after it: how long it waits shows whether a longer context stops the others.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import arena, loads
from tests.benchmarks.arena import Contest
from tests.benchmarks.contenders import EVERYBODY, chosen
from tests.benchmarks.harness import percentile
from tests.benchmarks.loads import Ask
from tests.benchmarks.setup import Running

FULL = {
    "documents": 64,
    "in_flight": 8,
    "rounds": 2,
    "answer_tokens": 64,
    "chat_tokens": 24,
    "words": 400,
    "every_ms": 1000,
}
QUICK = {**FULL, "documents": 16, "rounds": 1}
TIMES_LONGER, LONGER_AFTER_S, CHAT_AFTER_S = 5, 2.0, 0.5


@dataclass(slots=True)
class Chat:
    """One chat: when it was sent, and when each piece of its answer came."""

    sent_at: float
    heard_at: list[float] = field(default_factory=list)
    ended_at: float = float("inf")

    @property
    def first_s(self) -> float:
        return self.heard_at[0] - self.sent_at

    @property
    def between_s(self) -> list[float]:
        return [
            later - sooner for sooner, later in zip(self.heard_at, self.heard_at[1:], strict=False)
        ]


@dataclass(frozen=True, slots=True)
class Turn:
    per_minute_alone: float
    per_minute: float
    chats: Sequence[Chat]
    job_ended_at: float
    after_longer: Chat
    """The one that came after a request with a long prompt."""

    @property
    def n_meanwhile(self) -> int:
        """How many chats were answered before the job was done."""
        return sum(chat.ended_at <= self.job_ended_at for chat in self.chats)


@dataclass(frozen=True, slots=True)
class Shape:
    n_documents: int
    n_in_flight: int
    n_tokens: int
    n_chat_tokens: int
    n_words: int
    every_s: float


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)
    setup = arena.setup_of(args)
    shape = Shape(
        args.documents,
        args.in_flight,
        args.answer_tokens,
        args.chat_tokens,
        args.words,
        args.every_ms / 1000,
    )
    contenders = chosen(args.only, EVERYBODY)

    async def measure() -> str:
        found = await arena.contest(
            contenders, setup, args.rounds, lambda one, number: play(shape, one, number)
        )
        return report(found)

    arena.show(args, measure, load="(d) a chat every second during a job")


async def play(shape: Shape, one: Running, number: int) -> Turn:
    """Run half of the job alone, then the whole with someone who chats next to it."""
    n_alone = max(1, shape.n_documents // 2)
    alone = loads.summaries(-2 - number, n_alone, shape.n_tokens, shape.n_words)
    with_chats = loads.summaries(number, shape.n_documents, shape.n_tokens, shape.n_words)
    per_minute_alone = await _job(one, alone, shape.n_in_flight)
    began = time.perf_counter()
    job = asyncio.create_task(_job(one, with_chats, shape.n_in_flight))
    try:
        chats = await _chat_until(job.done, one, shape)
        per_minute = await job
        job_ended_at = began + 60 * len(with_chats) / per_minute
    finally:
        job.cancel()
    after_longer = await _after_longer(shape, one, number)
    return Turn(per_minute_alone, per_minute, chats, job_ended_at, after_longer)


async def _after_longer(shape: Shape, one: Running, number: int) -> Chat:
    """Chat right after a request with a long prompt, while a job runs."""
    n_documents = shape.n_documents // 2 + 1
    asks = loads.summaries(-1002 - number, n_documents, shape.n_tokens, shape.n_words)
    n_words = TIMES_LONGER * shape.n_words
    (longer,) = loads.summaries(-2002 - number, 1, shape.n_tokens, n_words)
    (ask,) = loads.chats(1, shape.n_chat_tokens)
    job = asyncio.create_task(_job(one, asks, shape.n_in_flight))
    tasks = [job]
    try:
        await asyncio.sleep(LONGER_AFTER_S)
        tasks.append(asyncio.create_task(_job(one, [longer], 1)))
        await asyncio.sleep(CHAT_AFTER_S)
        chat = Chat(time.perf_counter())
        await _listen(one, ask, chat)
        await asyncio.gather(*tasks)
        return chat
    finally:
        for task in tasks:
            task.cancel()


async def _job(one: Running, asks: Sequence[Ask], n_in_flight: int) -> float:
    began = time.perf_counter()
    await arena.ask_all(one, asks, n_in_flight)
    return 60 * len(asks) / (time.perf_counter() - began)


async def _chat_until(is_over: Callable[[], bool], one: Running, shape: Shape) -> list[Chat]:
    """Send a chat every so often until the job is over, then wait for those that are left."""
    began = time.perf_counter()
    chats: list[Chat] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        while not is_over():
            chats.append(Chat(time.perf_counter()))
            ask = loads.chats(len(chats), shape.n_chat_tokens)[-1]
            tasks.append(asyncio.create_task(_listen(one, ask, chats[-1])))
            next_at = began + len(chats) * shape.every_s
            await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return chats


async def _listen(one: Running, ask: Ask, chat: Chat) -> None:
    await one.ask(ask, lambda: chat.heard_at.append(time.perf_counter()))
    chat.ended_at = time.perf_counter()


def report(found: Contest[Turn]) -> str:
    """Return the table: over all chats of all rounds, and medians of documents a minute."""
    headings = ["", "first token p50, s", "p95, s", "between tokens p50, ms", "p95, ms"]
    headings += ["after a longer request, s"]
    headings += ["chats", "answered during the job", "documents/min", "without chats"]

    def cells(turns: list[Turn]) -> list[str]:
        chats = [chat for turn in turns for chat in turn.chats if chat.heard_at]
        first_s = [chat.first_s for chat in chats] or [float("nan")]
        between_s = [gap for chat in chats for gap in chat.between_s] or [float("nan")]
        return [
            *(f"{percentile(first_s, share):.2f}" for share in (0.5, 0.95)),
            *(f"{1000 * percentile(between_s, share):.0f}" for share in (0.5, 0.95)),
            f"{statistics.median(turn.after_longer.first_s for turn in turns):.2f}",
            f"{len(chats)} of {sum(len(turn.chats) for turn in turns)}",
            str(sum(turn.n_meanwhile for turn in turns)),
            f"{statistics.median(turn.per_minute for turn in turns):.1f}",
            f"{statistics.median(turn.per_minute_alone for turn in turns):.1f}",
        ]

    return found.table(headings, cells)


if __name__ == "__main__":
    main()
