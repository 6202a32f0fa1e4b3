"""Rules go out as templates of invoice2data, which reads in the next papers what they read."""

import datetime
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.text_cells import SourceText
from paddock.runner.review.invoice2data_templates import RuleTemplate
from paddock.runner.rules import Offers, Rules, TaughtAnswer, offers_of
from tests.fakes.papers import pages
from tests.runner.cli.commands.shell import invoke
from tests.runner.core.test_rules_of_decisions import (
    ALL,
    CONSTANT,
    LINES,
    NEVER,
    NEXT,
    OTHER_SENDER,
    READ,
    SENDER,
    TOTAL,
    TRUE,
    Desk,
    bill,
    line,
)  # fmt: skip

loader = pytest.importorskip(
    "invoice2data.extract.loader", reason="invoice2data is not installed: `uv sync` brings it"
)
GERMAN_SENDER = "Wrack & Söhne"
TO_READ = {
    "invoice_number": "RE-102", "date": datetime.datetime(2027, 3, 28), "amount": 60.0,  # noqa: DTZ001
    "kind": "invoice", "currency": "EUR", "issuer": TRUE["sender"],
    "partner_name": TRUE["sender"],
}  # fmt: skip
NAMES = {"number": "invoice_number", "total": "amount", "sender": "partner_name"}
KINDS = {"properties": {"kind": {"enum": ["invoice", "credit note", "reminder"]}}}
GERMAN = """\
{sender}                    Seite 1

RECHNUNG

| Rechnungs-Nr.: | {number} |
| --- | --- |
| Datum: | {date} |

Summe netto                    1.000,00 €
USt. 19%                         190,00 €
Gesamtbetrag                   {total} €

Vielen Dank
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


def export(desk: Desk, folder: Path, *flags: str, exit_code: int = 0) -> str:
    done = invoke("review", str(desk.folder), "--rules", "--export", str(folder), *flags)
    assert done.exit_code == exit_code, done.output
    return done.output


def offers(text: str) -> Offers:
    return offers_of([SourceText("a.txt", text, (0,))], schema=KINDS)


def taught(*decided: tuple[str, dict[str, Any]]) -> list[TaughtAnswer]:
    """Return what texts teach, with what is true of them besides `TRUE`."""
    return [
        TaughtAnswer(str(number), answer, frozenset(answer), CONSTANT, offers(text).pack())
        for number, (text, true) in enumerate(decided)
        for answer in [TRUE | true]
    ]


def made(*decided: tuple[str, dict[str, Any]]) -> list[RuleTemplate]:
    texts = {str(number): text for number, (text, _) in enumerate(decided)}
    layouts = Rules(taught(*decided)).layouts
    return [RuleTemplate.of(lay, [texts[t.id] for t in lay.decisions], KINDS) for lay in layouts]


def extracted(folder: Path, text: str) -> dict[str, Any] | None:
    """Return what invoice2data reads by the first template that fits; None: none does."""
    from invoice2data.exceptions import RequiredFieldsMissingError

    for template in sorted(loader.read_templates(str(folder)), key=lambda t: -t["priority"]):
        if template.matches_input(text):
            try:
                found = template.extract(template.prepare_input(text), "a.txt", None)
            except RequiredFieldsMissingError:
                return {}
            return {name: v for name, v in found.items() if name not in ("desc", "template_name")}
    return None


def read_by(templates: list[RuleTemplate], text: str, folder: Path) -> dict[str, Any] | None:
    folder.mkdir(exist_ok=True)
    for number, template in enumerate(t for t in templates if t.keywords):
        (folder / f"{number}.yml").write_text(template.text, encoding="utf-8")
    return extracted(folder, text)


def test_invoice2data_reads_the_next_papers_of_three_senders_as_rules_do(
    desk: Desk, tmp_path: Path
) -> None:
    us = {"sender": "Osier Inc.", "sign": "USD", "date": "03/21/2027", "number": "9", "total": "$1"}
    desk.teach("a", bill())
    german = {
        "sender": GERMAN_SENDER,
        "number": "2027/17",
        "date": "01.02.2027",
        "total": "1.190,00",
    }
    of_german = {
        "sender": GERMAN_SENDER,
        "number": "2027/17",
        "date": "2027-02-01",
        "total": 1190.0,
    }
    desk.teach("g", GERMAN.format_map(german), **of_german)
    month_first = bill(**us | {"total": "1,120.00"})
    of_us = {"sender": "Osier Inc.", "number": "9", "total": 1120.0, "currency": "USD"}
    desk.teach("o", month_first, **of_us)
    out = tmp_path / "out"
    export(desk, out)
    next_german = {
        "sender": GERMAN_SENDER,
        "number": "2027/8",
        "date": "31.12.2027",
        "total": "91.190,50",
    }
    papers = {
        "b": bill(**NEXT),
        "h": GERMAN.format_map(next_german),
        "p": bill(**us | {"date": "12/01/2027", "number": "12", "total": "60.00"}),
    }
    desk.arrive(**papers)
    by_rules = {row["file"]: (row["n"], row["total"]) for row in desk.work().returns}
    assert desk.waiting() == {}
    found = {name: extracted(out, text) for name, text in papers.items()}
    assert found["b"] == TO_READ
    for name, own in found.items():
        assert own is not None
        assert (own["invoice_number"], own["amount"]) == by_rules[f"{name}.txt"]
    assert [own["date"].date().isoformat() for own in found.values() if own] == [
        "2027-03-28", "2027-12-31", "2027-12-01",
    ]  # fmt: skip
    assert [own["currency"] for own in found.values() if own] == ["EUR", "EUR", "USD"]


def test_invoice2data_reads_in_pdfs_what_rules_read(desk: Desk, tmp_path: Path) -> None:
    from invoice2data import extract_data

    inbox = desk.folder / "inbox"
    inbox.mkdir(exist_ok=True)
    for name, values in (("a", {}), ("b", NEXT)):
        (inbox / f"{name}.pdf").write_bytes(pages(bill(**values)))
    desk.work()
    desk.decide("a.pdf", "edit", TRUE)
    assert desk.outputs()["b.pdf"] == ("RE-102", 60.0)
    export(desk, tmp_path / "out")
    templates = loader.read_templates(str(tmp_path / "out"))
    found = extract_data(str(inbox / "b.pdf"), templates, input_module="pdfium")
    assert {name: found[name] for name in TO_READ} == TO_READ


BALANCE = TOTAL, f"{TOTAL}\nBalance: {{total}} {{sign}}"
BOTH = TOTAL, "Total: {net} {sign}\nBalance: {total} {sign}"
TO_BALANCE = TOTAL, "Balance: {total} {sign}"
# What was decided, and the next paper, about which a person must be asked.
ASKED = {case: ([(text, true)], following) for case, (text, true, following, _) in NEVER.items()}
ASKED |= {case: (decided, following) for case, (decided, following, _) in LINES.items()}
ASKED |= {
    "another currency as well": (
        [(bill(), {})], bill(line("We send you our prices in USD if you ask us."), **NEXT)),
    "a seldom currency as well": (
        [(bill(), {})], bill(line("We send you our prices in AED if you ask us."), **NEXT)),
    "a currency by letters at an amount as well": (
        [(bill(), {})], bill(line("Of this we took kr 60.00 at our desk."), **NEXT)),
    "a currency by letters behind a whole amount as well": (
        [(bill(), {})], bill(line("Of this we took 60 kr at our desk."), **NEXT)),
    "letters that may be a currency, before a whole number": (
        [(bill(), {})], bill(line("Le 40"), **NEXT)),
    "a currency by two signs as well": (
        [(bill(), {})], bill(line("We send you our prices in A$ if you ask us."), **NEXT)),
    "two labels that two decisions taught": (
        [(bill(), {}), (bill(TO_BALANCE, **NEXT), READ)], bill(BOTH, **NEXT)),
    "one of two labels, and the sum is wrong": (
        [(bill(BALANCE), {})], bill(TO_BALANCE, **NEXT | {"vat": "9.00"})),
    "a sentence with the name alone": (
        [(bill(), {})], bill(**OTHER_SENDER, hello="Sent to Larkfield Print Works (Kirkholm)")),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_a_template_reads_no_value_that_no_rule_reads(case: str, tmp_path: Path) -> None:
    decided, following = ASKED[case]
    found = read_by(made(*decided), following, tmp_path) or {}
    sure = Rules(taught(*decided)).read(offers(following)).sure
    read = {name: found[own] for name in TRUE if (own := NAMES.get(name, name)) in found}
    for name, value in read.items():
        own = value.date().isoformat() if isinstance(value, datetime.datetime) else value
        assert (own, name in sure) == (sure[name].value, True)


Changes = tuple[tuple[str, str], ...]
# The changes of the layout, what is true of it, and what is read in the next paper.
READ_NEXT: dict[str, tuple[Changes, dict[str, Any], dict[str, Any]]] = {
    "a label behind a number": (
        (("Number: ", "Page 1 of 2. Number: "),), {}, {"invoice_number": "RE-102"}),
    "a letter of two forms": ((("Total:", "Schlu\u00dfsumme:"),), {}, {"amount": 60.0}),
    "a label with a mark": ((("Total:", "Total - sum:"),), {}, {"amount": 60.0}),
    "names of invoice2data": (
        (), {"net": 100.0, "tax": 20.0}, {"amount_untaxed": 50.0, "amount_tax": 10.0}),
    "two fields of one name": ((), {"gross": 120.0}, {"amount": 60.0, "gross": 60.0}),
    "a buyer": (
        (), {"buyer": "Calder Quay Office"}, {"issuer": SENDER, "buyer": "Calder Quay Office"}),
    "a name with a place": ((("{sender}", "{sender} (Kirkholm)"),), {}, {"issuer": SENDER}),
    "a currency by another name": (
        (), {"currency": "", "kind": "EUR"}, {"currency": "EUR", "kind": "EUR"}),
}  # fmt: skip


@pytest.mark.parametrize("case", READ_NEXT)
def test_a_template_reads_the_next_paper(case: str, tmp_path: Path) -> None:
    changes, true, read = READ_NEXT[case]
    found = read_by(made((bill(*changes), true)), bill(*changes, **NEXT), tmp_path) or {}
    assert read == {name: found.get(name) for name in read}


def test_cells_that_are_parts_of_others_do_not_make_a_text_take_ages(tmp_path: Path) -> None:
    text = bill(line("Mill\nMill Mill"))
    assert read_by(made((text, {})), f"{text}{'Mill  ' * 200}x\n", tmp_path) == {}


def test_amounts_need_no_mark_of_thousands(tmp_path: Path) -> None:
    large = {"net": "1000.00", "vat": "200.00", "total": "1200.00"}
    templates = made((bill(**large), {"total": 1200.0}))
    found = read_by(templates, bill(**NEXT | large), tmp_path) or {}
    assert found.get("amount") == 1200.0


def test_a_line_in_two_forms_is_no_keyword(tmp_path: Path) -> None:
    templates = made((bill(), {}), (bill(**NEXT, title="Invoice"), READ))
    assert "INVOICE" not in templates[0].keywords
    assert (read_by(templates, bill(title="invoice"), tmp_path) or {}).get("amount") == 120.0


def test_what_nobody_looked_at_and_what_is_empty_is_not_static() -> None:
    (answer,) = taught((bill(), {"kind": None, "currency": "EUR"}))
    seen = TaughtAnswer("0", answer.answer, ALL - {"currency"}, CONSTANT, answer.packed)
    (layout,) = Rules([seen]).layouts
    template = RuleTemplate.of(layout, [bill()])
    assert {name: why.name for name, why in template.left_out.items()} == {
        "kind": "NO_RULE", "currency": "NO_RULE",
    }  # fmt: skip
    assert template.currency is None


DUE = "Date: {date}", "Date: {date}\nDue: {customer}"


@pytest.mark.parametrize(
    ("date", "due", "true", "left_out", "formats"),
    [
        ("2027-03-21", "2027-04-05", "2027-04-05", {}, ["%Y-%m-%d"]),
        ("21.03.2027", "5 April 2027", "2027-04-05", {}, ["%d.%m.%Y", "%d %B %Y"]),
        ("03/21/2027", "25/04/2027", "2027-04-25", {"due": "OPEN_FORM"}, ["%m/%d/%Y"]),
    ],
)
def test_days_of_two_fields_have_their_formats_once(
    date: str, due: str, true: str, left_out: dict[str, str], formats: list[str]
) -> None:
    text = bill(("Customer: {customer}\n", ""), DUE, date=date, customer=due)
    (template,) = made((text, {"due": true}))
    assert {name: why.name for name, why in template.left_out.items()} == left_out
    assert template.days == formats


def test_what_a_template_cannot_say_is_left_out_with_its_reason(tmp_path: Path) -> None:
    """A value by its column's head, an amount with what stands around it, a day that may be two."""
    table = bill(
        ("Number: {number}\n", "Number       Office\n{number}       North\n"),
        ("Total: {total} {sign}", "Total: {total} {sign} CR"),
        date="03/03/2027",
    )
    (template,) = made((table, {"date": "2027-03-03", "total": -120.0}))
    assert {name: why.name for name, why in template.left_out.items()} == {
        "number": "COLUMN", "date": "OPEN_FORM", "total": "AROUND",
    }  # fmt: skip
    assert "# left out: number: the head of a column governs it\n" in template.text
    assert read_by([template], table, tmp_path) == {
        "kind": "invoice", "currency": "EUR", "issuer": TRUE["sender"],
        "partner_name": TRUE["sender"],
    }  # fmt: skip


