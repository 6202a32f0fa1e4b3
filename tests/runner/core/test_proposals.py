"""The form of a sender's first paper has what papers of other senders taught, never unasked."""

from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from paddock.pipelines.text_cells import SourceText
from paddock.runner.rules import Offers, TaughtAnswer, offers_of
from paddock.runner.rules.proposals import Proposals
from paddock.steps.readers.reader import page_offsets
from tests.fakes.first_papers import SCHEMA, Paper, papers
from tests.fakes.readers import read_here
from tests.runner.core.test_rules_of_decisions import ALL, OTHER_SENDER, READ, TRUE, Desk, bill

TERMS: Any = {"kind": "kind", "sender": "seller", "number": "number", "total": "payable"}
CONSTANTS = frozenset(("kind", "currency"))


def offers(paper: Paper) -> Offers:
    with TemporaryDirectory() as folder:
        path = Path(folder, paper.name)
        path.write_bytes(paper.content)
        read = read_here(path)
    boxes = {str(n): cells for n, cells in enumerate(read.cells, 1) if cells}
    starts = tuple(page_offsets(read.pages))
    source = SourceText(paper.name, read.text, starts, media_type=read.media_type, boxes=boxes)
    return offers_of([source], TERMS, SCHEMA)


@cache
def shares(world: str, n_decided: int | None = None) -> tuple[float, float]:
    """Return how many of 100 fields of new senders are proposed right: of all, of those shown."""
    decided, new = papers(world)
    proposals = Proposals([
        TaughtAnswer(p.name, p.truth, frozenset(p.truth), CONSTANTS, offers(p).pack())
        for p in decided[:n_decided]
    ])  # fmt: skip
    n = Counter[str]()
    for paper in new:
        found = proposals.of(offers(paper), SCHEMA, TERMS)
        for field, true in paper.truth.items():
            shown = found.get(field)
            n.update(all=1, shown=shown is not None, right=shown == true is not None)
    return 100 * n["right"] / n["all"], 100 * n["right"] / n["shown"]


@pytest.mark.parametrize("world", ["a", "b"])
def test_what_other_senders_taught_proposes_most_fields_of_a_new_one(world: str) -> None:
    of_all, of_shown = shares(world)
    assert of_all >= 75  # of 420: 86 and 94 of 100; 83 and 91
    assert of_shown >= 85


CREDIT = """\
Larkfield Print Works

Credit note

This credits our invoice RE-101.

Net: 50.00 EUR
VAT 8.1%: 4.05 EUR
Total: 54.05 EUR
"""
TO_PAY = CREDIT.replace("Total", "To pay")
FIRST_DAY: dict[str, tuple[str, str, Any]] = {
    "the choice that is a title": (CREDIT, "kind", "credit note"),
    "the currency of its amounts": (CREDIT, "currency", "EUR"),
    "net and tax at a rate make it": (TO_PAY, "total", 54.05),
    "net and tax at no rate make it": (
        TO_PAY.replace("4.05", "9.05").replace("54", "59"),
        "total",
        ...,
    ),
    "the name that stands first": (CREDIT, "sender", "Larkfield Print Works"),
    "the field's own name is the label": (f"{CREDIT}\nNumber: 4711\nOrder: 4712", "number", "4711"),
    "two labels have the field's name": (
        f"{CREDIT}\nA number: 4711\nB number: 4712",
        "number",
        ...,
    ),
}


@pytest.mark.parametrize("case", FIRST_DAY)
def test_before_any_decision_forms_names_and_sums_propose(case: str) -> None:
    text, field, value = FIRST_DAY[case]
    offered = offers_of([SourceText("a.txt", text)], TERMS, SCHEMA)
    assert Proposals([]).of(offered, SCHEMA, TERMS).get(field, ...) == value


def test_a_proposal_fills_the_form_and_is_asked_about(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.teach("a", bill())
    desk.arrive(b=bill(**OTHER_SENDER))
    desk.work()
    assert desk.asked("b") == ALL
    assert desk.waiting()["b.txt"].subject.answer == {**TRUE, **READ, "sender": "Larkfield Joinery"}
