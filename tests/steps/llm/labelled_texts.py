"""Texts whose topic is known, of which a model chooses one of three with its confidence.

Half of the texts have a remark about another topic at their end. The confidence is that of
`reply.confidence`: the probability of the chosen label among the three.
"""

import asyncio
import json
import random
from dataclasses import dataclass

from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Pool, Reply
from paddock.steps.llm.confidence import N_ALTERNATIVES, confidence

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
