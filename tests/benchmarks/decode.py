"""Raw prefill and decode speed: our pool against `llama-batched-bench`.

uv run python tests/benchmarks/decode.py

1, 4, 8, 16 and 32 unrelated sequences, each with the same number of prompt and answer tokens and
batches of 512 on both sides; batched-bench with a unified cache and with a split one, with and
without flash attention. Ours is compared with the best of the four.
batched-bench calls `llama_decode` in a bare loop with random tokens and samples nothing; ours
goes the whole way: through the pool's process boundary, the scheduler, greedy choice and text.
Prefill is the time for answers of one token; decode is what longer answers to like prompts take
beyond that.
"""

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.request import ChatRequest, Message
from tests.benchmarks import arena, peers
from tests.benchmarks.contenders import Ours, ours
from tests.benchmarks.harness import NOTHING, table
from tests.benchmarks.raw import N_BATCH_TOKENS, Speed, bench_speeds
from tests.benchmarks.setup import OUR_GREEDY, Setup

N_SEQUENCES = (1, 4, 8, 16, 32)
FULL = {"rounds": 3, "prompt_tokens": 256, "answer_tokens": 64}
QUICK = {"rounds": 1, "prompt_tokens": 128, "answer_tokens": 32}

LAYOUTS = {
    "unified": (True, "on"),
    "split": (False, "on"),
    "unified, no flash attention": (True, "off"),
    "split, no flash attention": (False, "off"),
}
"""batched-bench's: whether the cache is unified, and its flash attention."""


@dataclass(frozen=True, slots=True)
class Shape:
    n_sequences: tuple[int, ...]
    n_prompt_tokens: int
    n_answer_tokens: int


@dataclass(slots=True)
class Found:
    """One round: ours, and theirs by layout."""

    ours: dict[int, Speed] = field(default_factory=dict)
    theirs: dict[str, Mapping[int, Speed]] = field(default_factory=dict)


def main() -> None:
    parser = arena.parser(__doc__)
    parser.add_argument("--sequences", default=",".join(map(str, N_SEQUENCES)))
    args = arena.arguments(parser, FULL, QUICK)
    setup = arena.setup_of(args)
    shape = Shape(_numbers(args.sequences), args.prompt_tokens, args.answer_tokens)
    bench = peers.look().batched_bench
    if bench is None:
        arena.say("llama-batched-bench is left out: see tests/benchmarks/peers.py")

    async def measure() -> str:
        rounds = []
        for number in range(args.rounds):
            rounds.append(await one_round(setup, shape, bench))
            arena.say(f"round {number + 1} of {args.rounds}")
        return report(rounds, shape.n_sequences)

    arena.show(args, measure, batch=N_BATCH_TOKENS, cache="f16")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


async def one_round(
    setup: Setup, shape: Shape, bench: Path | None, *, bench_s: float | None = None
) -> Found:
    """Measure ours with every number of sequences, and theirs with both caches."""
    found = Found()
    for n in shape.n_sequences:
        found.ours.update(await our_speeds(setup, shape, [n]))
        arena.say(f"{n} sequences, ours")
    if bench is not None:
        for name, (is_unified, flash_attention) in LAYOUTS.items():
            found.theirs[name] = await asyncio.to_thread(
                bench_speeds,
                bench,
                setup,
                shape.n_prompt_tokens,
                shape.n_answer_tokens,
                shape.n_sequences,
                is_unified=is_unified,
                flash_attention=flash_attention,
                timeout_s=bench_s,
            )
            arena.say(f"batched-bench, {name}")
    return found


