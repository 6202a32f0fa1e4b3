"""Reviews as files: a CSV out and in for people without a browser, decisions as JSON lines.

A row of the CSV is one field of an answer. A decision in any row of an answer counts for all of it;
a new value in a row without a decision is an edit. A file is applied whole or not at all, unless
the caller asks for its sound decisions alone. JSON lines are gold data, and what another ledger of
the same pipelines takes over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paddock.engine.system.records import Struct, field
from paddock.engine.system.units import iso_time
from paddock.pipelines.checking.source_index import SourceIndex
from paddock.runner.ledger.reviews.reviews import (
    N_ID_CHARS,
    DecisionRefused,
    Review,
    question_digest,
)
from paddock.runner.rules.reasons import why_text
from paddock.steps.tables.row_formats import CSV, JSONL, UnreadableRows

from .answer_fields import WrongField, edited_answer, shown_fields, shown_item
from .decisions import MARKS, VERBS, GivenDecision, Verb, clicked_places

COLUMNS = (
    "id", "question", "document", "field", "asked", "why", "value", "confidence", "quote", "page",
    "decision", "new value", "reason",
)  # fmt: skip
EMPTY_VALUE = "(empty)"
"""A new value that stands for an empty text; an empty cell changes nothing."""

_NEEDED = ("id", "question", "field", "decision", "new value", "reason")
_OF_STATES: Mapping[object, Verb] = {state: verb for verb, state in VERBS.items()}
_OF_WORDS: Mapping[object, Verb] = {**{verb: verb for verb in VERBS}, **_OF_STATES}


class SheetFault(Struct, frozen=True):
    line: int
    message: str
    id: str = ""
    """Of the review that the line is about."""

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


class UnreadableSheet(Exception):
    """A file that is no table of reviews; a sentence that follows the file's name."""


class SheetDecision(Struct):
    line: int
    """Of its first row with a decision."""
    id: str
    question: str
    verb: Verb
    changes: dict[str, str] = field(default_factory=dict)
    """Field → the text of its new value."""
    reason: str = ""
    value: Any = None
    """The whole edited answer; of a CSV it is known after `check_decisions`."""
    document_sha256: str | None = None
    """Of the document that was decided about; None: the row of a CSV, of an answer of now."""
    by: str = ""
    """Who decided; empty: who imports it."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Field → where the person clicked in the document."""
    field_marks: dict[str, str] = field(default_factory=dict)
    """Field → what the person said of what is left over there, one of `MARKS`."""
    marks: Mapping[str, str] = field(default_factory=dict)
    over: float | None = None

    def given(self, importer: str) -> GivenDecision:
        by = self.by or importer
        own = (self.reason, self.places, self.marks, self.over)
        return GivenDecision(self.question, self.verb, by, self.value, *own)


def reviews_csv(reviews: Iterable[Review]) -> str:
    """Return reviews as CSV, safe against formulas, with empty columns for decisions.

    The question of a decided one names the decision, which an edit replaces.
    """
    rows = []
    for review in reviews:
        subject = review.subject
        over = f"@{review.decided_at!r}" if review.is_decided else ""
        for shown in shown_fields(review):
            how = subject.readings.get(str(*shown.keys[:1]), {})
            place, sure = shown.evidence or {}, shown.confidence or {}
            rows.append(dict.fromkeys(COLUMNS, "") | {
                "id": review.id,
                "question": f"{review.question}{over}",
                "document": shown_item(review),
                "field": shown.path,
                "asked": "false" if subject.is_sure_of(shown.keys[:1]) else "true",
                "why": why_text(how) if "open" in how else None,
                "value": shown.text,
                "confidence": sure.get("p"),
                "quote": place.get("quote"),
                "page": place.get("page"),
            })  # fmt: skip
    return CSV.text_of(rows or [dict.fromkeys(COLUMNS)])[0]


