"""Condense a text of any length with a model that reads only so much at once.

Map-reduce: a note on each part, the notes condensed in groups until they fit into one prompt.
Refine: one summary, rewritten with each part. Both say how much they have read: all of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from paddock.engine.request import Message
from paddock.steps.answers.asking import Asker
from paddock.steps.answers.fitting import head, most
from paddock.steps.answers.structured import Answer, answered
from paddock.steps.material import Part, repeated
from paddock.steps.pieces import cut
from paddock.steps.step import StepError
from paddock.steps.wording import BETWEEN, Wording

T = TypeVar("T")
R = TypeVar("R")

_MARGIN_TOKENS = 8  # where two texts meet, tokens may come out otherwise than counted apart
_SHRINKS = 0.9  # a level that leaves more than this of the notes will not come to an end
_MAX_CUTS = 8
_MAX_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Condensed:
    """A summary, the notes it was made from, and how it came about."""

    text: str
    notes: tuple[str, ...] = ()
    n_chunks: int = 1
    n_levels: int = 0
    """How often notes were condensed to fewer ones."""
    parts: tuple[Part, ...] = ()
    """What the notes were made from, one for each; the only one if it was read at once."""
    output: Any = None
    """The value of the answer's form, where it has one."""


@dataclass(frozen=True)
class Condenser:
    """One way to condense, with one model. `is_strict`: what does not fit is an error."""

    asker: Asker
    wording: Wording
    n_previous: int = 0
    is_strict: bool = False

    async def at_once(self, whole: Part) -> Condensed | None:
        """Summarise in one call; None if the text does not fit."""
        messages = self.wording.part(whole.data)
        if await self.asker.overflow(messages):
            return None
        answer = await self._last(messages)
        return Condensed(answer.text, parts=(whole,), output=answer.output)

    async def truncated(self, text: str) -> Condensed:
        """Summarise the beginning, as much as fits, and say so.

        Raises:
            PromptTooLong: not even an empty text fits.
        """

        def messages(n: int) -> list[Message]:
            return self.wording.part({"text": head(text, n)})

        async def fits(n: int) -> bool:
            return await self.asker.overflow(messages(n)) is None

        n = await most(fits, len(text))
        overflow = None if n else await self.asker.overflow(messages(0))
        if overflow:
            raise overflow
        read = head(text, n)
        n = len(read)
        self.asker.characters_cut = len(text) - n
        self.asker.tools.log.note(
            f"only the first {n:,} of {len(text):,} characters were read (on_overflow: truncate)."
        )
        part = Part(read, {"text": read, "start": 0, "end": n})
        answer = await self._last(messages(n))
        return Condensed(answer.text, parts=(part,), output=answer.output)

    async def map_reduce(self, parts: Sequence[Part]) -> Condensed:
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
        return Condensed(answer.text, tuple(notes), len(parts), n_levels, read, answer.output)

    async def refined(self, parts: Sequence[Part]) -> Condensed:
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
        return Condensed(answer.text, tuple(notes), len(parts), 0, tuple(parts), answer.output)

    async def _ask(self, messages: Sequence[Message]) -> str:
        return _said((await self.asker.ask(messages)).text)

    async def _last(self, messages: Sequence[Message]) -> Answer:
        """Ask for the summary itself: it alone has the form that the author wants."""
        answer = await answered(self.asker, messages, form=self.asker.tools.reply)
        return replace(answer, text=_said(answer.text))

    async def _fitting(
        self, parts: Sequence[Part], messages: Callable[[Part], list[Message]], reserve: int
    ) -> list[Part]:
        """Cut those parts that do not fit into their prompt; none is left out."""
        empty = await self.asker.size(messages(Part("", {**parts[0].data, "text": ""})))
        limit = await self.asker.room() - reserve - empty - _MARGIN_TOKENS
        for _ in range(_MAX_CUTS):
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

    async def _cut(self, parts: Sequence[Part], limit: int) -> tuple[list[Part], Part]:
        """Cut to at most `limit` tokens; gives the parts and the longest of them."""
        sizes = await self.asker.count([one.text for one in parts])
        fitting: list[tuple[int, Part]] = []
        for one, size in zip(parts, sizes, strict=True):
            if size <= limit or self.is_strict:
                fitting.append((size, one))
                continue
            # Even pieces: eleven twelfths and one twelfth read worse than two halves.
            even = math.ceil(size / math.ceil(size / limit) * 1.1)
            pieces = await cut(one.text, n_tokens=min(limit, even), count=self.asker.count)
            for piece in pieces:
                again = repeated(one)
                data = {**one.data, "text": piece.text}
                if isinstance(start := one.data.get("start"), int):
                    begin, end = max(0, piece.start - again), max(0, piece.end - again)
                    data |= {"start": start + begin, "end": start + end}
                    data["repeated"] = piece.repeated or max(0, again - piece.start)
                fitting.append((piece.n_tokens, Part(piece.text, data)))
        return [one for _, one in fitting], max(fitting, key=lambda pair: pair[0])[1]

    async def _notes(self, parts: Sequence[Part]) -> list[str]:
        if self.n_previous == 0:
            prompts = [self.wording.part(one.data, index) for index, one in enumerate(parts)]
            return await together(self.asker, self._ask, prompts)
        notes: list[str] = []
        for index, one in enumerate(parts):
            notes.append(await self._ask(await self._with_previous(one, index, notes)))
        return notes

    async def _with_previous(self, one: Part, index: int, notes: list[str]) -> list[Message]:
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

    async def _reduced(self, notes: list[str]) -> tuple[Answer, int]:
        """Condense notes until one prompt holds them all; gives the answer and the levels.

        Raises:
            StepError: they do not get shorter, so it would never end.
        """
        n_before = math.inf
        for level in range(1, _MAX_LEVELS + 1):
            messages = self.wording.whole(notes)
            overflow = await self.asker.overflow(messages)
            if overflow is None:
                return await self._last(messages), level
            if self.is_strict:
                raise overflow
            sizes = await self.asker.count([note + BETWEEN for note in notes])
            if sum(sizes) > _SHRINKS * n_before:
                raise _endless()
            n_before = sum(sizes)
            notes = await self._fewer(notes, sizes)
        raise _endless()

    async def _fewer(self, notes: list[str], sizes: Sequence[int]) -> list[str]:
        """Condense neighbouring notes in groups, each as large as a prompt holds."""
        empty = await self.asker.size(self.wording.whole([]))
        groups = _groups(sizes, await self.asker.room() - empty - _MARGIN_TOKENS)
        if len(groups) == len(notes):
            raise _endless()
        return await together(self.asker, self._group, [notes[begin:end] for begin, end in groups])

    async def _group(self, notes: list[str]) -> str:
        return notes[0] if len(notes) == 1 else await self._ask(self.wording.whole(notes))


def _said(text: str) -> str:
    if not text.strip():
        raise StepError("the model gave an empty answer.", kind="check")
    return text.strip()


def _endless() -> StepError:
    return StepError(
        "the notes do not get shorter, so they would never fit into one prompt.",
        remedy="Set `words`, ask for less in `map` and `reduce`, or raise the model's `ctx`.",
        kind="check",
    )


def _groups(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Put neighbours together, as many as fit, in groups of about the same size.

    >>> _groups([3, 3, 3, 3], 10)
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


async def together(asker: Asker, work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
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
