"""Map-reduce and refine: read a text of any length with a model that takes only so much at once.

For `summarise` (`Condenser`): a note on each part, and the notes condensed in groups until they
fit into one prompt; or one summary, rewritten with each part. For `chat`: the longest text in a
prompt is divided and the rest stays; the prompt is asked with each part in place of the text, then
with the answers in its place. Nothing is left out, and both report how much was read.

The prompts of `summarise` begin with a short constant (shared by all calls, so the cache keeps
it), then the text, then one closing line: small models lose instructions that stand before a long
text (tried with 135M).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from paddock.engine.request import Message
from paddock.pipelines.expressions import Template
from paddock.steps.base import StepError
from paddock.steps.prompt import render_template
from paddock.steps.text.chunker import CutPiece, cut_text
from paddock.steps.text.split import TextPart, repeated_chars

from .ask import Asker, CheckedAnswer, ask_checked, first_part, most_that_fits

SUMMARY_SYSTEM = "You summarise texts. You keep to what they say and add nothing."
NOTE_SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class SummaryPrompts:
    """The author's wishes, made into messages."""

    words: int | None = None
    style: str | None = None
    instructions: str = ""
    map: Template | None = None
    reduce: Template | None = None

    def part(
        self, chunk: Mapping[str, Any], index: int = 0, previous: Sequence[str] = ()
    ) -> list[Message]:
        """Ask for a summary of one chunk; a text that fits is the only one."""
        if self.map is not None:
            names = {"chunk": dict(chunk), "index": index, "previous": list(previous)}
            return _prompt_messages(render_template(self.map, "map", names))
        before = (
            f"What came before:\n{NOTE_SEPARATOR.join(previous)}\n\nText:\n" if previous else ""
        )
        return _prompt_messages(
            f"{before}{chunk['text']}\n\n{self._closing('Summarise the text above')}"
        )

    def whole(self, notes: Sequence[str]) -> list[Message]:
        """Ask for one text out of the notes on consecutive parts."""
        if self.reduce is not None:
            return _prompt_messages(render_template(self.reduce, "reduce", {"notes": list(notes)}))
        closing = self._closing("Summarise the notes above as one text")
        return _prompt_messages(f"{NOTE_SEPARATOR.join(notes)}\n\n{closing}")

    def refined(self, summary: str, text: str) -> list[Message]:
        """Ask for a summary that covers one more part."""
        closing = self._closing("Rewrite the summary above so that it also covers the text")
        return _prompt_messages(f"Summary so far:\n{summary}\n\nText:\n{text}\n\n{closing}")

    def _closing(self, verb: str) -> str:
        length = f" in about {self.words} words" if self.words else ""
        style = f" Style: {self.style.rstrip('. ')}." if self.style else ""
        more = f" {self.instructions.strip()}" if self.instructions.strip() else ""
        return f"{verb}{length}.{style}{more}"


def _prompt_messages(text: str) -> list[Message]:
    return [Message("system", SUMMARY_SYSTEM), Message("user", text)]


T = TypeVar("T")
R = TypeVar("R")

_JOIN_MARGIN_TOKENS = 8  # where two texts meet, tokens may come out otherwise than counted apart
_SHRINKS = 0.9  # a level that leaves more than this of the notes will not come to an end
_MOST_SUMMARY_CUTS = 8
_MOST_SUMMARY_LEVELS = 100


@dataclass(frozen=True, slots=True)
class CondensedText:
    """A summary, the notes it was made from, and how it came about."""

    text: str
    notes: tuple[str, ...] = ()
    n_chunks: int = 1
    n_levels: int = 0
    """How often notes were condensed to fewer ones."""
    parts: tuple[TextPart, ...] = ()
    """What the notes were made from, one for each; the only one if it was read at once."""
    output: Any = None
    """The value of the answer's form, where it has one."""