def read_sheet(text: str) -> tuple[list[SheetDecision], list[SheetFault]]:
    """Return the decisions of a CSV, in its order, and the faults of its lines.

    Raises:
        UnreadableSheet: it is no CSV, or lacks a column.
    """
    try:
        table = CSV.parse(text)
    except UnreadableRows as error:
        raise UnreadableSheet(f"{error}. {error.remedy}".strip()) from error
    lacking = [name for name in _NEEDED if name not in table.columns]
    if lacking:
        names = ", ".join(f"'{name}'" for name in lacking)
        raise UnreadableSheet(
            f"has no column {names}. Import a file that `paddock review --export` wrote."
        )
    decisions: dict[str, SheetDecision] = {}
    faults: list[SheetFault] = []
    for line, row in zip(table.lines, table.rows, strict=True):
        cells = {name: str(row[name] or "").strip() for name in _NEEDED}
        try:
            _add_row(decisions, line, cells)
        except WrongField as error:
            faults.append(SheetFault(line, str(error), cells["id"]))
    wrong = {fault.id for fault in faults}
    faults += [
        SheetFault(row.line, "'reject' needs a reason. Write it under `reason`.", row.id)
        for row in decisions.values()
        if row.verb == "reject" and not row.reason and row.id not in wrong
    ]
    return list(decisions.values()), sorted(faults, key=lambda fault: fault.line)


def _add_row(decisions: dict[str, SheetDecision], line: int, cells: Mapping[str, str]) -> None:
    word = cells["decision"].lower()
    new = cells["new value"]
    if not word and not new:
        return
    verb = ("edit" if new else "accept") if word in MARKS else _OF_WORDS.get(word or "edit")
    if verb is None:
        known = "accept, edit, reject, never or always"
        raise WrongField(f"'{cells['decision']}' is no decision. Write {known}.")
    if verb == "edit" and not new:
        raise WrongField(f"'edit' has no new value. Write it, or {EMPTY_VALUE} for an empty one.")
    if verb != "edit" and new:
        raise WrongField(f"has a new value, but says '{word}'. Write edit, or remove the value.")
    question, _, at = cells["question"].partition("@")
    over = float(at) if at.replace(".", "", 1).isdecimal() else None
    new_one = SheetDecision(line, cells["id"], question, verb, over=over)
    decision = decisions.setdefault(cells["id"], new_one)
    if (decision.question, decision.over) != (question, over):
        raise WrongField(f"has another question than line {decision.line}, for the same answer.")
    if {verb, decision.verb} == {"edit", "reject"}:
        raise WrongField(
            f"says '{verb}', but line {decision.line} says '{decision.verb}'. Keep one of them."
        )
    if verb != "accept":
        decision.verb = verb
    if verb == "edit":
        decision.changes[cells["field"]] = "" if new == EMPTY_VALUE else new
    if word in MARKS:
        decision.field_marks[cells["field"]] = word
    decision.reason = decision.reason or cells["reason"]


def read_decided(text: str) -> tuple[list[SheetDecision], list[SheetFault]]:
    """Return the decisions of JSON lines that `gold_jsonl` wrote, and the faults of its lines."""
    decisions: list[SheetDecision] = []
    faults: list[SheetFault] = []
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
            sha256, reason = str(row["document_sha256"] or ""), str(row["reason"] or "")
            question, verb = question_digest(sha256, row["answer"]), _OF_STATES[row["decision"]]
            decision = SheetDecision(line, str(row["id"]), question, verb, {}, reason)
            decision.value, decision.by = row["value"], str(row["by"] or "")
            decision.places = clicked_places(row.get("places"))
            decision.marks = dict(row.get("marks") or {})
        except (ValueError, LookupError, TypeError, RecursionError):
            what = "is no decision. Import a file that `paddock review --export jsonl` wrote."
            faults.append(SheetFault(line, what))
            continue
        decision.document_sha256 = sha256
        decisions.append(decision)
    return decisions, faults


Check = Callable[[SheetDecision], None]
"""Raises DecisionRefused where a decision would be refused; changes nothing."""


