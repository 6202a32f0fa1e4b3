"""Review in a terminal: one answer after another, with confidence and quotes, by single letters.

Reads lines, so that it works over a slow connection, with a screen reader, and from a pipe. Every
decision is durable before the next item is shown.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.text import counted, one_line
from paddock.runner.ledger.reviews import DecisionRefused, Review

from .decisions import ReviewDesk
from .exchange import shown_item
from .fields import (
    AnswerField,
    WrongField,
    answer_from_json,
    edited_answer,
    subject_fields,
    value_text,
)

CONTEXT_CHARS = 40
"""Of a source, shown on each side of a quote."""
MAX_VALUE_CHARS = 60
KEYS_TEXT = """\
a           accept the answer as it is
e           edit: in $EDITOR, or field by field without one
e FIELD=VALUE   edit one field, such as: e total=84.00
x REASON    reject the answer; the item is quarantined
j, k        the next one, the one before
u           undo the last decision of this session
q           quit; what is not decided keeps waiting
?           these keys"""

ReadLine = Callable[[str], str]
"""Shows a prompt and returns a line. Raises EOFError at the end of the input."""
EditText = Callable[[str, str], str]
"""Returns a text as a person edited it; the second text is the suffix of its file.
Raises WrongField where the editor fails."""


@dataclass(frozen=True, slots=True)
class SourceExcerpt:
    """A quote in its source."""

    before: str
    quote: str
    after: str

    def __str__(self) -> str:
        return f"{self.before}[{self.quote}]{self.after}"


def review_text(
    review: Review, source_text: Callable[[Mapping[str, Any]], str | None], now: float
) -> str:
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
    yield f"  {one.path:<{width}}  {value}{_sure_text(one.confidence)}".rstrip()
    if one.evidence is not None:
        yield f"  {'':<{width}}    {_place_text(one.evidence, texts)}"


def _sure_text(confidence: Mapping[str, Any] | None) -> str:
    if confidence is None or confidence.get("p") is None:
        return ""
    words = f"  ({confidence['p']:.0%}"
    if confidence.get("second") is not None:
        second_p = confidence.get("second_p")
        other = one_line(value_text(confidence["second"]), MAX_VALUE_CHARS)
        words += f"; else {other}" + (f" {second_p:.0%}" if second_p is not None else "")
    return f"{words})"


def _place_text(evidence: Mapping[str, Any], texts: _SourceTexts) -> str:
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
    n_others = evidence.get("others") or 0
    others = f" and {counted(n_others, 'more place')}" if n_others else ""
    return f"{where.lstrip(', ')}: {texts.excerpt(evidence)}{others}".lstrip(": ")


class _SourceTexts:
    """The texts of a review's sources, each read once."""

    def __init__(
        self,
        sources: Sequence[Mapping[str, Any]],
        read: Callable[[Mapping[str, Any]], str | None],
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


@dataclass(slots=True)
class SessionTotals:
    """What a session decided."""

    accepted: int = 0
    edited: int = 0
    rejected: int = 0

    @property
    def n_all(self) -> int:
        return self.accepted + self.edited + self.rejected

    def text(self, n_left: int) -> str:
        """Return the last line of a session."""
        names = ("accepted", "edited", "rejected")
        parts = [f"{getattr(self, name):,} {name}" for name in names if getattr(self, name)]
        done = ", ".join(parts) or "Nothing decided"
        verb = "waits" if n_left == 1 else "wait"
        return f"{done}; {n_left:,} {verb} for review."


@dataclass(slots=True)
class TerminalReview:
    """A session: the queue, the place in it, and the decisions that can be undone."""

    desk: ReviewDesk
    by: str
    read: ReadLine
    write: Callable[[str], None]
    source_text: Callable[[Mapping[str, Any]], str | None] = lambda source: None
    edit: EditText | None = None
    """None: edit field by field."""
    totals: SessionTotals = field(default_factory=SessionTotals)
    _queue: list[str] = field(default_factory=list)
    _at: int = 0
    _done: list[str] = field(default_factory=list)
    _n_passed: int = 0

    def run(self, ids: Sequence[str]) -> SessionTotals:
        """Show one item after another until all are decided, or the person quits."""
        self._queue = list(ids)
        self.write("a accept, e edit, x reject, j next, k back, u undo, q quit, ? help")
        with contextlib.suppress(EOFError):
            while self._queue:
                self._at %= len(self._queue)
                if not self._one(self._queue[self._at]):
                    break
        return self.totals

    @property
    def n_left(self) -> int:
        """How many of the session's items are not decided."""
        return len(self._queue) + self._n_passed

    def _one(self, id_: str) -> bool:
        """Show an item and carry out commands until another is to be shown; False: quit."""
        try:
            review = self.desk.take_lease(id_, self.by)
        except DecisionRefused as error:
            self.write(f"\n{error}")
            self._queue.remove(id_)  # another person has it, or it is gone
            self._n_passed += 1
            return True
        self.write(f"\n[{self._at + 1:,} of {len(self._queue):,}] {self._shown(review)}")
        try:
            while (goes_on := self._command(review)) is None:
                pass
            return goes_on
        finally:
            with contextlib.suppress(DecisionRefused):
                self.desk.release(id_, self.by)

    def _shown(self, review: Review) -> str:
        return review_text(review, self.source_text, time.time())

    def _command(self, review: Review) -> bool | None:
        """Carry out one command; None: the same item stays, False: quit."""
        word, _, rest = self.read("> ").strip().partition(" ")
        rest = rest.strip()
        if word == "q":
            return False
        if word in ("j", "k"):
            self._at += 1 if word == "j" else -1
            return True
        if word == "u":
            return self._undo()
        try:
            return self._decide(review, word, rest)
        except (DecisionRefused, WrongField) as error:
            self.write(f"  {error}")
        return None

    def _decide(self, review: Review, word: str, rest: str) -> bool | None:
        if word == "a":
            self.desk.decide(review.id, review.question, "accept", by=self.by)
            self.totals.accepted += 1
        elif word == "x":
            reason = rest or self.read("  reason: ").strip()
            self.desk.decide(review.id, review.question, "reject", reason=reason, by=self.by)
            self.totals.rejected += 1
        elif word == "e":
            answer = review.subject.get("answer")
            value = self._edited(review, rest)
            if value == answer:
                self.write("  Nothing was changed; `a` accepts it.")
                return None
            self.desk.decide(review.id, review.question, "edit", value, by=self.by)
            self.totals.edited += 1
        else:
            self.write(KEYS_TEXT if word == "?" else f"  There is no key '{word}'; ? lists them.")
            return None
        self._done.append(review.id)
        self._queue.remove(review.id)
        return True

    def _undo(self) -> bool | None:
        if not self._done:
            self.write("  Nothing was decided in this session.")
            return None
        id_ = self._done[-1]
        try:
            before = self.desk.get(id_)
            self.desk.undo(id_, self.by)
        except DecisionRefused as error:
            self.write(f"  {error}")
            return None
        self._done.pop()
        setattr(self.totals, before.state, max(0, getattr(self.totals, before.state, 0) - 1))
        self._queue.insert(self._at, id_)
        return True

    # --- editing

    def _edited(self, review: Review, rest: str) -> Any:
        """Return the answer as the person wants it.

        Raises:
            WrongField: a field that does not exist, or a text that is no JSON.
        """
        answer, fields = review.subject.get("answer"), subject_fields(review.subject)
        if rest:
            name, equals, text = rest.partition("=")
            if len(fields) == 1 and not fields[0].path:
                return edited_answer(answer, fields, {"": rest})
            if not equals:
                raise WrongField("Write `e FIELD=VALUE`, or `e` alone for the whole answer.")
            return edited_answer(answer, fields, {name.strip(): text.strip()})
        if self.edit is not None:
            return self._edited_whole(review, self.edit)
        changes = {}
        for one in fields:
            text = self.read(f"  {one.path or 'answer'} [{one_line(one.text, MAX_VALUE_CHARS)}]: ")
            if text.strip():
                changes[one.path] = text.strip()
        return edited_answer(answer, fields, changes)

    def _edited_whole(self, review: Review, edit: EditText) -> Any:
        answer = review.subject.get("answer")
        if isinstance(answer, str) and review.subject.get("schema") is None:
            return edit(answer, ".txt").rstrip("\n")
        return answer_from_json(edit(json.dumps(answer, ensure_ascii=False, indent=2), ".json"))
