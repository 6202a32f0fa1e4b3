"""The step `summarise`: a summary of a text, chunks or a file, and how much of it was read."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from paddock.engine.request import Role
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import Output, Params, StepError, Tools
from paddock.steps.files.read import FilesReadParams, read_document
from paddock.steps.prompt import render_template
from paddock.steps.readers.reader import page_offsets, reader_versions
from paddock.steps.text.split import (
    CitedSource,
    TextPart,
    join_parts,
    merged_source,
    source_of,
    to_part,
    to_parts,
)

from .ask_and_repair import AnswerOutput, Asker, UsageOutput, ask_checked, empty_answer
from .map_reduce import LastPrompt, MapReduce, SummaryPrompts


class ContextParam(BaseModel):
    """What a chunk's prompt shows of earlier chunks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    previous: int = Field(
        default=0, ge=0, le=16, description="The number of earlier notes, in order."
    )


class SummariseParams(Params):
    """Parameters of `summarise`."""

    one_of: ClassVar[tuple[str, ...]] = ("text", "chunks", "file")

    text: str | None = Field(default=None, description="The text.")
    chunks: list[Any] | None = Field(
        default=None,
        description="Its parts: chunks of `split`, texts, or results of a block (mappings).",
    )
    file: str | None = Field(default=None, min_length=1, description="A document to read.")
    model: str | None = Field(default=None, description="Which model to use.")
    words: int | None = Field(default=None, ge=1, description="About how many words.")
    style: str | None = Field(default=None, description="Such as `bullet points` or `formal`.")
    instructions: Template | None = Field(
        default=None, description="More instructions, at the end of each prompt."
    )
    map: Template | None = Field(
        default=None, description="The prompt for each chunk; sees `chunk`, `index`, `previous`."
    )
    reduce: Template | None = Field(
        default=None, description="The prompt that makes one text of the notes; sees `notes`."
    )
    context: ContextParam = Field(
        default=ContextParam(), description="What each chunk's prompt shows besides the chunk."
    )
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )
    on_overflow: Literal["map-reduce", "refine", "truncate", "error"] = Field(
        default="map-reduce", description="What happens to a text that does not fit."
    )
    cite: bool = Field(
        default=False,
        description="Add to each sentence the page or heading that most of its words come from.",
    )


class Coverage(Output):
    """How much was read, and in how many levels."""

    characters_read: int
    characters: int
    share: float
    """1.0 unless `on_overflow: truncate` cut something."""
    chunks: int
    levels: int


class SummariseOutput(AnswerOutput):
    """Outputs of `summarise`."""

    notes: list[str] = Field(description="The notes on the parts; empty if it was read at once.")
    sources: list[CitedSource] = Field(
        description="Pages and headings of each part, so of each note; a single entry if it was "
        "read at once."
    )
    coverage: Coverage
    usage: UsageOutput


class Summarise:
    """A text, chunks or a file of any length: one shot, map-reduce or refine."""

    params: ClassVar[type[SummariseParams]] = SummariseParams
    output: ClassVar[type[SummariseOutput]] = SummariseOutput
    version: ClassVar[int] = 3
    compatible_versions: ClassVar[frozenset[int]] = frozenset({1, 2})
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset({"chat"})
    takes_reply: ClassVar[bool] = True

    def reads(self, params: SummariseParams) -> Sequence[str]:
        return () if params.file is None else (params.file,)

    @classmethod
    def installed(cls) -> Sequence[str]:
        """Return the versions of readers: with others a text may differ."""
        return reader_versions()

    async def run(self, params: SummariseParams, tools: Tools) -> SummariseOutput:
        material = await _read_input(params, tools)
        if not material.text.strip():
            raise StepError("there is nothing to summarise: the text is empty.")
        model = tools.models.resolve(params.model, "chat")
        asker = Asker(tools, model, params.params.given(), on_truncated="more")
        read = await _last_prompt(params, material, asker)
        answer = await ask_checked(asker, read.messages, form=tools.reply)
        text = answer.text.strip()
        if not text:
            raise empty_answer()
        n_characters = len(material.text)
        n_read = n_characters - asker.characters_cut
        cited = text
        # JSON cannot hold citation marks; there `sources` has them.
        if params.cite and (tools.reply is None or tools.reply.schema is None):
            # In a thread: the text may be a book.
            cited = await asyncio.to_thread(material.with_citations, text)
        return SummariseOutput(
            **answer.outputs() | {"text": cited},
            notes=[text] if read.notes is None else list(read.notes),
            sources=material.sources(read.parts),
            coverage=Coverage(
                characters_read=n_read,
                characters=n_characters,
                share=n_read / n_characters,
                chunks=len(read.parts),
                levels=read.n_levels,
            ),
            usage=asker.usage(),
        )


@dataclass(frozen=True, slots=True)
class _SummaryInput:
    parts: list[TextPart]
    text: str
    is_cut: bool
    """The author passed chunks."""
    pages: tuple[str, ...] = ()
    """The document's pages, if it was read here."""

    def with_citations(self, summary: str) -> str:
        from paddock.steps.text import citations

        if self.is_cut:
            passages = citations.passages_by_chunk(self.parts)
        else:
            passages = citations.passages_by_page(self.pages or (self.text,))
        return citations.with_citations(summary, passages)

    def sources(self, read: Sequence[TextPart]) -> list[CitedSource]:
        """Return where each part that was read comes from."""
        offsets = page_offsets(self.pages)
        known = (lambda at: bisect_right(offsets, at)) if len(self.pages) > 1 else None
        if self.is_cut and len(read) == 1 and len(self.parts) > 1:
            each = [source_of(index, one, None) for index, one in enumerate(self.parts)]
            return [merged_source(each, len(self.text))]
        return [source_of(index, one, known) for index, one in enumerate(read)]


async def _read_input(params: SummariseParams, tools: Tools) -> _SummaryInput:
    if params.chunks is not None:
        several = to_parts(params.chunks)
        return _SummaryInput(several, join_parts(several), is_cut=True)
    text, pages = params.text or "", tuple[str, ...]()
    if params.file is not None:
        document = await read_document(FilesReadParams(path=params.file), tools)
        text, pages = document.text, document.pages
    whole = TextPart(text, {"text": text, "start": 0, "end": len(text)})
    return _SummaryInput([whole], text, is_cut=False, pages=pages)


async def _last_prompt(
    params: SummariseParams, material: _SummaryInput, asker: Asker
) -> LastPrompt:
    """Read it at once if it fits and the author did not ask for a note on each chunk."""
    instructions = params.instructions
    prompts = SummaryPrompts(
        words=params.words,
        style=params.style,
        instructions=render_template(instructions, "instructions", {}) if instructions else "",
        map=params.map,
        reduce=params.reduce,
    )
    is_strict = params.on_overflow == "error"
    reader = MapReduce(asker, prompts, params.context.previous, is_strict=is_strict)
    wants_notes = material.is_cut and params.map is not None and len(material.parts) > 1
    if not wants_notes:
        only = material.parts[0] if len(material.parts) == 1 else to_part(material.text)
        last = await reader.at_once(only)
        if last is not None:
            return last
    match params.on_overflow:
        case "truncate":
            return await reader.truncated(material.text)
        case "refine":
            return await reader.refined(material.parts)
    return await reader.map_reduce(material.parts)