async def our_speeds(setup: Setup, shape: Shape, numbers: Sequence[int]) -> dict[int, Speed]:
    """Measure one pool, made for the largest of the numbers."""
    per_sequence = -(-(shape.n_prompt_tokens + shape.n_answer_tokens + 16) // 256) * 256
    mine = replace(
        setup,
        n_ctx_tokens=max(512, per_sequence),
        n_parallel=max(numbers),
        n_cells=max(512, per_sequence) * max(numbers),
    )
    async with ours(mine) as running:
        prompts = Prompts(running, shape)
        return {n: await prompts.speed(n) for n in numbers}


class Prompts:
    """Asks the pool. Prompts never repeat, so that none is found in the cache."""

    def __init__(self, running: Ours, shape: Shape) -> None:
        self._pool = running.pool
        self._spec = running.spec
        self._shape = shape
        self._chance = random.Random(0)

    async def speed(self, n_sequences: int) -> Speed:
        """Measure prefill, then prefill and decode, with fresh prompts each."""
        prefill_s = await self._answer(await self._prompts(n_sequences), 1)
        whole_s = await self._answer(
            await self._prompts(n_sequences), self._shape.n_answer_tokens + 1
        )
        return Speed(
            n_sequences * self._shape.n_prompt_tokens / prefill_s,
            _rate(n_sequences * self._shape.n_answer_tokens, whole_s - prefill_s),
        )

    async def _answer(self, prompts: list[tuple[Message, ...]], n_tokens: int) -> float:
        began = time.perf_counter()
        params = {**OUR_GREEDY, "max_tokens": n_tokens}
        requests = [
            ChatRequest(self._spec, prompt, params, priority="batch", drafts=False)
            for prompt in prompts
        ]
        replies = await asyncio.gather(*(self._pool.chat(one).reply() for one in requests))
        seconds = time.perf_counter() - began
        short = [one for one in replies if one.usage.completion_tokens != n_tokens]
        if short:
            raise RuntimeError(f"an answer ended early: {short[0].text!r}")
        return seconds

    async def _prompts(self, n: int) -> list[tuple[Message, ...]]:
        return [await self._prompt() for _ in range(n)]

    async def _prompt(self) -> tuple[Message, ...]:
        """Make a prompt of exactly so many tokens whose answer will be long."""
        words = [f"{self._chance.randrange(10**9)} Continue this story at great length:"]
        while True:
            prompt = (Message("system", " ".join(words)), Message("user", "Once upon a time"))
            missing = self._shape.n_prompt_tokens - await self._pool.count_chat(self._spec, prompt)
            if missing == 0:
                return prompt
            if missing < 0:
                words.pop()
            words += [self._chance.choice(WORDS) for _ in range(max(1, missing * 9 // 10))]


def _rate(n: int, seconds: float) -> float:
    """Return n a second; no number where the noise is larger than what is measured."""
    return n / seconds if seconds > 0 else float("nan")


# One token each, after a blank, in the vocabularies of SmolLM2 and most others.
WORDS = ("the", "river", "and", "bridge", "old", "water", "stone", "light", "under", "night")


def report(rounds: Sequence[Found], n_sequences: Sequence[int]) -> str:
    """Return the table of medians, with the medians of the rounds' own ratios to the best one."""
    headings = ["sequences"]
    for which in ("prefill", "decode"):
        headings += [f"{which}, ours", "batched-bench", "its layout", "ratio"]
    return table(headings, [_row(rounds, n) for n in n_sequences])


def _row(rounds: Sequence[Found], n: int) -> list[object]:
    row: list[object] = [n]
    for which in ("prefill", "decode"):
        mine = [getattr(one.ours[n], which) for one in rounds]
        theirs = {
            name: [speed for one in rounds if (speed := _speed(one.theirs.get(name), n, which))]
            for name in LAYOUTS
        }
        whole = {name: speeds for name, speeds in theirs.items() if len(speeds) == len(rounds)}
        best = max(whole, key=lambda name: statistics.median(whole[name]), default=None)
        row.append(f"{statistics.median(mine):.0f}")
        if best is None:
            row += [NOTHING] * 3
            continue
        ratios = (our / their for our, their in zip(mine, whole[best], strict=True))
        row += [f"{statistics.median(whole[best]):.0f}", best, f"{statistics.median(ratios):.2f}"]
    return row


def _speed(at: Mapping[int, Speed] | None, n: int, which: str) -> float | None:
    return getattr(at[n], which) if at and n in at else None


if __name__ == "__main__":
    main()
