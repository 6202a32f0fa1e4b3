"""Raw prefill and decode speed: our pool against `llama-batched-bench`.

uv run python tests/benchmarks/decode.py

1, 4 and 16 unrelated sequences, each with the same number of prompt and answer tokens, a unified
cache and batches of 512 on both sides. batched-bench calls `llama_decode` in a bare loop with
random tokens and samples nothing; ours goes the whole way: through the pool's process boundary,
the scheduler, greedy choice and text. Prefill is the time for answers of one token; decode is
what longer answers to like prompts take beyond that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.models import ModelFinder
from paddock.engine.pool import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings
from tests.benchmarks import peers
from tests.benchmarks.harness import circumstances, table

N_SEQUENCES = (1, 4, 16)
N_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second over all sequences."""

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class Shape:
    """What one measurement computes."""

    n_prompt_tokens: int
    n_answer_tokens: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--answer-tokens", type=int, default=64)
    args = parser.parse_args()
    try:
        bench = peers.find().batched_bench
    except peers.PeersMissing as missing:
        sys.exit(f"This benchmark compares, and there is nothing to compare with: {missing}")
    shape = Shape(args.prompt_tokens, args.answer_tokens)
    found = asyncio.run(_contest(args.model, args.threads, args.rounds, shape, bench))
    print(
        circumstances(
            model=args.model,
            prompt_tokens=shape.n_prompt_tokens,
            answer_tokens=shape.n_answer_tokens,
            rounds=args.rounds,
            threads=args.threads,
            batch=N_BATCH_TOKENS,
            cache="unified f16",
        )
    )
    print(report(found))


async def _contest(
    model: str, n_threads: int, n_rounds: int, shape: Shape, bench: Path
) -> dict[int, list[tuple[Speed, Speed]]]:
    """Give (ours, theirs) of each round, for each number of sequences."""
    finder = ModelFinder(PoolSettings().models_dir, PoolSettings().cache_dir)
    path = Path(finder.find(model).path)
    settings = PoolSettings(
        n_threads=n_threads, num_parallel=max(N_SEQUENCES), n_batch_tokens=N_BATCH_TOKENS
    )
    found: dict[int, list[tuple[Speed, Speed]]] = {n: [] for n in N_SEQUENCES}
    async with LocalPool(settings, models=finder) as pool:
        ours = _Ours(pool, ModelSpec(model, keep_alive_s=-1), shape)
        await ours.speed(1)  # load, warm up
        for number in range(n_rounds):
            theirs = await asyncio.to_thread(_batched_bench, bench, path, n_threads, shape)
            for n in N_SEQUENCES:
                found[n].append((await ours.speed(n), theirs[n]))
            print(f"round {number + 1} of {n_rounds}", file=sys.stderr, flush=True)
    return found


class _Ours:
    """Measures the pool. Prompts never repeat, so that none is found in the cache."""

    def __init__(self, pool: LocalPool, spec: ModelSpec, shape: Shape) -> None:
        self._pool = pool
        self._spec = spec
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
            n_sequences * self._shape.n_answer_tokens / (whole_s - prefill_s),
        )

    async def _answer(self, prompts: list[tuple[Message, ...]], n_tokens: int) -> float:
        began = time.perf_counter()
        params = {"max_tokens": n_tokens}
        requests = [ChatRequest(self._spec, prompt, params, priority="batch") for prompt in prompts]
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


# One token each, after a blank, in the vocabularies of SmolLM2 and most others.
WORDS = ("the", "river", "and", "bridge", "old", "water", "stone", "light", "under", "night")


def _batched_bench(bench: Path, model: Path, n_threads: int, shape: Shape) -> dict[int, Speed]:
    n_cells = max(N_SEQUENCES) * (shape.n_prompt_tokens + shape.n_answer_tokens)
    command = [str(bench), "-m", str(model), "-t", str(n_threads), "-c", str(n_cells), "-kvu"]
    command += ["-b", str(N_BATCH_TOKENS), "-ub", str(N_BATCH_TOKENS)]
    command += ["-npp", str(shape.n_prompt_tokens), "-ntg", str(shape.n_answer_tokens)]
    command += ["-npl", ",".join(map(str, N_SEQUENCES)), "--output-format", "jsonl"]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    return speeds(done.stdout)


def speeds(printed: str) -> dict[int, Speed]:
    """Read batched-bench's lines of JSON.

    >>> speeds('{"pl": 4, "speed_pp": 500.5, "speed_tg": 240.0}')
    {4: Speed(prefill=500.5, decode=240.0)}
    """
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {one["pl"]: Speed(one["speed_pp"], one["speed_tg"]) for one in lines}


def report(found: dict[int, list[tuple[Speed, Speed]]]) -> str:
    """Give the table of medians, and the medians of the rounds' own ratios."""
    rows = []
    for n, rounds in found.items():
        row: list[object] = [n]
        for which in ("prefill", "decode"):
            ours = [getattr(one, which) for one, _ in rounds]
            theirs = [getattr(other, which) for _, other in rounds]
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            medians = [statistics.median(values) for values in (ours, theirs)]
            row += [*(f"{value:.0f}" for value in medians), f"{statistics.median(ratios):.2f}"]
        rows.append(row)
    headings = ["sequences", "prefill, ours", "batched-bench", "ratio"]
    return table([*headings, "decode, ours", "batched-bench", "ratio"], rows)


if __name__ == "__main__":
    main()
