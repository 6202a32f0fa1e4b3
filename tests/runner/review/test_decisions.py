"""Reviews of a ledger: a question is asked once and decided once, in a file and in PostgreSQL."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddock.engine import trial_process
from paddock.engine.system.records import replace
from paddock.pipelines.reply_check import AnswerFault
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import DecisionRefused, Question, Review, Subject
from paddock.runner.review.answer_checks import AnswerCheck
from paddock.runner.review.decisions import GivenDecision, LedgerReviews

SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "string"}, "total": {"type": "number"}},
    "required": ["number", "total"],
    "additionalProperties": False,
}
ANSWER = {"number": "R-1", "total": 84.5}


@pytest.fixture(params=["file", "PostgreSQL"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = "" if request.param == "file" else request.getfixturevalue("url")
    with Ledger(tmp_path / ".paddock", url=url) as opened:
        yield opened


def question(
    key: str = "a.pdf",
    answer: Any = ANSWER,
    document: str = "d1",
    ttl_s: float | None = None,
    **subject: Any,
) -> Question:
    defaults = {
        "pipeline": "bills.yaml", "block": "each", "item": key, "document": f"inbox/{key}",
        "document_sha256": document, "answer": answer, "schema": SCHEMA, "checks": [],
        "scope": {}, "by": [], "on_expiry": "quarantine",
    }  # fmt: skip
    return Question("s", key, "bill", "swift-otter", Subject.of({**defaults, **subject}), ttl_s)


def ask(ledger: Ledger, *args: Any, **named: Any) -> Review:
    return ReviewStore(ledger).ask(question(*args, **named))


def refusal(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(DecisionRefused) as caught:
        call(*args, **named)
    return str(caught.value)


def test_a_question_waits_until_it_is_decided_and_is_asked_once(ledger: Ledger) -> None:
    reviews = LedgerReviews(ledger)
    first = ask(ledger)
    assert ask(ledger) == first
    (waiting,) = reviews.waiting()
    assert (waiting.id, waiting.state, waiting.subject.item) == (first.id, "open", "a.pdf")
    assert waiting.subject.answer is None
    assert reviews.waiting(is_whole=True)[0].subject.answer == ANSWER
    done = reviews.decide(first.id, first.question, "accept", by="ann")
    assert (done.state, done.value, done.by) == ("accepted", ANSWER, "ann")
    assert reviews.waiting() == []
    assert [review.id for review in reviews.decided()] == [first.id]
    assert ask(ledger).state == "accepted"


def test_an_edit_becomes_the_value_and_a_rejection_needs_its_reason(ledger: Ledger) -> None:
    reviews = LedgerReviews(ledger)
    review, two = ask(ledger, "a.pdf"), ask(ledger, "b.pdf")
    edited = {"number": "R-1", "total": 48.5}
    assert reviews.decide(review.id, review.question, "edit", edited, by="ann").value == edited
    assert reviews.get(review.id).value == edited
    text = refusal(reviews.decide, two.id, two.question, "reject", by="ann")
    assert text == "A rejection needs a reason, which the run shows and keeps."
    done = reviews.decide(two.id, two.question, "reject", reason="not a bill", by="bob")
    assert (done.state, done.reason, done.value) == ("rejected", "not a bill", None)


def test_an_edit_that_breaks_schema_or_checks_is_refused_with_its_field(ledger: Ledger) -> None:
    reviews = LedgerReviews(ledger)
    checks = ["output.total < scope_limit", "contains(output.number, 'R-')"]
    review = ask(ledger, checks=checks, scope={"scope_limit": 100})

    def edit(total: Any, number: str = "R-1") -> str:
        value = {"number": number, "total": total}
        return refusal(reviews.decide, review.id, review.question, "edit", value, by="ann")

    assert edit("x") == ("The edited value is not valid. At /total: 'x' is not of type 'number'.")
    assert edit(200) == (
        "The edited value is not valid. "
        "This must be true: output.total < scope_limit (scope_limit is 100)."
    )
    assert "`number`: " in edit(20, "17")
    assert reviews.get(review.id).state == "open"


def test_a_schema_that_says_the_same_in_many_ways_is_refused_by_a_process_of_its_own(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_process, "BRIEF_S", math.inf)
    monkeypatch.setattr(trial_process, "TRIAL_WALL_S", 600)
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = {**SCHEMA, "additionalProperties": {"$ref": "#/$defs/d0"}}
    schema["$defs"] = {**twice, "d30": {"type": "integer"}}
    reviews, review = LedgerReviews(ledger), ask(ledger, schema=schema)
    text = refusal(
        reviews.decide, review.id, review.question, "edit", {**ANSWER, "n": "x"}, by="ann"
    )
    # The process's own limit ends it, or that of the comparison.
    assert text.startswith("The edited value is not valid. ") and "too complex" in text
    assert text.endswith("Use fewer patterns and `$ref`s.")
    (fault,) = reviews.check_of(review, {**ANSWER, "number": 7}).faults()
    assert (fault.path, fault.message) == ("number", "7 is not of type 'string'.")
    assert reviews.check_of(review, ANSWER).faults() == []


def test_a_decision_on_another_question_is_refused_and_the_new_one_waits(ledger: Ledger) -> None:
    reviews = LedgerReviews(ledger)
    review = ask(ledger)
    two = ask(ledger, document="d2")
    assert (two.id, two.state) == (review.id, "open") and two.question != review.question
    assert refusal(reviews.decide, review.id, review.question, "accept", by="ann") == (
        "'a.pdf' (step 'bill') was changed meanwhile: its document or its answer is another one. "
        "Look at it again; nothing was decided."
    )
    assert reviews.get(review.id).state == "open"


def test_only_the_named_reviewers_decide(ledger: Ledger) -> None:
    reviews, review = LedgerReviews(ledger), ask(ledger, by=["ann", "bob"])
    text = "'eve' may not decide on 'a.pdf' (step 'bill'). Its reviewers are: ann, bob."
    assert refusal(reviews.decide, review.id, review.question, "accept", by="eve") == text
    assert refusal(reviews.take_lease, review.id, "eve") == text
    assert reviews.decide(review.id, review.question, "accept", by="bob").by == "bob"


def test_a_leased_item_is_left_to_its_holder(ledger: Ledger) -> None:
    reviews, review = LedgerReviews(ledger), ask(ledger)
    reviews.take_lease(review.id, "ann")
    assert refusal(reviews.take_lease, review.id, "bob").startswith(
        "ann looks at 'a.pdf' (step 'bill')"
    )
    assert refusal(reviews.decide, review.id, review.question, "accept", by="bob").startswith(
        "ann looks at"
    )
    assert reviews.release(review.id, "bob").lease_by == "ann"
    assert reviews.release(review.id, "ann").lease_by is None
    reviews.take_lease(review.id, "ann", seconds=-1)  # over already
    done = reviews.decide(review.id, review.question, "accept", by="bob")
    assert (done.by, done.lease_by) == ("bob", None)


def test_an_item_is_decided_once_and_the_same_decision_again_changes_nothing(
    ledger: Ledger,
) -> None:
    reviews, review = LedgerReviews(ledger), ask(ledger)
    first = reviews.decide(review.id, review.question, "accept", by="ann")
    assert reviews.decide(review.id, review.question, "accept", by="ann") == first
    text = refusal(reviews.decide, review.id, review.question, "reject", reason="no", by="bob")
    assert text.startswith("'a.pdf' (step 'bill') was accepted by ann at ")
    assert text.endswith("Undo that to decide again.")


def test_of_two_people_who_decide_at_once_one_is_refused(ledger: Ledger) -> None:
    reviews = LedgerReviews(ledger)
    for number in range(20):
        review = ask(ledger, f"{number}.pdf")

        def decide(by: str, review: Review = review) -> bool:
            try:
                reviews.decide(review.id, review.question, "accept", by=by)
            except DecisionRefused:
                return False
            return True

        with ThreadPoolExecutor(4) as people:
            won = list(people.map(decide, ("ann", "bob", "eve", "joe")))
        assert sum(won) == 1
        assert reviews.get(review.id).by == ("ann", "bob", "eve", "joe")[won.index(True)]


def test_undo_leaves_everything_as_it_was_before_the_decision(ledger: Ledger) -> None:
    reviews, review = LedgerReviews(ledger), ask(ledger)
    text = "'a.pdf' (step 'bill') is not decided, so nothing can be undone."
    assert refusal(reviews.undo, review.id, "ann") == text
    before = reviews.get(review.id)
    reviews.decide(review.id, review.question, "reject", reason="blurred", by="ann")
    undone = reviews.undo(review.id, "ann")
    assert undone == reviews.get(review.id) == replace(before, decided_at=undone.decided_at)
    assert reviews.decide(review.id, review.question, "accept", by="bob").state == "accepted"


LEFT = {"readings": {"total": {"open": "left_over", "left": [["Storno", 0, 6, "k"]]}}}


def test_what_was_decided_before_an_undo_is_proposed_and_what_was_said_is_gone(
    ledger: Ledger,
) -> None:
    reviews, review = LedgerReviews(ledger), ask(ledger, outputs=LEFT)
    said = {"k": "never", "other": "never"}
    true = ANSWER | {"total": 81.0}
    given = GivenDecision(review.question, "edit", "ann", true, marks=said)
    assert reviews.enter(review.id, given).subject.marks == {"k": "never"}
    assert reviews.undo(review.id, "ann").subject.marks == {}
    ask(ledger, outputs={**LEFT, "text": "of the next run"})
    ask(ledger, answer=ANSWER | {"total": 1.0}, outputs=LEFT)  # the model has another guess
    (waiting,) = reviews.waiting(is_whole=True)
    assert waiting.shown_answer == true
    together = reviews.accept_together([(review.id, waiting.question)], "bob")
    assert "is an undone decision, which a person has to look at" in together.left[review.id]
    done = reviews.decide(review.id, waiting.question, "accept", by="bob")
    assert (done.state, done.value, done.earlier) == ("edited", true, ())
    reviews.undo(review.id, "bob")
    assert ask(ledger, document="d2").shown_answer == ANSWER  # of another document it is nothing


def test_an_edit_of_what_is_decided_is_a_decision_over_that_one_alone(ledger: Ledger) -> None:
    reviews, review = LedgerReviews(ledger), ask(ledger, ttl_s=3600.0)
    first = reviews.decide(review.id, review.question, "accept", by="ann")
    true = ANSWER | {"total": 81.0}
    over = GivenDecision(review.question, "edit", "bob", true, over=first.decided_at)
    done = reviews.enter(review.id, over)
    assert (done.state, done.by, done.value, done.is_applied) == ("edited", "bob", true, False)
    assert [(before["state"], before["by"]) for before in done.earlier] == [("accepted", "ann")]
    assert reviews.enter(review.id, over) == done == reviews.get(review.id)
    late = replace(over, value=ANSWER | {"total": 82.0})
    assert "was edited by bob" in refusal(reviews.enter, review.id, late)
    assert reviews.undo(review.id, "bob").shown_answer == true


def test_a_run_goes_on_only_with_a_decision_that_still_stands(ledger: Ledger) -> None:
    reviews, store, review = LedgerReviews(ledger), ReviewStore(ledger), ask(ledger)
    done = reviews.decide(review.id, review.question, "accept", by="ann")
    reviews.undo(review.id, "ann")
    assert store.apply(done) is None
    done = reviews.decide(review.id, review.question, "accept", by="ann")
    applied = store.apply(done)
    assert applied is not None and applied.is_applied
    assert store.apply(applied) == applied
    assert reviews.get(review.id).is_applied
    assert not reviews.undo(review.id, "ann").is_applied


def test_what_is_late_can_no_longer_be_decided_and_the_next_run_closes_it(ledger: Ledger) -> None:
    reviews, store = LedgerReviews(ledger), ReviewStore(ledger)
    late, early = ask(ledger, "late", ttl_s=-1.0), ask(ledger, "early", ttl_s=3600.0)
    text = refusal(reviews.decide, late.id, late.question, "accept", by="ann")
    assert text.startswith("The time to decide on 'late' (step 'bill') was over at ")
    assert text.endswith("the next run does what `on_expiry` says, 'quarantine'.")
    states = {
        review.id: review.state for review in store.pending()
    }  # asked in any order within a tick
    assert states == {late.id: "expired", early.id: "open"}
    store.expire()
    assert reviews.get(late.id).state == "expired"
    assert [review.id for review in reviews.waiting()] == [early.id]
    assert reviews.undo(late.id, "ann").expires_at is None
    assert reviews.get(late.id).expires_at is None  # so that no run closes it again


def test_answers_are_checked_before_the_transaction_that_accepts_them_together(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews, readings = LedgerReviews(ledger), {"readings": {"total": {"by": "rule"}}}
    first, bad, other = (ask(ledger, key, outputs=readings) for key in ("a.pdf", "b.pdf", "c.pdf"))

    def faults(check: AnswerCheck) -> list[AnswerFault]:
        reviews.take_lease(other.id, "ann")  # a transaction of its own, as others' may be meanwhile
        return [AnswerFault("too high", "Too high.")] if check.review.key == "b.pdf" else []

    monkeypatch.setattr(AnswerCheck, "faults", faults)
    done = reviews.accept_together([(r.id, r.question) for r in (first, bad)], "ann")
    assert [each.key for each in done.reviews] == ["a.pdf"]
    assert done.left == {bad.id: "The accepted value is not valid. Too high."}


def test_a_decision_on_several_answers_is_known_by_a_field_and_not_by_its_reason(
    ledger: Ledger,
) -> None:
    reviews = LedgerReviews(ledger)
    keys = ("a.pdf", "b.pdf", "c.pdf")
    first, second, third = (ask(ledger, key, {"number": "R-1", "total": 48}) for key in keys)
    done = reviews.accept_together([(each.id, each.question) for each in (first, second)], "ann")
    text = f"one of 2 that were accepted together ({done.id})"
    reviews.decide(third.id, third.question, "accept", reason=text, by="ben")
    again = ask(ledger, answer={"number": "R-1", "total": 48.0})
    assert again.question != first.question
    assert (again.state, again.together) == ("accepted", done.id), "no one has looked at it since"
    assert [each.together for each in reviews.decided() if each.by == "ben"] == [None]
    undone = reviews.undo_together(done.id, "ann")
    assert {each.key: each.together for each in undone} == {"a.pdf": None, "b.pdf": None}


def test_each_of_several_answers_is_compared_with_itself_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [ask(ledger, f"{n}.pdf") for n in range(20)]
    compared, is_equal = list[object](), Review.__eq__

    def counted(review: Review, other: object) -> bool:
        compared.append(other)
        return is_equal(review, other)

    monkeypatch.setattr(Review, "__eq__", counted)
    done = LedgerReviews(ledger).accept_together([(r.id, r.question) for r in asked], "ann")
    assert len(done.reviews) == 20
    assert len(compared) <= 3 * 20
