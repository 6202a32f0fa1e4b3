"""Vectors for texts or chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from paddock.engine.request import EmbedRequest, ModelSpec, Role

from .step import Output, Params, StepError, Tools

if TYPE_CHECKING:
    from .pieces import Piece

_SPECIAL_TOKENS = 4  # what a model adds to each text, [CLS] and [SEP] of BERT, and a spare


class EmbedParams(Params):
    """Parameters of `embed`."""

    one_of: ClassVar[tuple[str, ...]] = ("texts", "chunks")
    not_yet: ClassVar[frozenset[str]] = frozenset({"store"})

    texts: list[str] | None = Field(default=None, description="The texts.")
    chunks: list[Any] | None = Field(default=None, description="Chunks of `split`, or texts.")
    model: str | None = Field(default=None, description="Which model embeds.")
    store: str | None = Field(
        default=None, description="Where to keep the vectors (not in this version)."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="Keep the first so many, normalised again."
    )
    on_overflow: Literal["error", "split"] = Field(
        default="error",
        description="What happens to a text that the model cannot read whole: an error, or the "
        "mean of its parts' vectors, weighted by their tokens.",
    )


class EmbedOutput(Output):
    """Outputs of `embed`: one vector for each text, in their order."""

    vectors: list[list[float]]
    count: int
    store: str | None = Field(default=None, description="Not in this version: null.")


class Embed:
    """Vectors for texts or chunks."""

    params: ClassVar[type[EmbedParams]] = EmbedParams
    output: ClassVar[type[EmbedOutput]] = EmbedOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset({"embed"})

    def reads(self, params: EmbedParams) -> Sequence[str]:
        """Name nothing."""
        return ()

    async def run(self, params: EmbedParams, tools: Tools) -> EmbedOutput:
        """Embed them.

        Raises:
            StepError: a text is empty.
            TextTooLong: a text does not fit, and that is an error.
        """
        texts = _texts(params)
        if not texts:
            return EmbedOutput(vectors=[], count=0)
        model = tools.models.resolve(params.model, "embed")
        if params.on_overflow == "split":
            vectors = await _split(texts, model, params.dimensions, tools)
        else:
            vectors = await _embedded(texts, model, params.dimensions, tools)
        return EmbedOutput.model_construct(vectors=vectors, count=len(vectors), store=None)


def _texts(params: EmbedParams) -> list[str]:
    from .material import part

    texts = params.texts
    if texts is None:
        texts = [part(chunk).text for chunk in params.chunks or ()]
    for index, text in enumerate(texts):
        if not text.strip():
            raise StepError(f"text {index} is empty, so it has no vector.")
    return texts


async def _embedded(
    texts: Sequence[str], model: ModelSpec, dimensions: int | None, tools: Tools
) -> list[list[float]]:
    reply = await tools.pool.embed(
        EmbedRequest(
            model=model,
            texts=tuple(texts),
            dimensions=dimensions,
            priority=tools.priority,
            total_s=tools.total_s,
        )
    )
    return [list(vector) for vector in reply.vectors]


async def _split(
    texts: Sequence[str], model: ModelSpec, dimensions: int | None, tools: Tools
) -> list[list[float]]:
    """Embed long texts in parts, each part's vector weighted by its tokens."""
    room = max(1, (await tools.pool.facts(model)).n_ctx_tokens - _SPECIAL_TOKENS)
    sizes = await tools.pool.count_texts(model, texts)
    pieces = [
        await _pieces(text, size, room, model, tools)
        for text, size in zip(texts, sizes, strict=True)
    ]
    flat = [piece.text for several in pieces for piece in several]
    vectors = await _embedded(flat, model, dimensions, tools)
    borders = accumulate((len(several) for several in pieces), initial=0)
    return [
        _mean(vectors[begin:end], [piece.n_tokens for piece in several])
        for several, (begin, end) in zip(pieces, pairwise(borders), strict=True)
    ]


async def _pieces(
    text: str, n_tokens: int, room: int, model: ModelSpec, tools: Tools
) -> list[Piece]:
    from .pieces import Piece, cut

    if n_tokens <= room:
        return [Piece(text, 0, len(text), n_tokens)]
    return await cut(text, n_tokens=room, count=lambda parts: tools.pool.count_texts(model, parts))


def _mean(vectors: Sequence[Sequence[float]], weights: Sequence[int]) -> list[float]:
    """Give the weighted mean, of length 1."""
    if len(vectors) == 1:
        return list(vectors[0])
    sums = [
        math.fsum(weight * value for weight, value in zip(weights, values, strict=True))
        for values in zip(*vectors, strict=True)
    ]
    length = math.hypot(*sums) or 1.0
    return [value / length for value in sums]
