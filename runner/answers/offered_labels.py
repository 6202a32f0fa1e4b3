"""The labels that a prompt offers: each list read once a run, all of it or the nearest ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Any

from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, step_of
from paddock.pipelines.label_choices import (
    Choice,
    FieldPath,
    LabelList,
    PromptLabels,
    WrongLabels,
    chosen_labels,
    prompt_labels,
    schema_with_labels,
)
from paddock.pipelines.model import ReplySpec
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.scope import Scope
from paddock.steps.base import StepError, Tools

from .text_vectors import Matrix, as_vector8, embedded, inserted_text, similarities, unit_matrix

LISTS_SHARE = 0.5
"""Of a context, for all lists of a prompt: the documents need room as well."""
BORDER_SHARE = 0.1
"""Of the nearest labels: an answer among the last of them says that `narrow` may be too small."""
AT_BORDER = "at the border of `narrow`: a label among the farthest tenth of those that were offered"
_NONE: Mapping[FieldPath, Sequence[str]] = {}


def label_texts(labels: Mapping[str, str]) -> list[str]:
    return [f"{label}: {words}" if words else label for label, words in labels.items()]


class NearestLabels(Struct, frozen=True):
    """The labels of a list that are nearest to a text, the nearest first."""

    labels: tuple[str, ...]
    least: float
    """How near the farthest of them is."""
    model: str
    """Identity of the model that made the vectors."""
    vector: str
    """Of the text, as `text_vectors` has it."""


class OfferedLabels(Struct, frozen=True):
    """The schema of an answer with the labels of a run, and the lists that its prompt tells."""

    schema: Any
    lists: tuple[PromptLabels, ...] = ()
    left_out: tuple[LabelList, ...] = ()
    """Lists that are too long for its prompt."""
    nearest: Mapping[FieldPath, NearestLabels] = field(default_factory=dict)
    """By field, the only labels that are offered for the text, but for those of its last answer."""

    def n_at_border(self, answer: Any) -> int:
        n = 0
        for name, found in self.nearest.items():
            border = found.labels[-max(1, round(BORDER_SHARE * len(found.labels))) :]
            n += sum(label in border for label in chosen_labels(answer, name))
        return n


class _ReadList(Struct, frozen=True):
    choice: Choice
    """Kept, so that no other has its identity."""
    values: Sequence[Any]
    """What its expression reads."""
    labels: LabelList


class LabelLists(Struct, eq=False):
    """The lists of one run, each read and checked once. Of the run's event loop."""

    _lists: dict[int, _ReadList] = field(default_factory=dict)
    """By a choice's identity."""
    _vectors: dict[tuple[str, str], Matrix] = field(default_factory=dict)
    """By the list's digest and the model's name, a row for each label."""
    _embedding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _offered: dict[tuple[Any, ...], tuple[ReplySpec, OfferedLabels]] = field(default_factory=dict)
    """By a reply's identity, for which it is kept, and the digests of its lists."""

    def of_step(self, step: BoundStep, scope: Scope) -> dict[FieldPath, LabelList]:
        """Return the lists that a step's fields are chosen from, by field.

        Raises:
            StepError: one cannot be read, or is no list of labels.
        """
        return {choice.field: self._list(choice, scope) for choice in step.choices}

    def known(self, step: BoundStep, scope: Scope) -> dict[FieldPath, LabelList]:
        """Return those of the lists that do not depend on an item.

        Raises:
            PipelineError: a list is no list of labels.
        """
        found: dict[FieldPath, LabelList] = {}
        for choice in step.choices:
            try:
                if choice.source.evaluate(scope) is not None:  # the output of a skipped step
                    found[choice.field] = self._list(choice, scope)
            except ExpressionError:
                continue
            except StepError as error:
                at = ("reply", "schema", *choice.at, "choose")
                raise PipelineError.of(str(error), mark=step.mark_of(*at)) from error
        return found

    def _list(self, choice: Choice, scope: Scope) -> LabelList:
        values = [_root(path, scope) for path in sorted(choice.source.references)]
        known = self._lists.get(id(choice))
        if known is not None and all(a is b for a, b in zip(known.values, values, strict=True)):
            return known.labels
        try:
            labels = LabelList.of(choice.source.evaluate(scope), choice)
        except ExpressionError as error:
            raise StepError(f"`choose`: {error}") from error
        except WrongLabels as error:
            raise StepError(f"`choose`: {error.message}.", remedy=error.remedy) from error
        self._lists[id(choice)] = _ReadList(choice, values, labels)
        return labels

    async def offered(
        self,
        step: BoundStep,
        scope: Scope,
        tools: Tools,
        last: Mapping[FieldPath, Sequence[str]] = _NONE,
    ) -> OfferedLabels | None:
        """Return the schema of a step's answer with its labels, and the lists of its prompt.

        `last` are the labels of the item's last answer, by field: these stay on offer.

        1. Read the lists.
        2. Offer all of their labels, and show those lists that fit into the prompt together; once
           for the same lists.
        3. Of lists that do not fit and may be narrowed, offer and show the labels that are nearest
           to the text of this item.
        4. Note which lists the prompt still goes without.

        Raises:
            StepError: a list cannot be read, or is no list of labels.
            EngineError: a text cannot be embedded.
        """
        # 1
        reply, lists = step.reply, self.of_step(step, scope)
        if reply is None or not lists:
            return None
        # 2
        key = (id(reply), *(label_list.ordered_digest for label_list in lists.values()))
        if key not in self._offered:
            shown = prompt_labels(reply.choices, lists)
            fits = await self._fitting(step, shown, tools)
            left_out = tuple(lists[entry.fields[0]] for entry in shown if entry not in fits)
            with_all = OfferedLabels(schema_with_labels(reply.schema, lists), fits, left_out)
            self._offered[key] = reply, with_all
        offered = self._offered[key][1]
        # 3
        n_lists = len(offered.lists) + len(offered.left_out)
        if any(choice.keys.narrow for choice in reply.choices) and offered.left_out:
            with suppress(RenderError, ExpressionError):  # not known yet, or the step fails for it
                if text := inserted_text(step.params.render(scope)):
                    offered = await self._narrowed(reply, lists, offered, text, last, tools)
        # 4
        for entry in offered.left_out:
            lists_take = "which take" if n_lists == 1 else "as all its lists take"
            what = f"without the {len(entry.labels):,} labels of {entry.source}, {lists_take}"
            tools.log.tally("prompt", f"{what} more than half of the context")
        return offered

    async def _narrowed(
        self,
        reply: ReplySpec,
        lists: Mapping[FieldPath, LabelList],
        offered: OfferedLabels,
        text: str,
        last: Mapping[FieldPath, Sequence[str]],
        tools: Tools,
    ) -> OfferedLabels:
        """Offer the nearest labels where a list is too long for the prompt, as `narrow` says."""
        found: dict[FieldPath, LabelList] = {}
        nearest: dict[FieldPath, NearestLabels] = {}
        digests = {entry.digest for entry in offered.left_out}
        for choice in reply.choices:
            whole, n = lists[choice.field], choice.keys.narrow
            if n is None or whole.digest not in digests:
                continue
            narrowed = await self._nearest(whole, text, n, tools)
            if narrowed is None:
                continue
            nearest[choice.field] = narrowed
            last_labels = filter(whole.labels.__contains__, last.get(choice.field, ()))
            labels = [*dict.fromkeys((*narrowed.labels, *last_labels))]
            found[choice.field] = replace(whole.part(labels), digest=f"{whole.digest} {labels}")
            what = f"with the {n:,} of {len(whole.labels):,} labels of {whole.source} that are"
            tools.log.tally("prompt", f"{what} nearest to the text")
        if not found:
            return offered
        choices = [choice for choice in reply.choices if choice.field in found]
        others = {lists[field].digest for field in lists.keys() - found.keys()}
        left_out = tuple(entry for entry in offered.left_out if entry.digest in others)
        schema = schema_with_labels(reply.schema, {**lists, **found})
        shown = (*offered.lists, *prompt_labels(choices, found))
        return replace(offered, schema=schema, lists=shown, left_out=left_out, nearest=nearest)

    async def _nearest(
        self, whole: LabelList, text: str, n: int, tools: Tools
    ) -> NearestLabels | None:
        """Return the labels that are nearest to a text; None: there are no vectors, in a plan."""
        model = tools.llm.models.resolve(None, "embed")
        identity = (await tools.llm.pool.facts(model)).identity
        embed = partial(
            embedded,
            tools.llm.pool,
            model,
            priority=tools.llm.priority,
            total_s=tools.timeout.total_s,
        )
        async with self._embedding:  # items that come meanwhile wait for the same vectors
            matrix = self._vectors.get((whole.ordered_digest, model.ref))
            if matrix is None:
                vectors = await embed(label_texts(whole.labels))
                matrix = self._vectors[whole.ordered_digest, model.ref] = unit_matrix(vectors)
        vector = as_vector8((await embed([text]))[0])
        found = similarities(vector, matrix)
        if found is None:
            return None
        labels = [*whole.labels]
        order = sorted(range(len(found)), key=lambda place: -found[place])[:n]
        return NearestLabels(
            tuple(labels[place] for place in order), found[order[-1]], identity, vector
        )

    async def _fitting(
        self, step: BoundStep, shown: tuple[PromptLabels, ...], tools: Tools
    ) -> tuple[PromptLabels, ...]:
        """Return the lists that together leave room in the model's context, the shortest first."""
        if step.model is None or not shown:
            return shown
        most = LISTS_SHARE * (await tools.llm.pool.facts(step.model)).n_ctx_tokens
        if sum(len(entry.text.encode()) for entry in shown) <= most:  # a token has a byte or more
            return shown
        counts = await tools.llm.pool.count_texts(step.model, [entry.text for entry in shown])
        by_length = sorted(range(len(shown)), key=lambda place: counts[place])
        sums = accumulate(counts[place] for place in by_length)
        fits = {place for place, total in zip(by_length, sums, strict=True) if total <= most}
        return tuple(entry for place, entry in enumerate(shown) if place in fits)


def _root(path: Sequence[str], scope: Scope) -> Any:
    step = step_of(path)
    return scope.get(path[0]) if step is None else scope["steps"].get(step)
