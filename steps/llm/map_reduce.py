"""Map-reduce and refine: read a text of any length with a model that takes only so much at once.

`MapReduce` serves `summarise` and long prompts of `chat`. Map-reduce asks for a note on each part
and combines the notes in groups, level by level, until one prompt holds those that are left. Refine
takes one answer from part to part. Nothing is left out. The last prompt is returned, not asked: the
caller asks it in the form that the author wants. The step `reduce` has its own way to group.

The prompts of `summarise` begin with a short constant, which the prefix cache keeps, then the text,
then one closing line: small models lose instructions that stand before a long text (tried with
135M).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from paddock.engine.request import Message
from paddock.engine.system.records import Struct
from paddock.engine.system.tasks import run_concurrently
from paddock.pipelines.expressions import Template
from paddock.steps.base import StepError
from paddock.steps.prompt import render_template
from paddock.steps.text.chunker import cut_text
from paddock.steps.text.text_parts import TextPart, repeated_chars

from .ask_and_repair import ModelCaller, empty_answer
from .prompt_truncation import first_part

SUMMARY_SYSTEM = "You summarise texts. You keep to what they say and add nothing."
NOTE_SEPARATOR = "\n\n"
_JOIN_MARGIN_TOKENS = 8  # where two texts meet, tokens may come out otherwise than counted apart
_MOST_CUTS = 8  # of a text whose prompt names it several times: 0.75 ** 7 is 13 %
_MOST_LEVELS = 64
_LEAST_FANIN = 4  # of notes that were given more room: longer ones would not get fewer

IndexRange = tuple[int, int]


def cut_limits(n_tokens: int) -> Iterator[int]:
    """Yield ever smaller limits for the pieces of a text that a prompt may name several times."""
    for _ in range(_MOST_CUTS):
        yield max(1, n_tokens)
        n_tokens = n_tokens * 3 // 4


class ReduceNote(Struct, frozen=True):
    """One of the things that are combined: an item, or the answer to some of them."""

    name: str
    """Identifies it, whatever its text."""
    text: str
    value: Any
    """What a template sees as one of `items`."""
    is_answer: bool = False


GroupNotes = Callable[[Sequence[ReduceNote], int], Awaitable[list[IndexRange]]]
"""Returns which notes are combined on a level; a single group if one prompt holds all."""
CombineNotes = Callable[[Sequence[ReduceNote], int], Awaitable[ReduceNote]]


async def most_note_tokens(caller: ModelCaller) -> int:
    """Return how long a note may become if it reaches its limit: four fit into a prompt."""
    return await caller.room() // _LEAST_FANIN


async def reduce_levels(
    caller: ModelCaller,
    notes: Sequence[ReduceNote],
    groups: GroupNotes,
    combine: CombineNotes,
    no_progress: Callable[[], StepError],
) -> tuple[list[ReduceNote], int]:
    """Combine notes in groups of neighbours, level by level, until one prompt holds the rest.

    Return these, and the level of that prompt, from 0.

    Raises:
        StepError: `no_progress`, where the answers do not get shorter: it would never end.
    """

    async def combined(work: tuple[list[ReduceNote], int, bool]) -> ReduceNote:
        """Combine a group. A single note waits; where no two fit together, it is shortened."""
        group, level, are_alone = work
        if len(group) == 1 and (group[0].is_answer or not are_alone):
            return group[0]
        return await combine(group, level)

    notes = list(notes)
    for level in range(_MOST_LEVELS):
        ranges = await groups(notes, level)
        if len(ranges) == 1:
            return notes, level
        are_alone = len(ranges) == len(notes)
        if are_alone and all(note.is_answer for note in notes):
            break
        work = [(notes[begin:end], level, are_alone) for begin, end in ranges]
        notes = await run_concurrently(combined, work, await caller.n_at_once())
    raise no_progress()


class SummaryPrompts(Struct, frozen=True):
    words: int | None = None
    style: str | None = None
    instructions: str = ""
    map: Template | None = None
    reduce: Template | None = None

    def part(
        self, part: TextPart, index: int = 0, n_parts: int = 1, previous: Sequence[str] = ()
    ) -> list[Message]:
        """Ask about one part, or a text that fits; `previous` are notes on the parts before it."""
        if self.map is not None:
            names = {"chunk": dict(part.data), "index": index, "previous": list(previous)}
            return _summary_prompt(render_template(self.map, "map", names))
        before = (
            f"What came before:\n{NOTE_SEPARATOR.join(previous)}\n\nText:\n" if previous else ""
        )
        closing = self._closing("Summarise the text above")
        return _summary_prompt(f"{before}{part.data['text']}\n\n{closing}")

    def whole(self, notes: Sequence[str]) -> list[Message]:
        if self.reduce is not None:
            return _summary_prompt(render_template(self.reduce, "reduce", {"notes": list(notes)}))
        closing = self._closing("Summarise the notes above as one text")
        return _summary_prompt(f"{self.joined(notes)}\n\n{closing}")

    def joined(self, notes: Sequence[str]) -> str:
        return NOTE_SEPARATOR.join(notes)

    def refined(self, answer: str, part: TextPart, index: int, n_parts: int) -> list[Message]:
        """Ask for an answer that covers one more part."""
        closing = self._closing("Rewrite the summary above so that it also covers the text")
        return _summary_prompt(f"Summary so far:\n{answer}\n\nText:\n{part.text}\n\n{closing}")

    def _closing(self, verb: str) -> str:
        length = f" in about {self.words} words" if self.words else ""
        style = f" Style: {self.style.rstrip('. ')}." if self.style else ""
        extra = f" {self.instructions.strip()}" if self.instructions.strip() else ""
        return f"{verb}{length}.{style}{extra}"


def _summary_prompt(text: str) -> list[Message]:
    return [Message("system", SUMMARY_SYSTEM), Message("user", text)]


class DivisiblePrompt(Struct, frozen=True):
    """The prompts of `chat`: a conversation, and the text in it to be divided."""

    messages: Sequence[Message]
    text: str

    @classmethod
    def of(cls, messages: Sequence[Message], texts: Sequence[str], why: str) -> DivisiblePrompt:
        """Choose the longest of the texts that a message of the user contains unchanged.

        Raises:
            StepError: there is none; `why` says what does not fit.
        """
        contents = [message.content for message in messages if message.role == "user"]
        for text in sorted(texts, key=len, reverse=True):
            if text.strip() and any(text in content for content in contents):
                return cls(messages, text)
        raise StepError(
            f"{why.rstrip('.')}, and no text in it can be divided.",
            remedy="The longest text that `prompt` takes from elsewhere as it is, such as "
            "`{{ steps.text.text }}`, is what is read in parts.",
        )

    def part(
        self, part: TextPart, index: int, n_parts: int, previous: Sequence[str] = ()
    ) -> list[Message]:
        return self._with_text(f"[Part {index + 1} of {n_parts}]\n{part.text}")

    def whole(self, notes: Sequence[str]) -> list[Message]:
        return self._with_text(self.joined(notes))

    def joined(self, notes: Sequence[str]) -> str:
        return NOTE_SEPARATOR.join(
            f"[Answer from part {number} of {len(notes)}]\n{note}"
            for number, note in enumerate(notes, 1)
        )

    def refined(self, answer: str, part: TextPart, index: int, n_parts: int) -> list[Message]:
        mark = f"[Part {index + 1} of {n_parts}]"
        return self._with_text(f"[Answer so far]\n{answer}\n\n{mark}\n{part.text}")

    def _with_text(self, text: str) -> list[Message]:
        return [
            Message(m.role, m.content.replace(self.text, text)) if m.role == "user" else m
            for m in self.messages
        ]


class LastPrompt(Struct, frozen=True):
    """What is left to ask once a text was read, and how it was read."""

    messages: list[Message]
    parts: tuple[TextPart, ...]
    """What the notes were made from, one for each; the only one if the text is read at once."""
    notes: tuple[str, ...] | None = ()
    """Empty if it is read at once; None: the answer to the only part is the only note."""
    n_levels: int = 0
    """How often notes were combined to fewer ones."""


class MapReduce(Struct, frozen=True):
    caller: ModelCaller
    prompts: SummaryPrompts | DivisiblePrompt
    n_previous: int = 0
    """How many of the notes before a part its prompt shows."""
    is_strict: bool = False
    """What does not fit is an error."""
    may_be_empty: bool = False
    """A model may have nothing to say about a part."""
    name: str = "notes"
    remedy: str = "Set `words`, ask for less in `map` and `reduce`, or raise the model's `ctx`."

    def at_once(self, whole: TextPart) -> LastPrompt:
        """Read the text in one call, whether it fits or not."""
        return LastPrompt(self.prompts.part(whole, 0, 1), (whole,))

    async def truncated(self, text: str) -> LastPrompt:
        """Read the beginning, as much as fits, and note how much that is.

        Raises:
            PromptTooLong: not a single character fits.
        """

        def prompt(n: int) -> list[Message]:
            return self.prompts.part(TextPart("", {"text": first_part(text, n)}), 0, 1)

        read = first_part(text, await self.caller.most_characters(len(text), prompt))
        n = len(read)
        self.caller.characters_cut = len(text) - n
        self.caller.tools.log.note(
            f"only the first {n:,} of {len(text):,} characters were read (on_overflow: truncate)."
        )
        return self.at_once(TextPart(read, {"text": read, "start": 0, "end": n}))

    async def map_reduce(self, parts: Sequence[TextPart]) -> LastPrompt:
        """Note each part, then combine the notes, level by level.

        Raises:
            PromptTooLong: a part does not fit, and that is an error.
            StepError: the notes do not get shorter.
        """
        parts = await self._fitting(parts, self.prompts.part, reserve=0)
        if len(parts) == 1:
            return LastPrompt(self.prompts.part(parts[0], 0, 1), tuple(parts), None)
        notes = await self._notes(parts)
        answers = [ReduceNote("", note, note, is_answer=True) for note in notes]
        left, level = await reduce_levels(
            self.caller, answers, self._groups, self._combine, self._no_progress
        )
        return LastPrompt(self._whole(left), tuple(parts), tuple(notes), level + 1)

    async def refined(self, parts: Sequence[TextPart]) -> LastPrompt:
        """Ask about the first part, then for a new answer with each of the others."""
        # The answer so far may be as long as answers are.
        reserve = await self.caller.reserved()

        def prompt(part: TextPart, index: int, n_parts: int) -> list[Message]:
            return self.prompts.refined("", part, index, n_parts)

        parts = await self._fitting(parts, prompt, reserve)
        messages, notes = self.prompts.part(parts[0], 0, len(parts)), list[str]()
        for index, part in enumerate(parts[1:], 1):
            notes.append(await self._ask(messages, reserve))
            messages = self.prompts.refined(notes[-1], part, index, len(parts))
        return LastPrompt(messages, tuple(parts), tuple(notes))

    async def _groups(self, notes: Sequence[ReduceNote], level: int) -> list[IndexRange]:
        overflow = await self.caller.overflow(self._whole(notes))
        if overflow is None:
            return [(0, len(notes))]
        if self.is_strict:
            raise overflow
        if len(notes) == 1:
            raise self._no_progress()
        sizes = await self.caller.count(
            [self.prompts.joined([note.text]) + NOTE_SEPARATOR for note in notes]
        )
        empty = await self.caller.size(self.prompts.whole([]))
        limit = await self.caller.room() - empty - _JOIN_MARGIN_TOKENS
        groups = _even_groups(sizes, limit)
        middle = (len(notes) + 1) // 2
        return groups if len(groups) > 1 else [(0, middle), (middle, len(notes))]

    async def _combine(self, notes: Sequence[ReduceNote], level: int) -> ReduceNote:
        text = await self._ask(self._whole(notes))
        return ReduceNote("", text, text, is_answer=True)

    def _no_progress(self) -> StepError:
        what = f"the {self.name} do not get shorter, so they would never fit into one prompt."
        return StepError(what, remedy=self.remedy, kind="check")

    def _whole(self, notes: Sequence[ReduceNote]) -> list[Message]:
        return self.prompts.whole([note.text for note in notes])

    async def _ask(self, messages: Sequence[Message], most_tokens: int | None = None) -> str:
        most = await most_note_tokens(self.caller) if most_tokens is None else most_tokens
        text = (await self.caller.ask(messages, most_tokens=most)).text.strip()
        if not text and not self.may_be_empty:
            raise empty_answer()
        return text

    async def _fitting(
        self,
        parts: Sequence[TextPart],
        prompt: Callable[[TextPart, int, int], list[Message]],
        reserve: int,
    ) -> list[TextPart]:
        """Cut those parts that do not fit into their prompt; none is left out."""
        empty = await self.caller.size(prompt(TextPart("", {**parts[0].data, "text": ""}), 0, 1))
        room = await self.caller.room() - reserve
        most = room - empty - _JOIN_MARGIN_TOKENS
        messages: list[Message] = []
        for limit in cut_limits(most):
            fitting, longest = await self._cut(parts, limit)
            messages = prompt(longest, len(fitting) - 1, len(fitting))
            if most >= 1 and await self.caller.size(messages) <= room:
                return fitting
            if self.is_strict or most < 1:
                break
        raise await self.caller.overflow(messages) or StepError(
            "the context has no space for the text besides the instructions and the answer.",
            remedy="Raise the model's `ctx`, or shorten the instructions.",
        )

    async def _cut(self, parts: Sequence[TextPart], limit: int) -> tuple[list[TextPart], TextPart]:
        """Cut to at most `limit` tokens; return the parts and the longest of them."""
        sizes = await self.caller.count([part.text for part in parts])
        fitting: list[tuple[int, TextPart]] = []
        for part, size in zip(parts, sizes, strict=True):
            if size <= limit or self.is_strict:
                fitting.append((size, part))
                continue
            # Even pieces: eleven twelfths and one twelfth read worse than two halves.
            even = math.ceil(size / math.ceil(size / limit) * 1.1)
            pieces = await cut_text(part.text, n_tokens=min(limit, even), count=self.caller.count)
            again = repeated_chars(part)
            for piece in pieces:
                data = {**part.data, "text": piece.text}
                if (start := part.number("start")) is not None:
                    begin, end = max(0, piece.start - again), max(0, piece.end - again)
                    data |= {"start": start + begin, "end": start + end}
                    data["repeated"] = piece.repeated or max(0, again - piece.start)
                fitting.append((piece.n_tokens, TextPart(piece.text, data)))
        return [part for _, part in fitting], max(fitting, key=lambda pair: pair[0])[1]

    async def _notes(self, parts: Sequence[TextPart]) -> list[str]:
        n_parts = len(parts)
        if self.n_previous == 0:
            prompts = [self.prompts.part(part, index, n_parts) for index, part in enumerate(parts)]
            return await run_concurrently(self._ask, prompts, await self.caller.n_at_once())
        notes: list[str] = []
        for index, part in enumerate(parts):
            # Show as many of the previous notes as the author wants and the context holds
            previous = notes[-self.n_previous :]
            messages = self.prompts.part(part, index, n_parts, previous)
            while previous and await self.caller.overflow(messages):
                previous = previous[1:]
                messages = self.prompts.part(part, index, n_parts, previous)
            if len(previous) < min(index, self.n_previous):
                self.caller.tools.log.note(
                    f"chunk {index + 1}: only {len(previous)} of the notes before it fit into its "
                    "prompt."
                )
            notes.append(await self._ask(messages))
        return notes


def _even_groups(sizes: Sequence[int], limit: int) -> list[IndexRange]:
    """Put neighbours together, as many as fit, in groups of about the same size.

    >>> _even_groups([3, 3, 3, 3], 10)
    [(0, 2), (2, 4)]
    """
    n_groups = max(1, math.ceil(sum(sizes) / max(1, limit)))
    even = min(limit, math.ceil(sum(sizes) / n_groups))
    borders = [0]
    filled = 0
    for index, size in enumerate(sizes):
        if filled and (filled >= even or filled + size > limit):
            borders.append(index)
            filled = 0
        filled += size
    return list(pairwise([*borders, len(sizes)]))
