"""Raw prefill and decode speed of our pool, as `gpu.py` compares it with `llama-batched-bench`.

That one calls `llama_decode` in a bare loop with random tokens and samples nothing; ours goes the
whole way: through the pool's process boundary, the scheduler, greedy choice and text. Prefill is
the time for answers of one token; decode is what longer answers to like prompts take beyond that.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paddock.engine.request import ChatRequest, Message
from tests.benchmarks.contenders import Ours, ours
from tests.benchmarks.raw import Speed
from tests.benchmarks.setup import OUR_GREEDY, Setup


@dataclass(frozen=True, slots=True)
class Shape:
    n_sequences: tuple[int, ...]
    n_prompt_tokens: int
    n_answer_tokens: int


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
