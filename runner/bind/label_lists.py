"""The lists of labels that fields are chosen from: read once a run, and what a new list changes.

The mark of an item (`LABELS`, among its dependencies) has the digest of the list and the labels of
its answer; the recorded spec has the whole list. So a changed list makes only those items stale
whose label is gone, or has another description, or that a new label may fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from paddock.engine.request import ModelSpec
from paddock.engine.sampling.schema import json_pointer
from paddock.engine.system.text import listed
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.label_choices import (
    UNDECIDED,
    Choice,
    FieldPath,
    LabelList,
    ToldList,
    WrongLabels,
    chosen_labels,
    schema_with_labels,
    told_lists,
)
from paddock.runner.ledger.entries import Entry
from paddock.steps.base import StepError, Tools, Vector

from .bound import BoundStep
from .inputs_and_parameters import BindError, Scope
from .reply import BoundReply, NearestLabels, OfferedLabels
from .text_vectors import (
    Matrix,
    as_vector8,
    embedded,
    inserted_text,
    similarities,
    unit_matrix,
)

LABELS = "labels"
"""First word of the mark of a field that was chosen from a list."""
TOLD_SHARE = 0.5
"""Of a context, for all lists of a prompt: the documents need room as well."""
_SHOWN_LABELS = 3
NEAREST = "nearest"
"""First word of the mark of a text for which the nearest labels of a list were offered."""
_SAME = 1e-3
"""Similarities that differ by less may be the same: texts are embedded in other batches."""

BORDER_SHARE = 0.1
"""Of the nearest labels: an answer among the last of them says that `narrow` may be too small."""
BORDER = "at the border of `narrow`: a label among the farthest tenth of those that were offered"
_NONE: Mapping[FieldPath, Sequence[str]] = {}

Labels = Mapping[str, str]
"""Each label of a list, with its description."""


def label_texts(labels: Labels) -> list[str]:
    """Return what is embedded of labels."""
    return [f"{one}: {words}" if words else one for one, words in labels.items()]


def choices_of(step: BoundStep) -> tuple[Choice, ...]:
    return () if step.reply is None else step.reply.choices


@dataclass(frozen=True, slots=True)
class Nearest:
    """A text to which labels are near, and what stays on offer besides."""

    text: str
    last: Mapping[FieldPath, Sequence[str]]
    tools: Tools

    async def embedded(self, model: ModelSpec, texts: Sequence[str]) -> list[Vector]:
        tools = self.tools
        return await embedded(tools.pool, model, texts, tools.priority, tools.total_s)


def _text_of(step: BoundStep, scope: Scope) -> str:
    try:
        return inserted_text(step.params.render(scope))
    except (BindError, ExpressionError):
        return ""  # not known yet, or the step fails for it


class LabelLists:
    """The lists of one run, each read and checked once. Of the run's event loop."""

    def __init__(self) -> None:
        self._lists: dict[int, tuple[Choice, Sequence[Any], LabelList]] = {}
        """By a choice's identity: the values that its expression reads, and its list."""
        self._vectors: dict[tuple[str, str], Matrix] = {}
        """By the list's digest and the model's name, a row for each label."""
        self._embedding = asyncio.Lock()
        self._offered: dict[tuple[Any, ...], tuple[BoundReply, OfferedLabels]] = {}

    def of_step(self, step: BoundStep, scope: Scope) -> dict[FieldPath, LabelList]:
        """Return the lists that a step's fields are chosen from, by field.

        Raises:
            StepError: one cannot be read, or is no list of labels.
        """
        return {choice.field: self._list(choice, scope) for choice in choices_of(step)}

    def known(self, step: BoundStep, scope: Scope) -> dict[FieldPath, LabelList]:
        """Return those of the lists that do not depend on an item.

        Raises:
            PipelineError: a list is no list of labels.
        """
        found: dict[FieldPath, LabelList] = {}
        for choice in choices_of(step):
            try:
                if choice.source.evaluate(scope) is not None:  # the output of a skipped step
                    found[choice.field] = self._list(choice, scope)
            except ExpressionError:
                continue
            except StepError as error:
                at = ("reply", "schema", *choice.at, "choose")
                raise PipelineError([Fault(str(error), mark=step.mark_of(*at))]) from error
        return found

    def _list(self, choice: Choice, scope: Scope) -> LabelList:
        roots = [_root(path, scope) for path in sorted(choice.source.references)]
        known = self._lists.get(id(choice))
        if known is not None and all(a is b for a, b in zip(known[1], roots, strict=True)):
            return known[2]
        try:
            made = LabelList.of(choice.source.evaluate(scope), choice)
        except ExpressionError as error:
            raise StepError(f"`choose`: {error}") from error
        except WrongLabels as error:
            raise StepError(f"`choose`: {error.message}.", remedy=error.remedy) from error
        self._lists[id(choice)] = choice, roots, made
        return made

    async def offered(
        self,
        step: BoundStep,
        scope: Scope,
        tools: Tools,
        last: Mapping[FieldPath, Sequence[str]] = _NONE,
    ) -> OfferedLabels | None:
        """Return the schema of a step's answer with its labels, and the lists of its prompt.

        `last` are the labels of the item's last answer, by field: these stay on offer.

        Raises:
            StepError: a list cannot be read, or is no list of labels.
            EngineError: a text cannot be embedded.
        """
        reply, lists = step.reply, self.of_step(step, scope)
        if reply is None or not lists:
            return None
        key = (id(reply), *(one.digest for one in lists.values()))
        if key not in self._offered:
            told = told_lists(reply.choices, lists)
            fits = await self._fitting(step, told, tools)
            left_out = tuple(lists[one.fields[0]] for one in told if one not in fits)
            made = OfferedLabels(schema_with_labels(reply.schema, lists), fits, left_out)
            self._offered[key] = reply, made
        offered = self._offered[key][1]
        n_lists = len(offered.lists) + len(offered.left_out)
        if any(choice.keys.narrow for choice in reply.choices) and offered.left_out:
            text = _text_of(step, scope)
            offered = await self._narrowed(reply, lists, offered, Nearest(text, last, tools))
        for one in offered.left_out:
            lists_take = "which take" if n_lists == 1 else "as all its lists take"
            what = f"without the {len(one.labels):,} labels of {one.source}, {lists_take}"
            tools.log.tally("prompt", f"{what} more than half of the context")
        return offered

    async def _narrowed(
        self,
        reply: BoundReply,
        lists: Mapping[FieldPath, LabelList],
        offered: OfferedLabels,
        near: Nearest,
    ) -> OfferedLabels:
        """Offer the nearest labels where a list is too long for the prompt, as `narrow` says."""
        found: dict[FieldPath, LabelList] = {}
        nearest: dict[FieldPath, NearestLabels] = {}
        digests = {one.digest for one in offered.left_out}
        for choice in reply.choices:
            whole, n = lists[choice.field], choice.keys.narrow
            if n is None or whole.digest not in digests:
                continue
            made = await self._nearest(whole, near, n)
            if made is None:
                continue
            nearest[choice.field] = made
            kept = filter(whole.labels.__contains__, near.last.get(choice.field, ()))
            labels = [*dict.fromkeys((*made.labels, *kept))]
            found[choice.field] = replace(whole.part(labels), digest=f"{whole.digest} {labels}")
            what = f"with the {n:,} of {len(whole.labels):,} labels of {whole.source} that are"
            near.tools.log.tally("prompt", f"{what} nearest to the text")
        if not found:
            return offered
        narrowed = [one for one in reply.choices if one.field in found]
        others = {lists[field].digest for field in lists.keys() - found.keys()}
        left_out = tuple(one for one in offered.left_out if one.digest in others)
        schema = schema_with_labels(reply.schema, {**lists, **found})
        told = (*offered.lists, *told_lists(narrowed, found))
        return replace(offered, schema=schema, lists=told, left_out=left_out, nearest=nearest)

    async def _nearest(self, whole: LabelList, near: Nearest, n: int) -> NearestLabels | None:
        """Return the labels that are nearest to the text.

        None: there is no text, or no vectors while planning.
        """
        if not near.text:
            return None
        model = near.tools.models.resolve(None, "embed")
        identity = (await near.tools.pool.facts(model)).identity
        async with self._embedding:  # items that come meanwhile wait for the same vectors
            matrix = self._vectors.get((whole.digest, model.ref))
            if matrix is None:
                made = await near.embedded(model, label_texts(whole.labels))
                matrix = self._vectors[whole.digest, model.ref] = unit_matrix(made)
        vector = as_vector8((await near.embedded(model, [near.text]))[0])
        found = similarities(vector, matrix)
        if found is None:
            return None
        labels = [*whole.labels]
        order = sorted(range(len(found)), key=lambda place: -found[place])[:n]
        return NearestLabels(
            tuple(labels[place] for place in order), found[order[-1]], identity, vector
        )

    async def _fitting(
        self, step: BoundStep, told: tuple[ToldList, ...], tools: Tools
    ) -> tuple[ToldList, ...]:
        """Return the lists that together leave room in the model's context, the shortest first."""
        if step.model is None or not told:
            return told
        most = TOLD_SHARE * (await tools.pool.facts(step.model)).n_ctx_tokens
        if sum(len(one.text.encode()) for one in told) <= most:  # a token has at least one byte
            return told
        counts = await tools.pool.count_texts(step.model, [one.text for one in told])
        by_length = sorted(range(len(told)), key=lambda place: counts[place])
        sums = accumulate(counts[place] for place in by_length)
        fits = {place for place, total in zip(by_length, sums, strict=True) if total <= most}
        return tuple(one for place, one in enumerate(told) if place in fits)


