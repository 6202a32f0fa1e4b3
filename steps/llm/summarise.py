"""The step `summarise`: a summary of a text, chunks or a file, and how much of it was read.

A model writes it (`map_reduce`), or it is extracted: sentences of the text itself (`extract`).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import Message, Role
from paddock.engine.system.records import Struct
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import PLACEHOLDER, Output, Params, Step, StepError, Tools
from paddock.steps.facts import CallFacts, Facts, TextFacts, Written
from paddock.steps.files.read import FilesReadParams, read_document
from paddock.steps.param_types import InputContent
from paddock.steps.prompt import render_template
from paddock.steps.readers.reader import page_offsets, reader_versions
from paddock.steps.text.text_parts import (
    CitedSource,
    TextPart,
    join_parts,
    merged_source,
    repeated_chars,
    source_of,
    to_part,
)

from .ask_and_repair import (
    AnswerOutput,
    ModelCaller,
    UsageOutput,
    ask_checked,
    ask_fitting,
    empty_answer,
    one_repeat,
)
from .map_reduce import LastPrompt, MapReduce, SummaryPrompts

if TYPE_CHECKING:
    from paddock.steps.text.sentences import TextSpan


class ContextParam(BaseModel):
    """What a chunk's prompt shows of earlier chunks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    previous: int = Field(
        default=0, ge=0, le=16, description="The number of earlier notes, in order."
    )


class SummariseParams(Params):
    one_of: ClassVar[tuple[str, ...]] = ("text", "chunks", "file")

    text: str | None = Field(default=None, description="The text.")
    chunks: list[Any] | None = Field(
        default=None, description="Its parts: chunks of `split`, texts, or results of a block."
    )
    file: Annotated[str | None, InputContent] = Field(
        default=None, min_length=1, description="A document to read."
    )
    model: str | None = Field(default=None, description="Which model to use.")
    how: Literal["write", "extract"] = Field(
        default="write",
        description="A model writes it, or it is the sentences that say most of the text and "
        "repeat each other least, as they are, found by an embedding model.",
    )
    words: int | None = Field(
        default=None, ge=1, description="About how many words; of `extract` at most, by default 80."
    )
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
        default="map-reduce", description="If a text does not fit."
    )
    cite: bool = Field(
        default=False,
        description="Add to each sentence the page or heading that most of its words come from; of "
        "`extract` its own page or line.",
    )

    @model_validator(mode="after")
    def _extracts_without_prompts(self) -> SummariseParams:
        idle = [f"`{name}`" for name in _WRITING_PARAMETERS if name in self.model_fields_set]
        if self.how == "extract" and idle:
            what = "nothing is written with `how: extract`, so that"
            raise ValueError(f"{what} {', '.join(idle)} would do nothing: remove it")
        return self


_WRITING_PARAMETERS = (
    "style", "instructions", "map", "reduce", "context", "params", "on_overflow"
)  # fmt: skip


class Coverage(Output):
    """How much was read, and in how many levels."""

    characters_read: int
    characters: int
    share: float
    """1.0 unless `on_overflow: truncate` cut something."""
    chunks: int
    levels: int


class ExtractedSentence(Output):
    """A sentence of the text. `start` and `end` are offsets into the whole text, if known."""

    text: str
    start: int | None
    end: int | None
    page: int | None
    """None if the document has no pages."""
    line: int | None
    """Where it begins, from 1; None if the document has pages, or the author passed chunks."""

    @property
    def mark(self) -> str:
        if self.page is None:
            return "" if self.line is None else f" [line {self.line}]"
        return f" [p. {self.page}]"


class SummariseOutput(AnswerOutput):
    notes: list[str] = Field(description="The notes on the parts; empty if it was read at once.")
    sources: list[CitedSource] = Field(
        description="Pages and headings of each part, so of each note; a single entry if it was "
        "read at once."
    )
    sentences: list[ExtractedSentence] = Field(
        default=[], description="Of `how: extract`, in the text's order."
    )
    coverage: Coverage
    usage: UsageOutput


def _readers(written: Written) -> Sequence[str]:
    """Return the versions of readers: with others a text may differ."""
    return (*reader_versions(), *(["texts 4"] if "file" in written else []))


def _most_calls(written: Written, _has_reply: bool) -> int | None:
    has_parts = written.get("on_overflow", "map-reduce") in ("map-reduce", "refine")
    return None if has_parts or "map" in written else 1


