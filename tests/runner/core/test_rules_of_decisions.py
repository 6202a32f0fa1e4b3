"""A decision about a field of a sender's document reads that field in the sender's next ones."""

import csv
import itertools
import json
import re
import zlib
from base64 import b64encode
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system import units
from paddock.engine.system.records import replace
from paddock.pipelines.text_cells import SourceText
from paddock.runner.core.reviews.decided_outputs import with_answer
from paddock.runner.ledger.reviews.reviews import DecisionRefused
from paddock.runner.review.csv_and_gold_data import reviews_csv
from paddock.runner.review.decisions import GivenDecision, Verb
from paddock.runner.review.taught_rules import answered_by
from paddock.runner.rules import Offers, Rules, TaughtAnswer, offers_of
from paddock.runner.rules.reasons import WhyOpen
from tests.fakes.invoices import Made, hybrid
from tests.fakes.papers import EXAMPLES
from tests.fakes.pdf import pdf
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import ReviewedWorld, each_document, reasons, states

SCHEMA = """\
{type: object, additionalProperties: false, required: [kind, sender, number, date, total, currency],
            properties: {kind: {enum: [invoice, credit note, reminder]}, sender: {type: string},
              number: {type: string}, date: {type: string, format: date}, total: {type: number},
              currency: {enum: [EUR, GBP, USD]}}}"""
PIPELINE = "name: bills\n" + each_document(f"""\
      - id: bill
        uses: chat
        with: {{prompt: "Read: {{{{ steps.text.text }}}}"}}
        reply: {{schema: {SCHEMA}, evidence: steps.text}}
        review: {{when: unsure}}
    returns: {{file: doc.relpath, total: steps.bill.output.total, n: steps.bill.output.number}}
returns: steps.each.results
""")
FILING = PIPELINE.replace(
    "    returns: {",
    """\
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}}
    returns: {""",
)
GUESS = {"kind": "reminder", "sender": "Nobody", "number": "0", "date": "2020-01-01", "total": 1.0}
LAYOUT = """\
{sender}
4 Mill Lane, Kirkholm

{title}

Calder Quay Office

Number: {number}
Customer: {customer}
Date: {date}

{hello}

Net: {net} {sign}
VAT 20%: {vat} {sign}
Total: {total} {sign}

{bye}
"""
VALUES = {
    "sender": "Larkfield Print Works", "title": "INVOICE", "number": "RE-101", "customer": "K-7",
    "date": "2027-03-21", "net": "100.00", "vat": "20.00", "total": "120.00", "sign": "EUR",
    "hello": "Dear customer,", "bye": "Thank you for your business.",
}  # fmt: skip
TRUE = {
    "kind": "invoice", "sender": "Larkfield Print Works", "number": "RE-101", "date": "2027-03-21",
    "total": 120.0, "currency": "EUR",
}  # fmt: skip
SENDER = TRUE["sender"]
NEXT = {"number": "RE-102", "date": "2027-03-28", "net": "50.00", "vat": "10.00", "total": "60.00"}
READ = {"number": "RE-102", "date": "2027-03-28", "total": 60.0}
ALL = frozenset(TRUE)
CONSTANT = frozenset(("kind", "currency"))


def bill(*changes: tuple[str, str], **values: str) -> str:
    """Return a bill; `changes` are of its layout: (text, instead)."""
    layout = LAYOUT
    for text, instead in changes:
        assert text in layout
        layout = layout.replace(text, instead)
    return layout.format_map(VALUES | values)


def offered(text: str) -> Offers:
    return offers_of([SourceText("a.txt", text, (0,))])


class Desk(ReviewedWorld):
    def __init__(self, folder: Path, pipeline: str = PIPELINE) -> None:
        super().__init__(folder, pipeline)

    def arrive(self, **texts: str) -> None:
        for name, text in texts.items():
            self.write(f"inbox/{name}.txt", text)

    def work(self) -> Any:
        answer = json.dumps({**GUESS, "currency": "USD"})
        return self.run(pool=FakePool(answer=lambda _: answer))

    def teach(self, name: str, text: str, **true: Any) -> None:
        self.arrive(**{name: text})
        self.work()
        self.decide(f"{name}.txt", "edit", {**TRUE, **true})

    def asked(self, name: str) -> frozenset[str]:
        """Return the fields of a document that a person is asked about."""
        review = self.waiting().get(f"{name}.txt")
        if review is None:
            return frozenset()
        return ALL if review.subject.open is None else frozenset(review.subject.open)

    def outputs(self) -> dict[str, tuple[str, float]]:
        return {row["file"]: (row["n"], row["total"]) for row in self.work().returns}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_next_document_of_a_sender_asks_no_model_and_nobody(desk: Desk) -> None:
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    report = desk.work()
    assert (desk.waiting(), report.calls) == ({}, 0)
    assert desk.outputs() == {"a.txt": ("RE-101", 120.0), "b.txt": ("RE-102", 60.0)}


TOTAL = "Total: {total} {sign}"
OPEN_SIGNS = [
    "60.00-", "60.00 EUR-", "60.00 EUR -", "60.00- EUR", "EUR 60.00 -", "$60.00 -", "(60.00)",
    "($60.00)", "(EUR 60.00)", "(60.00 EUR)", "60.00 CR", "$60.00 CR", "60.00 EUR Dr", "60.00 S",
    "60.00 (H)", "EUR 60-", "-60.00-", "(-60.00)", "60- EUR", "EUR (60)", "(60) EUR",
]  # fmt: skip


@pytest.mark.parametrize("written", OPEN_SIGNS)
def test_an_amount_whose_sign_is_open_is_read_where_decisions_show_its_form_alone(
    written: str,
) -> None:
    def taught(text: str, total: float) -> TaughtAnswer:
        return TaughtAnswer("1", TRUE | {"total": total}, ALL, CONSTANT, offered(text).pack())

    def read(*decided: TaughtAnswer) -> Any:
        found = Rules(decided).read(offered(bill((TOTAL, f"Total: {next_written}"), **NEXT))).sure
        assert "number" in found
        return found["total"].value if "total" in found else None

    text, next_written = bill((TOTAL, f"Total: {written}")), written.replace("60", "75")
    plain = taught(bill((TOTAL, "Total: $120.00")) if "$" in written else bill(), 120.0)
    assert read(plain) is None
    alike = taught(text, -60.0)
    assert read(alike) == read(plain, alike) == -75.0


@pytest.mark.parametrize("written", ["1,275-", "1,275- EUR", "(1,275)", "EUR (1,275)"])
def test_an_amount_without_cents_whose_sign_is_open_is_asked_about(written: str) -> None:
    text = bill((TOTAL, "Total: EUR 1,060"))
    decided = TaughtAnswer("1", TRUE | {"total": 1060.0}, ALL, CONSTANT, offered(text).pack())
    found = Rules([decided]).read(offered(bill((TOTAL, f"Total: {written}"), **NEXT)))
    assert "total" not in found.sure and "number" in found.sure


@pytest.mark.parametrize("minus", ["-", "\u2212", "\u2013"])
def test_a_minus_that_no_decision_showed_is_asked_about(minus: str) -> None:
    decided = TaughtAnswer("1", TRUE, ALL, CONSTANT, offered(bill()).pack())
    for written in (f"{minus}60.00 EUR", f"{minus} 60.00 EUR", f"{minus}EUR 60.00"):
        found = Rules([decided]).read(offered(bill((TOTAL, f"Total: {written}"), **NEXT)))
        assert "total" not in found.sure


def test_the_currency_behind_a_minus_is_seen() -> None:
    def offers(written: str, **values: str) -> Offers:
        return offered(bill((TOTAL, f"Total: {written}"), **values, sign=""))

    answer = TRUE | {"total": -60.0}
    decided = TaughtAnswer("1", answer, ALL, CONSTANT, offers("60.00- EUR").pack())
    rules = Rules([decided])
    assert rules.read(offers("75.00- EUR", **NEXT)).sure["total"].value == -75.0
    assert "currency" not in rules.read(offers("75.00- USD", **NEXT)).sure


CODES = {
    "(12345)": "12345", "4711-": "4711", "1-": "1", "12- bis 15-jaehrige": "12",
    "(12345) S": "12345", "K-7 (2)": "K-7",
}  # fmt: skip


@pytest.mark.parametrize("written", CODES)
def test_whole_numbers_and_codes_have_no_sign_behind_them(written: str) -> None:
    (line,) = (line for line in offered(bill(customer=written)).lines if "Customer" in line.text)
    assert CODES[written] in {value.written for value in line.values}


