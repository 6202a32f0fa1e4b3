"""The lists of labels that fields are chosen from: read once a run, and what a new list changes.

The mark of an item (`LABELS`, among its dependencies) has the digest of the list and the labels of
its answer; the recorded spec has the whole list. So a changed list makes only those items stale
whose label is gone, or has another description, or that a new label may fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

from paddock.engine.sampling.schema import json_pointer
from paddock.engine.system.text import listed
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.label_choices import (
    Choice,
    FieldPath,
    LabelList,
    ToldList,
    WrongLabels,
    chosen_labels,
    schema_with_labels,
    told_lists,
)
from paddock.steps.base import StepError, Tools, Vector
from paddock.steps.vectors.embed import REQUEST_TEXTS, embed_texts

from .bound import BoundStep
from .inputs_and_parameters import BindError, Scope
from .reply import BoundReply, OfferedLabels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paddock.engine.request import ModelSpec

LABELS = "labels"
"""First word of the mark of a field that was chosen from a list."""
TOLD_SHARE = 0.5
"""Of a context, for all lists of a prompt: the documents need room as well."""
_SHOWN_LABELS = 3

_LEAST_DIMENSIONS = 2
"""Of a vector; while planning, a placeholder has one."""
BORDER_SHARE = 0.1
"""Of the nearest labels: an answer among the last of them says that `narrow` may be too small."""
BORDER = "at the border of `narrow`: a label among the farthest tenth of those that were offered"
_NONE: Mapping[FieldPath, Sequence[str]] = {}
Matrix: TypeAlias = "NDArray[np.float32]"

Labels = Mapping[str, str]
"""Each label of a list, with its description."""


def choices_of(step: BoundStep) -> tuple[Choice, ...]:
    return () if step.reply is None else step.reply.choices


@dataclass(frozen=True, slots=True)
class Nearest:
    """A text to which labels are near, and what stays on offer besides."""

    text: str
    last: Mapping[FieldPath, Sequence[str]]
    tools: Tools


def unit_matrix(vectors: Sequence[Vector]) -> Matrix:
    """Return vectors of length 1, a row for each."""
    from paddock.steps.llm.extract import unit_rows  # numpy, which other plans do without

    return unit_rows(vectors)


async def _embedded(tools: Tools, model: ModelSpec, texts: Sequence[str]) -> Sequence[Vector]:
    return (await embed_texts(tools, model, texts, on_overflow="split")).vectors


def inserted_text(params: Any) -> str:
    """Return the longest text that a step's prompt inserts: that of the document."""
    prompt, texts = getattr(params, "prompt", None), []
    if prompt is not None and hasattr(prompt, "texts"):
        texts = prompt.texts(**getattr(params, "vars", {}))
        texts = texts or [prompt.render(**getattr(params, "vars", {}))]
    texts += [one.content for one in getattr(params, "messages", None) or ()]
    texts += [one for one in (getattr(params, "text", None),) if isinstance(one, str)]
    return max(texts, key=len, default="")


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
        nearest: dict[FieldPath, tuple[str, ...]] = {}
        digests = {one.digest for one in offered.left_out}
        for choice in reply.choices:
            whole, n = lists[choice.field], choice.keys.narrow
            if n is None or whole.digest not in digests:
                continue
            ranked = await self._ranked(whole, near)
            if ranked is None:
                continue
            nearest[choice.field] = ranked[:n]
            kept = filter(whole.labels.__contains__, near.last.get(choice.field, ()))
            labels = [*dict.fromkeys((*ranked[:n], *kept))]
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

    async def _ranked(self, whole: LabelList, near: Nearest) -> tuple[str, ...] | None:
        """Return the labels, the nearest to the text first.

        None: there is no text, or no vectors while planning.
        """
        if not near.text:
            return None
        model = near.tools.models.resolve(None, "embed")
        async with self._embedding:  # items that come meanwhile wait for the same vectors
            matrix = self._vectors.get((whole.digest, model.ref))
            if matrix is None:
                texts = [f"{one}: {words}" if words else one for one, words in whole.labels.items()]
                vectors: list[Vector] = []
                for first in range(0, len(texts), REQUEST_TEXTS):
                    part = texts[first : first + REQUEST_TEXTS]
                    vectors += await _embedded(near.tools, model, part)
                matrix = self._vectors[whole.digest, model.ref] = unit_matrix(vectors)
        (vector,) = unit_matrix(await _embedded(near.tools, model, [near.text]))
        if matrix.shape[1] != len(vector) or len(vector) < _LEAST_DIMENSIONS:
            return None
        order = (-(matrix @ vector)).argsort(kind="stable")
        labels = [*whole.labels]
        return tuple(labels[place] for place in order)

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


def label_difference(
    marks: Mapping[str, Sequence[Any]], now: Mapping[str, LabelList], then: Mapping[str, Labels]
) -> str | None:
    """Return why an item must be labelled again, or None; `then` are the lists of its answer.

    All are by the list's name.
    """
    for key, (_, digest, chosen) in marks.items():
        name = key.removeprefix(f"{LABELS} ")
        found, before = now.get(name), then.get(name)
        if found is None or found.digest == digest:
            continue
        if before is None or chosen is None:
            return f"labels changed: {found.source} (step '{_step_of(name)}')"
        reason = next(_differences(found, before, chosen), None)
        if reason is None and found.relabels_all:
            reason = f"labels changed: {found.source}"
        if reason is not None:
            return f"{reason} (step '{_step_of(name)}')"
    return None


def _step_of(name: str) -> str:
    return name.partition("/")[0]


def _differences(found: LabelList, before: Labels, chosen: Sequence[str]) -> Iterator[str]:
    gone = [label for label in chosen if label in before and label not in found.labels]
    if gone:
        yield f"its label is gone: {_quoted(gone)}"
    changed = [label for label in chosen if before.get(label, "") != found.labels.get(label, "")]
    if changed:
        yield f"the description of its label changed: {_quoted(changed)}"
    new = [label for label in found.labels if label not in before]
    if new:
        yield f"new in {found.source}: {_quoted(new)}"


def _quoted(labels: Sequence[str]) -> str:
    return listed([f"'{one}'" for one in labels], _SHOWN_LABELS)


def n_at_border(offered: OfferedLabels, answer: Any) -> int:
    """Return how many labels of an answer are among the last of the nearest ones."""
    n = 0
    for name, nearest in offered.nearest.items():
        border = nearest[-max(1, round(BORDER_SHARE * len(nearest))) :]
        n += sum(one in border for one in chosen_labels(answer, name))
    return n