def _root(path: Sequence[str], scope: Scope) -> Any:
    """Return the value from which a reference is followed: it stays the same object in a run."""
    if path[0] == "steps" and len(path) > 1:
        return scope["steps"].get(path[1])
    return scope.get(path[0])


# --- what an item was chosen from


def list_name(prefix: str, step: str, field: FieldPath) -> str:
    """Return the name of a list in marks and specs; `prefix`: the steps that lead to its step."""
    return f"{prefix}{step}{json_pointer(field)}"


def label_mark(name: str, found: LabelList, answer: Any, field: FieldPath) -> dict[str, list[Any]]:
    """Mark the list of a field, and the labels that an answer has of it; None: no answer yet."""
    chosen = None if answer is None else sorted({*chosen_labels(answer, field)})
    return {f"{LABELS} {name}": [LABELS, found.digest, chosen]}


def nearest_mark(name: str, found: NearestLabels) -> dict[str, list[Any]]:
    """Mark the text of an item that was offered the nearest labels of a list."""
    return {f"{NEAREST} {name}": [NEAREST, found.least, found.model, found.vector]}


@dataclass(frozen=True, slots=True)
class LabelVectors:
    """Labels that are new to a list, each with its vector."""

    labels: Sequence[str]
    model: str
    """Identity of the model that made the vectors."""
    rows: Matrix

    def near(self, mark: Sequence[Any]) -> frozenset[str] | None:
        """Return which are among the nearest to an item's text; None: that is not known."""
        _, least, model, vector = mark
        near = similarities(vector, self.rows) if model == self.model else None
        if near is None:
            return None
        pairs = zip(self.labels, near, strict=True)
        return frozenset(label for label, one in pairs if one > least - _SAME)


