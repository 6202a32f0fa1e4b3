"""The texts in which a step's answer is found.

`reply.evidence` names values of an item's scope: texts, outputs of `files.read`, hits of `search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.model import EvidenceSpec
from paddock.steps.base import StepError
from paddock.steps.readers.document_kinds import MEDIA_TYPES
from paddock.steps.readers.reader import LineBox, join_pages, page_offsets

from .scope import Scope

_PAGED = frozenset((MEDIA_TYPES["pdf"], MEDIA_TYPES["pptx"]))
_WITHOUT_PAGES = frozenset(MEDIA_TYPES.values()) - _PAGED
"""Their readers' pages are a mail's parts, a book's chapters or a workbook's sheets."""
_MOST_SOURCE_CHARS = 8_000_000
"""A text of this length takes 15 s and 0.6 GB."""
_SHOWN_FIELDS = 3


@dataclass(frozen=True, slots=True)
class EvidenceSource:
    """One text in which an answer is found."""

    name: str
    """The document's path as the pipeline names it, else the expression. No other has it."""
    text: str
    page_starts: tuple[int, ...] = ()
    """Offsets at which pages begin; empty: it has no pages."""
    path: str = ""
    """The document's, as the pipeline names it; empty: the text is of no document."""
    media_type: str = ""
    only_page: int | None = None
    """The page that the whole text is of."""
    line_boxes: Mapping[int, Sequence[LineBox]] = field(default_factory=dict)
    """By page, of what OCR has read."""


def read_sources(
    spec: EvidenceSpec, scope: Scope, base: Path | None = None
) -> tuple[EvidenceSource, ...]:
    """Return the texts that `reply.evidence` names; those of skipped steps are left out.

    Documents in the folder `base` are named by their paths in it.

    Raises:
        StepError: one is no text, none is left, or they are too long.
    """
    found: list[EvidenceSource] = []
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
    named: list[EvidenceSource] = []
    seen: dict[str, int] = {}
    for text in found:  # of those with the same name, all but the first are numbered
        name, path = text.name, PurePath(text.path)
        if base is not None and text.path and path.is_relative_to(base):
            name = path.relative_to(base).as_posix()
        n = seen[name] = seen.get(name, 0) + 1
        named.append(replace(text, name=name if n == 1 else f"{name}#{n}"))
    return tuple(named)


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


def _sources_in(value: Any, name: str) -> Iterator[EvidenceSource]:
    if isinstance(value, str):
        yield EvidenceSource(name, value)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            if element is not None:
                yield from _sources_in(element, f"{name}[{index}]")
    elif isinstance(value, Mapping) and isinstance(value.get("hits"), list):
        yield from _sources_in(value["hits"], f"{name}.hits")
    elif isinstance(value, Mapping) and isinstance(value.get("text"), str):
        yield _document(value, name)
    else:
        raise StepError(
            f"`evidence`: '{name}' is {_kind_of(value)}, not a text.",
            remedy="Name a text, the outputs of `files.read`, or the hits of `search`.",
        )


def _kind_of(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [f"`{name}`" for name in value if name != "skipped"]
        shown = ", ".join(names[:_SHOWN_FIELDS]) + (", …" if len(names) > _SHOWN_FIELDS else "")
        return f"a mapping with {shown}" if names else "an empty mapping"
    if isinstance(value, bool):
        return "true or false"
    return "null" if value is None else "a number"


def _document(value: Mapping[str, Any], name: str) -> EvidenceSource:
    """Return what `files.read` or `search` has found, or a mapping of the author's like these."""
    path, media_type = _text_of(value, "path"), _text_of(value, "media_type")
    page, pages, boxes = value.get("page"), value.get("pages"), value.get("line_boxes")
    texts = [_text_of(page, "text") for page in pages or () if isinstance(page, Mapping)]
    is_shown = media_type in _PAGED or media_type.startswith("image/")
    is_paged = is_shown or (len(texts) > 1 and media_type not in _WITHOUT_PAGES)
    is_paged = is_paged and join_pages(texts) == value["text"]  # else these are not its pages
    by_page = boxes.items() if isinstance(boxes, Mapping) else ()
    return EvidenceSource(
        name=path or _text_of(value, "source") or name,
        text=value["text"],
        page_starts=tuple(page_offsets(texts)) if is_paged else (),
        path=path,
        media_type=media_type,
        only_page=page if isinstance(page, int) and page == value.get("page_end", page) else None,
        line_boxes={int(page): [tuple(line) for line in lines] for page, lines in by_page},
    )


def _text_of(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""
