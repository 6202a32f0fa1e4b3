"""Do finished prompts that are kept slow down those that live? One chat, before and after.

uv run python tests/benchmarks/idle.py

Attention runs over the highest used cell. A chat is answered on an empty cache; then documents are
read, each with an answer of one token, and their prompts stay as long as there is room; then chats
are answered again. Both are of one process, so the ratio stands on a noisy machine too.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import arena, loads
from tests.benchmarks.arena import Contest
from tests.benchmarks.contenders import PADDOCK, SERVERS, chosen
from tests.benchmarks.setup import Running

FULL = {"documents": 24, "rounds": 3, "answer_tokens": 128, "words": 400, "chats": 3}
QUICK = {**FULL, "documents": 12, "rounds": 1, "answer_tokens": 64}
CONTENDERS = (PADDOCK, *(one for one in SERVERS if one.key in ("server-8", "server-8-kvu")))


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is asked."""

    n_documents: int
    n_tokens: int
    n_words: int
    n_chats: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Tokens a second of one chat, on an empty cache and next to what is kept."""

    before: float
    after: float


def main() -> None:
    """Measure and print."""
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)
    setup = arena.setup_of(args)
    shape = Shape(args.documents, args.answer_tokens, args.words, args.chats)
    contenders = chosen(args.only, CONTENDERS)

    async def measure() -> str:
        found = await arena.contest(
            contenders, setup, args.rounds, lambda one, number: play(shape, one, number)
        )
        return report(found)

    arena.show(
        args,
        measure,
        load="one chat, with and without finished prompts in the cache",
        finished_prompts=args.documents,
        words_of_each=args.words,
        answer_tokens=args.answer_tokens,
        rounds=args.rounds,
    )


async def play(shape: Shape, one: Running, number: int) -> Turn:
    """Chat, read the documents, chat again."""
    before = await _chat(shape, one, 2 * number)
    await arena.ask_all(one, loads.summaries(number, shape.n_documents, 1, shape.n_words), 0)
    return Turn(before, await _chat(shape, one, 2 * number + 1))


async def _chat(shape: Shape, one: Running, number: int) -> float:
    """Return the median speed of a few chats, one after the other."""
    speeds = []
    for index in range(shape.n_chats):
        heard_at: list[float] = []
        ask = loads.story(number * shape.n_chats + index, shape.n_tokens)
        await one.ask(ask, lambda: heard_at.append(time.perf_counter()))  # noqa: B023
        if len(heard_at) > 1:
            speeds.append((len(heard_at) - 1) / (heard_at[-1] - heard_at[0]))
    return statistics.median(speeds)


def report(found: Contest[Turn]) -> str:
    """Return the table: medians over the rounds."""
    headings = ["", "empty cache, tokens/s", "next to finished prompts", "ratio"]

    def cells(turns: list[Turn]) -> list[str]:
        return [
            f"{statistics.median(turn.before for turn in turns):.1f}",
            f"{statistics.median(turn.after for turn in turns):.1f}",
            f"{statistics.median(turn.after / turn.before for turn in turns):.2f}",
        ]

    return found.table(headings, cells)


if __name__ == "__main__":
    main()