def test_layouts_of_one_sender_have_templates_that_tell_them_apart(tmp_path: Path) -> None:
    other = bill(
        ("Total: ", "To pay: "), ("{title}", "{title}\n\nHarbour Branch"), title="STATEMENT OF WORK"
    )
    templates = made((bill(), {}), (other, {"kind": "reminder"}))
    assert len(templates) == 2
    following = other.replace("120.00", "75.10")
    for text, kind, total in ((bill(**NEXT), "invoice", 60.0), (following, "reminder", 75.1)):
        found = read_by(templates, text, tmp_path)
        assert found is not None
        assert (found["kind"], found["amount"]) == (kind, total)


ODD = [
    'O\'Neil "Quick" & Co: ice',
    "../../etc/passwd",
    "A/B Works",
    "A:B Works",
    "北京 造船",
    "yes",
    "Osiergardenersassociation Nurserymenscooperative Ltd",
]


def test_odd_names_of_senders_are_in_templates_and_files(desk: Desk, tmp_path: Path) -> None:
    for number, sender in enumerate(ODD):
        name = f"odd{number}"
        desk.arrive(**{name: bill(sender=sender)})
        desk.work()
        desk.decide(f"{name}.txt", "edit", {**TRUE, "sender": sender})
    out = tmp_path / "out"
    text = export(desk, out)
    assert "7 templates → " in text
    names = {path.name for path in out.iterdir()}
    assert names == {
        "o-neil-quick-co-ice.yml", "etc-passwd.yml", "a-b-works.yml", "a-b-works-2.yml",
        "sender.yml", "yes.yml", "osiergardenersassociation-nurserymenscooperative.yml",
    }  # fmt: skip
    for sender in ODD:
        found = extracted(out, bill(**NEXT, sender=sender))
        assert found is not None
        assert (found["issuer"], found["amount"]) == (sender, 60.0)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    os.chdir(path.parent)  # of a longer path there is none
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def a_link(path: Path) -> None:
    (path.parent / "theirs.txt").write_text("theirs\n")
    path.symlink_to("theirs.txt")


