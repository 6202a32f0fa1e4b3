"""The step `files.read`: read the text of one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from paddock.pipelines.e_invoices import EInvoice
from paddock.pipelines.quantities import SizeBytes
from paddock.pipelines.text_cells import unpack_cells
from paddock.steps.base import Output, Params, Step, StepError, StepSkipped, Tools
from paddock.steps.facts import Facts, Missing, Written
from paddock.steps.param_types import InputFile
from paddock.steps.paths import printable, resolve_path
from paddock.steps.readers import reader
from paddock.steps.readers.document_kinds import EXTRAS_OF_KINDS, MEDIA_TYPES
from paddock.steps.readers.reader import Document
from paddock.steps.readers.text_encoding import is_known_encoding

DEFAULT_MAX_FILE_BYTES = 64 * 1024 * 1024


def _known_kinds() -> tuple[str, ...]:
    return ("auto", *MEDIA_TYPES, *reader.plugin_kinds())


def _known_encoding(value: str) -> str:
    if not is_known_encoding(value):
        raise ValueError(f"'{value}' is not a known encoding; try `utf-8`, or leave it out")
    return value


KnownEncoding = Annotated[str, AfterValidator(_known_encoding)]


class FilesReadParams(Params):
    path: Annotated[str, InputFile] = Field(min_length=1, description="The document.")
    type: str = Field(
        default="auto",
        description="Its kind.",
        json_schema_extra=lambda schema: schema.update(enum=list(_known_kinds())),
    )
    encoding: KnownEncoding = Field(default="auto", description="A text's encoding, such as `gbk`.")
    empty: Literal["fail", "skip"] = Field(
        default="fail", description="Whether an empty one is a failure, or is skipped."
    )
    max_bytes: SizeBytes = Field(
        default=DEFAULT_MAX_FILE_BYTES, description="A larger one is a failure."
    )
    ocr: Literal["auto", "off"] = Field(
        default="auto", description="Whether scans and pictures are read (extra `ocr`)."
    )

    @field_validator("type")
    @classmethod
    def _is_a_kind(cls, value: str) -> str:
        if value not in _known_kinds():
            raise ValueError(
                f"'{value}' is not a kind of document; known: {', '.join(_known_kinds())}"
            )
        return value


class ReadLine(Output):
    """A piece of a page's text that OCR, a form or a comment gave."""

    start: int = Field(description="Its offset in the page's text.")
    end: int = Field(description="The offset behind it.")
    p: float = Field(description="How sure OCR is of it; 1 for forms and comments.")


class DocumentPage(Output):
    """The text of one page; a document without pages has one."""

    number: int
    text: str
    lines: list[ReadLine] = Field(default=[], description="What is not the page's own text.")
    doubt: float = Field(
        default=0.0, description="1 less the least `p` of its lines: 0 is its own text."
    )


class FilesReadOutput(Output):
    text: str
    pages: list[DocumentPage]
    title: str
    media_type: str
    path: str = Field(default="", description="The file, as `path` names it.")
    cells: dict[str, str] = Field(
        default={},
        description="By the number of a page: where each word of its text stands, packed. "
        "`evidence` finds the boxes of quotes in it.",
    )
    invoices: list[EInvoice] = Field(
        default=[], description="The e-invoices in it, and whether XML, sums and page agree."
    )


def _missing(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    kind = str(written.get("type"))
    extra = EXTRAS_OF_KINDS.get(kind, "")
    what = "texts of pictures" if kind == "image" else f"documents of type '{kind}'"
    if extra and not reader.is_installed(extra):
        needs = f"{what} need the extra '{extra}', which is not installed."
        yield ("type",), needs, f"Install it: `pip install 'paddock-llm[{extra}]'`."


class FilesRead(Step[FilesReadParams, FilesReadOutput]):
    """Text of one document: plain text in any encoding, HTML, PDF.

    Excel, mails, archives, electronic books; with the extra `documents` also Word and PowerPoint;
    with the extra `ocr` scans and pictures. Other kinds come from plug-ins (`paddock.readers`).
    """

    params = FilesReadParams
    output = FilesReadOutput
    version = 13
    facts = Facts(
        only_reads=True,
        is_repeatable=True,
        shows_path=True,
        readers=lambda written: reader.reader_versions(),
        missing=_missing,
    )

    async def run(self, params: FilesReadParams, tools: Tools) -> FilesReadOutput:
        document = await read_document(params, tools)
        return FilesReadOutput(
            text=document.text,
            pages=[_page(document, index) for index in range(len(document.pages))],
            title=document.title,
            media_type=document.media_type,
            path=params.path,
            cells={str(n): cells for n, cells in enumerate(document.cells, 1) if cells},
            invoices=list(document.invoices),
        )


def _page(document: Document, index: int) -> DocumentPage:
    cells = unpack_cells(document.cells[index]) if document.cells else []
    lines = [ReadLine(start=at.start, end=at.end, p=at.p) for at in cells if at.p is not None]
    return DocumentPage(
        number=index + 1,
        text=document.pages[index],
        lines=lines,
        doubt=round(1 - min((line.p for line in lines), default=1.0), 3),
    )


async def read_document(params: FilesReadParams, tools: Tools) -> Document:
    """Read a document; its notes go to the report.

    Raises:
        StepError: it cannot be read, or is empty.
        StepSkipped: it is empty, which `empty` allows.
    """
    from paddock.steps.readers import (  # a check reads none: `validate` is quicker
        documents,
        reader_process,
    )

    path = resolve_path(tools.files.roots, params.path)
    document = await documents.load_document(
        path,
        reader_process.ReadOptions(
            None if params.type == "auto" else params.type, params.encoding, params.ocr == "auto"
        ),
        readers=tools.files.readers,
        log=tools.log,
        max_bytes=params.max_bytes,
    )
    if document.is_empty:
        why = f"'{printable(path.name)}' {document.why_empty}"
        if params.empty != "skip":
            raise StepError(f"{why}.")
        tools.log.tally("document", "without text and skipped")
        raise StepSkipped(why)
    return document
