"""The step `reduce`: combine many items into one answer, or into one for each group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from paddock.engine.request import Message, Role
from paddock.pipelines.expressions import ExpressionError, Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import CallForecast, Output, Params, StepError, StepSkipped, Tools
from paddock.steps.prompt import render_template

from .ask import Asker, UsageOutput

if TYPE_CHECKING:
    from .tree_reduce import PromptOfNotes, ReducedTree, ReduceNote, TreeReducer

    MakeFolder = Callable[[Asker, PromptOfNotes, int], TreeReducer]

ITEM_SEPARATOR = "\n\n"
_NAME_FIELDS = ("key", "id", "relpath", "path", "file", "name", "title")
"""Fields that name an item, the first that is there; what none names is known by what it says."""


class ReduceParams(Params):
    """Parameters of `reduce`."""

    sees: ClassVar[Mapping[str, frozenset[str]]] = {
        "prompt": frozenset(("notes", "items", "level", "group")),
        "by": frozenset(("item",)),
    }

    over: list[Any] = Field(description="What is folded, such as the results of a block.")
    prompt: Template = Field(
        description="Makes one text of several; sees `notes`, their texts (which stand before a "
        "prompt that does not mention them), `items`, the values, `level` from 0, and `group`."
    )
    model: str | None = Field(default=None, description="Which model answers.")
    by: Template | None = Field(
        default=None,
        description="Groups first: a field of the items, or an expression over `item`.",
        examples=["kind", "{{ item.date[:4] }}"],
    )
    fold: Literal["all", "groups"] = Field(
        default="all",
        description="What becomes of the groups of `by`: they are folded into one by the same "
        "prompt, or `groups` stops there, and `output` has the answer of each by its key.",
    )
    fanin: int = Field(default=8, ge=2, le=256, description="How many are folded at once, at most.")
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )
    on_overflow: Literal["error", "split", "truncate"] = Field(
        default="error",
        description="What happens to an item that does not fit into a prompt of its own: an "
        "error, it is folded in parts, or only its beginning is read, and it is said so.",
    )

    @classmethod
    def faults(cls, given: Collection[str]) -> tuple[str, ...]:
        """Refuse `fold` where there are no groups."""
        faults = super().faults(given)
        if "fold" in given and "by" not in given:
            faults += ("`fold` says what becomes of the groups: it needs `by`.",)
        return faults


class ReducedGroup(Output):
    """One group of `by`, and what its items were folded into."""

    key: str
    count: int = Field(description="How many items it has.")
    text: str
    output: Any = Field(default=None, description="The value of `reply.schema`: null without one.")


class ReduceOutput(Output):
    """Outputs of `reduce`."""

    text: str
    output: Any = Field(
        default=None,
        description="The value of `reply.schema`: null without one. With `fold: groups` a mapping "
        "of each group's key to its value, or to its text without a schema.",
    )
    groups: list[ReducedGroup] = Field(
        description="The groups, in the order in which they first occur; empty without `by`. "
        "`text` is made of their texts."
    )
    levels: int = Field(description="How deep the tree was.")
    usage: UsageOutput


class Reduce:
    """Many items folded into one by a prompt, as a tree that is kept."""

    params: ClassVar[type[ReduceParams]] = ReduceParams
    output: ClassVar[type[ReduceOutput]] = ReduceOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset({"chat"})
    takes_reply: ClassVar[bool] = True

    def reads(self, params: ReduceParams) -> Sequence[str]:
        """Name nothing."""
        return ()

    async def run(self, params: ReduceParams, tools: Tools) -> ReduceOutput:
        """Fold.

        Raises:
            StepError: an item does not fit, a template failed, an answer did not pass its checks
                or ended at a limit that the author did not set.
            StepSkipped: there are no items.
            EngineError: the pool could not do it.
        """
        from .tree_reduce import TreeReducer

        return await _reduce(params, tools, TreeReducer)

    async def foresee(self, params: ReduceParams, tools: Tools) -> CallForecast:
        """Return how many calls the tree takes, and how many of them are known."""
        from .tree_reduce import CallCounter

        seen = CallCounter()
        try:
            await _reduce(params, tools, seen.folder)
        except StepSkipped:
            return CallForecast(0, 0)
        return CallForecast(seen.n_calls, seen.n_known)


async def _reduce(params: ReduceParams, tools: Tools, folder: MakeFolder) -> ReduceOutput:
    notes = [_note_of_item(item) for item in params.over if item is not None]
    notes = [note for note in notes if note.text.strip()]
    if not notes:
        tools.log.note("there is nothing to fold.")
        raise StepSkipped("there is nothing to fold")
    asker = Asker(tools, tools.models.resolve(params.model, "chat"), params.params.given())
    work = _ReduceWork(params, asker, folder)
    if params.by is None:
        folded: ReducedTree | None = await work.fold(notes, None)
        groups, n_levels = list[ReducedGroup](), 0
    else:
        folded, groups, n_levels = await work.fold_groups(notes, params.by)
    if folded is None:
        return _grouped_output(groups, n_levels, asker.usage())
    return ReduceOutput(
        text=folded.answer.text,
        output=folded.answer.output,
        groups=groups,
        levels=folded.n_levels,
        usage=asker.usage(),
    )


@dataclass(frozen=True)
class _ReduceWork:
    """One step's way to fold, group by group."""

    params: ReduceParams
    asker: Asker
    folder: MakeFolder

    async def fold(self, notes: Sequence[ReduceNote], group: str | None) -> ReducedTree:
        from .tree_reduce import fit_notes

        def messages(some: Sequence[ReduceNote], level: int) -> list[Message]:
            return [Message("user", _reduce_prompt(self.params.prompt, some, level, group))]

        fit = await fit_notes(notes, self.asker, messages, self.params.on_overflow)
        return await self.folder(self.asker, messages, self.params.fanin).fold(fit)

    async def fold_groups(
        self, notes: Sequence[ReduceNote], by: Template
    ) -> tuple[ReducedTree | None, list[ReducedGroup], int]:
        """Fold each group, then what came of them; a single group is all there is.

        Return the answer to all (None where `fold` stops at the groups), the groups, and how deep
        their deepest tree was.
        """
        from .map_reduce import run_concurrently

        found: dict[str, list[ReduceNote]] = {}
        for number, note in enumerate(notes, 1):
            found.setdefault(_group_key(by, note.value, number), []).append(note)

        async def fold(key: str) -> ReducedTree:
            return await self.fold(found[key], key)

        each = dict(zip(found, await run_concurrently(self.asker, fold, found), strict=True))
        made = [
            ReducedGroup(
                key=key,
                count=len(found[key]),
                text=folded.answer.text,
                output=folded.answer.output,
            )
            for key, folded in each.items()
        ]
        deepest = max(folded.n_levels for folded in each.values())
        if self.params.fold == "groups":
            return None, made, deepest
        if len(made) == 1:
            return next(iter(each.values())), made, deepest
        whole = await self._fold_all(made)
        return replace(whole, n_levels=whole.n_levels + deepest), made, deepest

    async def _fold_all(self, groups: Sequence[ReducedGroup]) -> ReducedTree:
        """Fold the answers to the groups by the prompt that made them."""
        from .tree_reduce import ReduceNote

        texts = [
            ReduceNote(
                name=group.key,
                text=f"{group.key}:\n{group.text}",
                value={"group": group.key, "text": group.text, "output": group.output},
            )
            for group in groups
        ]
        try:
            return await self.fold(texts, None)
        except StepError as error:
            if not isinstance(error.__cause__, ExpressionError):
                raise
            raise StepError(
                f"{error} The groups are folded into one by the same prompt, and its `items` are "
                f"then the `group`, `text` and `output` of each.",
                remedy="Write `fold: groups` to stop before that.",
            ) from error


