"""Ask a prompt that does not fit in parts: the longest text in it is divided, the rest stays.

Map-reduce: the prompt with each part in place of the text, then with the answers in its place.
Refine: one answer, taken along from part to part. Nothing is left out; each prompt is the author's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddock.engine.request import Message
from paddock.steps.answers.asking import Asker
from paddock.steps.step import StepError

from .condense import together
from .pieces import Piece, cut

_MARK_TOKENS = 32  # "[Part 12 of 345]" and where two texts meet
_MOST_CUTS = 8
_MOST_LEVELS = 32
_SHRINKS = 0.9  # a level that leaves more than this of the text will not come to an end


@dataclass(frozen=True, slots=True)
class Divisible:
    """A conversation, and the text in it that may be divided."""

    messages: Sequence[Message]
    text: str

    def with_text(self, text: str) -> list[Message]:
        """Give the conversation with another text in its place."""
        return [
            Message(one.role, one.content.replace(self.text, text)) if one.role == "user" else one
            for one in self.messages
        ]


def divisible(messages: Sequence[Message], texts: Sequence[str], why: str) -> Divisible:
    """Find the longest of the texts that stands in the user's words as it is.

    Raises:
        StepError: there is none; `why` tells what does not fit.
    """
    said = [one.content for one in messages if one.role == "user"]
    for text in sorted(texts, key=len, reverse=True):
        if text.strip() and any(text in words for words in said):
            return Divisible(messages, text)
    raise StepError(
        f"{why.rstrip('.')}, and no text in it can be divided.",
        remedy="The longest text that `prompt` takes from elsewhere as it is, such as "
        "`{{ steps.text.text }}`, is what is read in parts.",
    )


async def map_reduced(asker: Asker, whole: Divisible) -> list[Message]:
    """Ask for each part and give the last prompt, which has the answers in the text's place.

    Raises:
        PromptTooLong: what stands beside the text leaves no room for a part of it.
        StepError: the answers do not get shorter.
    """
    text, n_parts = whole.text, 0
    for _ in range(_MOST_LEVELS):
        parts = await _parts(asker, whole, text, reserve=0)
        n_parts = n_parts or len(parts)
        prompts = [
            whole.with_text(f"{_mark('Part', index, parts)}\n{part.text}")
            for index, part in enumerate(parts)
        ]

        async def one(messages: list[Message]) -> str:
            return (await asker.ask(messages)).text.strip()

        answers = await together(asker, one, prompts)
        told = "\n\n".join(
            f"{_mark('Answer from part', index, parts)}\n{answer}"
            for index, answer in enumerate(answers)
        )
        messages = whole.with_text(told)
        if await asker.overflow(messages) is None:
            _tell(asker, n_parts, "map-reduce")
            return messages
        if len(told) > _SHRINKS * len(text):
            break
        text = told
    raise StepError(
        "the answers to the parts do not get shorter, so they would never fit into one prompt.",
        remedy="Ask for less in `prompt`, or raise the model's `ctx`.",
        kind="check",
    )


async def refined(asker: Asker, whole: Divisible) -> list[Message]:
    """Take an answer along from part to part, and give the last part's prompt.

    Raises:
        PromptTooLong: what stands beside the text leaves no room for a part of it.
    """
    parts = await _parts(asker, whole, whole.text, reserve=await asker.reserved())
    messages: list[Message] = []
    answer = ""
    for index, part in enumerate(parts):
        before = f"[Answer so far]\n{answer}\n\n" if index else ""
        messages = whole.with_text(f"{before}{_mark('Part', index, parts)}\n{part.text}")
        if index + 1 < len(parts):
            answer = (await asker.ask(messages)).text.strip()
    _tell(asker, len(parts), "refine")
    return messages


async def _parts(asker: Asker, whole: Divisible, text: str, reserve: int) -> list[Piece]:
    """Cut a text so that each part fits in its place."""
    n_places = max(
        1, sum(one.content.count(whole.text) for one in whole.messages if one.role == "user")
    )
    room = await asker.room() - await asker.size(whole.with_text("")) - reserve
    limit = room // n_places - _MARK_TOKENS
    for _ in range(_MOST_CUTS):
        if limit < 1:
            break
        parts = await cut(text, n_tokens=limit, count=asker.count)
        longest = max(parts, key=lambda part: part.n_tokens)
        n_tokens = await asker.size(whole.with_text(longest.text))
        if n_tokens + reserve + _MARK_TOKENS // 2 <= await asker.room():
            return parts
        limit = limit * 3 // 4
    raise await asker.overflow(whole.with_text(whole.text)) or StepError("the prompt does not fit.")


def _mark(what: str, index: int, parts: Sequence[Piece]) -> str:
    return f"[{what} {index + 1} of {len(parts)}]"


def _tell(asker: Asker, n_parts: int, how: str) -> None:
    asker.tools.log.note(
        f"the prompt does not fit: its longest text was read in {n_parts} parts "
        f"(on_overflow: {how})."
    )