class Summarise(Step[SummariseParams, SummariseOutput]):
    """A text, chunks or a file of any length: one shot, map-reduce, refine, or an extract."""

    params = SummariseParams
    output = SummariseOutput
    version = 3
    roles = frozenset({"chat", "embed"})
    takes_reply = True
    facts = Facts(
        only_reads=True,
        is_repeatable=True,
        only_answers=True,
        only_measures=True,
        readers=_readers,
        calls=CallFacts(_most_calls, lambda written: True, most_repeats=one_repeat),
        texts=TextFacts(lambda written: "file" in written, without=("usage",)),
    )

    @staticmethod
    def own_roles(written: Mapping[str, Any]) -> frozenset[Role]:
        how = written.get("how", "write")
        if how == "extract":
            return frozenset({"embed"})
        return frozenset({"chat"}) if how == "write" else Summarise.roles

    @staticmethod
    def roles_besides(written: Mapping[str, Any]) -> frozenset[Role]:
        return frozenset({"embed"} if len(Summarise.own_roles(written)) > 1 else ())

    async def run(self, params: SummariseParams, tools: Tools) -> SummariseOutput:
        material = await _read_input(params, tools)
        if not material.text.strip():
            raise StepError("there is nothing to summarise: the text is empty.")
        if params.how == "extract":
            return await _extracted(params, material, tools)
        model = tools.llm.models.resolve(params.model, "chat")
        caller = ModelCaller(tools, model, params.params.given(), on_truncated="more")
        instructions = params.instructions
        prompts = SummaryPrompts(
            words=params.words,
            style=params.style,
            instructions=render_template(instructions, "instructions", {}) if instructions else "",
            map=params.map,
            reduce=params.reduce,
        )
        is_strict = params.on_overflow == "error"
        reader = MapReduce(caller, prompts, params.context.previous, is_strict=is_strict)
        read = LastPrompt([], ())

        async def in_parts(_: PromptTooLong | None) -> list[Message]:
            nonlocal read
            match params.on_overflow:
                case "truncate":
                    read = await reader.truncated(material.text)
                case "refine":
                    read = await reader.refined(material.parts)
                case _:
                    read = await reader.map_reduce(material.parts)
            return read.messages

        ask = partial(ask_checked, caller, form=tools.reply)
        has_chunks = len(material.parts) > 1
        if has_chunks and params.map is not None:  # the author wants a note on each
            answer = await ask(await in_parts(None))
        else:
            read = reader.at_once(to_part(material.text) if has_chunks else material.parts[0])
            answer = await ask_fitting(ask, read.messages, in_parts)
        text = answer.text.strip()
        if not text:
            raise empty_answer()
        cited = text
        # JSON cannot hold citation marks; there `sources` has them.
        if params.cite and (tools.reply is None or tools.reply.schema is None):
            # In a thread: the text may be a book.
            cited = await asyncio.to_thread(material.with_citations, text)
        return SummariseOutput(
            **answer.outputs() | {"text": cited},
            notes=[text] if read.notes is None else list(read.notes),
            sources=material.sources(read.parts),
            coverage=material.coverage(caller.characters_cut, len(read.parts), read.n_levels),
            usage=caller.usage(),
        )


class _SummaryInput(Struct, frozen=True):
    parts: list[TextPart]
    text: str
    is_cut: bool
    """The author passed chunks."""
    pages: tuple[str, ...] = ()
    """The document's pages, if it was read here."""

    def coverage(self, n_cut: int, n_chunks: int, n_levels: int) -> Coverage:
        n = len(self.text)
        return Coverage(
            characters_read=n - n_cut,
            characters=n,
            share=(n - n_cut) / n,
            chunks=n_chunks,
            levels=n_levels,
        )

    def with_citations(self, summary: str) -> str:
        from paddock.steps.text import citations

        if self.is_cut:
            passages = citations.passages_by_chunk(self.parts)
        else:
            passages = citations.passages_by_page(self.pages or (self.text,))
        return citations.with_citations(summary, passages)

    def placed(self, part: TextPart, span: TextSpan) -> ExtractedSentence:
        first = part.number("start")
        start = None if first is None else first + max(0, span.start - repeated_chars(part))
        page, line = part.pages[0], None
        if len(self.pages) > 1:
            page = bisect_right(page_offsets(self.pages), span.start)
        elif not self.is_cut:
            line = self.text.count("\n", 0, span.start) + 1
        end = None if start is None else start + span.end - span.start
        return ExtractedSentence(text=span.text, start=start, end=end, page=page, line=line)

    def sources(self, read: Sequence[TextPart]) -> list[CitedSource]:
        offsets = page_offsets(self.pages)
        known = (lambda at: bisect_right(offsets, at)) if len(self.pages) > 1 else None
        if self.is_cut and len(read) == 1 and len(self.parts) > 1:
            sources = [source_of(index, part, None) for index, part in enumerate(self.parts)]
            return [merged_source(sources, len(self.text))]
        return [source_of(index, part, known) for index, part in enumerate(read)]


async def _extracted(
    params: SummariseParams, material: _SummaryInput, tools: Tools
) -> SummariseOutput:
    from . import extract

    n_words = params.words or extract.DEFAULT_WORDS
    # In a thread: the text may be a book.
    found = await asyncio.to_thread(extract.sentences_of, material.parts, material.pages)
    separator = " "
    indices: Sequence[int] | None
    if found:
        model = tools.llm.models.resolve(params.model, "embed")
        texts = [span.text for _, span in found]
        indices, usage = await extract.central_sentences(texts, n_words, model, tools)
    else:
        tools.log.tally("text", "without sentences: extracted by the first lines")
        found, separator, usage = extract.lines_of(material.parts), "\n", UsageOutput()
        indices = extract.first_lines([span.text for _, span in found], n_words)
    chosen = [material.placed(*found[index]) for index in indices or ()]
    marked = (f"{sentence.text}{sentence.mark if params.cite else ''}" for sentence in chosen)
    return SummariseOutput(
        text=PLACEHOLDER if indices is None else separator.join(marked),
        notes=[],
        sources=material.sources(material.parts),
        sentences=chosen,
        coverage=material.coverage(0, len(material.parts), 0),
        usage=usage,
    )


async def _read_input(params: SummariseParams, tools: Tools) -> _SummaryInput:
    if params.chunks is not None:
        given = [to_part(chunk) for chunk in params.chunks if chunk is not None]
        parts = [part for part in given if part.text.strip()]
        return _SummaryInput(parts, join_parts(parts), is_cut=True)
    text, pages = params.text or "", tuple[str, ...]()
    if params.file is not None:
        document = await read_document(FilesReadParams(path=params.file), tools)
        text, pages = document.text, document.pages
    whole = TextPart(text, {"text": text, "start": 0, "end": len(text)})
    return _SummaryInput([whole], text, is_cut=False, pages=pages)
