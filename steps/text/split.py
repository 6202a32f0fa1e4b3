"""The step `split`: chunks of a text by tokens; and chunks as input of other steps.

`summarise`, `embed` and `reduce` convert a text, a chunk of `split`, or any result to a `TextPart`.
`Headings` finds the headings above an offset in a Markdown text, `source_of` where a part is from.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from paddock.pipelines.quantities import Tokens
from paddock.steps.base import Output, Params, Step, Tools
from paddock.steps.files.read import DocumentPage
from paddock.steps.readers.reader import PAGE_BREAK, join_pages, page_offsets

from .chunker import cut_text

_HEADING_LINE = r"^(?:(?P<fence> {0,3}(?:`{3,}|~{3,}))|(?P<level>#{1,6})[ \t]+(?P<title>.*))"


@dataclass(frozen=True, slots=True)
class Headings:
    """The headings of a text, by their offsets."""

    offsets: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    """For each heading: the titles from the outermost down to it."""

    @classmethod
    def of(cls, text: str) -> Headings:
        """Find the `#` headings outside fenced code."""
        offsets: list[int] = []
        paths: list[tuple[str, ...]] = []
        open_ones: list[tuple[int, str]] = []
        fence = ""
        for line in re.finditer(_HEADING_LINE, text, re.MULTILINE):
            if line["fence"]:
                fence = _fence_after(line["fence"].strip(), fence)
            elif not fence:
                level = len(line["level"])
                open_ones = [one for one in open_ones if one[0] < level]
                open_ones.append((level, line["title"].strip().rstrip("#").strip()))
                offsets.append(line.start())
                paths.append(tuple(title for _, title in open_ones))
        return cls(tuple(offsets), tuple(paths))

    def at(self, offset: int) -> tuple[str, ...]:
        """Return the titles above `offset`, outermost first; a heading includes itself."""
        index = bisect_right(self.offsets, offset)
        return self.paths[index - 1] if index else ()


def _fence_after(mark: str, fence: str) -> str:
    """Return the open fence after this mark: a fence ends with the same mark, at least as long."""
    if not fence:
        return mark
    return "" if mark.startswith(fence) else fence


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a text. `data` is the `chunk` of templates; it has `text`."""

    text: str
    data: Mapping[str, Any]

    def number(self, name: str) -> int | None:
        """Return a number of the chunk, such as `start` or `page`; None if it has none."""
        value = self.data.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def pages(self) -> tuple[int | None, int | None]:
        """The pages on which it begins and ends."""
        first, last = self.number("page"), self.number("page_end")
        return first, first if last is None else last

    @property
    def headings(self) -> list[str]:
        """The headings above it, outermost first."""
        found = self.data.get("headings")
        return list(map(str, found)) if isinstance(found, list) else []


def to_part(chunk: Any) -> TextPart:
    """Convert a chunk to a part.

    A text stays, of a mapping `text` is taken; without one it becomes lines of `name: value`.

    >>> to_part({"file": "a.md", "summary": "Short."}).text.splitlines()
    ['file: a.md', 'summary: Short.']
    """
    if isinstance(chunk, str):
        return TextPart(chunk, {"text": chunk})
    if not isinstance(chunk, Mapping):
        text = json.dumps(chunk, ensure_ascii=False)
        return TextPart(text, {"text": text})
    given = chunk.get("text")
    lines = (f"{name}: {_value_text(value)}" for name, value in chunk.items())
    text = given if isinstance(given, str) else "\n".join(lines)
    return TextPart(text, {**chunk, "text": text})


def to_parts(chunks: Sequence[Any]) -> list[TextPart]:
    """Convert chunks to parts, without null and blank ones."""
    made = [to_part(chunk) for chunk in chunks if chunk is not None]
    return [one for one in made if one.text.strip()]


def join_parts(several: Sequence[TextPart]) -> str:
    """Join parts to one text without overlaps and repeated table headers.

    An overlap must match by text and by offset: chunks of several documents may have equal offsets.
    """
    texts: list[str] = []
    before, began, reached = "", 0, 0
    for one in several:
        start, end = one.number("start"), one.number("end")
        text = whole = one.text[repeated_chars(one) :]
        if start is not None and end is not None and end - start == len(text):
            shared = text[: max(0, reached - start)] if start > began else ""
            text = text[len(shared) :] if before.endswith(shared) else text
            before, began, reached = whole, start, end
        texts.append(text)
    return PAGE_BREAK.join(text for text in texts if text)


def repeated_chars(one: TextPart) -> int:
    """Return the length of a repeated table header at its beginning."""
    n = one.number("repeated") or 0
    return n if 0 < n < len(one.text) else 0


class CitedSource(Output):
    """The source of one note. `start` and `end` are offsets into the whole text, if known."""

    index: int
    start: int | None
    end: int | None
    page: int | None
    page_end: int | None
    headings: list[str]


def source_of(index: int, part: TextPart, page_of: Callable[[int], int] | None) -> CitedSource:
    """Return the source of a part; `page_of` returns the page of an offset, if known."""
    start, end = part.number("start"), part.number("end")
    page, page_end = part.pages
    if page_of is not None and start is not None and end is not None:
        page, page_end = page_of(start), page_of(max(start, end - 1))
    return CitedSource(
        index=index, start=start, end=end, page=page, page_end=page_end, headings=part.headings
    )


def merged_source(sources: Sequence[CitedSource], n_characters: int) -> CitedSource:
    pages = [one.page for one in sources if one.page is not None]
    ends = [one.page_end for one in sources if one.page_end is not None]
    return CitedSource(
        index=0,
        start=0,
        end=n_characters,
        page=min(pages, default=None),
        page_end=max(ends, default=None),
        headings=sources[0].headings if len(sources) == 1 else [],
    )


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


CutBorder = Literal["heading", "paragraph", "sentence"]


class SplitParams(Params):
    """Parameters of `split`."""

    one_of: ClassVar[tuple[str, ...]] = ("text", "pages")

    text: str | None = Field(default=None, description="The text to cut.")
    pages: list[DocumentPage] | None = Field(
        default=None, description="The pages to cut, an output of files.read."
    )
    tokens: Tokens = Field(default=1000, ge=1, description="The most tokens of a chunk.")
    overlap: Tokens = Field(
        default=0, ge=0, description="About how many tokens a chunk shares with the one before it."
    )
    by: list[CutBorder] = Field(
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
    """Outputs of `split`."""

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

    async def run(self, params: SplitParams, tools: Tools) -> SplitOutput:
        """Cut it; a blank text has no chunks."""
        model = tools.models.resolve(params.model, "chat")
        text = params.text or join_pages(page.text for page in params.pages or ())
        pieces = await cut_text(
            text,
            n_tokens=params.tokens,
            overlap=params.overlap,
            by=params.by,
            count=lambda texts: tools.pool.count_texts(model, texts),
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
