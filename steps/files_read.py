"""Read the text of one document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from paddock.pipelines.quantities import SizeBytes
from paddock.steps.readers import plugins
from paddock.steps.readers.kinds import MEDIA_TYPES

from .places import place, shown
from .step import Output, Params, StepSkipped, Tools

if TYPE_CHECKING:
    from paddock.engine.request import Role

DEFAULT_MAX_BYTES = 64 * 1024 * 1024


def _kinds() -> tuple[str, ...]:
    return ("auto", *MEDIA_TYPES, *plugins.names())


def _with_kinds(schema: dict[str, Any]) -> None:
    """Name the kinds in the schema for editors, those of plug-ins as well."""
    schema["enum"] = list(_kinds())


class FilesReadParams(Params):
    """Parameters of `files.read`."""

    path: str = Field(min_length=1, description="The document.")
    type: str = Field(
        default="auto",
        description="What it is; by default found out from its content and its name.",
        json_schema_extra=_with_kinds,
    )
    encoding: str = Field(
        default="auto",
        description="A text's encoding, such as `utf-8` or `gbk`; by default found out.",
    )
    empty: Literal["fail", "skip"] = Field(
        default="fail",
        description="What happens if nothing is in it: a failure, or the item is skipped.",
    )
    max_bytes: SizeBytes = Field(
        default=DEFAULT_MAX_BYTES, description="A larger document is a failure. Default: 64MiB."
    )
    ocr: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether scans and pictures are read, by the extra `ocr`.",
    )

    @field_validator("type")
    @classmethod
    def _is_a_kind(cls, value: str) -> str:
        if value not in _kinds():
            raise ValueError(f"'{value}' is no kind of document; known: {', '.join(_kinds())}")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            if value != "auto":
                "".encode(value)
        except LookupError as error:
            what = f"'{value}' is no known encoding; try `utf-8`, or leave it out"
            raise ValueError(what) from error
        return value


class Page(Output):
    """The text of one page; a document without pages has one."""

    number: int
    text: str


class FilesReadOutput(Output):
    """Outputs of `files.read`."""

    text: str
    pages: list[Page]
    title: str
    media_type: str


class FilesRead:
    """Text of one document, by what its content is: plain texts in any encoding, HTML, PDF.

    With the extra `documents` also Word, PowerPoint and Excel; mails and electronic books; with
    the extra `ocr` scans and pictures. Other kinds come from plug-ins (`paddock.readers`).
    """

    params: ClassVar[type[FilesReadParams]] = FilesReadParams
    output: ClassVar[type[FilesReadOutput]] = FilesReadOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: FilesReadParams) -> Sequence[str]:
        """Name the document."""
        return (params.path,)

    @classmethod
    def installed(cls) -> Sequence[str]:
        """Name what reads here: with another extra or plug-in a text may come out otherwise."""
        from paddock.steps.readers import documents

        return documents.installed()

    async def run(self, params: FilesReadParams, tools: Tools) -> FilesReadOutput:
        """Read it.

        Raises:
            StepError: it cannot be read; the reason says why.
            StepSkipped: it is empty, and the author asked for that.
        """
        from paddock.steps.readers import documents

        path = place(tools.roots, params.path)
        document = await documents.load(
            path,
            readers=tools.readers,
            kind=None if params.type == "auto" else params.type,
            encoding=params.encoding,
            max_bytes=params.max_bytes,
            ocr=params.ocr == "auto",
        )
        for note in document.notes:
            tools.log.note(note)
        if document.is_empty and params.empty == "skip":
            raise StepSkipped(f"'{shown(path.name)}' {document.why_empty}")
        documents.refuse_empty(document, path)
        return FilesReadOutput(
            text=document.text,
            pages=[Page(number=n, text=text) for n, text in enumerate(document.pages, 1)],
            title=document.title,
            media_type=document.media_type,
        )