@dataclass(frozen=True)
class MapReduce:
    """One way to condense, with one model. `is_strict`: what does not fit is an error."""

    asker: Asker
    wording: SummaryPrompts
    n_previous: int = 0
    is_strict: bool = False

    async def at_once(self, whole: TextPart) -> CondensedText | None:
        """Summarise in one call; None if the text does not fit."""
        messages = self.wording.part(whole.data)
        if await self.asker.overflow(messages):
            return None
        answer = await self._last(messages)
        return CondensedText(answer.text, parts=(whole,), output=answer.output)

    async def truncated(self, text: str) -> CondensedText:
        """Summarise the beginning, as much as fits, and say so.

        Raises:
            PromptTooLong: not even an empty text fits.
        """

        def messages(n: int) -> list[Message]:
            return self.wording.part({"text": first_part(text, n)})

        async def fits(n: int) -> bool:
            return await self.asker.overflow(messages(n)) is None

        n = await most_that_fits(fits, len(text))
        overflow = None if n else await self.asker.overflow(messages(0))
        if overflow:
            raise overflow
        read = first_part(text, n)
        n = len(read)
        self.asker.characters_cut = len(text) - n
        self.asker.tools.log.note(
            f"only the first {n:,} of {len(text):,} characters were read (on_overflow: truncate)."
        )
        part = TextPart(read, {"text": read, "start": 0, "end": n})
        answer = await self._last(messages(n))
        return CondensedText(answer.text, parts=(part,), output=answer.output)

    async def map_reduce(self, parts: Sequence[TextPart]) -> CondensedText:
        """Note each part, then condense the notes, level by level.

        Raises:
            PromptTooLong: a part does not fit, and that is an error.
            StepError: the notes do not get shorter.
        """
        parts = await self._fitting(parts, lambda one: self.wording.part(one.data), reserve=0)
        if len(parts) == 1:
            answer, n_levels = await self._last(self.wording.part(parts[0].data)), 0
            notes = [answer.text]
        else:
            notes = await self._notes(parts)
            answer, n_levels = await self._reduced(notes)
        read = tuple(parts)
        return CondensedText(answer.text, tuple(notes), len(parts), n_levels, read, answer.output)

    async def refined(self, parts: Sequence[TextPart]) -> CondensedText:
        """Summarise the first part, then rewrite the summary with each of the others."""
        # The summary so far is an answer, so it may be as long as answers are.
        reserve = await self.asker.reserved()
        parts = await self._fitting(
            parts, lambda one: self.wording.refined("", one.text), reserve=reserve
        )
        messages, notes = self.wording.part(parts[0].data), list[str]()
        for one in parts[1:]:
            notes.append(await self._ask(messages))
            messages = self.wording.refined(notes[-1], one.text)
        answer = await self._last(messages)
        return CondensedText(answer.text, tuple(notes), len(parts), 0, tuple(parts), answer.output)

    async def _ask(self, messages: Sequence[Message]) -> str:
        return _nonempty((await self.asker.ask(messages)).text)

    async def _last(self, messages: Sequence[Message]) -> CheckedAnswer:
        """Ask for the summary itself: it alone has the form that the author wants."""
        answer = await ask_checked(self.asker, messages, form=self.asker.tools.reply)
        return replace(answer, text=_nonempty(answer.text))

    async def _fitting(
        self, parts: Sequence[TextPart], messages: Callable[[TextPart], list[Message]], reserve: int
    ) -> list[TextPart]:
        """Cut those parts that do not fit into their prompt; none is left out."""
        empty = await self.asker.size(messages(TextPart("", {**parts[0].data, "text": ""})))
        limit = await self.asker.room() - reserve - empty - _JOIN_MARGIN_TOKENS
        for _ in range(_MOST_SUMMARY_CUTS):
            fitting, longest = await self._cut(parts, max(1, limit))
            overflow = await self.asker.overflow(messages(longest))
            if overflow is None and limit >= 1:
                return fitting
            if self.is_strict or limit < 1:
                break
            limit = limit * 3 // 4  # a template that names the chunk twice
        raise await self.asker.overflow(messages(longest)) or StepError(
            "the context leaves no room for the text beside the instructions and the answer.",
            remedy="Raise the model's `ctx`, or shorten the instructions.",
        )

    async def _cut(self, parts: Sequence[TextPart], limit: int) -> tuple[list[TextPart], TextPart]:
        """Cut to at most `limit` tokens; gives the parts and the longest of them."""
        sizes = await self.asker.count([one.text for one in parts])
        fitting: list[tuple[int, TextPart]] = []
        for one, size in zip(parts, sizes, strict=True):
            if size <= limit or self.is_strict:
                fitting.append((size, one))
                continue
            # Even pieces: eleven twelfths and one twelfth read worse than two halves.
            even = math.ceil(size / math.ceil(size / limit) * 1.1)
            pieces = await cut_text(one.text, n_tokens=min(limit, even), count=self.asker.count)
            for piece in pieces:
                again = repeated_chars(one)
                data = {**one.data, "text": piece.text}
                if isinstance(start := one.data.get("start"), int):
                    begin, end = max(0, piece.start - again), max(0, piece.end - again)
                    data |= {"start": start + begin, "end": start + end}
                    data["repeated"] = piece.repeated or max(0, again - piece.start)
                fitting.append((piece.n_tokens, TextPart(piece.text, data)))
        return [one for _, one in fitting], max(fitting, key=lambda pair: pair[0])[1]

    async def _notes(self, parts: Sequence[TextPart]) -> list[str]:
        if self.n_previous == 0:
            prompts = [self.wording.part(one.data, index) for index, one in enumerate(parts)]
            return await run_concurrently(self.asker, self._ask, prompts)
        notes: list[str] = []
        for index, one in enumerate(parts):
            notes.append(await self._ask(await self._with_previous(one, index, notes)))
        return notes

    async def _with_previous(self, one: TextPart, index: int, notes: list[str]) -> list[Message]:
        """Show as many of the previous notes as the author wants and the context holds."""
        previous = notes[-self.n_previous :]
        messages = self.wording.part(one.data, index, previous)
        while previous and await self.asker.overflow(messages):
            previous = previous[1:]
            messages = self.wording.part(one.data, index, previous)
        if len(previous) < min(index, self.n_previous):
            self.asker.tools.log.note(
                f"chunk {index + 1}: {len(previous)} of the notes before it fit beside it."
            )
        return messages

    async def _reduced(self, notes: list[str]) -> tuple[CheckedAnswer, int]:
        """Condense notes until one prompt holds them all; gives the answer and the levels.

        Raises:
            StepError: they do not get shorter, so it would never end.
        """
        n_before = math.inf
        for level in range(1, _MOST_SUMMARY_LEVELS + 1):
            messages = self.wording.whole(notes)
            overflow = await self.asker.overflow(messages)
            if overflow is None:
                return await self._last(messages), level
            if self.is_strict:
                raise overflow
            sizes = await self.asker.count([note + NOTE_SEPARATOR for note in notes])
            if sum(sizes) > _SHRINKS * n_before:
                raise _no_progress_error()
            n_before = sum(sizes)
            notes = await self._fewer(notes, sizes)
        raise _no_progress_error()

    async def _fewer(self, notes: list[str], sizes: Sequence[int]) -> list[str]:
        """Condense neighbouring notes in groups, each as large as a prompt holds."""
        empty = await self.asker.size(self.wording.whole([]))
        groups = _even_groups(sizes, await self.asker.room() - empty - _JOIN_MARGIN_TOKENS)
        if len(groups) == len(notes):
            raise _no_progress_error()
        return await run_concurrently(
            self.asker, self._group, [notes[begin:end] for begin, end in groups]
        )

    async def _group(self, notes: list[str]) -> str:
        return notes[0] if len(notes) == 1 else await self._ask(self.wording.whole(notes))


