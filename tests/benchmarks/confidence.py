"""Confidence: how often it was right, calibrated and not, and what it costs in decode.

uv run python tests/benchmarks/confidence.py

The model chooses one of three topics for generated texts whose topic is known; half of the texts
have a remark about another topic at their end. The confidence is that of `reply.confidence`: the
probability of the chosen label among the three. For the calibrated column each half of the texts is
calibrated by the other half, as the reviews of a person would. The cost: the same forms with and
without confidence, in turns, by one thread; processor time a token of all our processes, since
that is the same on a busy machine.
"""

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Pool, Reply
from paddock.engine.settings import PoolSettings
from paddock.runner.calibration.isotonic_fit import Reviewed, fit, reliability
from paddock.steps.llm.confidence import N_ALTERNATIVES, confidence
from tests.benchmarks import arena
from tests.benchmarks.harness import percentile, processor_s, table

FULL = {"texts": 150, "rounds": 20, "answer_tokens": 128}
QUICK = {"texts": 60, "rounds": 6, "answer_tokens": 96}

TOPICS = {
    "sport": (
        "{name} won the final of {place} after extra time.",
        "The striker of {place} scored twice in the second half.",
        "{name} ran the marathon in under three hours and got a medal.",
        "The coach was pleased: {place} had not lost a match since {month}.",
        "After the tennis match {name} signed balls for the fans.",
        "{name} swims before work, and hopes to be chosen for the relay in {month}.",
    ),
    "food": (
        "{name} baked a cake with apples and cinnamon.",
        "The soup of {name} needs more salt and an onion.",
        "For dinner {name} fried fish with potatoes and butter.",
        "The restaurant in {place} opened in {month}; its pasta with cheese is good.",
        "Cut the carrots, add rice and let it cook, said {name}.",
        "The market of {place} is known for its bread, and {name} buys olives there.",
    ),
    "weather": (
        "It will rain in {place} until the evening, and strong wind is expected.",
        "Snow fell on {place} in {month}, and roads were icy.",
        "{name} took an umbrella: clouds and thunder were forecast.",
        "Sunshine all day in {place}, with 28 degrees in the afternoon.",
        "Fog over {place} delayed {name} this morning.",
        "The drought in {place} has lasted since {month}, said {name}.",
    ),
}
REMARKS = {
    "sport": " The match is on Sunday.",
    "food": " Lunch will be served.",
    "weather": " The sun came out later.",
}
NAMES = ("Anna", "Ben Carter", "Mr Okafor", "Lena", "the mayor", "Tom")
PLACES = ("Porto", "Leeds", "Tarn", "Elmbridge", "Oslo")
MONTHS = ("March", "May", "October", "winter")
EXAMPLES = (
    ("The goalkeeper saved a penalty.", "sport"),
    ("Fry the eggs with a little oil.", "food"),
    ("A storm with hail is coming.", "weather"),
)
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": list(TOPICS)}},
    "required": ["topic"],
    "additionalProperties": False,
}
FORM = {
    "type": "array",
    "minItems": 30,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 30},
            "count": {"type": "integer"},
            "tone": {"enum": ["good", "bad", "mixed"]},
        },
        "required": ["name", "count", "tone"],
        "additionalProperties": False,
    },
}
MODEL = ModelSpec("smollm2:135m", n_ctx_tokens=2048)


def labelled_texts(n: int, seed: int = 1) -> list[tuple[str, str]]:
    """Return texts with their topics, the same for the same seed."""
    draw = random.Random(seed)
    found = []
    for number in range(n):
        topic = list(TOPICS)[number % len(TOPICS)]
        words = {"name": draw.choice(NAMES), "place": draw.choice(PLACES)}
        text = draw.choice(TOPICS[topic]).format(**words, month=draw.choice(MONTHS))
        if draw.random() < 0.5:
            text += REMARKS[draw.choice([other for other in TOPICS if other != topic])]
        found.append((text[0].upper() + text[1:], topic))
    return found


