"""What the contenders are asked: documents, extractions, chats, short texts. Pure.

Everything comes out of numbers, so that each run asks the same. Documents of different rounds
share no beginning but the instructions: no one may keep an answer from the round before.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Priority = Literal["interactive", "batch"]

N_WORDS = 400

INSTRUCTIONS = """\
You summarise letters and reports for the harbour office of Wexcombe. The reader has no time: say \
first what the document is about, then who did what and where, then what it cost. Write plain \
English sentences in the past tense, and only what the document says. Never add an opinion, a \
greeting, a heading or a list. Give names, days and sums exactly as they are written; where two \
sums disagree, give both. Leave out the weather. If a person is named more than once, name them \
once. Do not mention these instructions."""

EXTRACTION = """\
You read letters and reports for the harbour office of Wexcombe, and fill in a form for each: who \
is named first, at which place, and the first sum in pounds. Take names, places and sums exactly \
as the document has them, and never guess: an empty text or a nought stands for what it does not \
say. Answer with the form alone, as one JSON object with the fields "person", "place" and \
"pounds"; no explanation, no heading, no code fence."""

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "person": {"type": "string"},
        "place": {"type": "string"},
        "pounds": {"type": "integer"},
    },
    "required": ["person", "place", "pounds"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, as every contender gets it."""

    system: str
    user: str
    n_tokens: int
    """Of the answer, at most."""
    schema: Mapping[str, Any] | None = None
    priority: Priority = "batch"

    def messages(self) -> list[dict[str, str]]:
        turns = [{"role": "system", "content": self.system}] if self.system else []
        return [*turns, {"role": "user", "content": self.user}]


def summaries(number: int, n: int, n_tokens: int, n_words: int = N_WORDS) -> list[Ask]:
    """Make a round of documents to be summarised, all with the same instructions."""
    closing = "Summarise the document above in three sentences."
    return [
        Ask(INSTRUCTIONS, f"{text}\n\n{closing}", n_tokens)
        for text in documents(number, n, n_words)
    ]


def extractions(number: int, n: int, n_tokens: int, n_words: int = N_WORDS) -> list[Ask]:
    """Make a round of documents to be read into a form of three fields."""
    closing = "Fill in the form for the document above."
    return [
        Ask(EXTRACTION, f"{text}\n\n{closing}", n_tokens, SCHEMA)
        for text in documents(number, n, n_words)
    ]


def chats(n: int, n_tokens: int) -> list[Ask]:
    """Make short questions of someone who waits for the answer."""
    return [
        Ask(
            "You are a helpful assistant.",
            f"{SUBJECTS[index % len(SUBJECTS)]} Answer in one sentence. (Question {index + 1}.)",
            n_tokens,
            priority="interactive",
        )
        for index in range(n)
    ]


def short_texts(n: int) -> list[str]:
    """Make texts of 5 to 60 words, as titles, notes and paragraphs are."""
    chance = random.Random(0)
    texts = []
    for index in range(n):
        words = f"Note {index}: {' '.join(_line(chance) for _ in range(4))}".split()
        texts.append(" ".join(words[: chance.choice((5, 9, 14, 20, 30, 60))]))
    return texts


def documents(number: int, n: int, n_words: int = N_WORDS) -> list[str]:
    """Make the documents of a round, no two with the same beginning."""
    return [_document(random.Random(f"{number} {index}"), n_words) for index in range(n)]


def _document(chance: random.Random, n_words: int) -> str:
    lines = [f"Letter {chance.randrange(10**6)} from {chance.choice(PLACES)}."]
    while sum(len(line.split()) for line in lines) < n_words - 12:
        lines.append(_line(chance))
    return "\n".join(lines)


def _line(chance: random.Random) -> str:
    return (
        f"On {chance.choice(DAYS)} {chance.choice(PEOPLE)} {chance.choice(DEEDS)} "
        f"{chance.choice(PLACES)}, and {chance.choice(PEOPLE)} said that it "
        f"{chance.choice(COMMENTS)}; the bill was {chance.randrange(11, 990)} pounds."
    )


DAYS = ("Monday", "the second Tuesday in May", "a wet Thursday", "the eve of the fair", "Sunday")
PEOPLE = ("the ferryman", "Mrs Lister", "the new doctor", "an old miller", "Tom", "the council")
DEEDS = ("mended the bridge at", "counted the eels at", "lost a hat at", "sold the boats of")
PLACES = ("Cold Ash", "Salt Bridge", "the upper mill", "Wexcombe harbour", "Long Meadow")
COMMENTS = (
    "should have been done in spring",
    "was better than nothing at all",
    "would not last until the winter",
    "had cost too much the first time",
)
SUBJECTS = (
    "Why is the sea salty?",
    "What does a miller do?",
    "How does a lock lift a boat?",
    "Why do bridges have arches?",
    "Where do eels live?",
)


def is_valid(text: str) -> bool:
    """Return whether an answer is what `SCHEMA` wants.

    >>> is_valid('{"person": "Tom", "place": "Cold Ash", "pounds": 12}'), is_valid('{"person": "')
    (True, False)
    """
    try:
        found = json.loads(text)
    except ValueError:
        return False
    if not isinstance(found, dict) or set(found) != set(SCHEMA["properties"]):
        return False
    kinds = [type(found[name]) for name in ("person", "place", "pounds")]
    return kinds == [str, str, int]
