"""The step `search`: rows of a vector store, by vectors, words or both (rank fusion).

The result depends on the store's content, so the search is repeated when that changes. The search
is exact: every vector is compared.

Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009: scores of different kinds cannot be added, ranks can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, field_validator

from paddock.engine.request import REQUEST_TEXTS
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Template
from paddock.steps.base import EmbedModel, Output, Params, SearchHit, Step, StepError, Tools
from paddock.steps.extras import missing_store_library
from paddock.steps.facts import CallFacts, Facts
from paddock.steps.param_types import SearchedStore

from .embed import embed_texts
from .where_filter import FILTER_COLUMNS, OWN, sql_condition

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


_WIDER, _AT_LEAST = 4, 20
"""How many times `k` rows are read of each of two rankings."""
MOST_QUERIES = 10_000

_WHERE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "properties": {name: {} for name in (*FILTER_COLUMNS, OWN)}},
        {"type": "string"},
        {"type": "null"},
    ]
}
"""JSON Schema without the file form of other templates."""


class SearchParams(Params):
    store: Annotated[str, SearchedStore] = Field(
        min_length=1, description="The folder of the store, filled by `embed`."
    )
    one_of: ClassVar[tuple[str, ...]] = ("query", "queries")

    query: str | None = Field(default=None, description="What to search for.")
    queries: list[str] | None = Field(
        default=None,
        max_length=MOST_QUERIES,
        description="Several at once: `results` has a list of rows for each, in their order.",
    )
    k: int = Field(default=5, ge=1, le=1000, description="How many rows at most, for each query.")
    min_score: float | None = Field(
        default=None,
        description="The least score of a row: its cosine with `mode: vector`, BM25 with `text`. "
        "The score of `hybrid` only orders.",
    )
    mode: Literal["vector", "text", "hybrid"] = Field(
        default="vector",
        description="By meaning, by words (BM25), or both in one order (reciprocal rank fusion).",
    )
    where: Annotated[dict[str, Any] | Template | None, WithJsonSchema(_WHERE_SCHEMA)] = Field(
        default=None,
        description="Which rows to search: a mapping such as {source: '*.md', page: {from: 3}}"
        ", or a condition such as \"page >= 3 and source == 'a.md'\".",
    )
    model: str | None = Field(default=None, description="Which model embeds it.")

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        if "min_score" in given and given.get("mode") == "hybrid":
            what = "`min_score` has no meaning with `mode: hybrid`, whose score only orders."
            return (*super().faults(given), (what, ""))
        return super().faults(given)

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
    columns: dict[str, Any]
    """The columns that `embed` gave it."""


class QueryHits(Output):
    query: str
    hits: list[FoundRow]


class SearchOutput(Output):
    hits: list[FoundRow]
    """With `queries` empty."""
    results: list[QueryHits]
    """With `query` empty."""


class Search(Step[SearchParams, SearchOutput]):
    """The nearest items of a store: vector, text or both."""

    params = SearchParams
    output = SearchOutput
    roles = frozenset({"embed"})
    facts = Facts(
        only_reads=True,
        missing=missing_store_library,
        calls=CallFacts(lambda written, has_reply: int(written.get("mode") != "text")),
    )

    async def run(self, params: SearchParams, tools: Tools) -> SearchOutput:
        queries = params.queries if params.query is None else [params.query]
        assert queries is not None  # one of them is given
        if not all(query.strip() for query in queries):
            which = "`query`" if params.query is not None else "text of `queries`"
            raise StepError(f"the {which} is empty.", remedy="Set it to what to search for.")
        path = tools.files.roots.resolve(params.store)
        model = tools.llm.models.resolve(params.model, "embed")
        facts = await tools.llm.pool.facts(model)
        known = EmbedModel(model.ref, facts.identity)
        store = await tools.stores.open(path, None, known, is_new_allowed=False)
        await tools.files.outputs.note_rows_read(path)
        where = params.where.source if isinstance(params.where, Template) else params.where
        is_hybrid = params.mode == "hybrid"
        k = max(_WIDER * params.k, _AT_LEAST) if is_hybrid else params.k
        orders: list[list[list[SearchHit]]] = [] if store.n_rows else [[[] for _ in queries]]
        if params.mode != "text" and store.n_rows:
            nearest: list[list[SearchHit]] = []
            for first in range(0, len(queries), REQUEST_TEXTS):
                texts = queries[first : first + REQUEST_TEXTS]
                reply = await embed_texts(tools, model, texts, dimensions=store.dimensions)
                nearest += await store.nearest(reply.vectors, k, where)
            orders.append(nearest)
        if params.mode != "vector" and store.n_rows:
            orders.append([await store.matching(query, k, where) for query in queries])
        found: list[list[FoundRow]] = []
        for of_query in zip(*orders, strict=True):
            hits = rank_fusion(*of_query)[: params.k] if is_hybrid else of_query[0]
            least = -math.inf if params.min_score is None else params.min_score
            found.append(
                [
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
                        columns=dict(hit.columns),
                    )
                    for number, hit in enumerate(hits, 1)
                    if hit.score >= least
                ]
            )
        if params.query is not None:
            return SearchOutput(hits=found[0], results=[])
        pairs = zip(queries, found, strict=True)
        return SearchOutput(
            hits=[], results=[QueryHits(query=query, hits=rows) for query, rows in pairs]
        )