def label_request(text: str, model: ModelSpec = MODEL, **params: float) -> ChatRequest:
    """Ask for the topic of a text, with its confidence."""
    turns = [
        turn
        for known, topic in EXAMPLES
        for turn in (
            Message("user", f"Text: {known}\nTopic?"),
            Message("assistant", json.dumps({"topic": topic}, separators=(",", ":"))),
        )
    ]
    asked = Message("user", f"Text: {text}\nTopic?")
    constraint = Constraint("json_schema", json.dumps(SCHEMA))
    own = {"temperature": 0, "max_tokens": 24, **params}
    return ChatRequest(
        model, (*turns, asked), own, constraint=constraint, n_logprobs=N_ALTERNATIVES
    )


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer: the label, its field of `confidence`, and whether it is the known one."""

    label: str
    p: float
    second: str | None
    second_p: float
    is_right: bool


def labelled(reply: Reply, topic: str) -> Labelled:
    output = json.loads(reply.text)
    field = confidence(reply.text, reply.logprobs, output, SCHEMA)["topic"]
    label = output["topic"]
    return Labelled(label, field["raw"], field["second"], field["second_p"] or 0.0, label == topic)


async def label_all(pool: Pool, n: int, model: ModelSpec = MODEL) -> list[Labelled]:
    async def one(text: str, topic: str) -> Labelled:
        return labelled(await pool.chat(label_request(text, model)).reply(), topic)

    return list(await asyncio.gather(*(one(*text) for text in labelled_texts(n))))


def by_the_other_half(found: Sequence[Labelled]) -> list[Reviewed]:
    """Return each answer with its probability as the other half of all calibrates it.

    Where that half says nothing, it stays the model's.
    """
    halves = found[::2], found[1::2]
    lines = [fit((one.p, one.is_right) for one in half) for half in halves]
    return [
        (one.p if (p := line.of(one.p)) is None else p, one.is_right)
        for line, half in zip(reversed(lines), halves, strict=True)
        for one in half
    ]


def gap(reviewed: Sequence[Reviewed]) -> float:
    """Return how far the probability is from the share that is right, over the tenths."""
    rows = reliability(reviewed)
    sums = {one.label: 0.0 for one in rows}
    for row in rows:
        inside = [p for p, _ in reviewed if row.low <= p < row.high or p == row.high == 1]
        sums[row.label] = abs(sum(inside) - row.n_right)
    return sum(sums.values()) / len(reviewed)


def reliability_table(found: Sequence[Labelled]) -> str:
    """Return how often answers were right, by their confidence."""
    raw: list[Reviewed] = [(one.p, one.is_right) for one in found]
    better = by_the_other_half(found)
    columns = [{one.label: one for one in reliability(part)} for part in (raw, better)]
    rows = []
    for label in sorted({*columns[0], *columns[1]}):
        row: list[object] = [label]
        for column in columns:
            one = column.get(label)
            row += [f"{one.n_right} of {one.n}" if one else "-"]
        rows.append(row)
    n_right = sum(one.is_right for one in found)
    return "\n\n".join(
        [
            f"{n_right} of {len(found)} labels are right. Mean distance between probability and "
            f"share: {gap(raw):.2f}, calibrated {gap(better):.2f}.",
            table(["confidence", "right", "right, calibrated"], rows),
        ]
    )


async def cost(pool: Pool, model: ModelSpec, n_rounds: int, n_tokens: int) -> str:
    """Return the processor time a token with confidence and without."""

    async def once(n_logprobs: int | None, number: int, most: int = n_tokens) -> float:
        prompt = f"Write a list of {number + 3} towns with counts and tones, as JSON."
        request = ChatRequest(
            model,
            (Message("user", prompt),),
            {"temperature": 0, "max_tokens": most, "guards_repetition": False},
            constraint=Constraint("json_schema", json.dumps(FORM)),
            n_logprobs=n_logprobs,
            drafts=False,
        )
        began = processor_s()
        usage = (await pool.chat(request).reply()).usage
        return 1000 * (processor_s() - began) / max(1, usage.completion_tokens)

    pairs = []
    for number in range(n_rounds):
        await once(None, number, 1)  # its prompt is then in the cache for both
        kinds = [None, N_ALTERNATIVES] if number % 2 else [N_ALTERNATIVES, None]
        pairs.append({kind: await once(kind, number) for kind in kinds})
        arena.say(f"round {number + 1} of {n_rounds}")
    names = {"without confidence": None, "with": N_ALTERNATIVES}
    took_by_name = [(name, [pair[kind] for pair in pairs]) for name, kind in names.items()]
    heads = ["decode of a form", "ms a token (least)", "ms a token (a quarter is below)"]
    plain, sure = (percentile(took, 0.25) for _, took in took_by_name)
    rows = [[name, min(took), percentile(took, 0.25)] for name, took in took_by_name]
    return f"{table(heads, rows)}\n\nRatio of the quarters: {sure / plain:.3f}."


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), FULL, QUICK)
    model = replace(MODEL, ref=args.model)

    async def measure() -> str:
        options = dict(map(arena._setting, args.set))
        async with LocalPool(PoolSettings(n_threads=args.threads, **options)) as pool:
            found = await label_all(pool, args.texts, model)
            arena.say(f"{len(found)} texts")
        async with LocalPool(PoolSettings(n_threads=1, **options)) as pool:
            took = await cost(pool, model, args.rounds, args.answer_tokens)
        return f"{reliability_table(found)}\n\n{took}"

    arena.show(args, measure)


if __name__ == "__main__":
    main()
