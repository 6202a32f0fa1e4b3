"""Examples for a prompt: the decisions of people that are nearest to an item's text.

`examples: {from: reviews, k: 4}` of `chat`. What people had decided as the run began is the same
for all its items. `UsedExamples`, among the dependencies of an item, has those of its answer: a
later run knows without a model whether others would be chosen now, and only then it is stale.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

from paddock.engine.system.records import Struct
from paddock.engine.system.text import without_middle
from paddock.pipelines.schema_validation import schema_mismatch
from paddock.runner.answers.text_vectors import (
    Matrix,
    Vector8,
    as_vector8,
    embedded,
    inserted_text,
    matrix_of,
    similarities,
)
from paddock.runner.bind.bound import BoundStep
from paddock.runner.ledger.reviews.reviews import SubjectText
from paddock.steps.base import Example, Tools

from ..traces.dependencies import UsedExamples
from ..traces.past_decisions import Decision, StepDecisions
from ..traces.scopes import StepName

_CONTEXT_SHARE = 0.25
"""The share of a context that the texts of all examples of a prompt may fill."""
_TOKEN_BYTES = 3
"""The fewest bytes of a token, in the mean; a prompt that does not fit goes without examples."""
SHORTENED = "with examples of which the middle was left out"


class TaughtItem(Struct, frozen=True):
    """The item whose prompt has examples: it never learns from itself."""

    step: StepName
    id: str
    """The id that its own review has, or would have."""
    document_sha256: str
    document: str = ""
    """Its path; empty where the item has none."""
    last: UsedExamples | None = None
    """The examples of its last answer."""
    variant_item: str = ""
    """The `Decision.item` that it is, where a variant of `paddock compare` is run."""

    @property
    def own_document(self) -> list[str]:
        """The arguments by which `Decision.is_of` knows its own decisions."""
        return [self.document_sha256, self.document, self.variant_item]

    def last_examples(self, known: StepDecisions) -> list[Decision] | None:
        """Return the examples of an answer that a person decided on; None: others are chosen.

        So its prompt stays as it was, and the person is not asked again.
        """
        if self.last is None or self.id not in known.ids or not known.has(self.last.used):
            return None
        return [known.by_id[id_] for id_ in self.last.used]

    def nearest(
        self, decisions: Sequence[Decision], near: Sequence[float], k: int, schema: Any
    ) -> tuple[list[Decision], float]:
        order = sorted(range(len(near)), key=lambda place: (-near[place], decisions[place].id))
        places = [*islice((at for at in order if self.may_learn(decisions[at], schema)), k)]
        return [decisions[at] for at in places], near[places[-1]] if len(places) == k else -1.0

    def may_learn(self, decision: Decision, schema: Any) -> bool:
        """Return whether a decision is another document's, and its answer is valid here."""
        if decision.id == self.id or decision.is_of(*self.own_document):
            return False
        if schema is None:
            return isinstance(decision.answer, str)
        return schema_mismatch(decision.answer, schema) is None


class DecidedExamples:
    """The decisions of one run with their vectors. They belong to the run's event loop."""

    def __init__(self, text_of: Callable[[SubjectText], str | None]) -> None:
        """`text_of` returns the text of a decision's `text`; None: it is gone. Blocking."""
        self._text_of = text_of
        self._embedded: dict[tuple[StepName, str], tuple[tuple[Decision, ...], Matrix | None]] = {}
        self._embedding = asyncio.Lock()

    async def chosen(
        self, step: BoundStep, params: Any, tools: Tools, known: StepDecisions, item: TaughtItem
    ) -> tuple[tuple[Example, ...], UsedExamples] | None:
        """Return the examples nearest to a step's text, and what its item's entry keeps of them.

        None while that text, or a vector, is unknown.

        Raises:
            EngineError: a text cannot be embedded.
        """
        text, k = inserted_text(params), params.examples.k
        if not text or step.model is None:
            return None
        model = tools.llm.models.resolve(None, "embed")
        identity = (await tools.llm.pool.facts(model)).identity

        async def vectors_of(texts: Sequence[str]) -> list[Vector8]:
            vectors = await embedded(
                tools.llm.pool, model, texts, tools.llm.priority, tools.timeout.total_s
            )
            return [*map(as_vector8, vectors)]

        n_ctx_tokens = (await tools.llm.pool.facts(step.model)).n_ctx_tokens
        n_tokens_each = int(_CONTEXT_SHARE * n_ctx_tokens) // k
        last = item.last_examples(known)
        if last is not None and item.last is not None:
            examples = await asyncio.to_thread(self._examples, last, n_tokens_each, tools)
            return examples, item.last
        (vector,) = await vectors_of([text])
        async with self._embedding:  # items that come meanwhile wait for the same vectors
            if (item.step, identity) not in self._embedded:
                self._embedded[item.step, identity] = await self._all(known, identity, vectors_of)
        decisions, rows = self._embedded[item.step, identity]
        near = similarities(vector, rows)
        if near is None:
            return None
        schema = None if tools.reply is None else tools.reply.schema
        used, least = item.nearest(decisions, near, k, schema)
        digests = {decision.id: decision.digest for decision in used}
        examples = await asyncio.to_thread(self._examples, used, n_tokens_each, tools)
        return examples, UsedExamples(
            step=[*item.step],
            id=item.id,
            own_document=item.own_document,
            pool=known.digest,
            used=digests,
            least=least,
            model=identity,
            vector=vector,
        )

    async def _all(
        self,
        known: StepDecisions,
        identity: str,
        vectors_of: Callable[[Sequence[str]], Awaitable[list[Vector8]]],
    ) -> tuple[tuple[Decision, ...], Matrix | None]:
        with_vector, _ = known.with_vectors.get(identity, ((), None))
        vectors = {decision.id: decision.vector for decision in with_vector}
        others = [decision for decision in known.decisions if decision.id not in vectors]
        texts = await asyncio.to_thread(lambda: [self._text_of(other.text) for other in others])
        to_embed = [(other.id, text) for other, text in zip(others, texts, strict=True) if text]
        new_vectors = await vectors_of([text for _, text in to_embed])
        vectors |= {id_: vector for (id_, _), vector in zip(to_embed, new_vectors, strict=True)}
        decisions = tuple(decision for decision in known.decisions if decision.id in vectors)
        return decisions, matrix_of([vectors[decision.id] for decision in decisions])

    def _examples(
        self, decisions: Sequence[Decision], n_tokens_each: int, tools: Tools
    ) -> tuple[Example, ...]:
        """Return the examples, the nearest last: a model heeds most what stands last."""
        examples = []
        for decision in reversed(decisions):
            text = self._text_of(decision.text)
            if not text:
                continue
            shown = without_middle(text, _TOKEN_BYTES * n_tokens_each)
            if shown != text:
                tools.log.tally("prompt", SHORTENED)
            answer = (
                decision.answer
                if isinstance(decision.answer, str)
                else json.dumps(decision.answer, ensure_ascii=False)
            )
            examples.append(Example(shown, answer))
        return tuple(examples)
