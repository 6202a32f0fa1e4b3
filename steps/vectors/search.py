"""The step `search`: rows of a vector store, by vectors, words or both (rank fusion).

The result depends on the store's content, so the search is repeated when that changes. The search
is exact: every vector is compared.

Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009: scores of different kinds cannot be added, ranks can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, field_validator

from paddock.pipelines.expressions import Template
from paddock.steps.base import (
    EmbedModel,
    Output,
    Params,
    SearchHit,
    Step,
    StepError,
    Tools,
)
from paddock.steps.extras import missing_store_library
from paddock.steps.facts import Facts

from .embed import embed_texts
from .where_filter import FILTER_COLUMNS, sql_condition

RANK_OFFSET = 60
"""The paper's k: a large one flattens the difference between ranks."""


def rank_fusion(*orders: Sequence[SearchHit]) -> list[SearchHit]:
    """Return all hits in one order, each once; its score is the sum of 1 / (60 + rank)."""
    scores: dict[tuple[str, str, str, int], float] = {}
    known: dict[tuple[str, str, str, int], SearchHit] = {}
    for order in orders:
        for rank, hit in enumerate(order, 1):
            name = (hit.source, hit.item, hit.step, hit.index)
            known[name] = hit
            scores[name] = scores.get(name, 0.0) + 1 / (RANK_OFFSET + rank)
    names = sorted(known, key=lambda name: (-scores[name], name))
    return [replace(known[name], score=round(scores[name], 6)) for name in names]


SearchMode = Literal["vector", "text", "hybrid"]

_WIDER, _AT_LEAST = 4, 20
"""How many times `k` rows are read of each of two rankings."""


_WHERE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "properties": {name: {} for name in FILTER_COLUMNS}},
        {"type": "string"},
        {"type": "null"},
    ]
}
"""JSON Schema without the file form of other templates."""


class SearchParams(Params):
    """Parameters of `search`."""

    paths: ClassVar[tuple[str, ...]] = ("store",)

    store: str = Field(min_length=1, description="The folder of the store, filled by `embed`.")
    query: str = Field(description="What to search for.")
    k: int = Field(default=5, ge=1, le=1000, description="How many rows at most.")
    mode: SearchMode = Field(
        default="vector",
        description="By meaning, by words (BM25), or both in one order (reciprocal rank fusion).",
    )
    where: Annotated[dict[str, Any] | Template | None, WithJsonSchema(_WHERE_SCHEMA)] = Field(
        default=None,
        description="Which rows to search: a mapping such as {source: '*.md', page: {from: 3}}"
        ", or a condition such as \"page >= 3 and source == 'a.md'\".",
    )
    model: str | None = Field(default=None, description="Which model embeds the question.")

    @field_validator("where", mode="after")
    @classmethod
    def _is_filter(cls, where: Any) -> Any:
        if isinstance(where, Template) and "{" in where.source:
            raise ValueError(
                "a condition must not contain `{{ }}`, since a value could change its meaning: "
                'pass values as a mapping, such as {source: "{{ inputs.file }}"}'
            )
        if isinstance(where, Template | dict):
            sql_condition(where.source if isinstance(where, Template) else where)
        return where


class FoundRow(Output):
    """One row that was found."""

    number: int
    """1 for the nearest; the number for citations."""
    text: str
    score: float
    """`vector`: cosine; `text`: BM25; `hybrid`: only meaningful for the order."""
    source: str
    """The `relpath` of its file."""
    page: int | None
    page_end: int | None
    headings: list[str]
    index: int
    """Its index among the texts of its item, from 0."""
    item: str
    """The key of its item."""


class SearchOutput(Output):
    """Outputs of `search`."""

    hits: list[FoundRow]


class Search(Step[SearchParams, SearchOutput]):
    """The nearest items of a store: vector, text or both."""

    params = SearchParams
    output = SearchOutput
    roles = frozenset({"embed"})
    facts = Facts(
        only_reads=True,
        searches="store",
        missing=missing_store_library,
        most_calls=lambda written, has_reply: int(written.get("mode") != "text"),
    )

    async def run(self, params: SearchParams, tools: Tools) -> SearchOutput:
        if not params.query.strip():
            raise StepError("the `query` is empty.", remedy="Set it to what to search for.")
        path = tools.roots.resolve(params.store)
        model = tools.models.resolve(params.model, "embed")
        facts = await tools.pool.facts(model)
        known = EmbedModel(model.ref, facts.identity)
        store = await tools.stores.open(path, None, known, is_new_allowed=False)
        await tools.outputs.note_rows_read(path)
        if not store.n_rows:
            raise StepError(
                f"the store '{path}' is empty: there is nothing to find.",
                remedy="Run the step that fills it (`embed` with `store`) on some documents first.",
            )
        where = params.where.source if isinstance(params.where, Template) else params.where
        hits: Sequence[SearchHit]
        if params.mode == "text":
            hits = await store.matching(params.query, params.k, where)
        else:
            reply = await embed_texts(tools, model, [params.query], dimensions=store.dimensions)
            (vector,) = reply.vectors
            if params.mode == "vector":
                hits = await store.nearest(vector, params.k, where)
            else:
                wide = max(_WIDER * params.k, _AT_LEAST)
                by_meaning = await store.nearest(vector, wide, where)
                by_words = await store.matching(params.query, wide, where)
                hits = rank_fusion(by_meaning, by_words)[: params.k]
        found = [
            FoundRow(
                number=number,
                text=hit.text,
                score=hit.score,
                source=hit.source,
                page=hit.page,
                page_end=hit.page_end,
                headings=list(hit.headings),
                index=hit.index,
                item=hit.item,
            )
            for number, hit in enumerate(hits, 1)
        ]
        return SearchOutput(hits=found)