def _nonempty(text: str) -> str:
    if not text.strip():
        raise StepError("the model gave an empty answer.", kind="check")
    return text.strip()


def _no_progress_error() -> StepError:
    return StepError(
        "the notes do not get shorter, so they would never fit into one prompt.",
        remedy="Set `words`, ask for less in `map` and `reduce`, or raise the model's `ctx`.",
        kind="check",
    )


def _even_groups(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Put neighbours together, as many as fit, in groups of about the same size.

    >>> _even_groups([3, 3, 3, 3], 10)
    [(0, 2), (2, 4)]
    """
    n_groups = max(1, math.ceil(sum(sizes) / max(1, limit)))
    even = min(limit, math.ceil(sum(sizes) / n_groups))
    borders, filled = [0], 0
    for index, size in enumerate(sizes):
        if filled and (filled >= even or filled + size > limit):
            borders.append(index)
            filled = 0
        filled += size
    return list(pairwise([*borders, len(sizes)]))


async def run_concurrently(
    asker: Asker, work: Callable[[T], Awaitable[R]], items: Iterable[T]
) -> list[R]:
    """Work on all, some at once, results in order; the first failure ends the others."""
    gate = asyncio.Semaphore(await asker.n_at_once())

    async def run(item: T) -> R:
        async with gate:
            return await work(item)

    tasks = [asyncio.create_task(run(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


_MARK_TOKENS = 32  # "[Part 12 of 345]" and where two texts meet
_MOST_PROMPT_CUTS = 8
_MOST_PROMPT_LEVELS = 32


@dataclass(frozen=True, slots=True)
class DivisiblePrompt:
    """A conversation, and the text in it that may be divided."""

    messages: Sequence[Message]
    text: str

    def with_text(self, text: str) -> list[Message]:
        """Return the conversation with another text in its place."""
        return [
            Message(one.role, one.content.replace(self.text, text)) if one.role == "user" else one
            for one in self.messages
        ]


def divisible_prompt(
    messages: Sequence[Message], texts: Sequence[str], why: str
) -> DivisiblePrompt:
    """Find the longest of the texts that stands in the user's words as it is.

    Raises:
        StepError: there is none; `why` tells what does not fit.
    """
    said = [one.content for one in messages if one.role == "user"]
    for text in sorted(texts, key=len, reverse=True):
        if text.strip() and any(text in words for words in said):
            return DivisiblePrompt(messages, text)
    raise StepError(
        f"{why.rstrip('.')}, and no text in it can be divided.",
        remedy="The longest text that `prompt` takes from elsewhere as it is, such as "
        "`{{ steps.text.text }}`, is what is read in parts.",
    )


async def map_reduced_prompt(asker: Asker, whole: DivisiblePrompt) -> list[Message]:
    """Ask for each part and give the last prompt, which has the answers in the text's place.

    Raises:
        PromptTooLong: what stands beside the text leaves no room for a part of it.
        StepError: the answers do not get shorter.
    """
    text, n_parts = whole.text, 0
    for _ in range(_MOST_PROMPT_LEVELS):
        parts = await _parts_that_fit(asker, whole, text, reserve=0)
        n_parts = n_parts or len(parts)
        prompts = [
            whole.with_text(f"{_part_mark('Part', index, parts)}\n{part.text}")
            for index, part in enumerate(parts)
        ]

        async def one(messages: list[Message]) -> str:
            return (await asker.ask(messages)).text.strip()

        answers = await run_concurrently(asker, one, prompts)
        told = "\n\n".join(
            f"{_part_mark('Answer from part', index, parts)}\n{answer}"
            for index, answer in enumerate(answers)
        )
        messages = whole.with_text(told)
        if await asker.overflow(messages) is None:
            _note_parts(asker, n_parts, "map-reduce")
            return messages
        if len(told) > _SHRINKS * len(text):
            break
        text = told
    raise StepError(
        "the answers to the parts do not get shorter, so they would never fit into one prompt.",
        remedy="Ask for less in `prompt`, or raise the model's `ctx`.",
        kind="check",
    )


async def refined_prompt(asker: Asker, whole: DivisiblePrompt) -> list[Message]:
    """Take an answer along from part to part, and give the last part's prompt.

    Raises:
        PromptTooLong: what stands beside the text leaves no room for a part of it.
    """
    parts = await _parts_that_fit(asker, whole, whole.text, reserve=await asker.reserved())
    messages: list[Message] = []
    answer = ""
    for index, part in enumerate(parts):
        before = f"[Answer so far]\n{answer}\n\n" if index else ""
        messages = whole.with_text(f"{before}{_part_mark('Part', index, parts)}\n{part.text}")
        if index + 1 < len(parts):
            answer = (await asker.ask(messages)).text.strip()
    _note_parts(asker, len(parts), "refine")
    return messages


async def _parts_that_fit(
    asker: Asker, whole: DivisiblePrompt, text: str, reserve: int
) -> list[CutPiece]:
    """Cut a text so that each part fits in its place."""
    n_places = max(
        1, sum(one.content.count(whole.text) for one in whole.messages if one.role == "user")
    )
    room = await asker.room() - await asker.size(whole.with_text("")) - reserve
    limit = room // n_places - _MARK_TOKENS
    for _ in range(_MOST_PROMPT_CUTS):
        if limit < 1:
            break
        parts = await cut_text(text, n_tokens=limit, count=asker.count)
        longest = max(parts, key=lambda part: part.n_tokens)
        n_tokens = await asker.size(whole.with_text(longest.text))
        if n_tokens + reserve + _MARK_TOKENS // 2 <= await asker.room():
            return parts
        limit = limit * 3 // 4
    raise await asker.overflow(whole.with_text(whole.text)) or StepError("the prompt does not fit.")


def _part_mark(what: str, index: int, parts: Sequence[CutPiece]) -> str:
    return f"[{what} {index + 1} of {len(parts)}]"


def _note_parts(asker: Asker, n_parts: int, how: str) -> None:
    asker.tools.log.note(
        f"the prompt does not fit: its longest text was read in {n_parts} parts "
        f"(on_overflow: {how})."
    )