DISCOUNT = ("VAT 20%", "Discount: -10.00 {sign}\nVAT 20%")
OTHER_SENDER = {**NEXT, "sender": "Larkfield Joinery"}
CREDIT = {**NEXT, "title": "CREDIT NOTE"}
TO_PAY = ("Total: {total}", "Total: {net} {sign}\nTotal with VAT: {total}")
OLD_NUMBER = ("Number: {number}\nCustomer: {customer}", "Number: {customer}\nInvoice no.: {number}")
EU_DAY = {"date": "03/03/2027"}
THOUSANDS = {"net": "1.000", "vat": "0.234", "total": "1.234"}
# 1 to 9 of "what must never happen": a decided document with what is true of it, the next one, and
# the fields that a person must be asked about there, whatever else.
NEVER: dict[str, tuple[str, dict[str, Any], str, set[str] | frozenset[str]]] = {
    "1 another sender's paper": (bill(), {}, bill(**OTHER_SENDER), ALL),
    "1 a name in passing": (
        bill(), {}, bill(**OTHER_SENDER, hello="Sent with Larkfield Print Works"), ALL),
    "1 a name in its own line": (
        bill(), {}, bill(**OTHER_SENDER, hello="Larkfield Print Works"), ALL),
    "1 a name that begins alike": (
        bill(), {}, bill(**NEXT | {"sender": "Larkfield Print Works Ltd"}), ALL),
    "2 a new label in the block": (bill(), {}, bill(OLD_NUMBER, **NEXT), {"number"}),
    "2 the old word names the net sum": (bill(), {}, bill(TO_PAY, **NEXT), {"total"}),
    "2 the label is missing": (bill(), {}, bill(("Total:", "Sum:"), **NEXT), {"total"}),
    "2 nothing but a discount is new, but the sum is wrong": (
        bill(), {}, bill(DISCOUNT, **NEXT | {"total": "45.00"}), {"total"}),
    "3 two places under one label": (
        bill(), {}, bill(("Date: {date}", "Date: {date}\nNumber: RE-900"), **NEXT), {"number"}),
    "4 day and month learnt from 03/03": (
        bill(**EU_DAY), {"date": "2027-03-03"}, bill(**NEXT | {"date": "03/04/2027"}), {"date"}),
    "4 an amount in two parts": (
        bill(), {}, bill(**NEXT | {"total": "9 \u25a0 462.11"}), {"total"}),
    "4 a decimal mark that no decision showed": (
        bill(), {}, bill(**NEXT | THOUSANDS), {"total"}),
    "4 an amount in brackets": (bill(), {}, bill(**NEXT | {"total": "(60.00)"}), {"total"}),
    "3 another one with an open sign under one label": (
        bill(), {}, bill((TOTAL, f"{TOTAL}\nTotal: (75.00)"), **NEXT), {"total"}),
    "3 another one with two signs": (
        bill(), {}, bill((TOTAL, f"{TOTAL}\nTotal: -75.00-"), **NEXT), {"total"}),
    "4 another currency": (bill(), {}, bill(**NEXT, sign="GBP"), {"currency"}),
    "4 a number of another form": (bill(), {}, bill(**NEXT | {"number": "K-7"}), {"number"}),
    "6 a credit note, a reminder": (bill(), {}, bill(**CREDIT), {"kind"}),
    "8 the same total elsewhere": (
        bill(), {}, bill(**NEXT | {"net": "120.00", "vat": "24.00", "total": "144.00"}), set()),
    "a value that stands nowhere": (bill(), {"total": 777.0}, bill(**NEXT), {"total"}),
    "a value that stands in no label's place": (
        bill(bye="Yours, 120.00"), {}, bill(**NEXT, bye="Yours, 60.00"), set()),
}  # fmt: skip


@pytest.mark.parametrize("case", NEVER)
def test_what_a_rule_never_reads(desk: Desk, case: str) -> None:
    text, true, following, asked = NEVER[case]
    desk.teach("a", text, **true)
    desk.arrive(b=following)
    desk.work()
    assert desk.asked("b") >= frozenset(asked), desk.asked("b")
    if not asked:
        assert desk.outputs()["b.txt"][1] in (144.0, 60.0)


def line(text: str, before: str = "{hello}") -> tuple[str, str]:
    return before, f"{before}\n{text}"


BY_OSIER, BY_TARN = line("Delivered by Osier Garden"), line("Delivered by Tarn Valley")
BY_OTHER = line("Delivered by Larkfield Joinery")
AS_OTHER = {**NEXT, "number": "RE-103"}
UNDER_TITLE = line("REMINDER", "{title}")
OTHER_TITLE = (bill(UNDER_TITLE, **NEXT), {**READ, "kind": "reminder"})
THIRD = {"number": "RE-104", "date": "2027-04-04"}
REMARKS = [
    (bill(BY_OSIER), {}), (bill(BY_TARN, **NEXT), READ),
    (bill(line("Delivered by Pennick"), **NEXT | THIRD), {**READ, **THIRD}),
]  # fmt: skip
REMIT = ("{bye}", "Kindly remit: {total}\n\n{bye}")
NUMBERED = "Calder Quay Office\n\nNumber: {number}\n", "Rechnung {number}\n"
PLAIN: list[tuple[str, dict[str, Any]]] = [(bill(), {})]
UNPLACED = {"kind", "sender"}
LEFT = ALL - {"number"}  # what a part that is left over may tell


def in_currency(text: str, **values: str) -> str:
    return bill(line(text), **values, sign="")


IN_EUR: list[tuple[str, dict[str, Any]]] = [
    (in_currency("All prices are stated in EUR, if not agreed."), {})
]


# A line more or less: decided documents, the next one, and all that a person is asked there.
LINES: dict[str, tuple[list[tuple[str, dict[str, Any]]], str, set[str] | frozenset[str]]] = {
    "a title more": (PLAIN, bill(UNDER_TITLE, **NEXT), LEFT),
    "a title with a number": (PLAIN, bill(line("2nd reminder", "{title}"), **NEXT), ALL),
    "a pair in a place of its own": (
        PLAIN, bill(line("\nReminder level: 2", "{title}"), **NEXT), ALL),
    "a title less": ([OTHER_TITLE], bill(**AS_OTHER), ALL),
    "a title of two kinds, and a third": (
        [*PLAIN, OTHER_TITLE], bill(line("LAST REMINDER", "{title}"), **AS_OTHER), LEFT),
    "a title that is known": ([*PLAIN, OTHER_TITLE], bill(UNDER_TITLE, **AS_OTHER), set()),
    "another sender's name above": (
        PLAIN, bill(("{sender}", "Larkfield Joinery\n{sender}"), **NEXT), LEFT),
    "the sender's name in another's paper": (
        PLAIN, bill(line("Larkfield Print Works"), **OTHER_SENDER), ALL),
    "a line that tells another currency": (
        [(bill(sign=""), {})], bill(line("Amounts in USD"), **NEXT, sign=""),
        LEFT),
    "a line that tells what a label means": (
        PLAIN, bill(line("Number is your account"), **NEXT), ALL),
    "a title instead of a remark": (
        [(bill(BY_OSIER), {})], bill(line("CREDIT NOTE"), **NEXT), LEFT),
    "two lines more": (PLAIN, bill(line("Spring sale\nOpen on Sunday"), **NEXT), LEFT),
    "one remark is no proof": (
        [*PLAIN, (bill(BY_TARN, **NEXT), READ)], bill(BY_OSIER, **AS_OTHER), LEFT),
    "a remark that begins as two before": (REMARKS[:2], bill(BY_OTHER, **AS_OTHER), LEFT),
    "a remark that begins as three before": (REMARKS, bill(BY_OTHER, **AS_OTHER), set()),
    "such a remark and a title": (
        REMARKS, bill(BY_OTHER, UNDER_TITLE, **AS_OTHER), LEFT),
    "another label of the number": (
        PLAIN, bill(("Number: {number}", "Credit no.: {number}"), **NEXT),
        ALL),
    **{
        f"another paper by {what}": (
            PLAIN, bill(("Date: {date}\n", f"Date: {{date}}\nStorno: {what}\n"), **NEXT),
            LEFT if what != "RE-101" else ALL)
        for what in ("01.03.27", "12.345.67", "2027.10.11", "RE-101")
    },
    "another word behind a label": (
        [(bill(("{title}", "Document: Rechnung")), {})],
        bill(("{title}", "Document: Gutschrift"), **NEXT), LEFT),
    "another currency in the text": (
        IN_EUR, in_currency("All prices are stated in USD, if not agreed.", **NEXT),
        LEFT),
    "the sign of another currency": (
        IN_EUR, in_currency("All prices are stated in $, if not agreed.", **NEXT),
        LEFT),
    "the sign of the same currency": (
        IN_EUR, in_currency("All prices are stated in \u20ac, if not agreed.", **NEXT),
        LEFT),
    "no currency in the text": (
        IN_EUR, in_currency("All prices are stated in cash, if not agreed.", **NEXT),
        LEFT),
    "another currency in the next cell": (
        [(in_currency("Currency:   EUR"), {})], in_currency("Currency:   USD", **NEXT),
        LEFT),
    "another currency in brackets": (
        [(in_currency("All amounts (EUR)"), {})], in_currency("All amounts (USD)", **NEXT),
        LEFT),
    "a title with the number, as another": (
        [(bill(NUMBERED), {})], bill((NUMBERED[0], "Gutschrift {number}\n"), **NEXT),
        ALL),
    "a sentence that names another kind": (
        PLAIN, bill(line("This is a credit note."), **NEXT), LEFT),
    "a sentence that names its own kind": (
        PLAIN, bill(line("Please find our invoice for last week."), **NEXT), LEFT),
    "another kind that is named each time": (
        [(bill(line("It is no credit note."), **AS_OTHER), {**READ, "number": "RE-103"})],
        bill(line("It is no credit note."), **NEXT), set()),
    "a place less, and the sum is right": ([(bill(REMIT), {})], bill(**NEXT), LEFT),
    "a place less, and the sum is wrong": (
        [(bill(REMIT), {})], bill(**NEXT | {"vat": "9.00"}), LEFT),
    "a place less, and a larger sum": (
        [(bill(REMIT), {})], bill(**NEXT, bye="In all that is 70.00 for now"),
        LEFT),
    "a place less, and a larger amount with an open sign": (
        [(bill(REMIT), {})], bill(**NEXT, bye="In all that is (70.00) for now"),
        LEFT),
    "a letter that the font lacks, in other case": (
        [(bill(sender="LARKFIELD \u25a0BUD"), {"sender": "Larkfield Żbud"})],
        bill(**NEXT, sender="LARKFIELD \u25a0BUD"), set()),
    "a remark of another sender": (
        [*REMARKS, (bill(sender="Pennick"), {"sender": "Pennick"})],
        bill(BY_OSIER, **{**AS_OTHER, "sender": "Pennick"}), LEFT),
}  # fmt: skip


