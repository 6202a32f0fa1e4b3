"""Decisions of people, as `paddock why` and a run's report show them."""

from pathlib import Path
from typing import Any

import pytest

from paddock.runner.calibration.confidence_calibration import key_of
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Question, Review, Subject
from paddock.runner.review.answer_records import reliabilities
from paddock.runner.review.decisions import LedgerReviews, Verb
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import ReviewedWorld, World, each_document

SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReviewedWorld:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        "paddock.runner.core.calls.model_pools.LookupPool", lambda settings: FakePool()
    )
    world = ReviewedWorld(tmp_path / "letters", n_documents=2)
    world.run()
    monkeypatch.chdir(world.folder)
    return world


def ask(
    world: ReviewedWorld,
    answer: Any,
    run: str = "swift-otter",
    document: str = "d1",
    **subject: Any,
) -> Review:
    """Ask about the answer of step `sum` for the first document."""
    evidence = {"total": {"quote": "62,00", "source": "0.txt", "page": 2, "match": "normalised"}}
    defaults = {
        "pipeline": "pipeline.yaml", "block": "each", "item": "0.txt", "document": "inbox/0.txt",
        "document_sha256": document, "answer": answer, "schema": SCHEMA, "checks": [], "by": [],
        "evidence": evidence, "model": "m", "digest": "m1",
        "confidence": {"total": {"p": 0.62, "raw": 0.62, "second": 84.0, "second_p": 0.3,
                                 "is_calibrated": False}},
    }  # fmt: skip
    with Ledger(world.folder / ".paddock") as ledger:
        query = "select scope from scopes where step = 'each'"
        ((scope,),) = ledger.rows(query)
        question = Question(scope, "0.txt", "sum", run, Subject.of({**defaults, **subject}))
        return ReviewStore(ledger).ask(question)


def decide(
    world: ReviewedWorld, review: Review, *decision: Any, by: str = "ann", reason: str = ""
) -> None:
    with world.reviews() as reviews:
        reviews.decide(review.id, review.question, *decision, by=by, reason=reason)


def decide_many(world: World, n: int) -> None:
    """Decide on `n` further answers with one field each; every fourth value was wrong."""
    with Ledger(world.folder / ".paddock") as ledger:
        for number in range(n):
            sure = {"p": 0.9, "raw": 0.95 if number % 2 else 0.35, "is_calibrated": False}
            subject = {"document_sha256": "d", "answer": {"total": number}, "schema": SCHEMA,
                    "confidence": {"total": sure}, "model": "m", "digest": "m1",
                    "pipeline": "pipeline.yaml"}  # fmt: skip
            review = ReviewStore(ledger).ask(
                Question("x", f"{number}", "sum", "r", Subject.of(subject))
            )
            verb: Verb = "edit" if number % 4 == 0 else "accept"
            value = {"total": -1} if verb == "edit" else None
            LedgerReviews(ledger).decide(review.id, review.question, verb, value, by="ann")


def report_page(world: World) -> str:
    assert invoke("logs", "--report", "run.html").exit_code == 0
    return (world.folder / "run.html").read_text("utf-8")


def review_part(text: str, label: str = "review") -> list[str]:
    """Return the lines from the first review to the line after them, without the date."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(f"  {label}  "))
    last = next(n for n, line in enumerate(lines) if line.startswith("  now"))
    return [line.rstrip() for line in lines[first:last]]


def test_why_shows_who_changed_what_and_where_the_answer_stood(world: ReviewedWorld) -> None:
    decide(world, ask(world, {"total": 62.0}), "edit", {"total": 84.0})
    head, *rest = review_part(invoke("why", "out/0.txt").stdout)
    assert head.startswith("  review      'sum' edited by ann, 20")
    assert rest == [
        "                changed   total: 62.0 → 84.0",
        "                field     total: 62.0  (62%, uncalibrated; else 84.0 30%); 0.txt, page 2: "
        '"62,00"',
        "              confidence of 'sum' (m), total: not calibrated: 1 of 50 values reviewed",
    ]


def test_why_shows_how_often_a_field_was_right_once_50_were_reviewed(world: ReviewedWorld) -> None:
    decide_many(world, 48)
    decide(world, ask(world, {"total": 62.0}), "accept")
    assert review_part(invoke("why", "out/0.txt").stdout)[-1] == (
        "              confidence of 'sum' (m), total: not calibrated: 49 of 50 values reviewed"
    )
    decide_many(world, 49)
    shown = "total: calibrated: 37 of 50 reviewed values right (60% to 84%)"
    assert review_part(invoke("why", "out/0.txt").stdout)[-1].endswith(shown)
    assert shown in report_page(world)


def test_a_rejection_without_a_field_is_told_at_each_field(tmp_path: Path) -> None:
    with Ledger(tmp_path / ".paddock") as ledger:
        for number in range(51):
            answer = {"total": number, "n": number}
            raw = {"p": 0.9, "raw": 0.9 if number % 2 else 0.4, "is_calibrated": False}
            about = {"document_sha256": "d", "answer": answer, "pipeline": "pipeline.yaml",
                     "confidence": dict.fromkeys(answer, raw), "digest": "m1"}  # fmt: skip
            review = ReviewStore(ledger).ask(
                Question("x", f"{number}", "sum", "r", Subject.of(about))
            )
            verb: Verb = "accept" if number else "reject"
            reason = "" if number else "no bill"
            LedgerReviews(ledger).decide(review.id, review.question, verb, reason=reason, by="ann")
        reviews = LedgerReviews(ledger).decided(is_whole=True)
        found = [*reliabilities(reviews, {key_of(review) for review in reviews})]
    assert [(each.field, each.n_rejected) for each in found] == [("total", 1), ("n", 1)]


def test_texts_of_a_hostile_answer_are_escaped_in_the_report(world: ReviewedWorld) -> None:
    ask(world, {"<b>x": "<script>alert(1)</script>"}, schema={"type": "object"})
    page = report_page(world)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


SURE = """\
name: letters
""" + each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {topic: str, place: str}, evidence: steps.text}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.bill.text }}"}}
""")


def test_why_and_the_report_show_where_values_stand_without_any_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        "paddock.runner.core.calls.model_pools.LookupPool", lambda settings: FakePool()
    )
    world = World(tmp_path / "letters", SURE, n_documents=1)
    world.run(pool=FakePool(answer=lambda request: '{"topic": "the ferry", "place": "Oban"}'))
    monkeypatch.chdir(world.folder)
    assert review_part(invoke("why", "out/0.txt").stdout, "answer") == [
        "  answer      'bill' not reviewed",
        '                field     topic: the ferry; inbox/0.txt, line 1: "the ferry"',
        "                field     place: Oban; not found in the document",
    ]
    page = report_page(world)
    assert "<h2>Answers (1)</h2>" in page
    assert "inbox/0.txt, line 1: &#34;the ferry&#34;" in page
