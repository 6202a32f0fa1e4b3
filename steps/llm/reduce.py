"""The step `reduce`: combine many items into one answer, or into one for each group.

The notes form a tree. Grouping is content-defined: a note ends its group where its rank, a hash of
its name, is the highest among its neighbours. So one note that comes, goes or changes moves only
the borders next to it. Each part of the tree has its own prompt, so cached replies of unchanged
parts stay valid: only the parts above a changed note are asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from paddock.engine.request import Message, Reply, Usage
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.tasks import run_concurrently
from paddock.engine.system.text import one_line, text_or_json
from paddock.pipelines.expressions import ExpressionError, Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import (
    PLACEHOLDER,
    CallForecast,
    Params,
    ReplyForm,
    ReplyNotCached,
    Step,
    StepError,
    StepSkipped,
    Tools,
)
from paddock.steps.facts import CallFacts, Facts, TextFacts, TreeBounds, brings_none
from paddock.steps.param_types import GroupedList, GroupField
from paddock.steps.prompt import render_template
from paddock.steps.text.chunker import cut_text
from paddock.steps.text.text_parts import to_part

from .ask_and_repair import (
    AnswerOutput,
    CheckedAnswer,
    ModelCaller,
    SchemaOnlyForm,
    UsageOutput,
    ask_checked,
    empty_answer,
    one_repeat,
)
from .map_reduce import IndexRange, ReduceNote, cut_limits, most_note_tokens, reduce_levels
from .prompt_truncation import first_part

ITEM_SEPARATOR = "\n\n"
_NAME_FIELDS = ("key", "id", "relpath", "path", "file", "name", "title")
"""Fields that identify an item, the first that exists; else its content does."""


class ReduceParams(Params):
    sees: ClassVar[Mapping[str, frozenset[str]]] = {
        "prompt": frozenset(("notes", "items", "level", "group")),
        "by": frozenset(("item",)),
    }

    over: Annotated[list[Any], GroupedList] = Field(
        description="The items, such as the results of a block."
    )
    prompt: Template = Field(
        description="Combines several items; sees `notes`, their texts (put before a prompt that "
        "does not mention them), `items`, their values, `level` from 0, and `group`."
    )
    model: str | None = Field(default=None, description="Which model to use.")
    by: Annotated[Template | None, GroupField] = Field(
        default=None,
        description="Group by this first: a field of the items, or an expression over `item`.",
        examples=["kind", "{{ item.date[:4] }}"],
    )
    fold: Literal["all", "groups"] = Field(
        default="all",
        description="The same prompt combines the groups of `by`, or (`groups`) `output` has the "
        "answer of each by its key.",
    )
    fanin: int = Field(default=8, ge=2, le=256, description="The most items of one prompt.")
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )
    on_overflow: Literal["error", "split", "truncate"] = Field(
        default="error",
        description="If an item does not fit into a prompt of its own: an error, it is read in "
        "parts, or only its beginning, with a note.",
    )

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        faults = super().faults(given)
        if "fold" in given and "by" not in given:
            faults += (("`fold` needs `by`: it decides what happens to the groups.", ""),)
        return faults


class ReducedGroup(AnswerOutput):
    """One group of `by`, and the answer to its items."""

    key: str
    count: int = Field(description="How many items it has.")


class ReduceOutput(AnswerOutput):
    output: Any = Field(
        default=None,
        description="The value of `reply.schema`: null without one. With `fold: groups` a mapping "
        "of each group's key to its value, or to its text without a schema.",
    )
    groups: list[ReducedGroup] = Field(
        description="The groups, in order of their first items; empty without `by`. `text` "
        "combines their texts."
    )
    levels: int = Field(description="How deep the tree was.")
    usage: UsageOutput


def _tree_bounds(params: ReduceParams) -> TreeBounds:
    n = len(params.over)
    # Each item a group: a call for each, and a tree of them, in which each call joins two
    in_groups = n if params.fold == "groups" else 2 * n - 1
    return TreeBounds(2 * n + 1, 0 if params.by is None else in_groups)


class Reduce(Step[ReduceParams, ReduceOutput]):
    """Many items combined by a prompt, as a tree of cached replies."""

    params = ReduceParams
    output = ReduceOutput
    roles = frozenset({"chat"})
    takes_reply = True
    facts = Facts(
        only_reads=True,
        is_repeatable=True,
        only_answers=True,
        only_measures=True,
        is_one_answer=lambda written: written.get("fold", "all") == "all",
        calls=CallFacts(is_sized=lambda written: True, tree=_tree_bounds, most_repeats=one_repeat),
        texts=TextFacts(brings_none, without=("usage",)),
    )

    async def run(self, params: ReduceParams, tools: Tools) -> ReduceOutput:
        return await _reduce(params, tools)

    async def foresee(self, params: ReduceParams, tools: Tools) -> CallForecast:
        """Return how many calls the tree takes, and how many have cached replies."""
        seen = CallCounter()
        try:
            await _reduce(params, tools, seen)
        except StepSkipped:
            return CallForecast(0, 0)
        return CallForecast(seen.n_calls, seen.n_known)


async def _reduce(
    params: ReduceParams, tools: Tools, forecast: CallCounter | None = None
) -> ReduceOutput:
    """Fold the notes; with `by` each group, then, unless `fold: groups` stops there, the answers.

    With `forecast` no model is asked: calls are counted, and what is not known makes every answer
    above it unknown.
    """
    notes = [_note_of_item(item) for item in params.over if item is not None]
    notes = [note for note in notes if note.text.strip()]
    if not notes:
        tools.log.note("there is nothing to combine.")
        raise StepSkipped("there is nothing to combine")
    model = tools.llm.models.resolve(params.model, "chat")
    caller = ModelCaller(tools, model, params.params.given(), on_truncated="more")
    whole = _NoteTree(params, caller, forecast)
    if params.by is None:
        answer, n_levels = await whole.fold(notes)
        return ReduceOutput(**answer.outputs(), groups=[], levels=n_levels, usage=caller.usage())
    by_key: dict[str, list[ReduceNote]] = {}
    for number, note in enumerate(notes, 1):
        by_key.setdefault(_group_key(params.by, note.value, number), []).append(note)
    folded = await run_concurrently(
        lambda key: replace(whole, group=key).fold(by_key[key]), by_key, await caller.n_at_once()
    )
    groups = [
        ReducedGroup(key=key, count=len(by_key[key]), **answer.outputs())
        for key, (answer, _) in zip(by_key, folded, strict=True)
    ]
    n_levels = max(n for _, n in folded)
    if params.fold == "groups":
        has_schema = any(group.output is not None for group in groups)
        return ReduceOutput(
            text=ITEM_SEPARATOR.join(f"{group.key}:\n{group.text}" for group in groups),
            output={group.key: group.output if has_schema else group.text for group in groups},
            evidence=_by_group(groups, "evidence"),
            confidence=_by_group(groups, "confidence"),
            groups=groups,
            levels=n_levels,
            usage=caller.usage(),
        )
    answer, _ = folded[0]
    if len(groups) > 1:
        answers = [
            ReduceNote(
                name=group.key,
                text=f"{group.key}:\n{group.text}",
                value={"group": group.key, "text": group.text, "output": group.output},
            )
            for group in groups
        ]
        try:
            answer, n_above = await whole.fold(answers)
        except StepError as error:
            if not isinstance(error.__cause__, ExpressionError):
                raise
            raise StepError(
                f"{error} The same prompt combines the groups; its `items` are then the "
                f"`group`, `text` and `output` of each.",
                remedy="Set `fold: groups` to stop before that.",
            ) from error
        n_levels += n_above
    return ReduceOutput(**answer.outputs(), groups=groups, levels=n_levels, usage=caller.usage())


def _by_group(groups: Sequence[ReducedGroup], name: str) -> dict[str, Any] | None:
    found = {group.key: getattr(group, name) for group in groups}
    return found if any(value is not None for value in found.values()) else None


def _note_of_item(item: Any) -> ReduceNote:
    values = [item.get(name) for name in _NAME_FIELDS] if isinstance(item, Mapping) else []
    name = next((value for value in values if isinstance(value, str) and value), None)
    if name is None:
        written = json.dumps(item, sort_keys=True, ensure_ascii=False)
        name = hashlib.sha256(written.encode()).hexdigest()
    return ReduceNote(name, to_part(item).text, item)


def _group_key(by: Template, item: Any, number: int) -> str:
    """Return the group of an item: a field or the value of an expression."""
    if by.references:
        try:
            return by.render(item=item)
        except ExpressionError as error:
            raise StepError(f"`by` failed for item {number}: {error}") from error
    value = item
    for name in by.source.strip().split("."):
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(f"'{key}'" for key in value) if isinstance(value, Mapping) else "none"
            raise StepError(
                f"`by`: item {number} has no field '{name}' (known: {known}).",
                remedy="Name a field that every item has, or write an expression over `item`.",
            )
        value = value[name]
    return text_or_json(value)


# --- the tree


_NOTE_MARGIN_TOKENS = 8  # for each note, where texts meet
_SHOWN_CHARS = 60


class CallCounter(Struct):
    n_calls: int = 0
    n_known: int = 0


class _NoteTree(Struct, frozen=True):
    """Folds notes to one answer: those of all, or of one group."""

    params: ReduceParams
    caller: ModelCaller
    forecast: CallCounter | None
    group: str | None = None

    async def fold(self, notes: Sequence[ReduceNote]) -> tuple[CheckedAnswer, int]:
        """Combine notes until one answer is left; return it, and how deep the tree was.

        Raises:
            PromptTooLong: a note does not fit into its prompt.
            StepError: the answers do not get shorter, so it would never end.
        """
        fit = await self._fitting(notes)
        left, level = await reduce_levels(
            self.caller, fit, self.groups, self.combine, self.no_progress
        )
        return await self._ask(left, level, self.caller.tools.reply), level + 1

    def messages(self, notes: Sequence[ReduceNote], level: int = 0) -> list[Message]:
        prompt, texts = self.params.prompt, [note.text for note in notes]
        names: dict[str, Any] = {"notes": texts, "items": [note.value for note in notes]}
        names |= {"level": level, "group": self.group}
        text = render_template(prompt, "prompt", names)
        if not any(path[0] in ("notes", "items") for path in prompt.references):
            text = ITEM_SEPARATOR.join([*texts, text])
        return [Message("user", text)]

    async def groups(self, notes: Sequence[ReduceNote], level: int) -> list[IndexRange]:
        ranges: list[IndexRange] = []
        names = [note.name for note in notes]
        for begin, end in content_groups(names, self.params.fanin, level):
            waiting = [(begin, end)]
            while waiting:
                first, last = waiting.pop(0)
                overflow = await self.caller.overflow(self.messages(notes[first:last], level))
                if overflow is None:
                    ranges.append((first, last))
                elif last - first == 1:
                    note = notes[first]
                    item = f"item '{one_line(note.name, _SHOWN_CHARS)}'"
                    raise StepError(
                        f"{'an answer' if note.is_answer else item} alone is too long: {overflow}.",
                        remedy="Set `on_overflow: split` to read it in parts, or raise the "
                        "model's `ctx`.",
                    )
                else:
                    middle = (first + last + 1) // 2
                    waiting[:0] = ((first, middle), (middle, last))
        return ranges

    async def combine(self, notes: Sequence[ReduceNote], level: int) -> ReduceNote:
        """Ask for one answer to some notes, by the form of the last one without its checks."""
        last = self.caller.tools.reply
        form = None if last is None else SchemaOnlyForm(last.schema, last.repair, lists=last.lists)
        most = await most_note_tokens(self.caller)
        answer = await self._ask(notes, level, form, most)
        value = answer.text if answer.output is None else answer.output
        return ReduceNote(notes[-1].name, answer.text, value, is_answer=True)

    def no_progress(self) -> StepError:
        return StepError(
            "the answers do not get shorter, so they would never fit into one prompt.",
            remedy="Ask for a shorter one in `prompt`, lower `fanin`, or raise the model's `ctx`.",
            kind="check",
        )

    async def _ask(
        self,
        notes: Sequence[ReduceNote],
        level: int,
        form: ReplyForm | None,
        most_tokens: int | None = None,
    ) -> CheckedAnswer:
        if self.forecast is not None:
            self.forecast.n_calls += 1
            if any(PLACEHOLDER in note.text for note in notes):
                return _unknown_answer(form)
        try:
            messages = self.messages(notes, level)
            answer = await ask_checked(self.caller, messages, form=form, most_tokens=most_tokens)
        except ReplyNotCached:
            if self.forecast is None:
                raise
            return _unknown_answer(form)
        text = answer.text.strip()
        if not text:
            raise empty_answer()
        if self.forecast is not None:
            self.forecast.n_known += 1
        return replace(answer, text=text)

    async def _fitting(self, notes: Sequence[ReduceNote]) -> list[ReduceNote]:
        """Return the notes; those that are too long are cut as `on_overflow` says.

        With `error` they stay as they are: `groups` reports which does not fit.

        Raises:
            PromptTooLong: not even an empty note fits.
        """
        if self.params.on_overflow == "error":
            return list(notes)
        caller = self.caller
        sizes = await caller.count([note.text for note in notes])
        empty = await caller.size(self.messages(notes[:1])) - sizes[0]
        limit = await caller.room() - empty - _NOTE_MARGIN_TOKENS
        fitting: list[ReduceNote] = []
        for note, size in zip(notes, sizes, strict=True):
            # What is close to the limit is counted in its prompt, which may name it twice.
            if 2 * size <= limit or await caller.overflow(self.messages([note])) is None:
                fitting.append(note)
            elif self.params.on_overflow == "truncate":
                fitting.append(await self._truncated(note))
            else:
                fitting += await self._split(note, limit)
        return fitting

    async def _truncated(self, note: ReduceNote) -> ReduceNote:
        def kept(n: int) -> ReduceNote:
            text = first_part(note.text, n)
            return replace(note, text=text, value=text)

        n_all = len(note.text)
        most = self.caller.most_characters(n_all, lambda n: self.messages([kept(n)]))
        short = kept(await most)
        self.caller.characters_cut += n_all - len(short.text)
        self.caller.tools.log.note(
            f"only the first {len(short.text):,} of {n_all:,} characters of "
            f"'{one_line(note.name, _SHOWN_CHARS)}' were read (on_overflow: truncate)."
        )
        return short

    async def _split(self, note: ReduceNote, most: int) -> list[ReduceNote]:
        for limit in cut_limits(most):
            pieces = await cut_text(note.text, n_tokens=limit, count=self.caller.count)
            parts = [
                ReduceNote(f"{note.name}#{number}", piece.text, piece.text)
                for number, piece in enumerate(pieces, 1)
            ]
            longest = max(zip(pieces, parts, strict=True), key=lambda pair: pair[0].n_tokens)[1]
            overflow = await self.caller.overflow(self.messages([longest]))
            if overflow is None:
                return parts
        assert overflow is not None
        raise overflow


def _unknown_answer(form: ReplyForm | None) -> CheckedAnswer:
    output: Any = None if form is None or form.schema is None else {}
    return CheckedAnswer(PLACEHOLDER, output, Reply(PLACEHOLDER, "stop", Usage(), ""))


def content_groups(names: Sequence[str], fanin: int, level: int = 0) -> list[IndexRange]:
    """Cut a list into neighbouring groups of at most `fanin` items.

    A list of at most `fanin` items is one group; a longer one always has fewer groups than items.
    Each level of a tree has different borders. The tree of a short list is no deeper than one of
    full groups, so that a changed item costs no call more than it must.

    Args:
        names: identify the items, in order; equal ones are allowed.
        fanin: at least 2.
        level: the level of the tree, from 0.
    """
    if len(names) <= fanin:
        return [(0, len(names))] if names else []
    ranks = [hashlib.sha256(f"{level}\n{name}".encode()).digest()[:8] for name in names]
    ends = [index + 1 for index in range(len(names) - 1) if _is_border(ranks, index, fanin)]
    whole = pairwise([0, *ends, len(names)])
    pieces = [piece for begin, end in whole for piece in _even_ranges(begin, end, fanin)]
    if len(names) > _SHORT_LIST or len(pieces) <= _most_groups(len(names), fanin):
        return pieces
    joined = _joined_ranges(pieces, ranks, fanin)
    if len(joined) <= _most_groups(len(names), fanin):
        return joined
    return list(_even_ranges(0, len(names), fanin))


_SHORT_LIST = 16
"""Items. Even groups shift where one comes or goes: in a longer tree that costs more calls than a
level less saves (60 items by 8: 4.1 instead of 3.7)."""


def _joined_ranges(
    ranges: Sequence[IndexRange], ranks: Sequence[bytes], fanin: int
) -> list[IndexRange]:
    """Join neighbouring ranges that fit together, at the border of the lowest rank first."""
    joined = list(ranges)
    while True:
        fitting = [n for n in range(1, len(joined)) if joined[n][1] - joined[n - 1][0] <= fanin]
        if not fitting:
            return joined
        at = min(fitting, key=lambda n: ranks[joined[n][0] - 1])
        joined[at - 1 : at + 1] = [(joined[at - 1][0], joined[at][1])]


def _most_groups(n: int, fanin: int) -> int:
    """Return how many groups the levels above can still combine in the least number of levels.

    >>> _most_groups(7, 2), _most_groups(9, 2), _most_groups(60, 8)
    (4, 8, 8)
    """
    most = 1
    while most * fanin < n:
        most *= fanin
    return most


def _is_border(ranks: Sequence[bytes], index: int, fanin: int) -> bool:
    """Return whether no neighbour ranks higher; of equal ones the first counts."""
    reach = max(1, (fanin - 1) // 2)
    before = ranks[max(0, index - reach) : index]
    after = ranks[index + 1 : index + 1 + reach]
    rank = ranks[index]
    return all(rank > other for other in before) and all(rank >= other for other in after)


def _even_ranges(begin: int, end: int, fanin: int) -> Iterator[IndexRange]:
    """Split a range without a border into pieces of about the same size."""
    n_pieces = -(-(end - begin) // fanin)
    size, rest = divmod(end - begin, n_pieces)
    for number in range(n_pieces):
        yield begin, (begin := begin + size + (number < rest))
