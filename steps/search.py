"""The nearest items of a store: by vectors, by words, or by both.

What is found depends on what the store holds, so the search is done again when that is something
else. Every vector is compared: nothing near is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, field_validator

from paddock.engine.request import EmbedRequest, Role
from paddock.pipelines.expressions import Template

from .ranking import fused
from .step import Output, Params, StepError, Tools
from .storage import EmbedModel, Hit, Store, Vector
from .stores.filters import COLUMNS, condition

Mode = Literal["vector", "text", "hybrid"]

_WIDER, _AT_LEAST = 4, 20
"""How much further each of two orders is read than what comes out of both."""


_WHERE: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "properties": {name: {} for name in COLUMNS}},
        {"type": "string"},
        {"type": "null"},
    ]
}
"""For editors: without it they would offer the name of a file, as for other templates."""


class SearchParams(Params):
    """Parameters of `search`."""

    store: str = Field(min_length=1, description="The folder that `embed` keeps its rows in.")
    query: str = Field(description="What is asked for.")
    k: int = Field(default=5, ge=1, le=1000, description="How many rows at most.")
    mode: Mode = Field(
        default="vector",
        description="By meaning, by words (BM25), or both in one order (reciprocal rank fusion).",
    )
    where: Annotated[dict[str, Any] | Template | None, WithJsonSchema(_WHERE)] = Field(
        default=None,
        description="Which rows are looked at: a mapping such as {source: '*.md', page: {from: 3}}"
        ", or a condition such as \"page >= 3 and source == 'a.md'\".",
    )
    model: str | None = Field(default=None, description="Which model embeds the question.")

    @field_validator("where", mode="after")
    @classmethod
    def _is_filter(cls, where: Any) -> Any:
        if isinstance(where, Template) and "{" in where.source:
            raise ValueError(
                "a condition takes no `{{ }}`, since a value could change what it says: give "
                'values as a mapping, such as {source: "{{ inputs.file }}"}'
            )
        if isinstance(where, Template | dict):
            condition(where.source if isinstance(where, Template) else where)
        return where


class FoundRow(Output):
    """One row that was found."""

    number: int
    """1 for the nearest: what an answer cites it by."""
    text: str
    score: float
    """Of `vector`: the cosine; of `text`: BM25; of `hybrid`: of use for the order only."""
    source: str
    """The file that it comes from, as `relpath` names it."""
    page: int | None
    page_end: int | None
    headings: list[str]
    index: int
    """Its place among the texts of its item, from 0."""
    item: str
    """The key of the item that kept it."""


class SearchOutput(Output):
    """Outputs of `search`."""

    hits: list[FoundRow]


class Search:
    """The nearest items of a store: vector, text or both."""

    params: ClassVar[type[SearchParams]] = SearchParams
    output: ClassVar[type[SearchOutput]] = SearchOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset({"embed"})

    def reads(self, params: SearchParams) -> Sequence[str]:
        """Name nothing: a store is no file, and what it holds is noted by `reads_rows`."""
        return ()

    async def run(self, params: SearchParams, tools: Tools) -> SearchOutput:
        """Search.

        Raises:
            StepError: the question is empty; the store is missing, empty, broken, or of another
                model.
            TextTooLong: the question does not fit.
        """
        if not params.query.strip():
            raise StepError("the `query` is empty.", remedy="Say what to search for.")
        path = tools.roots.resolve(params.store)
        model = tools.models.resolve(params.model, "embed")
        facts = await tools.pool.facts(model)
        known = EmbedModel(model.ref, facts.identity)
        store = await tools.stores.open(path, None, known, is_new_allowed=False)
        await tools.outputs.reads_rows(path)
        if not store.n_rows:
            raise StepError(
                f"the store '{path}' is empty: there is nothing to find.",
                remedy="Run what fills it (`embed` with `store`) on some documents first.",
            )
        hits = await _hits(params, store, tools)
        return SearchOutput(hits=[_found(number, hit) for number, hit in enumerate(hits, 1)])


async def _hits(params: SearchParams, store: Store, tools: Tools) -> Sequence[Hit]:
    where = _where(params)
    if params.mode == "text":
        return await store.matching(params.query, params.k, where)
    vector = await _vector(params, store, tools)
    if params.mode == "vector":
        return await store.nearest(vector, params.k, where)
    wide = max(_WIDER * params.k, _AT_LEAST)
    by_meaning = await store.nearest(vector, wide, where)
    by_words = await store.matching(params.query, wide, where)
    return fused(by_meaning, by_words)[: params.k]


async def _vector(params: SearchParams, store: Store, tools: Tools) -> Vector:
    reply = await tools.pool.embed(
        EmbedRequest(
            model=tools.models.resolve(params.model, "embed"),
            texts=(params.query,),
            dimensions=store.dimensions,
            priority=tools.priority,
            total_s=tools.total_s,
        )
    )
    return reply.vectors[0]


def _where(params: SearchParams) -> Mapping[str, Any] | str | None:
    return params.where.source if isinstance(params.where, Template) else params.where


def _found(number: int, hit: Hit) -> FoundRow:
    return FoundRow(
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
