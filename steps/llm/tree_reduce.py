"""Tree reduce: combine many notes into one answer, as a tree whose parts stand for themselves.

Grouping is content-defined: a note ends its group where its rank, a hash of its name, is the
highest among its neighbours. So one note that comes, goes or changes moves the borders next to it
alone. Every part of the tree is asked for by its own prompt, so cached replies of unchanged parts
stay valid: only the parts above a changed note are asked again. `ForecastReducer` walks the same
tree without asking a model and counts the calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import Message, Reply, Usage
from paddock.steps.base import UNKNOWN, ReplyForm, ReplyNotCached, StepError
from paddock.steps.text.chunker import cut_text

from .ask import Asker, CheckedAnswer, ask_checked, first_part, most_that_fits
from .map_reduce import run_concurrently

IndexRange = tuple[int, int]


def content_groups(names: Sequence[str], fanin: int, level: int = 0) -> list[IndexRange]:
    """Cut a list into neighbouring groups of at most `fanin` items.

    `level` gives each level of a tree borders of its own. A list that is no longer than `fanin`
    is one group; a longer one always has fewer groups than items.

    Args:
        names: what the items are known by, in order; equal ones are allowed.
        fanin: at least 2.
        level: which level of a tree this is, from 0.
    """
    if len(names) <= fanin:
        return [(0, len(names))] if names else []
    ranks = [_rank(name, level) for name in names]
    ends = [index + 1 for index in range(len(names) - 1) if _is_border(ranks, index, fanin)]
    whole = pairwise([0, *ends, len(names)])
    return [piece for begin, end in whole for piece in _even_ranges(begin, end, fanin)]


def split_range(begin: int, end: int) -> tuple[IndexRange, IndexRange]:
    """Cut a group of two items and more in the middle."""
    middle = (begin + end + 1) // 2
    return (begin, middle), (middle, end)


def _rank(name: str, level: int) -> bytes:
    return hashlib.sha256(f"{level}\n{name}".encode()).digest()[:8]


def _is_border(ranks: Sequence[bytes], index: int, fanin: int) -> bool:
    """Return whether no neighbour ranks higher; of equal ones the first is it."""
    reach = max(1, (fanin - 1) // 2)
    before = ranks[max(0, index - reach) : index]
    after = ranks[index + 1 : index + 1 + reach]
    rank = ranks[index]
    return all(rank > one for one in before) and all(rank >= one for one in after)


def _even_ranges(begin: int, end: int, fanin: int) -> Iterator[IndexRange]:
    """Cut a stretch without a border into pieces of about the same size."""
    n_pieces = -(-(end - begin) // fanin)
    size, more = divmod(end - begin, n_pieces)
    for number in range(n_pieces):
        yield begin, (begin := begin + size + (number < more))


_SURELY_FITS_SHARE = (
    0.8  # of the room: what is estimated below it need not be counted in one prompt
)
_NOTE_MARGIN_TOKENS = 8  # for each note, where texts meet
_MOST_LEVELS = 64
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class ReduceNote:
    """One of the things that are folded: an item, or the answer to some of them."""

    name: str
    """What it is known by, whatever it says."""
    text: str
    value: Any
    """What a template sees as one of `items`."""
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class ReducedTree:
    """The answer to all notes, and how deep the tree was."""

    answer: CheckedAnswer
    n_levels: int


@dataclass(frozen=True, slots=True)
class _InnerReplyForm:
    """What is asked of the answers within the tree: the form of the last one, without checks."""

    schema: Any
    repair: int

    async def failures(self, output: Any, text: str) -> list[str]:
        """Find nothing."""
        return []


PromptOfNotes = Callable[[Sequence[ReduceNote], int], list[Message]]


@dataclass(frozen=True)
class TreeReducer:
    """One way to fold. `messages` makes the prompt for some notes, told their level."""

    asker: Asker
    messages: PromptOfNotes
    fanin: int

    async def fold(self, notes: Sequence[ReduceNote]) -> ReducedTree:
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
                return ReducedTree(await self._ask(notes, level, form), level + 1)
            lone = all(end - begin == 1 for begin, end in ranges)
            if lone and all(note.is_answer for note in notes):
                break
            # Where no two fit together, each is made shorter; else one that is alone waits.
            asks = [lone or end - begin > 1 for begin, end in ranges]
            work = [
                (notes[begin:end], level, ask)
                for (begin, end), ask in zip(ranges, asks, strict=True)
            ]
            notes = await run_concurrently(self.asker, self._part, work)
        raise StepError(
            "the answers do not get shorter, so they would never fit into one prompt.",
            remedy="Ask for a shorter one in `prompt`, lower `fanin`, or raise the model's `ctx`.",
            kind="check",
        )

    async def _part(self, work: tuple[list[ReduceNote], int, bool]) -> ReduceNote:
        notes, level, is_asked = work
        if not is_asked or (len(notes) == 1 and notes[0].is_answer):
            return notes[0]
        last = self.asker.tools.reply
        form = None if last is None else _InnerReplyForm(last.schema, last.repair)
        answer = await self._ask(notes, level, form)
        value = answer.text if answer.output is None else answer.output
        return ReduceNote(notes[-1].name, answer.text, value, is_answer=True)

    async def _ask(
        self, notes: Sequence[ReduceNote], level: int, form: ReplyForm | None
    ) -> CheckedAnswer:
        answer = await ask_checked(self.asker, self.messages(notes, level), form=form)
        text = answer.text.strip()
        if not text:
            raise StepError("the model gave an empty answer.", kind="check")
        return replace(answer, text=text)

    # --- what fits together

    async def _ranges(self, notes: Sequence[ReduceNote], level: int) -> list[IndexRange]:
        """Cut the notes into groups whose prompts fit."""
        sizes = await self.asker.count([note.text for note in notes])
        empty = await self.asker.size(self.messages(notes[:1], level)) - sizes[0]
        room = await self.asker.room()
        ranges: list[IndexRange] = []
        for begin, end in content_groups([note.name for note in notes], self.fanin, level):
            waiting = [(begin, end)]
            while waiting:
                first, last = waiting.pop(0)
                estimate = empty + sum(sizes[first:last]) + _NOTE_MARGIN_TOKENS * (last - first)
                overflow = None
                if estimate > _SURELY_FITS_SHARE * room:
                    overflow = await self.asker.overflow(self.messages(notes[first:last], level))
                if overflow is None:
                    ranges.append((first, last))
                elif last - first == 1:
                    raise _note_too_long(notes[first], overflow)
                else:
                    waiting[:0] = split_range(first, last)
        return ranges


def _note_too_long(note: ReduceNote, overflow: PromptTooLong) -> StepError:
    what = "an answer" if note.is_answer else f"item '{short_name(note.name)}'"
    return StepError(
        f"{what} alone is too long: {overflow}.",
        remedy="Set `on_overflow: split` to fold it in parts, or raise the model's `ctx`.",
    )


def short_name(name: str) -> str:
    """Return a name in one short line."""
    line = " ".join(name.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


_FIT_MARGIN_TOKENS = 8
_MOST_CUTS = 8


async def fit_notes(
    notes: Sequence[ReduceNote], asker: Asker, messages: PromptOfNotes, on_overflow: str
) -> list[ReduceNote]:
    """Return the notes, those that are too long cut as `on_overflow` says, the others as they are.

    With `error` they are given as they are: whoever folds them says which does not fit.

    Raises:
        PromptTooLong: not even an empty note fits.
    """
    if on_overflow == "error":
        return list(notes)
    sizes = await asker.count([note.text for note in notes])
    empty = await asker.size(messages(notes[:1], 0)) - sizes[0]
    limit = await asker.room() - empty - _FIT_MARGIN_TOKENS
    made: list[ReduceNote] = []
    for note, size in zip(notes, sizes, strict=True):
        # What is close to the limit is counted in its prompt, which may name it twice.
        if 2 * size <= limit or await asker.overflow(messages([note], 0)) is None:
            made.append(note)
        elif on_overflow == "truncate":
            made.append(await _truncated_note(note, asker, messages))
        else:
            made += await _split_note(note, asker, messages, max(1, limit))
    return made


async def _truncated_note(note: ReduceNote, asker: Asker, messages: PromptOfNotes) -> ReduceNote:
    def kept(n: int) -> ReduceNote:
        text = first_part(note.text, n)
        return replace(note, text=text, value=text)

    async def fits(n: int) -> bool:
        return await asker.overflow(messages([kept(n)], 0)) is None

    n = await most_that_fits(fits, len(note.text))
    overflow = None if n else await asker.overflow(messages([kept(0)], 0))
    if overflow is not None:
        raise overflow
    n_characters = len(note.text) - len(kept(n).text)
    asker.characters_cut += n_characters
    asker.tools.log.note(
        f"only the first {len(kept(n).text):,} of {len(note.text):,} characters of "
        f"'{short_name(note.name)}' were read (on_overflow: truncate)."
    )
    return kept(n)


async def _split_note(
    note: ReduceNote, asker: Asker, messages: PromptOfNotes, limit: int
) -> list[ReduceNote]:
    overflow = None
    for _ in range(_MOST_CUTS):
        pieces = await cut_text(note.text, n_tokens=limit, count=asker.count)
        parts = [
            ReduceNote(f"{note.name}#{number}", piece.text, piece.text)
            for number, piece in enumerate(pieces, 1)
        ]
        longest = max(zip(pieces, parts, strict=True), key=lambda pair: pair[0].n_tokens)[1]
        overflow = await asker.overflow(messages([longest], 0))
        if overflow is None:
            return parts
        limit = max(1, limit * 3 // 4)
    assert overflow is not None
    raise overflow


@dataclass
class CallCounter:
    """How many calls there would be, and how many replies are known."""

    n_calls: int = 0
    n_known: int = 0

    def folder(self, asker: Asker, messages: PromptOfNotes, fanin: int) -> ForecastReducer:
        """Return a folder that counts here."""
        return ForecastReducer(asker, messages, fanin, self)


@dataclass(frozen=True)
class ForecastReducer(TreeReducer):
    """Folds what is known; an answer that is not known makes those above it unknown as well."""

    seen: CallCounter = field(default_factory=CallCounter)

    async def _ask(
        self, notes: Sequence[ReduceNote], level: int, form: ReplyForm | None
    ) -> CheckedAnswer:
        self.seen.n_calls += 1
        if any(UNKNOWN in note.text for note in notes):
            return _unknown_answer(form)
        try:
            answer = await super()._ask(notes, level, form)
        except ReplyNotCached:
            return _unknown_answer(form)
        self.seen.n_known += 1
        return answer


def _unknown_answer(form: ReplyForm | None) -> CheckedAnswer:
    output: Any = None if form is None or form.schema is None else {}
    return CheckedAnswer(UNKNOWN, output, Reply(UNKNOWN, "stop", Usage(), ""))