def _grouped_output(groups: list[ReducedGroup], n_levels: int, usage: UsageOutput) -> ReduceOutput:
    has_schema = any(group.output is not None for group in groups)
    return ReduceOutput(
        text=ITEM_SEPARATOR.join(f"{group.key}:\n{group.text}" for group in groups),
        output={group.key: group.output if has_schema else group.text for group in groups},
        groups=groups,
        levels=n_levels,
        usage=usage,
    )


def _note_of_item(item: Any) -> ReduceNote:
    from paddock.steps.text.split import to_part

    from .tree_reduce import ReduceNote

    named = item if isinstance(item, Mapping) else {}
    names = (
        named[name] for name in _NAME_FIELDS if isinstance(named.get(name), str) and named[name]
    )
    text = to_part(item).text
    return ReduceNote(next(names, None) or _item_digest(item), text, item)


def _item_digest(item: Any) -> str:
    written = json.dumps(item, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()


def _reduce_prompt(
    template: Template, notes: Sequence[ReduceNote], level: int, group: str | None
) -> str:
    texts = [note.text for note in notes]
    names = {"notes": texts, "items": [note.value for note in notes]}
    text = render_template(template, "prompt", {**names, "level": level, "group": group})
    if any(path[0] in names for path in template.references):
        return text
    return f"{ITEM_SEPARATOR.join(texts)}{ITEM_SEPARATOR}{text}"


def _group_key(by: Template, item: Any, number: int) -> str:
    """Return the group of an item: a field of it, or what an expression gives."""
    if by.references:
        try:
            return by.render(item=item)
        except ExpressionError as error:
            raise StepError(f"`by` failed for item {number}: {error}") from error
    value = item
    for name in by.source.strip().split("."):
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(f"'{one}'" for one in value) if isinstance(value, Mapping) else "none"
            raise StepError(
                f"`by`: item {number} has no field '{name}' (it has: {known}).",
                remedy="Name a field that every item has, or write an expression over `item`.",
            )
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
