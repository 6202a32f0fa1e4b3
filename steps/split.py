"""Chunks of a text by tokens of a given model, each with where it comes from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from paddock.pipelines.quantities import Tokens
from paddock.steps.files_read import Page
from paddock.steps.readers.pages import joined, starts

from .step import Output, Params, Tools

if TYPE_CHECKING:
    from paddock.engine.request import Role

Border = Literal["heading", "paragraph", "sentence"]


class SplitParams(Params):
    """Parameters of `split`."""

    one_of: ClassVar[tuple[str, ...]] = ("text", "pages")

    text: str | None = Field(default=None, description="The text to cut.")
    pages: list[Page] | None = Field(
        default=None, description="The pages to cut, as files.read gives them."
    )
    tokens: Tokens = Field(default=1000, ge=1, description="The most tokens of a chunk.")
    overlap: Tokens = Field(
        default=0, ge=0, description="About how many tokens a chunk shares with the one before it."
    )
    by: list[Border] = Field(
        default=["heading", "paragraph", "sentence"],
        min_length=1,
        description="Where to cut, as long as it is possible; else between words.",
    )
    model: str | None = Field(default=None, description="Whose tokens are counted.")

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> SplitParams:
        if self.overlap >= self.tokens:
            raise ValueError(f"`overlap` ({self.overlap}) must be below `tokens` ({self.tokens})")
        return self


class Chunk(Output):
    """A part of the text: `start` and `end` are character offsets into the whole text.

    `text[repeated:]` is what stands there.
    """

    text: str
    index: int
    start: int
    end: int
    page: int | None
    """The page it starts on; None if no pages were given."""
    page_end: int | None
    """The page it ends on."""
    headings: list[str]
    """The headings over its start, the outermost first."""
    repeated: int = 0
    """So many characters at its beginning are the header of a table that it goes on with."""


class SplitOutput(Output):
    """Outputs of `split`."""

    chunks: list[Chunk]


class Split:
    """Chunks by tokens of a given model, along headings, paragraphs, sentences.

    Rows of tables stay whole; a chunk that goes on with a table begins with its header again.
    """

    params: ClassVar[type[SplitParams]] = SplitParams
    output: ClassVar[type[SplitOutput]] = SplitOutput
    version: ClassVar[int] = 2
    compatible_versions: ClassVar[frozenset[int]] = frozenset({1})
    is_pure: ClassVar[bool] = True
    roles: ClassVar[frozenset[Role]] = frozenset({"chat", "embed"})

    def reads(self, params: SplitParams) -> Sequence[str]:
        """Name nothing."""
        return ()

    async def run(self, params: SplitParams, tools: Tools) -> SplitOutput:
        """Cut it; a text without anything but white space has no chunks."""
        from paddock.steps.readers.headings import Headings

        from .pieces import cut

        model = tools.models.resolve(params.model, "chat")
        text = params.text or joined(page.text for page in params.pages or ())
        pieces = await cut(
            text,
            n_tokens=params.tokens,
            overlap=params.overlap,
            by=params.by,
            count=lambda texts: tools.pool.count_texts(model, texts),
        )
        headings = Headings.of(text) if "heading" in params.by else Headings((), ())
        offsets = starts([page.text for page in params.pages or ()])
        chunks = [
            Chunk.model_construct(
                text=piece.text,
                index=index,
                start=piece.start,
                end=piece.end,
                page=_page_at(piece.start, offsets, params.pages),
                page_end=_page_at(max(piece.start, piece.end - 1), offsets, params.pages),
                headings=list(headings.at(piece.start)),
                repeated=piece.repeated,
            )
            for index, piece in enumerate(pieces)
        ]
        return SplitOutput(chunks=chunks)


def _page_at(offset: int, offsets: Sequence[int], pages: Sequence[Page] | None) -> int | None:
    return pages[bisect_right(offsets, offset) - 1].number if pages else None
