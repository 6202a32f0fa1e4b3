"""Fold many notes into one answer, as a tree whose parts stand for themselves.

Which notes are folded together follows from the notes alone (`grouping`), and every part of the
tree is asked for by its own prompt. So what is known of the same prompts from another time holds:
where one note changes, the parts above it are asked for anew, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import Message
from paddock.steps.answers.asking import Asker
from paddock.steps.answers.structured import Answer, answered
from paddock.steps.condense import together
from paddock.steps.grouping import Range, groups, halves
from paddock.steps.step import ReplyForm, StepError

_CLEARLY = 0.8  # of the room: what is estimated below it need not be counted in one prompt
_MARGIN_TOKENS = 8  # for each note, where texts meet
_MOST_LEVELS = 64
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Note:
    """One of the things that are folded: an item, or the answer to some of them."""

    name: str
    """What it is known by, whatever it says."""
    text: str
    value: Any
    """What a template sees as one of `items`."""
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class Folded:
    """The answer to all notes, and how deep the tree was."""

    answer: Answer
    n_levels: int


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is asked of the answers within the tree: the form of the last one, without checks."""

    schema: Any
    repair: int

    async def failures(self, output: Any, text: str) -> list[str]:
        """Find nothing."""
        return []


Messages = Callable[[Sequence[Note], int], list[Message]]


@dataclass(frozen=True)
class Folder:
    """One way to fold. `messages` makes the prompt for some notes, told their level."""

    asker: Asker
    messages: Messages
    fanin: int

    async def fold(self, notes: Sequence[Note]) -> Folded:
        """Fold until one answer is left.

        Raises:
            PromptTooLong: a note does not fit into its prompt.
            StepError: the answers do not get shorter, so it would never end.
        """
        notes = list(notes)
        for level in range(_MOST_LEVELS):
            ranges = await self._ranges(notes, level)
            if len(ranges) == 1:
                form = self.asker.tools.reply
                return Folded(await self._ask(notes, level, form), level + 1)
            lone = all(end - begin == 1 for begin, end in ranges)
            if lone and all(note.is_answer for note in notes):
                break
            # Where no two fit together, each is made shorter; else one that is alone waits.
            asks = [lone or end - begin > 1 for begin, end in ranges]
            work = [
                (notes[begin:end], level, ask)
                for (begin, end), ask in zip(ranges, asks, strict=True)
            ]
            notes = await together(self.asker, self._part, work)
        raise StepError(
            "the answers do not get shorter, so they would never fit into one prompt.",
            remedy="Ask for a shorter one in `prompt`, lower `fanin`, or raise the model's `ctx`.",
            kind="check",
        )

    async def _part(self, work: tuple[list[Note], int, bool]) -> Note:
        notes, level, is_asked = work
        if not is_asked or (len(notes) == 1 and notes[0].is_answer):
            return notes[0]
        last = self.asker.tools.reply
        form = None if last is None else _Shape(last.schema, last.repair)
        answer = await self._ask(notes, level, form)
        value = answer.text if answer.output is None else answer.output
        return Note(notes[-1].name, answer.text, value, is_answer=True)

    async def _ask(self, notes: Sequence[Note], level: int, form: ReplyForm | None) -> Answer:
        answer = await answered(self.asker, self.messages(notes, level), form=form)
        text = answer.text.strip()
        if not text:
            raise StepError("the model gave an empty answer.", kind="check")
        return replace(answer, text=text)

    # --- what fits together

    async def _ranges(self, notes: Sequence[Note], level: int) -> list[Range]:
        """Cut the notes into groups whose prompts fit."""
        sizes = await self.asker.count([note.text for note in notes])
        empty = await self.asker.size(self.messages(notes[:1], level)) - sizes[0]
        room = await self.asker.room()
        ranges: list[Range] = []
        for begin, end in groups([note.name for note in notes], self.fanin, level):
            waiting = [(begin, end)]
            while waiting:
                first, last = waiting.pop(0)
                estimate = empty + sum(sizes[first:last]) + _MARGIN_TOKENS * (last - first)
                overflow = None
                if estimate > _CLEARLY * room:
                    overflow = await self.asker.overflow(self.messages(notes[first:last], level))
                if overflow is None:
                    ranges.append((first, last))
                elif last - first == 1:
                    raise _too_long(notes[first], overflow)
                else:
                    waiting[:0] = halves(first, last)
        return ranges


def _too_long(note: Note, overflow: PromptTooLong) -> StepError:
    what = "an answer" if note.is_answer else f"item '{shown(note.name)}'"
    return StepError(
        f"{what} alone is too long: {overflow}.",
        remedy="Set `on_overflow: split` to fold it in parts, or raise the model's `ctx`.",
    )


def shown(name: str) -> str:
    """Give a name in one short line."""
    line = " ".join(name.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"