def check_decisions(
    decisions: Iterable[SheetDecision], reviews: Mapping[str, Review | None], check: Check
) -> tuple[list[SheetDecision], list[SheetFault]]:
    """Return the decisions that can be taken, with edited answers, and the faults of the others.

    `reviews`: the whole review of each id, None where the ledger has none. A decision that was
    taken before is neither.
    """
    sound: list[SheetDecision] = []
    faults: list[SheetFault] = []
    decisions, numbers = list(decisions), list[str]()
    for given in decisions:
        held = reviews.get(given.id) if given.changes else None
        of = (f.path for f in shown_fields(held) if f.kind == "number") if held else ()
        numbers += (given.changes.get(path, "") for path in of)
    mark = SourceIndex("\n".join(numbers), "und").numbers.decimal_mark
    for decision in decisions:
        review = reviews.get(decision.id)
        if review is None:
            why = "its document was deleted, or the file comes from another folder's ledger."
            if len(decision.id) != N_ID_CHARS:
                why = "a spreadsheet has changed the id. Open the file with that column as text."
            what = f"there is no review '{decision.id}' here: {why}"
            faults.append(SheetFault(decision.line, what, decision.id))
            continue
        try:
            if decision.document_sha256 is not None:
                # Of another ledger: what a person accepted or wrote stands for the document, also
                # where the model answers otherwise now. A rejection is of the answer that was given
                is_same = review.subject.document_sha256 == decision.document_sha256
                if is_same and review.question != decision.question and decision.verb != "reject":
                    decision.question, decision.verb = review.question, "edit"
            else:
                changes, answer = decision.changes, review.shown_answer
                decision.marks = _marks(review, decision.field_marks)
                kept = {p: [*at] for p, at in review.subject.places.items() if p not in changes}
                decision.places = clicked_places(kept)
                if decision.verb == "edit":
                    decision.value = edited_answer(answer, shown_fields(review), changes, mark)
            # As by an earlier import of the file.
            is_so = review.state == VERBS[decision.verb] and review.question == decision.question
            if not is_so or (decision.verb == "edit" and review.value != decision.value):
                check(decision)
                sound.append(decision)
        except (WrongField, DecisionRefused) as error:
            faults.append(SheetFault(decision.line, str(error), decision.id))
    return sound, faults


def _marks(review: Review, field_marks: Mapping[str, str]) -> Mapping[str, str]:
    """Return what the rows of fields say of what is left over there; of one piece `always` wins."""
    names = {f.path: str(*f.keys[:1]) for f in shown_fields(review)}
    marks: dict[str, str] = {**review.subject.marks}
    for path, mark in sorted(field_marks.items(), key=lambda row: MARKS.index(row[1])):
        left = review.subject.readings.get(names.get(path, ""), {}).get("left")
        if not left:
            raise WrongField(f"'{mark}' is said of what is new, and nothing is at '{path}'.")
        marks |= {piece[-1]: mark for piece in left}
    return marks


def gold_jsonl(reviews: Iterable[Review]) -> str:
    """Return decided reviews as JSON lines: the document, the decided value, the model's answer.

    The value of a rejected answer is null. What expired was not decided by a person.
    """
    rows = [_gold_row(review) for review in reviews if review.state in VERBS.values()]
    return JSONL.text_of(rows)[0]


def _gold_row(review: Review) -> dict[str, Any]:
    subject = review.subject
    return {
        "id": review.id,
        "pipeline": subject.pipeline,
        "block": subject.block,
        "step": review.step,
        "item": subject.item,
        "document": subject.document,
        "document_sha256": subject.document_sha256,
        "decision": review.state,
        "value": None if review.state == "rejected" else review.value,
        "places": subject.places,
        "marks": subject.marks,
        "answer": subject.answer,
        "by": review.by,
        "at": iso_time(review.decided_at or 0.0),
        "reason": review.reason,
        "model": subject.model,
        "digest": subject.digest,
        "confidence": subject.confidence,
        "evidence": subject.evidence,
        "is_sampled": subject.is_sampled,
        "share": subject.share,
    }


def review_json(review: Review) -> dict[str, Any]:
    names = ("pipeline", "block", "item", "document", "document_sha256", "model", "when", "due",
             "least", "by", "share", "is_sampled")  # fmt: skip
    is_leased = (review.lease_until or 0) > time.time()
    return {
        "id": review.id,
        "question": review.question,
        "step": review.step,
        **{name: getattr(review.subject, name) for name in names},
        "open": {
            field: how["open"]
            for field, how in review.subject.readings.items()
            if "open" in how and not review.subject.is_sure_of([field])
        },
        "run": review.run,
        "asked": iso_time(review.asked_at),
        "expires": None if review.expires_at is None else iso_time(review.expires_at),
        "held_by": review.lease_by if is_leased else None,
        "earlier": len(review.earlier),
    }
