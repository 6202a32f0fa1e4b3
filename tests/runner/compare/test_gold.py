"""Gold data from files and decisions; what is wrong in it is a sentence with its place."""

from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.label_choices import read_choice
from paddock.runner.compare.gold import Gold, UnreadableGold, gold_of_reviews, read_gold
from paddock.runner.compare.metrics import field_metrics
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Question, Subject
from paddock.runner.review.decisions import LedgerReviews, Verb

CSV = "relpath,total,pay_by\na.txt,84.5,3 May 2024\nb.txt,,2024-05-04\nx.txt,1,\na.txt,2,\n"
SCHEMA = {"properties": {"total": {"type": "number"}, "pay_by": {"type": "string"}}}


def rows(gold: Gold) -> dict[str, Any]:
    return {row.key: dict(row.fields) for row in gold.rows}


def test_a_csv_has_a_row_for_each_item_and_empty_cells_say_nothing() -> None:
    gold = read_gold(CSV, "gold.csv", "relpath").of_step("bill", ["a.txt", "b.txt"], ())
    assert rows(gold) == {
        "a.txt": {"total": "84.5", "pay_by": "3 May 2024"},
        "b.txt": {"pay_by": "2024-05-04"},
    }
    assert gold.notes == (
        "gold.csv:4: there is no item 'x.txt'. Known: 'a.txt', 'b.txt'. Did you mean 'b.txt'?",
        "gold.csv:5: item 'a.txt' is here twice; gold.csv:2 counts.",
    )


def test_a_value_that_does_not_fit_its_metric_is_left_out_with_its_line() -> None:
    gold = read_gold("item,total\na.txt,84.5\nb.txt,n/a\n", "gold.csv")
    metrics = field_metrics(SCHEMA, gold.values(), {})
    found, after = gold.fitting(metrics)
    assert found == {"a.txt": {"total": 84.5}}
    assert after.notes == (
        "gold.csv:3: 'total': \"n/a\" is no number, so metric 'number' does not fit it. "
        "Correct it, or name another metric.",
    )


def test_of_labels_that_a_run_alone_knows_none_is_said_to_be_none_of_the_field() -> None:
    node, _ = read_choice({"choose": "steps.types.rows", "by": "name"}, ("kind",))
    schema = {"type": "object", "properties": {"kind": node}}
    gold = read_gold("item,kind\na.txt,Invoice\n", "gold.csv")
    (metric,) = field_metrics(schema, gold.values(), {})
    assert metric.kind == "label"
    assert gold.fitting([metric])[1].notes == ()


def test_a_label_that_no_answer_can_have_is_said_and_counts() -> None:
    schema = {"type": "object", "properties": {"kind": {"enum": ["bill", "letter"]}}}
    gold = read_gold("item,kind\na.txt,Bill \nb.txt,lettre\n", "gold.csv")
    found, after = gold.fitting(field_metrics(schema, gold.values(), {}))
    assert [*found] == ["a.txt", "b.txt"]
    assert after.notes == (
        "gold.csv:3: 'kind': \"lettre\" is no value of the field, so no answer agrees with it. "
        "Known: 'bill', 'letter'. Did you mean 'letter'?",
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gold.txt", "x", "gold.txt: gold data must be a file of the kinds .csv, .json, .jsonl, "
         ".ndjson, .tsv."),
        ("gold.csv", "", "gold.csv is empty: it has no row."),
        ("gold.json", "[]", "gold.json is empty: it has no row."),
        ("gold.jsonl", "\n\n", "gold.jsonl is empty: it has no row."),
        ("gold.csv", "item,kind\n", "gold.csv has a header and no row below it."),
        ("gold.csv", "item\na\n", "gold.csv: there is no column besides 'item'. Add the fields."),
    ],
)  # fmt: skip
def test_a_file_that_is_no_gold_is_a_sentence(name: str, text: str, words: str) -> None:
    with pytest.raises(UnreadableGold) as caught:
        read_gold(text, name)
    assert str(caught.value) == words


@pytest.fixture
def decided(tmp_path: Path) -> list[Any]:
    """An accepted, an edited and a rejected answer of one step, and one of another pipeline."""
    with Ledger(tmp_path / ".paddock") as ledger:
        store, reviews = ReviewStore(ledger), LedgerReviews(ledger)
        decisions: list[tuple[str, Verb, Any, str, str]] = [
            ("a.txt", "accept", None, "", "bills.yaml"),
            ("b.txt", "edit", {"number": "R-9", "total": 2.0}, "", "bills.yaml"),
            ("c.txt", "reject", None, "a cat", "bills.yaml"),
            ("a.txt", "accept", None, "", "other.yaml"),
        ]
        for key, verb, value, reason, pipeline in decisions:
            subject = Subject.of({
                "pipeline": pipeline, "block": "each", "item": key, "document": key,
                "document_sha256": key, "answer": {"number": "R-1", "total": 1.0}, "schema": {},
                "checks": [], "scope": {}, "by": [], "on_expiry": "quarantine",
            })  # fmt: skip
            review = store.ask(Question(pipeline, key, "bill", "swift-otter", subject))
            reviews.decide(review.id, review.question, verb, by="ann", value=value, reason=reason)
        return store.decided(is_whole=True)


def test_decisions_are_gold_for_their_step_and_the_origin_says_of_which_items(
    decided: list[Any],
) -> None:
    gold = gold_of_reviews(decided, "bills.yaml")
    assert rows(gold) == {
        "a.txt": {"number": "R-1", "total": 1.0}, "b.txt": {"number": "R-9", "total": 2.0},
    }  # fmt: skip
    assert {row.step for row in gold.rows} == {"bill"}
    assert gold.notes == ("reviews.jsonl: 1 rejected answer without a right one do not count.",)
    assert "doubtful" in gold.origin
    assert gold.of_step("other", ["a.txt"], ()).rows == ()
    assert gold_of_reviews([], "bills.yaml").rows == ()