# The kind in words behind a label, or ticked: what stands in the decided papers, in the next one,
# and what a person is asked there at least, or nothing. Papers with "Gutschrift" are credit notes.
PAIRS: dict[str, tuple[list[str], str, set[str] | frozenset[str]]] = {
    **{
        f"{met!r} behind {gap!r}, after {decided}": (
            [f"Document:{gap}{words}" for words in decided], f"Document:{gap}{met}", asked)
        for gap in (" ", "   ", "\t", " | ")
        for decided, met, asked in (
            (["Rechnung"], "RECHNUNG", set()),
            (["Rechnung"], "Gutschrift", UNPLACED),
            (["Rechnung"], "Gutschrift, Original", UNPLACED),
            (["Rechnung", "Schlussrechnung"], "Storno", UNPLACED),
            (["Rechnung", "Schlussrechnung"], "Rechnung", set()),
            (["Rechnung"] * 4 + ["Teilrechnung", "Schlussrechnung"], "Storno", UNPLACED),
            (["Ms Miller", "Mr Smith", "Mr Hall"], "Ms Wood", set()),
            (["Rechnung", "Gutschrift"], "Gutschrift", set()),
            (["Rechnung", "Gutschrift"], "Rechnung", set()),
            (["Rechnung", "Gutschrift"], "Storno", LEFT),
            (["Rechnung", "Proforma", "Schlussrechnung", "Gutschrift"], "Storno", LEFT))
    },
    **{
        f"{met!r} after {decided}": ([decided], met, UNPLACED if decided != met else set())
        for ticked, empty in (("\u2612", "\u2610"), ("[x]", "[ ]"), ("\u25c9", "\u25cb"))
        for row in ("{} Rechnung {} Gutschrift", "{} Rechnung  |  {} Gutschrift",
                    "Rechnung: {}   Gutschrift: {}", "{} Bill no. 7\n{} Return no. 7",
                    "| Rechnung | Gutschrift |\n| --- | --- |\n| {} | {} |",
                    "{}\nRechnung\n{}\nGutschrift")
        for decided in (row.format(ticked, empty),)
        for met in (decided, row.format(empty, ticked))
    },
    "ticks of two rows alike": (
        ["Bill:\n[x] yes [ ] no\nReturn:\n[ ] yes [x] no"],
        "Bill:\n[ ] yes [x] no\nReturn:\n[x] yes [ ] no", UNPLACED),
    "an X in another cell": (["X   Rechnung   Gutschrift"], "Rechnung   X   Gutschrift", UNPLACED),
    "an X in another row": (
        ["Rechnung   x\nGutschrift"], "Rechnung\nGutschrift   x", UNPLACED),
    "an X in another column": (
        ["| Rechnung | Gutschrift |\n| --- | --- |\n| X | |"],
        "| Rechnung | Gutschrift |\n| --- | --- |\n| | X |", UNPLACED),
    "a label without words": (["Document:"], "Document: Storno", UNPLACED),
    "words that are gone": (["Document: Rechnung"], "Document:", UNPLACED),
    "a paper that is referred to": (
        ["Order: K-1"], "Order: K-1\nRefund of: RE-90", UNPLACED),
    "a paper that is referred to by its day": (
        ["Order: K-1"], "Order: K-1\nRefund of what was bought on:   2027-01-03", UNPLACED),
    "a clerk of one kind, and sentences": (
        ["Clerk: Ann\nWe send you what you bought from us.",
         "Clerk: Tom\nWe give you back your money. (Gutschrift)"],
        "Clerk: Ann\nWe give you back your money. (Gutschrift)", LEFT),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_words_behind_a_label_and_ticks_are_a_part_of_a_layout(case: str) -> None:
    decided, following, asked = PAIRS[case]

    def paper(text: str, day: int) -> str:
        return bill(("{title}", text), **NEXT | {"date": f"2027-04-{day:02}"})

    taught = [
        TaughtAnswer(str(n), {**TRUE, **READ, "date": f"2027-04-{n:02}", "kind": kind}, ALL,
                     CONSTANT, offered(paper(text, n)).pack())
        for n, text in enumerate(decided, 1)
        for kind in ("credit note" if "Gutschrift" in text and len(decided) > 1 else "invoice",)
    ]  # fmt: skip
    found = Rules(taught).read(offered(paper(following, 20))).sure
    assert (ALL - found.keys() >= asked) if asked else (found.keys() == ALL)
    if not asked and len(decided) == 2:
        kind = "credit note" if "Gutschrift" in following else "invoice"
        assert found["kind"].value == kind


@pytest.mark.parametrize("case", LINES)
def test_a_line_more_or_less_opens_what_it_may_tell(desk: Desk, case: str) -> None:
    decided, following, asked = LINES[case]
    desk.arrive(**{f"d{number}": text for number, (text, _) in enumerate(decided)})
    desk.work()
    for number, (_, true) in enumerate(decided):
        desk.decide(f"d{number}.txt", "edit", {**TRUE, **true})
    desk.arrive(n=following)
    desk.work()
    assert desk.asked("n") == frozenset(asked)


E_INVOICES = PIPELINE.replace(
    "evidence: steps.text",
    "evidence: steps.text, readings: {kind: kind, sender: seller, number: number, date: date, "
    "total: payable, currency: currency}",
)
MADE = Made(7)
HYBRID, XML = hybrid(MADE.page(), MADE.xml()), MADE.xml().encode()
CREDITED = MADE.xml().replace("InvoiceTypeCode>380", "InvoiceTypeCode>381")
NEGATIVE = re.sub(r"(Amount currencyID=\"EUR\">)(?=[1-9])", r"\1-", MADE.xml())
DAY = "<a:Delivery><b:ActualDeliveryDate>2026-01-20</b:ActualDeliveryDate></a:Delivery>"
DELIVERED = MADE.xml().replace("<a:PaymentMeans>", f"{DAY}<a:PaymentMeans>")


def mail(*attached: bytes, text: str = "Please pay.", subject: str = "") -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "Calder Boatyard <office@example.org>", subject
    message.set_content(text)
    for number, data in enumerate(attached):
        kind = ("application", "pdf") if data.startswith(b"%PDF") else ("text", "xml")
        name = f"a{number}.{kind[1]}"
        message.add_attachment(data, maintype=kind[0], subtype=kind[1], filename=name)
    return message.as_bytes()


# A file, and the fields that a person is asked about.
STATED: dict[str, tuple[str, bytes, set[str] | frozenset[str]]] = {
    "the page agrees": ("pdf", hybrid(MADE.page(), MADE.xml()), set()),
    "an XML without a page": ("xml", MADE.xml().encode(), set()),
    "another total on the page": ("pdf", hybrid(MADE.page(payable="48.00"), MADE.xml()), ALL),
    "another number on the page": ("pdf", hybrid(MADE.page(number="R-1"), MADE.xml()), ALL),
    "a sum that is wrong": ("pdf", hybrid(MADE.page(), MADE.xml(net="48.00")), ALL),
    "an XML whose sum is wrong": ("xml", MADE.xml(net="48.00").encode(), ALL),
    "a page without a word": ("pdf", hybrid("", MADE.xml()), ALL),
    "a page that does not show the sender": (
        "pdf", hybrid(MADE.page().replace("Calder Boatyard", "Yours"), MADE.xml()), {"sender"}),
    "a page that shows the sender's VAT number": (
        "pdf", hybrid(MADE.page().replace("Calder Boatyard", "VAT DE 123456789"), MADE.xml()),
        set()),
    "a word in place of the sender's VAT number": (
        "pdf", hybrid(MADE.page().replace("Calder Boatyard", "Kleinunternehmer"),
                      MADE.xml().replace("DE123456789", "Kleinunternehmer")), {"sender"}),
    "a reminder of it: a later day": (
        "pdf", hybrid(f"{MADE.page()}\nReminder of 3 December 2026", MADE.xml()), ALL),
    "an older balance with it": (
        "pdf", hybrid(f"{MADE.page()}\nYour balance: 98,765.43", MADE.xml()), ALL),
    "a price that does not make its line's amount": (
        "pdf", hybrid(MADE.page(), MADE.xml().replace(">176.59<", ">176.60<")), set()),
    "an older balance where the seller's VAT number stands": (
        "pdf", hybrid(f"{MADE.page()}\nVAT DE 123 456 789, balance 98,765.43", MADE.xml()), ALL),
    "a quantity that is larger than the sum": (
        "pdf", hybrid(MADE.page().replace("38 Rope", "98,765.00 Rope"),
                      MADE.xml().replace(">38<", ">98765.0000<")), set()),
    "the day of its delivery": (
        "pdf", hybrid(f"{MADE.page()}\nDelivered on 20 January 2026", DELIVERED), set()),
    "a credit note": (
        "pdf", hybrid(MADE.page().replace("Invoice", "Credit"), CREDITED), {"total"}),
    "a self-billed invoice, which is a credit to its seller": (
        "xml", MADE.xml().replace("TypeCode>380", "TypeCode>389").encode(), ALL),
    "a proforma invoice": (
        "xml", MADE.xml().replace("TypeCode>380", "TypeCode>325").encode(), {"kind"}),
    "a negative invoice": (
        "pdf", hybrid(MADE.page(payable="-24794.78"), NEGATIVE), {"kind", "total"}),
    "no e-invoice": ("pdf", pdf([MADE.page()]), ALL),
    "a mail with its PDF": ("eml", mail(HYBRID), set()),
    "a mail with its XML": ("eml", mail(XML), set()),
    "a mail with its XML and the page": ("eml", mail(XML, pdf([MADE.page()])), set()),
    "a mail with another document": ("eml", mail(HYBRID, pdf(["Terms"])), ALL),
    "a mail with an XML and another document": ("eml", mail(XML, pdf(["Terms"])), ALL),
    "a mail with a page without a word": ("eml", mail(hybrid("", MADE.xml())), ALL),
    "a mail whose letter has a later day": (
        "eml", mail(HYBRID, text="Pay until 5 December 2028."), ALL),
    "a mail whose subject has a larger amount": (
        "eml", mail(HYBRID, subject="Your balance is 98,765.43"), ALL),
    "a mail that names another kind": ("eml", mail(HYBRID, text="A reminder:"), {"kind"}),
    "a mail with two e-invoices": ("eml", mail(HYBRID, Made(8).xml().encode()), ALL),
}  # fmt: skip


def e_invoice(desk: Desk, name: str, content: bytes) -> None:
    desk.write(f"inbox/{name}", "")
    (desk.folder / "inbox" / name).write_bytes(content)


@pytest.mark.parametrize("case", STATED)
def test_an_e_invoice_with_which_its_page_agrees_asks_nobody(tmp_path: Path, case: str) -> None:
    suffix, content, asked = STATED[case]
    desk = Desk(tmp_path, E_INVOICES)
    e_invoice(desk, f"a.{suffix}", content)
    report = desk.work()
    review = desk.waiting().get(f"a.{suffix}")
    if review is None:
        number, total = MADE.values["number"], float(MADE.values["payable"])
        assert (asked, report.calls) == (set(), 0)
        assert desk.outputs() == {f"a.{suffix}": (number, total)}
    else:
        assert frozenset(review.subject.open or ALL) == asked


def test_what_an_e_invoice_says_is_proposed_though_its_page_shows_another(tmp_path: Path) -> None:
    desk = Desk(tmp_path, E_INVOICES)
    e_invoice(desk, "a.pdf", hybrid(MADE.page(payable="48.00"), MADE.xml()))
    desk.work()
    number, date, total = (MADE.values[name] for name in ("number", "date", "payable"))
    stated = {"number": number, "date": date, "total": float(total), "sender": "Calder Boatyard"}
    answer = {"kind": "invoice", "currency": "EUR", **stated}
    assert desk.waiting()["a.pdf"].subject.answer == answer


# Payment terms of an e-invoice of 16 January that states no day, and what is read; ...: asked.
TERMS: dict[str, Any] = {
    "Payable until 15 February 2026": "2026-02-15",
    "30 days net until 15.02.2026, 2% discount within 10 days until 26.01.2026": "2026-02-15",
    "EUR 24,794.78 are debited on 15 February 2026": "2026-02-15",
    "Payable at once": ...,
    "Payable within fourteen days": ...,
    "2 % discount until 26 January 2026": ...,
    "30 days net, 2 % discount until 26 January 2026": ...,
    "30 days net until 1 March 2026": ...,
    "Payable until 03/04/2026": ...,
    "Payable until 31 January 2025": ...,
    "Within 14 days": ...,
    "": ...,
}


@pytest.mark.parametrize("terms", TERMS)
def test_the_day_to_pay_is_read_from_an_e_invoices_payment_terms(
    tmp_path: Path, terms: str
) -> None:
    pipeline = E_INVOICES.replace("date: date, ", "date: date, due: due, ")
    due = "due: {type: [string, 'null'], format: date}, number: {type"
    pipeline = pipeline.replace("number: {type", due).replace("[kind,", "[kind, due,")
    desk = Desk(tmp_path, pipeline.replace("n: steps", "due: steps.bill.output.due, n: steps"))
    note = terms and f"<a:PaymentTerms><b:Note>{terms}</b:Note></a:PaymentTerms>"
    e_invoice(desk, "a.xml", re.sub("<b:DueDate>.*?</b:DueDate>", note, MADE.xml()).encode())
    answer = json.dumps({**GUESS, "currency": "USD", "due": "2020-01-01"})
    rows = desk.run(pool=FakePool(answer=lambda _: answer)).returns
    assert [row["due"] for row in rows] == ([] if TERMS[terms] is ... else [TERMS[terms]])
    asked = {name: review.subject.open for name, review in desk.waiting().items()}
    assert asked == ({"a.xml": ("due",)} if TERMS[terms] is ... else {})


ROPE = ("VAT 20%", "Rope of it: 10.00 {sign}\nVAT 20%")


def test_an_answer_of_model_rules_and_sums_passes_the_checks_or_is_asked_about(
    tmp_path: Path,
) -> None:
    check = "output.number != 'RE-102' or output.total < 50"
    desk = Desk(tmp_path, E_INVOICES.replace("evidence:", f'check: ["{check}"], evidence:'))
    desk.teach("a", bill())
    desk.arrive(b=bill(ROPE, **NEXT))
    answer = json.dumps({**GUESS, "total": 60.0, "currency": "USD"})
    pool = FakePool(answer=lambda _: answer)
    unseen = desk.run(pool=pool, review="accept")
    assert states(unseen)["b.txt"] == "quarantined"
    desk.run(pool=pool, retry_failed=True)
    assert desk.asked("b")
    with pytest.raises(DecisionRefused, match="accepted value is not valid"):
        desk.decide("b.txt", "accept")
    desk.decide("b.txt", "edit", {**TRUE, **READ, "total": 49.0})
    assert desk.outputs()["b.txt"] == ("RE-102", 49.0)


def test_a_model_is_not_known_to_be_right_where_it_says_what_is_known_without_it() -> None:
    leaf = {"p": 0.4, "low": 0.4, "raw": 0.4}
    outputs = {"output": {"n": 1, "m": 2}, "confidence": {"n": leaf, "m": leaf}}
    merged = with_answer(outputs, {"n": 1, "m": 2}, has_schema=True, evidence=None, known={"n"})
    assert (merged["confidence"]["n"]["raw"], merged["confidence"]["m"]) == (None, leaf)


def test_a_field_that_was_decided_otherwise_than_stated_is_asked_of_that_seller(
    tmp_path: Path,
) -> None:
    """The total is the one without tax; also of what was read before."""
    desk = Desk(tmp_path, E_INVOICES)
    others = [m for m in map(Made, range(8, 99)) if m.values["iban"] == MADE.values["iban"]]
    osier = ("Calder Boatyard", "Osier Garden")
    e_invoice(desk, "a.pdf", hybrid(MADE.page().replace("Calder", "Kirkholm"), MADE.xml()))
    e_invoice(desk, "b.pdf", hybrid(others[0].page(), others[0].xml()))
    content = hybrid(others[1].page().replace(*osier), others[1].xml().replace(*osier))
    e_invoice(desk, "c.pdf", content)
    desk.work()
    assert {*desk.waiting()} == {"a.pdf"}
    true = {"number": MADE.values["number"], "date": MADE.values["date"], "total": 1.5}
    desk.decide("a.pdf", "edit", {**TRUE, **true, "sender": "Calder Boatyard"})
    desk.work()
    assert {n: r.subject.open for n, r in desk.waiting().items()} == {"b.pdf": ("total",)}


IBAN, OTHER_IBAN = "DE02 1203 0000 0000 2020 51", "AT61 1904 3002 3457 3201"
PAID_TO = ("{bye}", "IBAN: {iban} BIC\n{bye}")


def paid_to(iban: str, **values: str) -> str:
    return bill(PAID_TO, iban=iban, **values)


# A decided document, the next one, and why its fields are open.
WHY: dict[str, tuple[str, str, dict[str, str]]] = {
    "nothing": (bill(), bill(**NEXT), {}),
    "another account": (
        paid_to(IBAN), paid_to(OTHER_IBAN, **NEXT),
        {**dict.fromkeys(LEFT, "left_over"), "sender": "other_account"}),
    "another account in two lines": (
        paid_to(IBAN), paid_to("AT61 1904\n3002 3457 3201", **NEXT),
        {**dict.fromkeys(ALL, "left_over"), "sender": "other_account"}),
    "an account that a decided paper hides": (
        paid_to(f"{IBAN} <!-- {OTHER_IBAN} -->"), paid_to(OTHER_IBAN, **NEXT),
        {**dict.fromkeys(LEFT, "left_over"), "sender": "other_account"}),
    "the same account in two lines": (
        paid_to(IBAN), paid_to(IBAN.replace("00 20", "00\n20"), **NEXT),
        dict.fromkeys(ALL, "left_over")),
    "the same account": (paid_to(IBAN), paid_to(IBAN.replace(" ", ""), **NEXT), {}),
    "an account where none was, in another layout": (
        bill(), paid_to(IBAN, title="Spring", hello="Sale", **NEXT),
        dict.fromkeys(ALL, "left_over")),
    "another sender": (bill(), bill(**OTHER_SENDER), dict.fromkeys(ALL, "new_sender")),
    "another layout": (
        bill(), f"Spring sale\nOpen on Sunday\n{SENDER}\nAll for 5.00\nCome soon",
        dict.fromkeys(ALL, "new_layout")),
    "a line more": (bill(), bill(BY_OSIER, **NEXT), dict.fromkeys(LEFT, "left_over")),
    "a new label": (bill(), bill(TO_PAY, **NEXT), dict.fromkeys(LEFT, "left_over")),
    "another number under its label": (
        bill(), bill(("Date: {date}", "Date: {date}\nNumber: RE-900"), **NEXT),
        dict.fromkeys(ALL, "left_over")),
    "a number of another form": (bill(), bill(**NEXT | {"number": "K-7"}), {"number": "no_value"}),
}  # fmt: skip


@pytest.mark.parametrize("case", WHY)
def test_a_person_is_told_why_each_field_is_open(desk: Desk, case: str) -> None:
    text, following, why = WHY[case]
    desk.teach("a", text)
    desk.arrive(b=following)
    desk.work()
    listed = invoke("review", str(desk.folder), "--list", "--json")
    found = json.loads(listed.stdout)["waiting"]
    assert [review["open"] for review in found] == ([why] if why else [])
    rows = csv.DictReader(reviews_csv(desk.waiting().values()).splitlines())
    said = {
        row["field"]: re.split(": | \\(", row["why"])[0] for row in rows if row["asked"] == "true"
    }
    assert said == {field: WhyOpen[name.upper()].value for field, name in why.items()}


def test_an_account_that_a_person_confirmed_is_the_senders(desk: Desk) -> None:
    desk.teach("a", paid_to(IBAN))
    desk.arrive(b=paid_to(OTHER_IBAN, **NEXT))
    desk.work()
    told = invoke("review", str(desk.folder), "--list", "--json").stdout
    assert "so far DE02120300000000202051" in told
    desk.teach("b", paid_to(OTHER_IBAN, **NEXT), **READ)
    desk.arrive(c=paid_to(OTHER_IBAN, **AS_OTHER))
    desk.work()
    assert desk.waiting() == {}


def test_a_line_of_ocr_is_asked_about_each_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    scan = (EXAMPLES / "office/inbox/fuel-309.png").read_bytes()
    for name in ("a.png", "b.png"):
        e_invoice(desk, name, scan + name.encode())
    desk.work()
    desk.decide("a.png", "edit", TRUE)
    desk.work()
    readings = desk.waiting()["b.png"].subject.readings
    assert {how.get("open") for how in readings.values()} == {"ocr"}
    assert [d["why"] for d in shown_rules(desk, "--json")["without_rule"]] == ["ocr"]


def test_a_code_of_two_words_is_read_in_a_sentence(desk: Desk) -> None:
    sentence = (
        "Number: {number}\nCustomer: {customer}",
        "Invoice {number} for account {customer}, sent today.",
    )
    desk.teach("a", bill(sentence, number="INV 8509"), number="INV 8509")
    desk.arrive(b=bill(sentence, **{**NEXT, "number": "INV 8512"}))
    assert (desk.work().calls, desk.waiting()) == (0, {})
    assert desk.outputs()["b.txt"] == ("INV 8512", 60.0)


def test_a_discount_before_a_sum_that_is_right_asks_nobody(desk: Desk) -> None:
    desk.teach("a", bill())
    desk.arrive(b=bill(DISCOUNT, **NEXT | {"vat": "8.00", "total": "48.00"}))
    desk.work()
    assert (desk.asked("b"), desk.outputs()["b.txt"]) == (frozenset(), ("RE-102", 48.0))


@pytest.mark.parametrize("how", ["together", "by the run"])
def test_no_rule_is_made_of_what_nobody_looked_at(desk: Desk, how: str) -> None:
    desk.arrive(a=bill())
    desk.work()
    if how == "together":
        with desk.reviews() as reviews:
            (review,) = reviews.waiting()
            reviews.accept_together([(review.id, review.question)], "ann")
    else:
        desk.run(pool=FakePool(answer=lambda _: json.dumps({**TRUE})), review="accept")
    desk.arrive(b=bill(**NEXT))
    desk.work()
    assert desk.asked("b") == ALL


def test_two_senders_of_one_layout_are_told_apart(desk: Desk) -> None:
    """Number and customer stand the other way round."""
    twin = "Larkfield Joinery"
    desk.teach("a", bill())
    desk.teach("t", bill(sender=twin, number="K-7", customer="RE-101"), sender=twin)
    desk.arrive(
        b=bill(**NEXT), u=bill(**NEXT | {"sender": twin, "number": "K-7"}, customer="RE-105")
    )
    desk.work()
    assert (desk.asked("b"), desk.asked("u")) == (frozenset(), frozenset())
    assert [desk.outputs()[name][0] for name in ("b.txt", "u.txt")] == ["RE-102", "RE-105"]


def test_only_the_open_field_is_asked_and_it_alone_teaches(desk: Desk) -> None:
    desk.teach("a", bill())
    desk.arrive(b=bill(TO_PAY, **NEXT))
    desk.work()
    assert desk.asked("b") == LEFT
    review = desk.waiting()["b.txt"]
    assert review.subject.answer == {**TRUE, **READ, "total": 50.0}
    desk.decide("b.txt", "edit", {**TRUE, **READ})
    desk.arrive(
        c=bill(TO_PAY, **NEXT | {"number": "RE-103"}), d=bill(**NEXT | {"number": "RE-104"})
    )
    report = desk.work()
    assert (desk.waiting(), report.calls) == ({}, 0)
    desk.arrive(e=bill(TO_PAY, **NEXT | {"number": "RE-105"}))
    assert (desk.work().calls, desk.waiting()) == (0, {})
    # The number of `b` was read by the rule of `a`: what nobody looked at does not stay without it.
    desk.undo("a.txt")
    desk.work()  # `b` is asked about as a whole, so that its rule ends as well
    desk.work()
    assert not desk.plan().has_work
    assert [desk.asked(name) for name in "abcde"] == [ALL] * 5


def test_an_undone_changed_or_deleted_decision_takes_back_what_hung_on_it_alone(desk: Desk) -> None:
    other = "Osier Garden Centre"
    desk.teach("a", bill())
    desk.teach("o", bill(sender=other), sender=other)
    desk.arrive(b=bill(**NEXT), p=bill(**NEXT | {"sender": other}))
    desk.work()
    assert desk.waiting() == {}
    desk.undo("a.txt")
    plan = desk.plan()
    assert {key for key, state in states(plan).items() if state == "stale"} >= {"b.txt"}
    assert "decisions changed how" in str(reasons(plan)["b.txt"])
    desk.work()
    assert {*desk.waiting()} == {"a.txt", "b.txt"}
    # Decided otherwise: what was read by the first decision is read as the second says.
    desk.decide("a.txt", "edit", {**TRUE, "total": 100.0})
    desk.work()
    assert desk.asked("b") == frozenset()
    assert desk.outputs()["b.txt"] == ("RE-102", 50.0)
    (desk.folder / "inbox/a.txt").unlink()
    desk.work()
    desk.work()
    assert (desk.asked("b"), desk.asked("p")) == (ALL, frozenset())


OTHER_TOTAL = ("{bye}", "A discount of 1.50 was given: the total is 118.50.\n\n{bye}")


def test_a_decided_document_that_changes_is_asked_about_and_its_decision_teaches(
    desk: Desk,
) -> None:
    desk.teach("a", bill())
    desk.work()
    desk.arrive(a=bill(OTHER_TOTAL))
    for _ in range(3):
        report, review = desk.work(), desk.waiting()["a.txt"]
        why = {how.get("open") for how in review.subject.readings.values()}
        assert (report.calls, why) == (0, {None, "left_over"})
        assert desk.asked("a") == ALL - {"number"}
        (rule,) = shown_rules(desk, "--json")["rules"]
        assert {*rule["fields"]} == ALL
    desk.arrive(b=bill(**NEXT))
    assert (desk.plan().calls, desk.work().calls) == (0, 0)
    assert [*desk.waiting()] == ["a.txt"]
    desk.decide("a.txt", "edit", {**TRUE, "total": 118.5})  # it takes the place of the first one
    desk.work()
    assert desk.asked("b") >= {"total"}
    desk.undo("a.txt")
    report = desk.work()
    assert ([*desk.waiting()], report.calls) == (["a.txt"], 0)


def test_a_decision_stands_again_when_its_document_is_as_it_was(desk: Desk) -> None:
    desk.teach("a", bill())
    was = desk.outputs()
    desk.arrive(a=bill(OTHER_TOTAL))
    desk.work()
    desk.arrive(a=bill())
    report = desk.work()
    assert (report.calls, desk.waiting(), desk.outputs()) == (0, {}, was)
    with desk.reviews() as reviews:
        assert [(r.state, r.by) for r in reviews.decided()] == [("edited", "ann")]


def test_a_decision_teaches_still_when_its_document_changed_and_asks_nothing_any_more(
    desk: Desk,
) -> None:
    desk.teach("a", bill())
    desk.arrive(a=bill(OTHER_TOTAL))
    desk.work()
    desk.arrive(a=bill(**NEXT))
    assert (desk.work().calls, desk.waiting()) == (0, {})
    desk.arrive(b=bill(**NEXT | {"number": "RE-103"}))
    assert (desk.work().calls, desk.waiting()) == (0, {})


def test_the_account_of_a_document_that_changed_is_not_known_before_it_is_decided(
    desk: Desk,
) -> None:
    desk.teach("a", paid_to(IBAN))
    desk.arrive(a=paid_to(OTHER_IBAN))
    desk.work()
    desk.arrive(b=paid_to(OTHER_IBAN).replace("RE-101", "RE-102"))
    desk.work()
    assert desk.waiting()["b.txt"].subject.may_be_fraud


def test_a_decision_on_a_document_that_was_filed_teaches(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FILING)
    desk.teach("a", bill())
    desk.work()
    assert (tmp_path / "filed/a.txt").exists()
    desk.arrive(b=bill(**NEXT))
    desk.work()
    assert (desk.waiting(), desk.outputs()["b.txt"]) == ({}, ("RE-102", 60.0))


@pytest.mark.parametrize("flow", [PIPELINE, FILING], ids=["in place", "filed"])
@pytest.mark.parametrize(
    ("corrected", "asked"),
    [
        ({"total": 50.0}, {"total"}),
        ({"sender": "Calder Quay Office"}, {"sender"}),
        ({"sender": "LARKFIELD PRINT WORKS"}, {"sender"}),
        ({"kind": "reminder"}, {"kind"}),
    ],
    ids=["total", "sender", "spelling", "kind"],
)
def test_what_a_rule_had_read_is_shown_again_when_a_random_check_contradicts_it(
    tmp_path: Path, flow: str, corrected: dict[str, Any], asked: set[str]
) -> None:
    desk = Desk(tmp_path, flow.replace("when: unsure", "when: unsure, also: 40%"))
    desk.teach("a", bill())
    papers = {f"b{n}": bill(**NEXT | {"number": f"RE-2{n}"}) for n in range(10)}
    desk.arrive(**papers, other=bill(**OTHER_SENDER))
    desk.work()
    checked, *_ = sorted(desk.waiting())
    number = {"number": f"RE-2{checked[1]}"}
    desk.decide(checked, "edit", {**TRUE, **READ, **number, **corrected})
    desk.work()
    others = papers.keys() - {checked.removesuffix(".txt")}
    assert {name: desk.asked(name) for name in others} == {name: asked for name in others}


@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_a_random_check_that_contradicts_no_rule_shows_nothing_again(
    tmp_path: Path, verb: Verb
) -> None:
    desk = Desk(tmp_path, FILING.replace("when: unsure", "when: unsure, also: 40%"))
    desk.teach("a", bill())
    desk.arrive(**{f"b{n}": bill(**NEXT | {"number": f"RE-2{n}"}) for n in range(10)})
    desk.work()
    checked, *others = sorted(desk.waiting())
    desk.decide(checked, verb, reason="a letter")
    desk.work()
    assert (sorted(desk.waiting()), desk.plan().has_work) == (others, False)


def test_decisions_that_contradict_a_rule_end_it_in_any_order(tmp_path: Path) -> None:
    """One says the total is the net sum, one that it is not."""
    asked = []
    for order in ("ab", "ba"):
        desk = Desk(tmp_path / order)
        desk.arrive(a=bill(), b=bill(**NEXT))
        desk.work()
        for name in order:
            true = {**TRUE} if name == "a" else {**TRUE, **READ, "total": 50.0}
            desk.decide(f"{name}.txt", "edit", true)
        desk.arrive(c=bill(**NEXT | {"number": "RE-103"}))
        desk.work()
        asked.append(desk.asked("c"))
    assert asked == [{"total"}, {"total"}]


def test_the_reason_why_a_field_is_open_is_the_same_in_any_order_of_decisions() -> None:
    """One rule of the total misses its label, one finds a new label beside its own."""
    to_pay = bill(("Total: {total}", "To pay: {total}"), **NEXT)
    taught = [
        TaughtAnswer(text[-9:], {**TRUE, **true}, ALL, CONSTANT, offered(text).pack())
        for text, true in ((bill(), {}), (to_pay, READ))
    ]
    met = offered(bill(ROPE, ("Total: {total}", "To pay: {total}"), **AS_OTHER))
    found = [Rules(order).read(met).why_open("total") for order in (taught, taught[::-1])]
    assert found == [WhyOpen.LEFT_OVER] * 2


def test_decisions_on_which_no_one_saw_the_kind_join_layouts_alike_in_any_order() -> None:
    """Two of them, which differ in a line, and a credit note on the words of one."""
    papers = [
        (bill(line("Contact: Mr Wood")), "invoice", frozenset(["total"])),
        (bill(**NEXT), "invoice", frozenset(["total"])),
        (bill(line("We give back to you all that you have paid."), **NEXT), "credit note", ALL),
    ]
    taught = [
        TaughtAnswer(text[-9:] + kind, {**TRUE, **(READ if n else {}), "kind": kind}, fields,
                     CONSTANT, offered(text).pack())
        for n, (text, kind, fields) in enumerate(papers)
    ]  # fmt: skip
    met = offered(bill(**AS_OTHER))
    found = [Rules(order).read(met).sure.keys() for order in itertools.permutations(taught)]
    assert all(sure == found[0] for sure in found)


def test_a_persons_decision_stands_over_each_rule(desk: Desk) -> None:
    desk.arrive(a=bill(), b=bill(**NEXT))
    desk.work()
    desk.decide("b.txt", "edit", {**TRUE, **READ, "number": "mine"})
    desk.work()
    desk.decide("a.txt", "edit", TRUE)
    desk.work()
    assert desk.outputs() == {"a.txt": ("RE-101", 120.0), "b.txt": ("mine", 60.0)}


CREDIT_NUMBER = ("Number:", "Credit no.:")


def test_a_decided_document_is_not_asked_about_again_because_its_decision_ends_a_rule(
    desk: Desk,
) -> None:
    desk.teach("a", bill())
    desk.teach("b", bill(CREDIT_NUMBER, **NEXT), **READ, kind="credit note")
    desk.work()
    assert desk.waiting() == {}
    assert desk.outputs()["b.txt"] == ("RE-102", 60.0)


def test_what_no_rule_reads_otherwise_is_not_stale(desk: Desk) -> None:
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    desk.work()
    desk.teach("c", bill(sender="Osier Garden Centre"), sender="Osier Garden Centre")
    assert {*states(desk.plan())} == {"c.txt"}


def shown_rules(desk: Desk, *flags: str) -> Any:
    result = invoke("review", str(desk.folder), "--rules", *flags)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if flags else result.stdout


def test_review_shows_the_rules_whose_decisions_they_are_and_how_often_they_are_used(
    desk: Desk,
) -> None:
    desk.teach("a", bill())
    desk.teach("s", bill(title="STATEMENT"), total=777.0, sender="Somebody else")
    desk.arrive(b=bill(**NEXT))
    desk.work()
    before = sorted(path.name for path in (desk.folder / ".paddock").iterdir())
    found = shown_rules(desk, "--json")
    (rule,) = found["rules"]
    assert rule["step"] == "bill"
    assert rule["sender"] == ["Larkfield Print Works"]
    assert {"calder quay office", "invoice", "total : \u2026"} <= {*rule["layout"]}
    assert [*rule["fields"]] == [*TRUE]
    assert (rule["documents"], rule["open"]) == (2, [])
    (decision,) = rule["decisions"]
    assert (decision["item"], decision["by"]) == ("a.txt", "ann")
    reads = {
        name: [(reading["label"], reading["value"]) for reading in readings]
        for name, readings in rule["fields"].items()
    }
    assert reads == {
        "kind": [(None, "invoice")], "sender": [(None, "Larkfield Print Works")],
        "currency": [(None, "EUR")], "number": [("number", None)], "date": [("date", None)],
        "total": [("total", None)],
    }  # fmt: skip
    assert [(d["item"], d["why"]) for d in found["without_rule"]] == [("s.txt", "no_sender")]
    desk.teach("k", bill(sender="abbot"), sender="abbot")
    senders = [rule["sender"] for rule in shown_rules(desk, "--json")["rules"]]
    assert senders == [["abbot"], ["Larkfield Print Works"]]
    text = shown_rules(desk)
    assert "step 'bill'; used for 2 documents)" in text
    at = units.local_time(datetime.fromisoformat(decision["at"]).timestamp())
    assert f"  decided: {decision['id']} (a.txt), ann, {at}\n" in text
    assert f"  total: behind 'total', by {decision['id']}\n" in text
    assert "  kind: always invoice, by " in text
    assert "(s.txt) makes no rule: no decided name" in text
    assert sorted(path.name for path in (desk.folder / ".paddock").iterdir()) == before


def test_review_tells_why_decisions_make_no_rule_and_which_fields_stay_open(desk: Desk) -> None:
    assert "No run has been recorded" in invoke("review", str(desk.folder), "--rules").output
    desk.arrive(a=bill())
    desk.work()
    with desk.reviews() as reviews:
        (review,) = reviews.waiting()
        reviews.accept_together([(review.id, review.question)], "ann")
    desk.teach("o", bill(sender="Osier"), sender="Osier", total=777.0)
    found = shown_rules(desk, "--json")
    assert [(d["item"], d["why"]) for d in found["without_rule"]] == [("a.txt", "together")]
    assert [(rule["sender"], rule["open"]) for rule in found["rules"]] == [(["Osier"], ["total"])]


def test_random_checks_of_what_nobody_was_asked_are_counted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, PIPELINE.replace("{when: unsure}", "{when: unsure, also: 50%}"))
    desk.teach("a", bill())
    numbers = [f"RE-{number}" for number in range(200, 212)]
    desk.arrive(**{f"n{n[3:]}": bill(**NEXT | {"number": n}) for n in numbers})
    desk.work()
    drawn = desk.waiting()
    assert 2 <= len(drawn) < 12
    assert {review.subject.is_sampled for review in drawn.values()} == {True}
    assert shown_rules(desk, "--json")["checked"] == {
        "unasked": 12 - len(drawn), "looked_at": 0, "wrong": 0
    }  # fmt: skip
    wrong, right, *_ = drawn
    desk.decide(right, "edit", drawn[right].subject.answer)  # as by a click on the value that is so
    desk.decide(wrong, "edit", {**TRUE, **READ, "total": 1.0})
    counts = f"{14 - len(drawn)} read without a question 2 were looked at, 1 wrong."
    assert counts in shown_rules(desk)


