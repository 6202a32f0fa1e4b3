"""The step `embed`: vectors for texts or chunks, returned or kept in a vector store.

In a store an item's rows replace its earlier ones; a text whose vector is there already is not
embedded again.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from paddock.engine.request import REQUEST_TEXTS, EmbedReply, EmbedRequest, ModelSpec, OnOverflow
from paddock.engine.system.text import shorten
from paddock.steps.base import EmbedModel, Output, Params, Step, StepError, Tools, Vector, VectorRow
from paddock.steps.effects import StoreRows
from paddock.steps.extras import missing_store_library
from paddock.steps.facts import CallFacts, Facts, TextFacts, brings_none
from paddock.steps.text.text_parts import TextPart, to_part

from .row_changes import COLUMN_NAME, TABLE_COLUMNS
from .where_filter import value_kind

OnUnknown = Literal["note", "error"]


class EmbedParams(Params):
    one_of: ClassVar[tuple[str, ...]] = ("texts", "chunks")

    texts: list[str] | None = Field(default=None, description="The texts.")
    chunks: list[Any] | None = Field(default=None, description="Chunks of `split`, or texts.")
    model: str | None = Field(default=None, description="Which model embeds.")
    store: Annotated[str | None, StoreRows] = Field(
        default=None,
        min_length=1,
        description="A folder, such as 'index.lance', for texts, vectors and their sources; "
        "`search` reads it. Created if it does not exist.",
    )
    dimensions: int | None = Field(default=None, ge=1, description="So many, normalised again.")
    columns: dict[str, Any] | None = Field(
        default=None,
        description="More columns of the `store`, such as {supplier: ACME}: "
        "texts, numbers, true or false. `search` filters by them and returns them.",
    )
    on_overflow: OnOverflow = Field(
        default="error",
        description="If a text does not fit: an error, or its parts' mean vector, by tokens.",
    )
    on_unknown: OnUnknown = Field(
        default="note", description="If the model lacks letters of a text."
    )

    @property
    def options(self) -> tuple[int | None, OnOverflow, OnUnknown]:
        return self.dimensions, self.on_overflow, self.on_unknown

    @field_validator("columns", mode="after")
    @classmethod
    def _are_names(cls, columns: Any) -> Any:
        for name in columns or ():
            if not COLUMN_NAME.fullmatch(name) or name in TABLE_COLUMNS:
                raise ValueError(
                    f"'{name}' is no name for a column: use small letters, digits and _, and none "
                    f"of {', '.join(TABLE_COLUMNS)}"
                )
        return columns


class EmbedOutput(Output):
    """Outputs of `embed`: one vector for each text, in their order."""

    vectors: list[list[float]] | None = Field(description="Null with a `store`.")
    count: int
    store: str | None = Field(default=None, description="The store's path; null without one.")


class Embed(Step[EmbedParams, EmbedOutput]):
    """Vectors for texts or chunks."""

    params = EmbedParams
    output = EmbedOutput
    roles = frozenset({"embed"})
    facts = Facts(
        is_repeatable=True,
        texts=TextFacts(brings_none),
        missing=missing_store_library,
        calls=CallFacts(lambda written, has_reply: None if "store" in written else 1),
    )

    async def run(self, params: EmbedParams, tools: Tools) -> EmbedOutput:
        given: Sequence[Any] = params.texts if params.texts is not None else params.chunks or ()
        parts = [to_part(chunk) for chunk in given]
        for index, part in enumerate(parts):
            if not part.text.strip():
                raise StepError(f"text {index} is empty, so it has no vector.")
        if params.store is not None:
            return await _embed_into_store(params, params.store, parts, tools)
        if not parts:
            return EmbedOutput(vectors=[], count=0)
        model = tools.llm.models.resolve(params.model, "embed")
        texts = [part.text for part in parts]
        reply = await embed_texts(tools, model, texts, *params.options)
        vectors = reply.vectors
        return EmbedOutput.model_construct(
            vectors=[list(vector) for vector in vectors], count=len(vectors), store=None
        )


async def _embed_into_store(
    params: EmbedParams, written: str, parts: Sequence[TextPart], tools: Tools
) -> EmbedOutput:
    """Replace the item's rows in a store by these texts."""
    model = tools.llm.models.resolve(params.model, "embed")
    facts = await tools.llm.pool.facts(model)
    path = tools.files.roots.resolve(written)
    tools.files.outputs.check_target(path)
    store = await tools.stores.open(path, params.dimensions, EmbedModel(model.ref, facts.identity))
    # Where a text is embedded in parts, they depend on the context size too.
    made = f"split {facts.n_ctx_tokens}" if params.on_overflow == "split" else ""
    columns = {name: value for name, value in (params.columns or {}).items() if value is not None}
    for name, value in columns.items():
        if value_kind(value) is None:
            raise StepError(
                f"the column '{name}' cannot hold {shorten(str(value), 60)!r}.",
                remedy="Give it a text, a number of up to 15 digits, true or false.",
            )
    vectors: dict[str, Vector] = dict(await store.known(tools.item, made))
    new = [text for text in dict.fromkeys(part.text for part in parts) if text not in vectors]
    for first in range(0, len(new), REQUEST_TEXTS):
        texts = new[first : first + REQUEST_TEXTS]
        reply = await embed_texts(tools, model, texts, *params.options)
        vectors |= {text: array("f", v) for text, v in zip(texts, reply.vectors, strict=True)}
    rows: list[VectorRow] = []
    for index, part in enumerate(parts):
        source = part.data.get("source")
        rows.append(
            VectorRow(
                index,
                part.text,
                vectors[part.text],
                *part.pages,
                headings=tuple(part.headings),
                source=source if isinstance(source, str) else "",
                made=made,
                columns=columns,
            )
        )
    await tools.files.outputs.note_rows_kept(path)
    await store.replace(tools.item, rows)
    return EmbedOutput(vectors=None, count=len(rows), store=str(path))


async def embed_texts(
    tools: Tools,
    model: ModelSpec,
    texts: Sequence[str],
    dimensions: int | None = None,
    on_overflow: OnOverflow = "error",
    on_unknown: OnUnknown = "note",
) -> EmbedReply:
    """Return vectors, and note where the model does not know the letters of a text."""
    request = EmbedRequest(
        model,
        tuple(texts),
        dimensions=dimensions,
        priority=tools.llm.priority,
        total_s=tools.timeout.total_s,
        on_overflow=on_overflow,
    )
    reply = await tools.llm.pool.embed(request)
    if lacking := [index for index, share in enumerate(reply.unknown_shares) if share]:
        if on_unknown == "error":
            remedy = "Use a model for its language, or `on_unknown: note`."
            raise StepError(f"{reply.unknown_letters(lacking[0])}.", remedy=remedy)
        others = f", and some of {len(lacking) - 1:,} others" if len(lacking) > 1 else ""
        tools.log.note(
            f"{reply.unknown_letters(lacking[0])}{others}: other words may have its vector."
        )
    return reply
