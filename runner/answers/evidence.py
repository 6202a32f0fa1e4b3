"""Evidence: where the values of an answer are in its sources, and on their pages.

`reply.evidence` names values of an item's scope: texts, outputs of `files.read`, hits of `search`.
The finder (`pipelines.checking.evidence`) works in the reader processes, within their limits of
time and memory, so that no text holds up a run. Where a quote stands on its page is known since the
document was read: its cells came with the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from paddock.engine.system.records import Struct, known_record, replace
from paddock.engine.system.text import free_name, listed
from paddock.pipelines.e_invoices import EInvoice
from paddock.pipelines.errors import kind_of
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.model import EvidenceSpec
from paddock.pipelines.text_cells import SourceText
from paddock.runner.bind.scope import Scope
from paddock.steps.base import StepError, Tools
from paddock.steps.readers import documents
from paddock.steps.readers.document_kinds import MEDIA_TYPES
from paddock.steps.readers.reader import join_pages, page_offsets
from paddock.steps.readers.reader_pool import EvidenceRequest

_PAGED = frozenset((MEDIA_TYPES["pdf"], MEDIA_TYPES["pptx"]))
_WITHOUT_PAGES = frozenset(MEDIA_TYPES.values()) - _PAGED
"""Their readers' pages are a mail's parts, a book's chapters or a workbook's sheets."""
_MOST_SOURCE_CHARS = 8_000_000
"""A text of this length takes 15 s and 0.6 GB."""
_SHOWN_FIELDS = 3


class EvidenceFinder(Struct):
    """Finds the fields of a step's answers in the sources that it names."""

    schema: Any
    only: Sequence[str]
    sources: tuple[SourceText, ...]
    tools: Tools
    """Whose readers know where a quote stands on a page."""
    language: str = ""
    """That of the sources; empty: it is recognised where it decides."""
    _latest: tuple[Any, Any] | None = None
    """The latest answer and its evidence: its checks and its step ask for the same."""

    @classmethod
    def of(
        cls, spec: EvidenceSpec | None, schema: Any, scope: Scope, tools: Tools
    ) -> EvidenceFinder | None:
        """Return the finder of a step; None where it is asked for no evidence.

        Raises:
            StepError: a source is no text or too long, or all of them were skipped.
        """
        if spec is None:
            return None
        return cls(
            schema,
            spec.only,
            read_sources(spec, scope, tools.files.roots.base),
            tools,
            spec.language,
        )

    async def located(self, output: Any) -> Any:
        """Return where each field of an answer stands, in its shape; boxes may be missing.

        Raises:
            StepError: it takes too much time or memory.
        """
        if self._latest is None or self._latest[0] is not output:
            sought = output, self.schema, tuple(self.only)
            request = EvidenceRequest(*sought, self.sources, self.language)
            found = await documents.locate_values(request, readers=self.tools.files.readers)
            self._latest = (output, found)
        return self._latest[1]


# --- sources


def read_sources(
    spec: EvidenceSpec, scope: Scope, base: Path | None = None
) -> tuple[SourceText, ...]:
    """Return the texts that `reply.evidence` names; those of skipped steps are left out.

    Documents in the folder `base` are named by their paths in it.

    Raises:
        StepError: one is no text, none is left, or they are too long.
    """
    found: list[SourceText] = []
    for source in spec.sources:
        try:
            value = source.evaluate(scope)
        except ExpressionError as error:
            raise StepError(f"`evidence`: {error}") from error
        is_skipped = isinstance(value, Mapping) and value.get("skipped") is True
        value = None if is_skipped else value
        if value is not None:
            found += _sources_in(value, source.source)
    if not found:
        raise _no_text(spec.sources, scope)
    n_chars = sum(len(source.text) for source in found)
    if n_chars > _MOST_SOURCE_CHARS:
        names = ", ".join(source.source for source in spec.sources)
        raise StepError(
            f"`evidence`: '{names}' has {n_chars:,} characters, of which at most "
            f"{_MOST_SOURCE_CHARS:,} can be searched.",
            remedy="Name a part of it, such as the chunk that the model reads.",
        )
    named: dict[str, SourceText] = {}
    for text in found:  # of those with the same name, all but the first are numbered
        name, path = text.name, PurePath(text.path)
        if base is not None and text.path and path.is_relative_to(base):
            name = path.relative_to(base).as_posix()
        name = free_name(name, named)
        named[name] = replace(text, name=name)
    return tuple(named.values())


def _no_text(sources: Sequence[Expression], scope: Scope) -> StepError:
    read = (path for source in sources for path in sorted(source.references))
    skipped = [path[1] for path in read if path[0] == "steps" and scope.is_skipped(path[1])]
    if skipped:
        return StepError(
            f"`evidence`: step '{skipped[0]}' was skipped, so there is no text to look in.",
            remedy="Skip this step by the same `if`, or name another text as well.",
        )
    names = ", ".join(source.source for source in sources)
    return StepError(
        f"`evidence`: '{names}' has no text to look in.",
        remedy="Skip this step by `if` where there is none, or name another text as well.",
    )


def _sources_in(value: Any, name: str) -> Iterator[SourceText]:
    if isinstance(value, str):
        yield SourceText(name, value)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            if element is not None:
                yield from _sources_in(element, f"{name}[{index}]")
    elif isinstance(value, Mapping) and isinstance(value.get("hits"), list):
        yield from _sources_in(value["hits"], f"{name}.hits")
    elif isinstance(value, Mapping) and isinstance(value.get("text"), str):
        yield _document(value, name)
    else:
        what = kind_of(value)
        if isinstance(value, Mapping):
            names = [f"`{name}`" for name in value if name != "skipped"]
            has = f"with {listed(names, _SHOWN_FIELDS)}"
            what = f"a mapping {has}" if names else "an empty mapping"
        raise StepError(
            f"`evidence`: '{name}' is {what}, not a text.",
            remedy="Name a text, the outputs of `files.read`, or the hits of `search`.",
        )


def _document(value: Mapping[str, Any], name: str) -> SourceText:
    """Return the source of outputs of `files.read`, a hit of `search`, or a mapping like these."""
    path, media_type = _text_of(value, "path"), _text_of(value, "media_type")
    page, pages, boxes = value.get("page"), value.get("pages"), value.get("cells")
    texts = [_text_of(page, "text") for page in pages or () if isinstance(page, Mapping)]
    is_shown = media_type in _PAGED or media_type.startswith("image/")
    is_paged = is_shown or (len(texts) > 1 and media_type not in _WITHOUT_PAGES)
    has_parts = bool(texts) and join_pages(texts) == value["text"]  # else these are others'
    by_page = boxes.items() if has_parts and isinstance(boxes, Mapping) else ()
    return SourceText(
        name=path or _text_of(value, "source") or name,
        text=value["text"],
        part_starts=tuple(page_offsets(texts)) if has_parts else (0,),
        is_paged=is_paged and has_parts,
        path=path,
        media_type=media_type,
        only_page=page if isinstance(page, int) and page == value.get("page_end", page) else None,
        boxes={page: str(cells) for page, cells in by_page},
        invoices=_invoices_of(value.get("invoices")),
    )


def _invoices_of(value: Any) -> list[EInvoice]:
    """Return e-invoices as `files.read` returns them; none where others gave the name to more."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return []
    added = {"seller_vat": "", "terms": "", "shown": []}  # older outputs lack them
    return known_record(list[EInvoice], [{**added, **each} for each in value]) or []


def _text_of(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""
