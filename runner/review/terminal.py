"""Review in a terminal: one answer after another, with confidence and quotes, by single letters.

Reads lines, so that it works over a slow connection, with a screen reader, and from a pipe. Every
decision is durable before the next item is shown.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.system.text import one_line
from paddock.runner.ledger.reviews import DecisionRefused, Review

from .decisions import ReviewDesk
from .fields import (
    MAX_VALUE_CHARS,
    ReadSource,
    WrongField,
    answer_from_json,
    edited_answer,
    review_text,
    subject_fields,
)

KEYS_TEXT = """\
a           accept the answer as it is
e           edit: in $EDITOR, or field by field without one
e FIELD=VALUE   edit one field, such as: e total=84.00
x REASON    reject the answer; the item is quarantined. A reason such as `total: misread` says
            which field was wrong; without one, no field counts for calibration
j, k        the next one, the one before
u           undo the last decision of this session
q           quit; what is not decided keeps waiting
?           these keys"""

ReadLine = Callable[[str], str]
"""Shows a prompt and returns a line. Raises EOFError at the end of the input."""
EditText = Callable[[str, str], str]
"""Returns a text as a person edited it; the second text is the suffix of its file.
Raises WrongField where the editor fails."""


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
    source_text: ReadSource = lambda source: None
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
        except WrongField as error:
            self.write(f"  {error}")
            return None
        except DecisionRefused as error:
            self.write(f"  {error}")
            return self._is_outdated(review)

    def _is_outdated(self, seen: Review) -> bool | None:
        """Return True if another item, or this one with another question, is to be shown."""
        try:
            now = self.desk.get(seen.id)
        except DecisionRefused:  # its document was deleted meanwhile
            self._queue.remove(seen.id)
            return True
        if now.is_decided:
            self._queue.remove(seen.id)
            return True
        return True if now.question != seen.question else None

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
