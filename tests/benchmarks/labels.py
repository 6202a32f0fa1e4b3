"""Labels from a list: what a long list costs, against a static `enum` of ten.

uv run python tests/benchmarks/labels.py

The same model chooses a label of three words, from each list in turns, by one thread; processor
time of all our processes, since that is the same on a busy machine. An answer has about as many
tokens whatever the list, but the longer it is, the fewer of them follow from those before and are
computed together: so steps of the decode are counted, too. The first answer of each list waits for
its constraint, which is compiled once: the wait is what it takes longer than the same answer again.

What the constraint itself takes is measured without the model: random logits, of which the
likeliest token is mostly not allowed, so that each choice needs its mask.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.backends.local import LocalPool
from paddock.engine.llama.library import quiet_logs
from paddock.engine.llama.llama_model import Model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Pool, Sampling
from paddock.engine.sampling.constraint import GrammarCompiler
from paddock.engine.sampling.picker import Picker
from paddock.engine.settings import PoolSettings
from tests.benchmarks import arena
from tests.benchmarks.harness import percentile, processor_s, table

N_LABELS = (10, 2_000, 10_000, 20_000)
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


def label_form(n_labels: int) -> Constraint:
    form = {
        "type": "object",
        "properties": {"tag": {"enum": labels(n_labels)}},
        "required": ["tag"],
        "additionalProperties": False,
    }
    return Constraint("json_schema", json.dumps(form))


def label_request(model: str, n_labels: int, number: int) -> ChatRequest:
    return ChatRequest(
        ModelSpec(model, n_ctx_tokens=2048),
        (Message("user", f"Which label fits the number {number}? Answer as JSON."),),
        {"temperature": 0, "max_tokens": 48},
        constraint=label_form(n_labels),
    )


@dataclass(frozen=True, slots=True)
class Took:
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


@dataclass(slots=True)
class ChoiceTimes:
    """Processor time in seconds of what constraints do, without the model."""

    choices: list[float] = field(default_factory=list)
    followed: list[float] = field(default_factory=list)
    """Of tokens that follow from those before."""

    def answer(self, picker: Picker, next_row: Callable[[], Logits]) -> None:
        token = None
        while token is None or token.ends is None:
            began = time.process_time_ns()
            token = picker.follow()
            took_s = (time.process_time_ns() - began) / 1e9
            if token is not None:
                self.followed.append(took_s)
                continue
            row = next_row()
            began = time.process_time_ns()
            token = picker.pick(row)
            self.choices.append(took_s + (time.process_time_ns() - began) / 1e9)
        picker.close()


def choices_report(path: Path, n_answers: int) -> str:
    """Measure answers with each list in turns, without and with probabilities."""
    quiet_logs()
    model = Model(path)
    compiler = GrammarCompiler(model)
    chance = np.random.default_rng(1)

    def next_row() -> Logits:
        return chance.standard_normal(model.n_vocab, np.float32)

    times = {(n, logprobs): ChoiceTimes() for n in N_LABELS for logprobs in (None, 5)}
    for _ in range(n_answers):
        for (n, logprobs), each in times.items():
            picker = Picker(
                Sampling(temperature=0),
                np.zeros(0, np.int32),
                model,
                matcher=compiler.matcher(label_form(n)),
                max_tokens=512,
                n_logprobs=logprobs,
            )
            each.answer(picker, next_row)
    compiler.close()
    model.close()
    found = []
    for (n, logprobs), each in times.items():
        first = percentile(times[N_LABELS[0], logprobs].choices, 0.5)
        median = percentile(each.choices, 0.5)
        how = "without" if logprobs is None else "with"
        share = len(each.choices) / len(each.choices + each.followed)
        follows = percentile(each.followed, 0.5)
        row = [n, how, 1e6 * median, median / first, 1e6 * follows, share]
        found.append(row)
    heads = ["labels", "probabilities", "us a choice", "ratio", "us a token that follows"]
    return table([*heads, "choices a token"], found)


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
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)

    async def measure() -> str:
        options = dict(map(arena._setting, args.set))
        async with LocalPool(PoolSettings(**{"n_threads": 1, **options})) as pool:
            waits = await first_waits(pool, args.model)
            turns = await answer_times(pool, args.model, args.rounds, args.answers)
        path = (
            ModelFinder(PoolSettings().models_dir, PoolSettings().cache_dir).find(args.model).path
        )
        choices = choices_report(Path(path), 20 * args.answers)
        return f"{report(waits, turns)}\n\n{choices}"

    arena.show(args, measure)