def test_what_a_decision_would_answer_passes_the_checks_of_its_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again, it has read what was decided, undone and deleted meanwhile."""
    small = PIPELINE.replace("evidence:", 'check: ["output.total < 70"], evidence:')
    desk = Desk(tmp_path, small)
    desk.arrive(a=bill(**NEXT), b=bill(**NEXT), c=bill(), o=bill(**OTHER_SENDER))
    desk.work()
    with desk.reviews() as reviews:
        asked = {review.item: reviews.get(review.id) for review in reviews.waiting()}

        def answered(name: str) -> tuple[list[str], int]:
            true = {**TRUE, **READ, "sender": "Larkfield Joinery" if name == "o.txt" else SENDER}
            found, most = answered_by(reviews, replace(asked[name], value=true))
            pairs = [(review, value) for review, value in found if value is not None]
            sound = [r.item for r, value in pairs if not reviews.check_of(r, value).faults()]
            return sorted(sound), most

        assert answered("a.txt") == (["b.txt"], 0)
        assert answered("o.txt") == ([], 0)
        desk.decide("b.txt", "edit", {**TRUE, **READ, "total": 50.0})
        assert answered("a.txt") == ([], 0)  # they contradict each other
        desk.undo("b.txt")
        assert answered("a.txt") == (["b.txt"], 0)
        monkeypatch.setattr("paddock.runner.review.taught_rules.MOST_LOOKED_AT", 1)
        assert answered("a.txt")[1] == 1


@pytest.mark.parametrize("clicked", ["Total: ", "Net: ", ""])
def test_a_click_says_which_of_several_places_is_meant(desk: Desk, clicked: str) -> None:
    text = bill(net="120.00", vat="0.00")
    desk.arrive(a=text)
    desk.work()
    at = text.index(clicked) + len(clicked)
    places = {"total": (at, at + len("120.00"))} if clicked else {}
    with desk.reviews() as reviews:
        review = desk.waiting()["a.txt"]
        given = GivenDecision(review.question, "edit", "anna", TRUE, places=places)
        reviews.enter(review.id, given)
    desk.arrive(b=bill(**NEXT))
    desk.work()
    read = {"Total: ": ("RE-102", 60.0), "Net: ": ("RE-102", 50.0)}
    assert desk.outputs().get("b.txt") == read.get(clicked)
    assert desk.asked("b") == (frozenset() if clicked else {"total"})
    desk.undo("a.txt")
    assert desk.waiting()["a.txt"].subject.places == {}


def test_gold_teaches_the_same_rules_in_another_folder_with_its_documents(tmp_path: Path) -> None:
    office, branch = Desk(tmp_path / "office"), Desk(tmp_path / "branch")
    text = bill(net="120.00", vat="0.00")
    for desk in (office, branch):
        desk.arrive(a=text)
        desk.work()
    at = text.index("Total: ") + len("Total: ")
    with office.reviews() as reviews:
        review = office.waiting()["a.txt"]
        places = {"total": (at, at + len("120.00"))}
        given = GivenDecision(review.question, "edit", "anna", TRUE, places=places)
        reviews.enter(review.id, given)
    for desk, what in ((office, "--export"), (branch, "--import")):
        done = invoke("review", str(desk.folder), what, str(tmp_path / "gold.jsonl"))
        assert done.exit_code == 0
    branch.arrive(b=bill(**NEXT))
    branch.work()
    assert (branch.waiting(), branch.outputs()["b.txt"]) == ({}, ("RE-102", 60.0))


def test_why_tells_which_decision_reads_a_field_and_behind_which_label(desk: Desk) -> None:
    writes = """\
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
    returns: {file"""
    desk.edit("    returns: {file", writes)
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    desk.work()
    (decision,) = shown_rules(desk, "--json")["rules"][0]["decisions"]
    as_decided = f"as decided on {decision['at'][:10]} ({decision['id']})"
    arguments = ["why", str(desk.folder / "out/b.txt"), str(desk.folder)]
    text = invoke(*arguments).stdout
    assert f"total: read behind 'total', {as_decided}" in text
    assert f"kind: the same in each, {as_decided}" in text
    found = json.loads(invoke(*arguments, "--json").stdout)
    (origin,) = found["origins"]
    assert origin["read_by_rules"]["number"] == f"read behind 'number', {as_decided}"
    own = invoke("why", str(desk.folder / "out/a.txt")).stdout
    assert "read behind" not in own


@pytest.mark.parametrize("mark", ["", "never", "always"])
def test_a_person_says_that_what_is_new_never_matters_or_is_asked_about_each_time(
    desk: Desk, mark: str
) -> None:
    def decide(name: str) -> None:
        (review,) = desk.waiting().values()
        assert review.subject.answer == {**TRUE, **NUMBERS[name]}  # as it was read all the same
        marks = dict.fromkeys(review.subject.left_over, mark)
        with desk.reviews() as reviews:
            given = GivenDecision(review.question, "accept", "ann", marks=marks)
            assert reviews.enter(review.id, given).state == "accepted"
        desk.work()

    said = ("{bye}", "We move to the harbour in May.\n{bye}")
    desk.teach("a", bill())
    desk.arrive(b=bill(said, number="RE-102"))
    desk.work()
    (left,) = desk.waiting()["b.txt"].subject.left_over.values()
    assert left[0] == "We move to the harbour in May."
    decide("b")
    for name in ("c", "d"):
        desk.arrive(**{name: bill(said, **NUMBERS[name])})
        desk.work()
        assert bool(desk.asked(f"{name}")) is (mark == "always")
        if mark == "always":
            decide(name)
    desk.arrive(e=bill(number="RE-105"))  # as the first one was
    desk.work()
    assert not desk.asked("e")
    told = invoke("review", str(desk.folder), "--rules").stdout
    assert (f"  {mark}: “we move to the harbour in may”, by " in told) is bool(mark)
    if mark == "never":
        desk.undo("b.txt")
        desk.work()
        assert {*desk.waiting()} == {"b.txt", "c.txt", "d.txt"}


NUMBERS = {name: {"number": f"RE-{n}"} for n, name in enumerate("abcde", 101)}


def test_decisions_of_earlier_versions_teach_and_open_nothing_that_was_read(tmp_path: Path) -> None:
    """What they packed of a document has no lines: these are made of its text, once."""
    desk = Desk(tmp_path, FILING)
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    desk.work()
    data: list[Any] = [["invoice"], [SENDER], [], [], "", {}, [], {}, ["EUR"], {}]
    old = b64encode(zlib.compress(json.dumps(data).encode())).decode()
    with desk.reviews() as reviews:
        (decided,) = reviews.decided()
        reviews.keep_offers({decided.id: old})
        packed = {"new": json.dumps(offered(bill(**NEXT)).pack()), "old": json.dumps(old)}
        change = "update events set reads = replace(reads, :new, :old)"
        reviews.ledger.in_transaction(lambda execute: execute(change, packed))
    desk.arrive(c=bill(**NEXT | {"number": "RE-103"}), d=bill(UNDER_TITLE, **AS_OTHER))
    desk.work()
    assert [desk.asked(name) for name in "bcd"] == [frozenset(), frozenset(), LEFT]
    with desk.reviews() as reviews:
        rows = reviews.ledger.rows(
            "select reads from events where reads is not null and key = 'b.txt'"
        )
        assert any(old in reads for (reads,) in rows)
    with desk.reviews() as reviews:
        (decided,) = reviews.decided(is_whole=True)
    assert Offers.unpack(decided.subject.offers).lines == offered(bill()).lines


def test_what_was_decided_is_proposed_by_the_run_after_its_undo_and_taken_by_one_key(
    desk: Desk,
) -> None:
    desk.teach("a", bill())
    desk.arrive(b=bill(**NEXT))
    desk.work()
    desk.undo("a.txt")
    desk.work()  # the model has its guess again, and no rule reads b.txt
    waiting = desk.waiting()
    assert {name: review.shown_answer == TRUE for name, review in waiting.items()} == {
        "a.txt": True, "b.txt": False,
    }  # fmt: skip
    desk.decide("a.txt", "accept")
    desk.work()
    assert (desk.waiting(), desk.outputs()["a.txt"]) == ({}, ("RE-101", 120.0))


def test_a_plan_asks_rules_as_a_run_does(desk: Desk) -> None:
    desk.arrive(a=bill())
    assert desk.plan().calls == desk.work().calls == 1
    desk.decide("a.txt", "edit", TRUE)
    desk.arrive(b=bill(**NEXT), c=bill(UNDER_TITLE, **AS_OTHER))
    assert desk.plan().calls == 0
    assert (desk.work().calls, {*desk.waiting()}) == (0, {"c.txt"})


def taught(text: str, id_: int, **true: Any) -> TaughtAnswer:
    packed = offered(text).pack()
    return TaughtAnswer(f"{id_}", {**TRUE, **true}, ALL, CONSTANT, packed)


def test_a_line_that_came_and_went_at_one_sender_matters_at_none() -> None:
    """But a line of a paper whose total stands nowhere may be why it is another one."""
    part, glad = "You have paid 10.00 EUR of this.", "We were glad to meet you at the fair."
    other = {"sender": "Osier Garden Centre"}

    def left(*decided: TaughtAnswer) -> list[str]:
        first = taught(bill(**other), 9, **other)
        met = bill(line(glad), line(part, "{bye}"), **NEXT | other)
        found = Rules([first, *decided]).read(offered(met))
        assert (found.sure.keys() == ALL) is not bool(found.left_over)
        return [over.text for over in found.left_over]

    plain = taught(bill(), 1)
    assert left(plain) == [glad, part]
    paid = taught(bill(line(part, "{bye}"), **NEXT), 2, **READ | {"total": 33.0})
    again = taught(bill(line(glad), line(part, "{bye}"), **NEXT), 3, **READ | {"total": 33.0})
    assert left(plain, paid, again) == [glad, part]
    as_ever = taught(bill(line(part, "{bye}"), **NEXT), 2, **READ)
    assert left(plain, as_ever) == [glad]


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("Already paid: 0 EUR", "Already paid: 50 EUR"),
        ("Amounts in units of 1", "Amounts in units of 1000"),
        ("Account 44571234", "Account 90971234"),
        ("Discount: 0.00 EUR", "Discount: -5.00 EUR"),
    ],
)
def test_digits_that_two_papers_have_alike_are_fixed(text: str, met: str) -> None:
    papers = [taught(bill(line(text)), 1), taught(bill(line(text), **NEXT), 2, **READ)]
    rules = Rules(papers)
    assert rules.read(offered(bill(line(text), **AS_OTHER))).sure.keys() == ALL
    found = rules.read(offered(bill(line(met), **AS_OTHER)))
    assert [left.text for left in found.left_over] == [met]
