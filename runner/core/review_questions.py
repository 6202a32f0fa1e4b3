"""What a person is asked about an answer: the document, the answer, and where its values are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from paddock.pipelines.expressions import Expression, Reference
from paddock.pipelines.model import EvidenceSpec
from paddock.runner.bind.evidence import EvidenceSource
from paddock.runner.ledger.ledger import INLINE_CHARS, Ledger

MOST_REASON_CHARS = 120


def values_read(references: Sequence[Reference], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a scope that some expressions read, in its own shape.

    >>> values_read([("inputs", "most")], {"inputs": {"most": 3, "least": 1}, "steps": {}})
    {'inputs': {'most': 3}}
    """
    found: dict[str, Any] = {}
    for path in sorted(references, key=len):
        value: Any = scope
        at = found
        for number, name in enumerate(path):
            if not isinstance(value, Mapping) or name not in value:
                break
            value = value[name]
            is_last = number + 1 == len(path) or not isinstance(value, Mapping)
            if is_last:
                at[name] = value
                break
            at = at.setdefault(name, {})
            if at is value:  # a shorter path has taken all of it
                break
    return found


def source_texts(
    sources: Iterable[EvidenceSource], ledger: Ledger, stored: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return the texts that an answer was made of, long ones as objects of the ledger.

    `stored` returns a path as the ledger writes it.
    """
    found = []
    for source in sources:
        path = stored(source.path) if source.path else None
        fields = {"name": source.name, "path": path, "media_type": source.media_type or None}
        if len(source.text) > INLINE_CHARS:
            text = {"text_object": ledger.objects.put(source.text.encode())}
        else:
            text = {"text": source.text}
        found.append({**fields, **text, "page_starts": list(source.page_starts)})
    return found


def text_objects(subject: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the objects of the ledger with the texts of a question."""
    texts = [*subject.get("sources", ()), subject.get("prompt_text") or {}]
    return tuple(text["text_object"] for text in texts if "text_object" in text)


def document_spec(scope: Mapping[str, Any]) -> EvidenceSpec:
    """Return the outputs of `files.read` in a scope as sources of evidence.

    >>> scope = {"steps": {"text": {"text": "a", "pages": []}, "(prompt)": {"text": "b"}}}
    >>> [source.source for source in document_spec(scope).sources]
    ['steps.text']
    """
    read = (
        name
        for name, outputs in scope.get("steps", {}).items()
        if name.isidentifier() and isinstance(outputs.get("text"), str) and "pages" in outputs
    )
    return EvidenceSpec(tuple(Expression.of(f"steps.{name}") for name in read))


def answer_of(outputs: Mapping[str, Any]) -> Any:
    """Return what a person decides on: the value by the schema, else the text."""
    value = outputs.get("output")
    return outputs.get("text") if value is None else value


def iso_time(at: float | None) -> str | None:
    """Return a time as expressions see it.

    >>> iso_time(0.0)
    '1970-01-01T00:00:00Z'
    """
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
