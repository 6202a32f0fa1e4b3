"""The step `split`: chunks of a text by tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from paddock.pipelines.quantities import Tokens
from paddock.steps.base import Output, Params, Step, Tools
from paddock.steps.facts import Facts, TextFacts, brings_none
from paddock.steps.files.read import DocumentPage
from paddock.steps.readers.reader import join_pages, page_offsets

from .chunker import cut_text
from .headings import Headings


class SplitParams(Params):
    one_of: ClassVar[tuple[str, ...]] = ("text", "pages")

    text: str | None = Field(default=None, description="The text to cut.")
    pages: list[DocumentPage] | None = Field(
        default=None, description="The pages to cut, an output of files.read."
    )
    tokens: Tokens = Field(default=1000, ge=1, description="The most tokens of a chunk.")
    overlap: Tokens = Field(
        default=0, ge=0, description="About how many tokens a chunk shares with the one before it."
    )
    by: list[Literal["heading", "paragraph", "sentence"]] = Field(
        default=["heading", "paragraph", "sentence"],
        min_length=1,
        description="Where to cut if possible; else between words.",
    )
    model: str | None = Field(default=None, description="The model whose tokens are counted.")

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> SplitParams:
        if self.overlap >= self.tokens:
            raise ValueError(f"`overlap` ({self.overlap}) must be below `tokens` ({self.tokens})")
        return self


class SplitChunk(Output):
    """A part of the text: `start` and `end` are character offsets into the whole text.

    `text[repeated:]` is the text there.
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
    """The headings above its start, outermost first."""
    repeated: int = 0
    """The length of a repeated table header at its beginning."""


class SplitOutput(Output):
    chunks: list[SplitChunk]


class Split(Step[SplitParams, SplitOutput]):
    """Chunks by tokens of a given model, along headings, paragraphs, sentences.

    Rows of tables stay whole; a chunk that goes on with a table begins with its header again.
    """

    params = SplitParams
    output = SplitOutput
    version = 2
    is_pure = True
    roles = frozenset({"chat", "embed"})
    facts = Facts(is_repeatable=True, only_measures=True, texts=TextFacts(brings_none))

    async def run(self, params: SplitParams, tools: Tools) -> SplitOutput:
        """Cut it; a blank text has no chunks."""
        model = tools.llm.models.resolve(params.model, "chat")
        text = params.text or join_pages(page.text for page in params.pages or ())
        pieces = await cut_text(
            text,
            n_tokens=params.tokens,
            overlap=params.overlap,
            by=params.by,
            count=lambda texts: tools.llm.pool.count_texts(model, texts),
        )
        headings = Headings.of(text) if "heading" in params.by else Headings((), ())
        offsets = page_offsets([page.text for page in params.pages or ()])
        chunks = [
            SplitChunk.model_construct(
                text=piece.text,
                index=index,
                start=piece.start,
                end=piece.end,
                page=_page_at_offset(piece.start, offsets, params.pages),
                page_end=_page_at_offset(max(piece.start, piece.end - 1), offsets, params.pages),
                headings=list(headings.at(piece.start)),
                repeated=piece.repeated,
            )
            for index, piece in enumerate(pieces)
        ]
        return SplitOutput(chunks=chunks)


def _page_at_offset(
    offset: int, offsets: Sequence[int], pages: Sequence[DocumentPage] | None
) -> int | None:
    return pages[bisect_right(offsets, offset) - 1].number if pages else None
