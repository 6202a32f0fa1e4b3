"""Words for a review: item and fields with confidence, quote and place, earlier decisions. Pure.

The terminal, `paddock why` and reports use the same words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.text import counted, one_line
from paddock.runner.ledger.reviews import Review

from .fields import AnswerField, subject_fields, value_text

CONTEXT_CHARS = 40
"""Of a source, shown on each side of a quote."""
MAX_VALUE_CHARS = 60

ReadSource = Callable[[Mapping[str, Any]], str | None]
"""Returns the text of one of a review's sources; None if it is gone."""


def shown_item(review: Review) -> str:
    """Return what a person knows an item by: its document, else its key."""
    return str(review.subject.get("document") or review.subject.get("item") or review.key)


@dataclass(frozen=True, slots=True)
class SourceExcerpt:
    """A quote in its source."""

    before: str
    quote: str
    after: str

    def __str__(self) -> str:
        return f"{self.before}[{self.quote}]{self.after}"


def review_text(review: Review, source_text: ReadSource, now: float) -> str:
    """Return a whole review as a person reads it: item, why it was asked, fields with quotes."""
    subject = review.subject
    lines = [f"{shown_item(review)}: step '{review.step}' of {subject.get('pipeline')}"]
    asked = f"asked {units.ago(now - review.asked_at)} by run '{review.run}'"
    if review.expires_at is not None:
        left = review.expires_at - now
        asked += f", {units.duration(left)} left" if left > 0 else ", its time is over"
    due = f"; due: {subject['when']}" if subject.get("when") else ""
    lines.append(f"  {asked}{due}")
    lines += [f"  {text}" for text in earlier_lines(review)]
    fields = subject_fields(review.subject)
    width = max((len(one.path) for one in fields), default=0)
    texts = _SourceTexts(subject.get("sources") or (), source_text)
    for one in fields:
        lines += _field_lines(one, width, texts)
    if any((one.confidence or {}).get("is_calibrated") is False for one in fields):
        lines.append("  The percentages are not calibrated: they order fields, no more.")
    return "\n".join(lines)


def earlier_lines(review: Review) -> Iterator[str]:
    """Yield the earlier decisions about an answer, newest first, a line each."""
    for one in review.earlier:
        is_other = one.get("document_sha256") != review.subject.get("document_sha256")
        since = "; the document has changed since" if is_other else ""
        reason = f": {one['reason']}" if one.get("reason") else ""
        who = f" by {one['by']}" if one.get("by") else ""
        yield f"earlier: {one.get('state')}{who}, {date_text(one.get('at'))}{reason}{since}"


def date_text(at: float | None) -> str:
    """Return a time of the ledger by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else "?"


def _field_lines(one: AnswerField, width: int, texts: _SourceTexts) -> Iterator[str]:
    value = "null" if one.value is None else one_line(one.text, MAX_VALUE_CHARS)
    yield f"  {one.path:<{width}}  {value}{sure_text(one.confidence)}".rstrip()
    if one.evidence is not None:
        yield f"  {'':<{width}}    {place_text(one.evidence, texts)}"


def sure_text(confidence: Mapping[str, Any] | None) -> str:
    """Return how sure a value is, and its runner-up, in brackets; empty if it is not known."""
    if confidence is None or confidence.get("p") is None:
        return ""
    words = f"  ({confidence['p']:.0%}"
    if confidence.get("second") is not None:
        second_p = confidence.get("second_p")
        other = one_line(value_text(confidence["second"]), MAX_VALUE_CHARS) or '""'
        words += f"; else {other}" + (f" {second_p:.0%}" if second_p is not None else "")
    return f"{words})"


def place_text(evidence: Mapping[str, Any], texts: _SourceTexts | None = None) -> str:
    """Return where a value stands, with the text around it."""
    if evidence.get("match") == "none" or evidence.get("quote") is None:
        return "not found in the document"
    where = str(evidence.get("source") or "")
    if evidence.get("page") is not None:
        where += f", page {evidence['page']}"
    elif evidence.get("line") is not None:
        where += f", line {evidence['line']}"
    how = evidence.get("match")
    if how == "fuzzy":
        where += f", similar ({evidence.get('ratio') or 0:.0%})"
    quote = f'"{one_line(str(evidence["quote"]))}"' if texts is None else texts.excerpt(evidence)
    n_others = evidence.get("others") or 0
    others = f" and {counted(n_others, 'more place')}" if n_others else ""
    return f"{where.lstrip(', ')}: {quote}{others}".lstrip(": ")


class _SourceTexts:
    """The texts of a review's sources, each read once."""

    def __init__(
        self,
        sources: Sequence[Mapping[str, Any]],
        read: ReadSource,
    ) -> None:
        self._sources = {str(one.get("name")): one for one in sources}
        self._read = read
        self._texts: dict[str, str | None] = {}

    def excerpt(self, evidence: Mapping[str, Any]) -> SourceExcerpt | str:
        """Return a quote with the text around it; the quote alone where the text is gone."""
        quote, start, end = (evidence.get(name) for name in ("quote", "start", "end"))
        name = str(evidence.get("source"))
        if name not in self._texts:
            source = self._sources.get(name)
            self._texts[name] = None if source is None else self._read(source)
        text = self._texts[name]
        if text is None or not isinstance(start, int) or not isinstance(end, int):
            return f"[{one_line(str(quote))}]"
        before = one_line(text[max(0, start - CONTEXT_CHARS) : start].lstrip())
        after = one_line(text[end : end + CONTEXT_CHARS].rstrip())
        space = " " if text[start - 1 : start].isspace() else ""
        tail = " " if text[end : end + 1].isspace() else ""
        return SourceExcerpt(f"{before}{space}", one_line(text[start:end]), f"{tail}{after}")