@dataclass(frozen=True, slots=True)
class CurrentLabels:
    """The lists that are known before any item, by name, and what is known of their new labels."""

    lists: Mapping[str, LabelList]
    vectors: Mapping[str, LabelVectors] = field(default_factory=dict)
    """Of the lists of which items were offered the nearest labels."""

    def difference(self, entry: Entry, then: Mapping[str, Labels]) -> str | None:
        """Return why an item must be labelled again, or None; `then` are its lists, by name."""
        nearest = entry.marks(NEAREST)
        for key, (_, digest, chosen) in entry.marks(LABELS).items():
            name = key.removeprefix(f"{LABELS} ")
            found, before = self.lists.get(name), then.get(name)
            if found is None or found.digest == digest:
                continue
            if before is None or chosen is None:
                return f"labels changed: {found.source} (step '{_step_of(name)}')"
            reasons = self._differences(name, before, chosen, nearest.get(f"{NEAREST} {name}"))
            reason = next(reasons, None)
            if reason is None and found.relabels_all:
                reason = f"labels changed: {found.source}"
            if reason is not None:
                return f"{reason} (step '{_step_of(name)}')"
        return None

    def _differences(
        self, name: str, before: Labels, chosen: Sequence[str], mark: Sequence[Any] | None
    ) -> Iterator[str]:
        found = self.lists[name]
        gone = [label for label in chosen if label in before and label not in found.labels]
        if gone:
            yield f"its label is gone: {_quoted(gone)}"
        other = [label for label in chosen if before.get(label, "") != found.labels.get(label, "")]
        if other:
            yield f"the description of its label changed: {_quoted(other)}"
        yield from self._new(name, [label for label in found.labels if label not in before], mark)

    def _new(self, name: str, new: Sequence[str], mark: Sequence[Any] | None) -> Iterator[str]:
        """Yield the new labels; `mark`: those that are among the nearest to an item's text."""
        near, vectors = None, self.vectors.get(name)
        if mark is not None and vectors is not None:
            near = vectors.near(mark)
        how = "" if near is None else " and near its text"
        new = [label for label in new if near is None or label in near]
        if new:
            found = self.lists[name]
            is_undecided = mark is not None and near is None and not found.relabels_all
            undecided = f"; {UNDECIDED}" if is_undecided else ""
            yield f"new in {found.source}{how}: {_quoted(new)}{undecided}"


def _step_of(name: str) -> str:
    return name.partition("/")[0]


def _quoted(labels: Sequence[str]) -> str:
    return listed([f"'{one}'" for one in labels], _SHOWN_LABELS)


def n_at_border(offered: OfferedLabels, answer: Any) -> int:
    """Return how many labels of an answer are among the last of the nearest ones."""
    n = 0
    for name, found in offered.nearest.items():
        nearest = found.labels
        border = nearest[-max(1, round(BORDER_SHARE * len(nearest))) :]
        n += sum(one in border for one in chosen_labels(answer, name))
    return n