def of_another(path: Path) -> None:
    path.write_text("issuer: mine\n")


def edited(path: Path) -> None:
    path.write_text(path.read_text() + "# VAT is 20 %\n")


NOT_OURS = {
    a_pipe: "exists, and is no template of Paddock",
    a_socket: "exists, and is no template of Paddock",
    Path.mkdir: "exists, and is no template of Paddock",
    of_another: "exists, and is no template of Paddock",
    a_link: "is a symbolic link",
    edited: "was changed since Paddock wrote it",
}


@pytest.mark.parametrize("make", NOT_OURS)
def test_a_file_that_is_no_template_as_it_was_written_is_named_and_nothing_is_written(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    desk.teach("a", bill())
    desk.teach("o", bill(sender="Osier"), sender="Osier")
    out, own, other = (
        tmp_path / n for n in ("out", "out/osier.yml", "out/larkfield-print-works.yml")
    )
    export(desk, out)
    other.unlink()
    if make is not edited:
        own.unlink()
    make(own)
    before = (own.lstat().st_ino, own.lstat().st_mtime_ns)
    text = export(desk, out, exit_code=2)
    assert f"'{own}' {NOT_OURS[make]}.\n  Name another folder, or move it away." in text
    assert (own.lstat().st_ino, own.lstat().st_mtime_ns) == before
    assert not other.exists()
    if make is a_link:
        assert (out / "theirs.txt").read_text() == "theirs\n"


def test_templates_are_replaced_and_those_without_rules_are_named(
    desk: Desk, tmp_path: Path
) -> None:
    desk.teach("a", bill())
    desk.teach("o", bill(sender="Osier"), sender="Osier")
    out, other = tmp_path / "out", tmp_path / "out/other.yml"
    own = out / "larkfield-print-works.yml"
    (out / "osier").mkdir(parents=True)
    assert export(desk, out) == f"2 templates → {out}.\n"
    written = own.read_bytes()
    own.write_bytes(written.replace(b"\n", b"\r\n"))  # as git may do
    export(desk, out)
    assert own.read_bytes() == written
    desk.undo("a.txt")
    os.mkfifo(other)
    (out / "empty.yml").touch()
    stale = f"'{own}' is of rules that are no more: remove it.\n"
    assert export(desk, out) == f"{stale}1 template → {out}.\n"
    edited(own)
    assert json.loads(export(desk, out, "--json"))["outdated"] == [own.name]
    text = export(desk, own, exit_code=2)
    assert f"cannot be written: '{own}' is not a folder." in text
    desk.undo("o.txt")
    assert export(desk, tmp_path / "none") == "No decision makes a rule yet.\n"
    assert not (tmp_path / "none").exists()
    other.unlink()
    other.write_text("")
    text = export(desk, other, exit_code=0)
    assert text == "No decision makes a rule yet.\n"


def test_what_is_written_and_what_is_not_is_json(desk: Desk, tmp_path: Path) -> None:
    spaced = bill(sender="Tarn\u00a0Valley")
    long, table = (
        "Osier " * 30,
        bill(("Number: {number}\n", "Number       Office\n{number}       North\n")),
    )
    desk.teach("a", table)
    desk.teach("s", spaced, sender="Tarn Valley")
    desk.teach("l", bill(sender=long.strip()), sender=long.strip())
    found = json.loads(export(desk, tmp_path / "out", "--json"))
    assert found["templates"] == [
        {
            "file": "larkfield-print-works.yml", "sender": SENDER,
            "left_out": {"number": "the head of a column governs it"},
        },
        {
            "file": None, "sender": "Tarn Valley",
            "left_out": {"sender": "the decided text has no line that begins with just this name"},
        },
    ]  # fmt: skip
    assert [(row["item"], row["why"]) for row in found["without_rule"]] == [("l.txt", "no_sender")]
    text = export(desk, tmp_path / "out")
    assert f"1 template → {tmp_path / 'out'}.\n" in text
    assert "larkfield-print-works.yml: 'number' is left out: the head of a column" in text
    assert "No template for 'Tarn Valley': the decided text has no line" in text
    assert "(l.txt) makes no rule: no decided name, short and without digits," in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["larkfield-print-works.yml"]
    desk.undo("a.txt")
    text = export(desk, tmp_path / "none")
    assert ("No template for 'Tarn Valley'" in text, "none" in text) == (True, False)


def test_templates_are_no_decisions_so_that_import_refuses_them(desk: Desk, tmp_path: Path) -> None:
    desk.teach("a", bill())
    export(desk, tmp_path / "out")
    for source in (tmp_path / "out", tmp_path / "out/larkfield-print-works.yml"):
        done = invoke("review", str(desk.folder), "--import", str(source))
        assert done.exit_code == 2
        assert f"'{source}' has templates, which are no decisions" in done.output
        assert "Decide one paper of each sender" in done.output
    for target in ("-", "jsonl", "gold.jsonl"):
        done = invoke("review", str(desk.folder), "--rules", "--export", target)
        assert (done.exit_code, "`--rules` goes with `--export FOLDER`" in done.output) == (2, True)
