"""A paper that differs from all papers of its sender is asked about, though all of it is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.invoices import Made
from tests.runner.core.test_rules_of_decisions import (
    E_INVOICES,
    FILING,
    IBAN,
    NEXT,
    OTHER_IBAN,
    PIPELINE,
    READ,
    TRUE,
    Desk,
    bill,
    e_invoice,
    paid_to,
)

THIRD = {"number": "RE-103", "date": "2027-04-04", "net": "30.00", "vat": "6.00", "total": "36.00"}


def why(desk: Desk, name: str) -> dict[str, Any]:
    """Return the fields of a document that are asked about, and why."""
    review = desk.waiting().get(name)
    readings = {} if review is None else review.subject.readings
    return {field: how["open"] for field, how in readings.items() if "open" in how}


# A paper that comes after RE-101 of 21 March and RE-102 of 28 March, with 120.00 and 60.00.
LATER: dict[str, tuple[str, dict[str, str]]] = {
    "an ordinary one": (bill(**THIRD), {}),
    "one of the same day": (bill(**{**THIRD, "date": "2027-03-28"}), {}),
    "an older one that was late": (bill(**{**THIRD, "number": "RE-100", "date": "2027-03-14"}), {}),
    "one with nine times the largest amount": (
        bill(**{**THIRD, "net": "900.00", "vat": "180.00", "total": "1080.00"}), {}),
    "one with ten times the largest amount": (
        bill(**{**THIRD, "net": "1000.00", "vat": "200.00", "total": "1200.00"}),
        {"total": "far_larger"}),
    "a day before the last one's": (
        bill(**{**THIRD, "date": "2027-03-24"}), {"date": "earlier_day"}),
    "the same number again": (bill(**{**THIRD, "number": "RE-101"}), {"number": "same_number"}),
    "the same text again": (bill(**NEXT), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER)
@pytest.mark.parametrize("pipeline", [PIPELINE, FILING])
def test_a_value_unlike_those_of_all_papers_of_a_sender_is_asked_about(
    tmp_path: Path, pipeline: str, case: str
) -> None:
    desk, (text, open_) = Desk(tmp_path, pipeline), LATER[case]
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    desk.work()
    assert desk.waiting() == {}
    desk.arrive(c=text)
    report = desk.work()
    assert (why(desk, "c.txt"), report.calls) == (open_, 0)
    desk.edit("Read:", "Read this:")
    desk.work()
    assert {*desk.waiting()} == ({"c.txt"} if open_ else set())
    if open_:
        desk.decide("c.txt", "accept")
        desk.work()
        assert not desk.waiting() and not desk.plan().has_work


@pytest.mark.parametrize(("due", "asked"), [("2026-08-01", False), ("2026-05-01", True)])
def test_a_day_to_pay_by_may_be_before_the_last_one(tmp_path: Path, due: str, asked: bool) -> None:
    pipeline = E_INVOICES.replace("date: date, ", "date: due, ")
    desk, (first, second) = Desk(tmp_path, pipeline), invoices(FIRST, FIRST)
    for name, text in (("a.xml", first), ("b.xml", second.replace("2026-08-11", due))):
        e_invoice(desk, name, text.encode())
        desk.work()
    assert why(desk, "b.xml") == ({"date": "earlier_day"} if asked else {})


def test_a_renamed_paper_is_not_compared_with_later_ones(desk: Desk) -> None:
    desk.teach("a", bill())
    for name, text in {"b": bill(**{**NEXT, "number": "RE-109"}), "c": bill(**THIRD)}.items():
        desk.arrive(**{name: text})
        desk.work()
    (desk.folder / "inbox/b.txt").rename(desk.folder / "inbox/z.txt")
    desk.work()
    assert desk.waiting() == {}


def test_papers_that_came_together_may_be_in_any_order(desk: Desk) -> None:
    desk.arrive(a=bill(), b=bill(**NEXT))
    desk.work()
    desk.decide("b.txt", "edit", {**TRUE, **READ})
    desk.work()
    assert desk.waiting() == {}


def test_what_is_said_of_a_doubt_has_both_values(desk: Desk) -> None:
    desk.teach("a", paid_to(IBAN))
    desk.arrive(b=paid_to(OTHER_IBAN, **NEXT))
    for report in (desk.work(), desk.work()):
        assert [item.key for item in report.items if item.may_be_fraud] == ["b.txt"]
    review = desk.waiting()["b.txt"]
    with desk.reviews() as reviews:
        left = reviews.accept_together([(review.id, review.question)], "ann").left
    what = "'b.txt' (step 'bill') is a possible fraud, which a person has to look at."
    assert left == {review.id: what}
    assert review.subject.answer["sender"] == TRUE["sender"]
    assert review.subject.due[:1] == (
        "Possible fraud, another account (AT611904300234573201; so far DE02120300000000202051): "
        "the sender",
    )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def invoices(*ibans: str) -> list[str]:
    """Return e-invoices of one seller that states these accounts."""
    made = Made(UBL)
    texts = list[str]()
    for n, iban in enumerate(ibans):
        own = {"number": f"R-700{n}", "date": f"2026-06-1{n}", "due": f"2026-08-1{n}"}
        text = made.xml(**own, **({"iban": iban} if iban else {}))
        texts.append(text if iban else text.replace(made.values["iban"], ""))
    return texts


UBL = next(seed for seed in range(50) if Made(seed).syntax == "ubl")
FIRST, SECOND = "DE02120300000000202051", "FR1420041010050500013M02606"


@pytest.mark.parametrize(
    ("ibans", "asked"),
    [
        ((FIRST, FIRST), False), ((FIRST, SECOND), True), (("", SECOND), False),
        ((FIRST, ""), False),
    ],
)  # fmt: skip
def test_the_accounts_of_a_seller_are_told_by_e_invoices_that_asked_nobody(
    tmp_path: Path, ibans: tuple[str, str], asked: bool
) -> None:
    desk = Desk(tmp_path, E_INVOICES)
    for name, text in zip("ab", invoices(*ibans), strict=True):
        e_invoice(desk, f"{name}.xml", text.encode())
        report = desk.work()
        assert (bool(desk.waiting()), report.calls) == (name == "b" and asked, 0)
    assert why(desk, "b.xml") == ({"sender": "other_account"} if asked else {})


def test_a_decision_on_a_paper_without_an_account_opens_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, E_INVOICES)
    e_invoice(desk, "a.xml", invoices(FIRST)[0].encode())
    desk.work()
    desk.teach("b", bill(sender="Calder Boatyard"), sender="Calder Boatyard")
    desk.work()
    assert desk.waiting() == {} and not desk.plan().has_work


@pytest.mark.parametrize("currency", ["PLN", "EUR"])
def test_a_currency_that_the_schema_lacks_is_asked_about_and_shown(
    tmp_path: Path, currency: str
) -> None:
    desk = Desk(tmp_path, E_INVOICES)
    text = Made(UBL).xml().replace("EUR", currency)
    for name, number in (("a.xml", "R-1"), ("b.xml", "R-2")):
        e_invoice(desk, name, text.replace(Made(UBL).values["number"], number).encode())
        desk.work()
        if currency == "EUR":
            assert desk.waiting() == {}
            continue
        assert why(desk, name) == {"currency": "not_in_schema"}
        (due,) = desk.waiting()[name].subject.due
        assert due == "An e-invoice states what the schema cannot hold (PLN): the currency"
        desk.decide(name, "edit", {**desk.waiting()[name].subject.answer, "currency": "USD"})
    json.dumps(desk.work().as_json())


TABLED = FILING.replace(
    "returns: steps.each.results",
    """\
  - id: table
    uses: files.write
    with: {path: out/t.csv, rows: "{{ steps.each.results }}", waiting: "{{ steps.each.waiting }}"}
returns: steps.each.results""",
)


def test_a_filed_paper_keeps_its_row_while_it_is_asked_about_again(tmp_path: Path) -> None:
    def table() -> list[str]:
        return (tmp_path / "out/t.csv").read_text("utf-8").splitlines()[1:]

    desk = Desk(tmp_path, TABLED)
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    desk.work()
    assert table() == ["a.txt,120.0,RE-101,false", "b.txt,60.0,RE-102,false"]
    desk.undo("a.txt")
    for _ in range(2):
        desk.work()
        assert {*desk.waiting()} == {"a.txt", "b.txt"}
        assert table() == ["b.txt,60.0,RE-102,true", "a.txt,,,true"]
    desk.decide("a.txt", "edit", TRUE)
    desk.work()
    assert table() == ["a.txt,120.0,RE-101,false", "b.txt,60.0,RE-102,false"]
