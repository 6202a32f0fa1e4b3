"""What stands around a number is a part of its form: where it is new, a person is asked."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from paddock.pipelines.text_cells import SourceText, TextCell, pack_cells
from paddock.runner.rules import Rules, TaughtAnswer, offers_of

DAY_AND_NUMBER = {"number": "RE-101", "date": "2027-03-21"}
NEXT = {"number": "RE-102", "date": "2027-03-28"}
PAPER = """\
Larkfield Print Works
4 Mill Lane, Kirkholm

INVOICE

Number: {number}
Date: {date}

Dear customer,

{sums}

Thank you for your business.
"""


def lines(sums: str, **values: str) -> SourceText:
    return SourceText("a.md", PAPER.format(sums=sums, **values))


def page(sums: str, **values: str) -> SourceText:
    """Return a page of words with boxes; three spaces part cells."""
    text, cells, at = PAPER.format(sums=sums, **values), list[TextCell](), 0
    for row, line in enumerate(text.split("\n")):
        for word in re.finditer(r"\S+", line):
            start, end = word.span()
            box = (start / 100, row / 40, end / 100, (row + 0.7) / 40)
            cells.append(TextCell(at + start, at + end, box))
        at += len(line) + 1
    return SourceText("a.pdf", text, is_paged=True, boxes={"1": pack_cells(cells)})


PAPERS: dict[str, Callable[..., SourceText]] = {
    "a line": lambda written, **v: lines(f"Net: 1.00 EUR\nTotal: {written}", **v),
    "a line without a colon": lambda written, **v: lines(f"Grand total {written}", **v),
    "a table": lambda written, **v: lines(
        f"| Sum | Amount |\n| --- | --- |\n| Net | 1.00 EUR |\n| Total | {written} |", **v),
    "words with boxes": lambda written, **v: page(f"Net:   1.00 EUR\nTotal:   {written}", **v),
}  # fmt: skip


def read(decided: list[tuple[SourceText, Any]], met: SourceText) -> tuple[Any, Any, str]:
    """Return the total and currency that rules read, None where they are asked, and why.

    What is decided: papers, with the total of each.
    """
    fields = frozenset((*NEXT, "sender", "total", "currency"))
    answer = {"sender": "Larkfield Print Works", **DAY_AND_NUMBER, "currency": "EUR"}
    taught = (
        TaughtAnswer(
            str(n),
            {**answer, "total": total},
            fields,
            frozenset(["currency"]),
            offers_of([source]).pack(),
        )
        for n, (source, total) in enumerate(decided)
    )
    found = Rules(taught).read(offers_of([met]))
    values = {name: how.value for name, how in found.sure.items()}
    return values.get("total"), values.get("currency"), found.why_open("total").name


EUR, LONG = "120.00 EUR", f"{'umsatz' * 9} {'steuer' * 9}"
ALWAYS = "asked about whatever is decided"
AROUND: list[tuple[str, float, str, float | str | None]] = [
    # What was decided, its total, what is met, and what is read there; None: it is asked about,
    # and then read.
    (EUR, 120.0, "60.00 EUR", 60.0),
    (EUR, 120.0, "-60.00 EUR", None),
    (EUR, 120.0, "+60.00 EUR", None),
    (EUR, 120.0, "CR 60.00 EUR", None),
    (EUR, 120.0, "60.00 EUR credit", None),
    (EUR, 120.0, "60.00 EUR Haben", None),
    (EUR, 120.0, "60.00 EUR Gutschrift", None),
    (EUR, 120.0, "60.00 EUR (paid)", None),
    (EUR, 120.0, "60.00 EUR avoir", None),
    (EUR, 120.0, "60.00 EUR a favore", None),
    (EUR, 120.0, "60.00 EUR tegoed", None),
    (EUR, 120.0, "60.00 EUR abono", None),
    (EUR, 120.0, "[60.00] EUR", None),
    (EUR, 120.0, "<60.00> EUR", None),
    (EUR, 120.0, "~60.00 EUR", None),
    (EUR, 120.0, "> 60.00 EUR", None),
    (EUR, 120.0, "60.00 EUR*", None),
    (EUR, 120.0, "60.00 EUR incl. VAT", None),
    (EUR, 120.0, "60.00 EUR per month", None),
    (EUR, 120.0, "60.00 EUR ./.", None),
    (EUR, 120.0, "./. 60.00 EUR", None),
    (EUR, 120.0, "60.00 TEUR", None),
    (EUR, 120.0, "60.00 EUR.", 60.0),
    (EUR, 120.0, "EUR 60.00", 60.0),
    ("120.00 EUR incl. VAT", 120.0, "60.00 EUR incl. VAT", 60.0),
    ("120.00 EUR incl. VAT", 120.0, "60.00 EUR INCL. VAT", 60.0),
    ("120.00 EUR incl. VAT", 120.0, "60.00 EUR excl. VAT", None),
    ("120.00 EUR incl. VAT", 120.0, "60.00 EUR", None),
    ("120.00 EUR incl. VAT", 120.0, "-60.00 EUR incl. VAT", None),
    ("120,00 \u20ac (19 % MwSt.)", 120.0, "60,00 \u20ac (7 % MwSt.)", None),
    ("120,00 \u20ac (inkl. 19,5 % USt)", 120.0, "60,00 \u20ac (inkl. 7 % USt)", None),
    ("120,00 \u20ac TTC", 120.0, "60,00 \u20ac TTC", 60.0),
    ("120,00 \u20ac TTC", 120.0, "60,00 \u20ac HT", None),
    ("120.00 CR", 120.0, "60.00 CR", 60.0),
    ("120.00 CR", -120.0, "60.00 CR", -60.0),
    ("120.00 CR", -120.0, "60.00 DR", None),
    ("120.00 CR", -120.0, "60.00", None),
    ("CR 120.00", -120.0, "CR 60.00", -60.0),
    ("120.00 EUR Haben", -120.0, "60.00 EUR Haben", -60.0),
    ("120.00 EUR Haben", -120.0, "60.00 EUR Soll", None),
    ("(120.00)", -120.0, "(60.00)", -60.0),
    ("(120.00)", -120.0, "60.00", None),
    ("(120.00)", 120.0, "(60.00)", 60.0),
    ("(-120.00)", -120.0, "(60.00)", None),
    ("[120.00]", 120.0, "[60.00]", 60.0),
    ("kr 120,-", 120.0, "kr 60,-", 60.0),
    ("kr 120,50", 120.5, "kr 60,-", None),
    ("CHF 120.--", 120.0, "CHF 60.--", 60.0),
    ("Rs. 120.00/-", 120.0, "Rs. 60.00/-", 60.0),
    ("***120.00***", 120.0, "*****60.00*****", 60.0),
    ("US$120.00", 120.0, "-US$60.00", None),
    ("US$ 120.00", 120.0, "US$ 60.00", 60.0),
    ("R$ 120,00", 120.0, "-R$ 60,00", None),
    ("RM1,120.00", 1120.0, "RM1,060.00", 1060.0),
    ("-Rp1.120.000", -1120000.0, "-Rp1.060.000", -1060000.0),
    ("R1,120.00", 1120.0, "R1,060.00", 1060.0),
    ("R1,120.00", 1120.0, "XR1,060.00", ALWAYS),
    (EUR, 120.0, "EUR ,60", ALWAYS),
    ("12,00\u20ac", 12.0, "60\u20ac50", None),
    (EUR, 120.0, "60.00 \u2030", ALWAYS),
    ("R$ 120,00", 120.0, "R$ -60,00", None),
    ("12,000 \u5186", 12000.0, "6,000 \u5186", 6000.0),
    ("\u00a512,000", 12000.0, "\u00a56,000 (\u7a0e\u8fbc)", None),
    ("120 EUR", 120.0, "60 EUR CR", None),
    ("120", 120, "60", 60),
    ("120 pcs", 120, "60 pcs", 60),
    ("120 pcs", 120, "60 boxes", None),
    ("120.00 z\u0142", 120.0, "60.00 z\u0142 brutto", None),
    ("120.00 EUR due 3 May 2027", 120.0, "60.00 EUR due 12 June 2027", 60.0),
    ("120.00 EUR, thank you", 120.0, "60.00 EUR, thank you", 60.0),
    ("0.00 EUR incl. VAT", 0.0, "60.00 EUR incl. VAT", None),
    ("120.00 EUR \u2013", -120.0, "60.00 EUR \u2013", -60.0),
    ("120.00 EUR - payable within 30 days", 120.0, "60.00 EUR - payable within 14 days", 60.0),
    ("120.00 EUR - payable within 30 days", 120.0, "60.00 EUR- payable within 30 days", 60.0),
    ("120.00 EUR \u2013 pay by 3 May 2027", 120.0, "60.00 EUR \u2013 pay by 4 June 2027", 60.0),
    ("120.00 EUR - thank you", 120.0, "60.00 EUR - thank you", 60.0),
    ("120.00 EUR - thank you", 120.0, "60.00 EUR - credit", None),
    (EUR, 120.0, ".60 EUR", ALWAYS),
    (EUR, 120.0, ",60 EUR", ALWAYS),
    (EUR, 120.0, "$ .60", ALWAYS),
    (EUR, 120.0, "'60.00 EUR", ALWAYS),
    (EUR, 120.0, "6\u0660.00 EUR", ALWAYS),
    (EUR, 120.0, "\u0666\u0660 EUR", ALWAYS),
    (EUR, 120.0, "- EUR 60.00", None),
    (EUR, 120.0, "- $ 60.00", None),
    (EUR, 120.0, "-EUR 60.00", None),
    ("120.00 EUR less 2%", 120.0, "60.00 EUR less 2%", 60.0),
    ("120.00 EUR less 2%", 120.0, "60.00 EUR less 50%", None),
    ("120.00 EUR less 2,5 %", 120.0, "60.00 EUR less 25 %", None),
    ("120.00 EUR (-2%)", 120.0, "60.00 EUR (-3%)", None),
    (EUR, 120.0, "60.00, 75.00 EUR", None),
    (EUR, 120.0, "60.00; 75.00 EUR", None),
    (EUR, 120.0, "60.00 EUR, 2027-05-03 paid in full", None),
    (EUR, 120.0, "60.00 EUR; K-9 credited", None),
    ("120.00 EUR for K-7", 120.0, "60.00 EUR for K-8", 60.0),
    ("120.00 EUR for K-7", 120.0, "60.00 EUR for K-8, credited", None),
    ("120.00 EUR due 3 May 2027", 120.0, "60.00 EUR due 3 May 2027 (credit)", None),
    (f"120.00 EUR incl. {LONG}", 120.0, f"60.00 EUR incl. {LONG}", 60.0),
    (f"120.00 EUR incl. {LONG}", 120.0, f"60.00 EUR incl. {LONG}, credited", None),
]  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize(("decided", "total", "met", "judged"), AROUND)
def test_a_number_is_read_where_the_same_stands_around_it(
    paper: str, decided: str, total: float, met: str, judged: float | str | None
) -> None:
    source = PAPERS[paper]
    old, new = source(decided, **DAY_AND_NUMBER), source(met, **NEXT)
    found, _, why = read([(old, total)], new)
    if judged not in (None, ALWAYS):
        assert (found, type(found)) == (judged, type(judged))
        return
    assert found is None
    assert why in ("LEFT_OVER", "NO_VALUE", "NO_PLACE", "NEW_LAYOUT")
    of_met, later = source(met, **DAY_AND_NUMBER), source(met.replace("6", "7", 1), **NEXT)
    size = 100 if "6,000" in met else 1
    sums = (type(total)(sign * size) for sign in (60, -60))
    readings = {read([(of_met, of_it)], later)[0] for of_it in sums} - {None}
    assert bool(readings) == (judged is None)


SUMS = [  # decided, met, its total and currency, or asked
    ("Total:   120.00   EUR", "Total:   60.00   EUR", 60.0, "EUR"),
    ("Total:   120.00   EUR", "Total:   60.00   USD", None, None),
    ("Total:   120.00", "Total:   60.00   CR", None, None),
    ("Total:   120.00   CR", "Total:   60.00   CR", 60.0, "EUR"),
    ("Total:   120.00   EUR", "Total:   60.00   EUR   Gutschrift", None, None),
    ("Total: 120.00", "Total: ~~60.00~~", None, None),
    ("Total EUR: 120.00", "Total EUR: 60.00", 60.0, "EUR"),
    ("Total EUR: 120.00", "Total USD: 60.00", None, None),
    ("Total (EUR)   120.00", "Total (USD)   60.00", None, None),
    ("Total (EUR)   120.00", "Total (EUR)   60.00", 60.0, "EUR"),
    ("Total US$ 120.00", "Total C$ 60.00", None, None),
    ("Total 120.00 US$", "Total 60.00 C$", None, None),
    ("Total 120.00 \u20ac", "Total 60.00 $", None, None),
    ("Net 100.00 EUR, total: 120.00 EUR", "Net 50.00 EUR, total: 60.00 EUR", 60.0, "EUR"),
    ("Total - 120.00 EUR", "Total - 60.00 EUR", 60.0, "EUR"),
    ("Total 120.00 EUR", "Total - 60.00 EUR", None, None),
    ("Total: 120.00 EUR", "Total: 75.00 EUR\nTotal: (75.00) EUR", None, None),
    ("Total: 120.00\nTotal: 120.00 due now", "Total: 60.00\nTotal: 60.00 due now", 60.0, "EUR"),
    ("Total: 120.00\nTotal: 120.00 due now", "Total: 60.00\nTotal: 60.00 paid", None, None),
    ("VAT 20%: 120.00 EUR", "VAT 10%: 60.00 EUR", None, None),
    ("VAT 20%: 120.00 EUR", "VAT 7%: 60.00 EUR\nVAT 19%: 60.00 EUR", None, None),
    ("Total:   120.00", "Total: -   60.00", None, None),
    ("Total   120.00", "Total -   60.00", None, None),
    ("Total - 120.00", "Total \u2212 60.00", 60.0, "EUR"),
    ("Total --- 120.00", "Total - 60.00", None, None),
    ("Total 120.00", "Total -- 60.00", None, None),
    ("Total:   120.00 EUR", "Total:   60.00 EUR   2027-05-03 paid in full", None, None),
    ("Total: 120.00 EUR", "Total: 60.00 EUR | 75.00 EUR", None, None),
    ("Total:   120.00", "Total:   60.00   75.00", None, None),
    ("Total:   120.00   20.00", "Total:   60.00   10.00", 60.0, "EUR"),
    ("Total:   120.00", "Total:   60.00   1. credit", None, None),
    ("Total:   120.00", "Total:   60.00   100 % CR", None, None),
    ("Total:   120.00", "Total:   60.00   2 x paid", None, None),
    ("Net: 1.00 | Total: 120.00 | Old: 5.00", "Net: 1.00 | Total: 60.00", None, None),
    ("Net   Total   Old\n1.00   120.00   5.00", "Net   Total\n1.00   60.00", None, None),
    ("Payment: 14 days\nTotal: 120.00 EUR", "Payment: 30 days\nTotal: 60.00 EUR", 60.0, "EUR"),
]  # fmt: skip


@pytest.mark.parametrize("paper", [lines, page])
@pytest.mark.parametrize(("decided", "met", "total", "currency"), SUMS)
def test_currencies_and_cells_beside_a_number(
    paper: Callable[..., SourceText],
    decided: str,
    met: str,
    total: float | None,
    currency: str | None,
) -> None:
    old = paper(decided, **DAY_AND_NUMBER)
    assert read([(old, 120.0)], paper(met, **NEXT))[:2] == (total, currency)


TABLES = {  # decided, met
    "a minus ends the label's cell": ("| Total | 120.00 |", "| Total - | 60.00 |"),
    "a column's head": ("| Sum | Amount |\n| - | - |\n| Due | 120.00 |",
                        "| Sum | Amount (-) |\n| - | - |\n| Due | 60.00 |"),
    "a column of credits": ("| Total | 120.00 | |", "| Total | | 60.00 |"),
    "two columns": ("| Total | 120.00 | |", "| Total | 60.00 | 75.00 |"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_the_place_of_a_number_in_its_row_is_a_part_of_its_form(case: str) -> None:
    decided, met = (rows if "\n" in rows else f"{rows}\n| - | - | - |" for rows in TABLES[case])
    old, new = lines(decided, **DAY_AND_NUMBER), lines(met, **NEXT)
    assert read([(old, 120.0)], new)[::2] == (None, "LEFT_OVER")
    of_met, later = lines(met, **DAY_AND_NUMBER), lines(met.replace("60", "70"), **NEXT)
    assert read([(of_met, 60.0)], later)[0] == 70.0


def test_a_whole_number_is_not_read_beside_another_under_its_label() -> None:
    old = lines("Total: 120", **DAY_AND_NUMBER)
    assert read([(old, 120)], lines("Total: 60\nTotal: 60.50", **NEXT))[0] is None
    assert read([(old, 120)], lines("Total: 60.50", **NEXT))[0] is None
    assert read([(old, 120)], lines("Total: 60\nTotal: 60.00", **NEXT))[0] is None


def test_two_ways_to_write_are_known_after_two_decisions() -> None:
    plain, credit = (lines(f"Total: {w}", **DAY_AND_NUMBER) for w in (EUR, "120.00 EUR credit"))
    decided: list[Any] = [(plain, 120.0), (credit, -120.0)]
    assert read(decided, lines("Total: 60.00 EUR", **NEXT))[0] == 60.0
    assert read(decided, lines("Total: 60.00 EUR credit", **NEXT))[0] == -60.0
    assert read(decided, lines("Total: 60.00 EUR debit", **NEXT))[2] == "LEFT_OVER"
    both: list[Any] = [(plain, 120.0), (plain, 120.0), (credit, -120.0), (credit, 120.0)]
    assert read(both, lines("Total: 60.00 EUR credit", **NEXT))[0] is None


# A customer's number in the first paper, as it stands in the next, and what is read there.
CODES: dict[str, dict[str, str | None]] = {
    "K-7": {"K-8": "K-8", "(K-8)": None, "K-8 (new)": None, "K-8 *": None, "~~K-8~~": None,
            "~~K-7~~ K-8": None, "K-8 <!-- K-7 -->": None, "K-8, K-9": None, "K-8 K-9": None},
    "4711": {"4712": "4712", "(4712)": None, "4712-": None, "4712 (new)": None},
    "3 May 2027": {"4 June 2027": "4 June 2027", "(4 June 2027)": None},
}  # fmt: skip


@pytest.mark.parametrize("decided", CODES)
def test_codes_and_days_are_read_where_nothing_else_stands_around_them(decided: str) -> None:
    fields, answer = frozenset(["code", "sender"]), {"sender": "Larkfield Print Works"}
    old = offers_of([lines(f"Customer: {decided}", **DAY_AND_NUMBER)]).pack()
    code = "2027-05-03" if "May" in decided else decided
    rules = Rules([TaughtAnswer("1", {**answer, "code": code}, fields, frozenset(), old)])
    for met, value in CODES[decided].items():
        found = rules.read(offers_of([lines(f"Customer: {met}", **NEXT)])).sure
        expected = "2027-06-04" if value and "June" in value else value
        assert (found["code"].value if "code" in found else None) == expected, met
