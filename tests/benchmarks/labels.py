"""Labels from a list: what a long list costs, against a static `enum` of ten.

uv run python tests/benchmarks/labels.py

The same model chooses a label of three words, from each list in turns, by one thread; processor
time of all our processes, since that is the same on a busy machine. An answer has about as many
tokens whatever the list, but the longer it is, the fewer of them follow from those before and are
computed together: so steps of the decode are counted, too. The first answer of each list waits for
its constraint, which is compiled once: the wait is what it takes longer than the same answer again.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Pool
from paddock.engine.settings import PoolSettings
from tests.benchmarks import arena
from tests.benchmarks.harness import percentile, processor_s, table

N_LABELS = (10, 1_000, 10_000)
"""The first is the static `enum`."""
FULL = {"rounds": 20, "answers": 10}
QUICK = {"rounds": 4, "answers": 5}
SYLLABLES = (
    "ba",
    "cor",
    "del",
    "fen",
    "gar",
    "hil",
    "jun",
    "kel",
    "lor",
    "mar",
    "nor",
    "pel",
    "ros",
)


@cache
def labels(n: int) -> list[str]:
    """Return different labels of three words, the same each time."""
    draw, found = random.Random(1), dict[str, None]()
    while len(found) < n:
        words = ("".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(3))
        found[" ".join(words)] = None
    return [*found]


def label_request(model: str, n_labels: int, number: int) -> ChatRequest:
    """Ask for the label of a text."""
    form = {
        "type": "object",
        "properties": {"tag": {"enum": labels(n_labels)}},
        "required": ["tag"],
        "additionalProperties": False,
    }
    return ChatRequest(
        ModelSpec(model, n_ctx_tokens=2048),
        (Message("user", f"Which label fits the number {number}? Answer as JSON."),),
        {"temperature": 0, "max_tokens": 48},
        constraint=Constraint("json_schema", json.dumps(form)),
    )


@dataclass(frozen=True, slots=True)
class Took:
    """What some answers took."""

    wall_s: float
    processor_s: float
    n_tokens: int
    n_steps: int
    """Of the decode: tokens that followed from those before take none of their own."""


async def took(pool: Pool, requests: Sequence[ChatRequest]) -> Took:
    """Measure answers, one after the other."""
    began, began_cpu = time.perf_counter(), processor_s()
    usages = [(await pool.chat(request).reply()).usage for request in requests]
    processor = processor_s() - began_cpu
    n_tokens = sum(one.completion_tokens for one in usages)
    n_steps = n_tokens - sum(one.accepted_tokens for one in usages)
    return Took(time.perf_counter() - began, processor, n_tokens, n_steps)


async def first_waits(pool: Pool, model: str) -> dict[int, float]:
    """Return for each list how much longer its first answer takes than the same one again."""
    await took(pool, [label_request(model, 2, 0)])  # the model and the libraries are then loaded
    found = {}
    for n in N_LABELS:
        first, again = [(await took(pool, [label_request(model, n, 0)])).wall_s for _ in range(2)]
        found[n] = first - again
    return found


async def answer_times(
    pool: Pool, model: str, n_rounds: int, n_answers: int
) -> dict[int, list[Took]]:
    """Measure answers with each list in turns."""
    found: dict[int, list[Took]] = {n: [] for n in N_LABELS}
    for number in range(n_rounds):
        for n in N_LABELS[:: -1 if number % 2 else 1]:
            requests = [label_request(model, n, each) for each in range(n_answers)]
            found[n].append(await took(pool, requests))
        arena.say(f"round {number + 1} of {n_rounds}")
    return found


def report(waits: Mapping[int, float], turns: Mapping[int, Sequence[Took]]) -> str:
    static = percentile([one.processor_s / one.n_tokens for one in turns[N_LABELS[0]]], 0.25)
    rows = []
    for n, rounds in turns.items():
        token_s = percentile([one.processor_s / one.n_tokens for one in rounds], 0.25)
        step_s = percentile([one.processor_s / max(1, one.n_steps) for one in rounds], 0.25)
        share = rounds[0].n_steps / rounds[0].n_tokens
        ratio = token_s / static if static else "-"  # all in less than a tick of the clock
        rows.append([n, 1000 * waits[n], share, 1000 * step_s, 1000 * token_s, ratio])
    heads = ["labels", "ms to compile", "steps a token", "ms a step", "ms a token", "ratio"]
    return table(heads, rows)


def main() -> None:
    """Measure and print."""
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)

    async def measure() -> str:
        options = dict(map(arena._setting, args.set))
        async with LocalPool(PoolSettings(**{"n_threads": 1, **options})) as pool:
            waits = await first_waits(pool, args.model)
            turns = await answer_times(pool, args.model, args.rounds, args.answers)
        return report(waits, turns)

    arena.show(args, measure, rounds=args.rounds, answers=args.answers)


if __name__ == "__main__":
    main()
