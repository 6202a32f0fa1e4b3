"""Vectors for texts or chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from paddock.engine.request import EmbedRequest, OnOverflow, Role

from .step import Output, Params, StepError, Tools


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
    on_overflow: OnOverflow = Field(
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
            TextRefused: a text has no vector, by its index.
        """
        texts = _texts(params)
        if not texts:
            return EmbedOutput(vectors=[], count=0)
        model = tools.models.resolve(params.model, "embed")
        reply = await tools.pool.embed(
            EmbedRequest(
                model=model,
                texts=tuple(texts),
                dimensions=params.dimensions,
                priority=tools.priority,
                total_s=tools.total_s,
                on_overflow=params.on_overflow,
            )
        )
        vectors = [list(vector) for vector in reply.vectors]
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
