"""First papers of senders, in five languages, with their truth: two worlds of words and layouts.

Each has 12 senders on which someone decided, with two papers each, and 60 others with one. Truth is
what a clerk would enter: a paper's own number and day, what it asks for with tax, with the sign
that it shows, and of a reminder without a number that of the invoice that it is about.
"""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.fakes.office import docx

WORDS = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
KINDS = ("invoice", "credit note", "reminder")
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": [*KINDS]},
        "sender": {"type": ["string", "null"], "maxLength": 60},
        "number": {"type": ["string", "null"], "maxLength": 20},
        "date": {"type": ["string", "null"], "format": "date"},
        "due": {"type": ["string", "null"], "format": "date"},
        "total": {"type": ["number", "null"]},
        "currency": {"enum": ["EUR", "GBP", "USD", "CHF", None]},
    },
}
Pairs = Sequence[tuple[str, str]]


class Paper(NamedTuple):
    name: str
    content: bytes
    truth: dict[str, Any]


@cache
def papers(world: str) -> tuple[list[Paper], list[Paper]]:
    """Return the papers that were decided, and those of new senders."""
    rng, words = random.Random(f"first papers {world}"), WORDS[world]
    languages = [*words["languages"]]
    kinds = [KINDS[n] for n in [0] * 44 + [1] * 9 + [2] * 7]
    rng.shuffle(kinds)
    decided, new, seen = list[Paper](), list[Paper](), set[str]()
    for n in range(72):
        sender = _Sender(rng, words, languages[n % 5], seen)
        if n < 12:
            decided += [sender.paper(f"d{n}a", "invoice"), sender.paper(f"d{n}b", KINDS[n % 3])]
        else:
            new.append(sender.paper(f"n{n}", kinds[n - 12]))
    return decided, new


class _Sender:
    def __init__(self, rng: random.Random, words: Any, language: str, seen: set[str]) -> None:
        of = words["languages"][language]
        self.rng, self.words, self.language = rng, of, language
        self.to, self.head, self.sums = (
            words["to"],
            *map(rng.choice, (words["heads"], words["sums"])),
        )
        self.name_at = rng.choice(words["names"])
        parts = [of[part].split("|") for part in ("first", "trade", "form")]
        while (name := "{} {}{}".format(*map(rng.choice, parts))) in seen:
            pass
        seen.add(name)
        self.name, self.place = name, rng.choice(of["place"].split("|"))
        self.file = rng.choice(("txt", "txt", "txt", "pdf", "pdf", "pdf", "docx", "eml"))
        self.day_form, self.money_form = (
            rng.choice(of[key].split("|")) for key in ("days", "money")
        )
        self.currency = next(
            (c for c, s in {"GBP": "£", "USD": "$", "EUR": "€"}.items() if s in self.money_form), ""
        ) or next((c for c in ("GBP", "USD", "CHF", "EUR") if c in self.money_form), "")
        self.currency = self.currency or (
            "GBP" if language == "en" and self.money_form == "9" else "EUR"
        )
        self.number_form, self.at = rng.choice(words["numbers"]), rng.randrange(100, 9000)
        self.mark = rng.choice((":", "", " :" if language == "fr" else ":"))
        self.is_signed, self.rate = rng.random() < 0.5, rng.choice(of["rates"])
        self.labels = {k: self._pick(k) for k in ("date", "due", "customer", "order", "delivery")}
        self.labels |= {k: self._pick(k) for k in ("net", "tax", "total", "open", "fee")}
        self.order = [k for k in self.labels if k in ("customer", "order", "delivery", "due")]
        rng.shuffle(self.order)
        self.order = ["number", "date", *self.order[rng.randrange(2) :]]
        if rng.random() < 0.4:
            rng.shuffle(self.order)
        self.customer = rng.choice(("K-#", "#", "C#", "10#")).replace(
            "#", f"{rng.randrange(9999)}1"
        )
        self.foot = rng.sample(of["foot"].split("|"), rng.randrange(1, 4))

    def _pick(self, key: str, kind: str = "") -> str:
        """Return one of some words, the more usual ones more often."""
        some = (self.words[key][kind] if kind else self.words[key]).split("|")
        return str(self.rng.choices(some, [1 / (n + 1) for n in range(len(some))])[0])

    def _day(self, day: date) -> str:
        from babel.dates import format_date

        locale = "en_GB" if self.language == "en" else self.language
        long, short = (format_date(day, form, locale=locale) for form in ("MMMM", "MMM"))
        text = self.day_form.replace("yyyy", f"{day.year}").replace("yy", f"{day.year % 100}")
        text = text.replace("mmmm", "\0").replace("mmm", "\1").replace("mm", f"{day.month:02}")
        text = text.replace("m#", f"{day.month}").replace("dd", f"{day.day:02}")
        text = text.replace("d#", "\2")
        return str(text.replace("\0", long).replace("\1", short).replace("\2", f"{day.day}"))

    def _number(self, amount: float) -> str:
        group, mark = self.words["style"]
        text = f"{abs(amount):,.2f}".replace(",", "\0").replace(".", mark).replace("\0", group)
        return f"-{text}" if amount < 0 else text

    def _money(self, amount: float) -> str:
        return str(self.money_form.replace("9", self._number(amount)))

    def paper(self, name: str, kind: str) -> Paper:
        rng, of = self.rng, self.words
        day = date(2027, 1, 4) + timedelta(days=rng.randrange(330))
        self.at += rng.randrange(1, 90)
        year = self.number_form.replace("yyyy", f"{day.year}").replace("yy", f"{day.year % 100}")
        number, old = (year.replace("#", f"{n}") for n in (self.at, self.at - 17))
        old_day, due = day - timedelta(days=40), day + timedelta(days=rng.choice((7, 10, 14, 30)))
        title, label = (
            self._pick("title", kind),
            self.labels | {"number": self._pick("number", kind)},
        )
        sign = -1 if kind == "credit note" and self.is_signed else 1
        goods = rng.sample(of["goods"].split("|"), rng.randrange(1, 4))
        items = [(g, rng.randrange(1, 9), rng.randrange(200, 30000) / 100) for g in goods]
        net = sign * round(sum(n * price for _, n, price in items), 2)
        tax = round(net * self.rate / 100, 2)
        total = round(net + tax, 2)
        amounts = {"net": net, "tax": tax, "total": total}
        if kind == "reminder":
            amounts = {"open": total, "fee": 5.0, "total": round(total + 5, 2)}
        has_number = kind != "reminder" or self.head not in ("beside", "inline")
        values = {
            "number": number, "date": self._day(day), "due": self._day(due),
            "customer": self.customer, "order": f"{rng.randrange(40000, 99999)}",
            "delivery": self._day(day - timedelta(days=3)),
        }  # fmt: skip
        keys = [k for k in self.order if k != "due" or kind != "credit note"]
        keys = [k for k in keys if k != "delivery" or kind == "invoice"]
        keys = [k for k in keys if k != "number" or has_number]
        shows_due = kind != "credit note" and ("due" in keys or self.head in ("sentence", "title"))
        truth = {
            "kind": kind, "sender": self.name, "number": number if has_number else old,
            "date": day.isoformat(), "due": due.isoformat() if shows_due else None,
            "total": amounts["total"], "currency": self.currency,
        }  # fmt: skip
        form = dict(of, T=title, town=self.place.rpartition(", ")[2].split()[-1])
        form |= values | {"old": old, "oldday": self._day(old_day)}

        def text(key: str) -> str:
            return str(self._pick(key)).format_map(form)

        if self.head == "sentence" and kind == "credit note":
            truth["due"] = None
        blocks = [*self._blocks(kind, title, keys, label, values, items, amounts, text)]
        return Paper(f"{name}.{self.file}", self._file(blocks, title), truth)

    def _blocks(
        self, kind: str, title: str, keys: Sequence[str], label: Any, values: Any, items: Any,
        amounts: Any, text: Any,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        head = self.head
        if head == "sentence" and kind == "credit note":
            head = "left"
        street, _, town = self.place.rpartition(", ")
        if self.name_at == "line":
            yield "lines", [f"{self.name} {self.rng.choice('·|,-')} {self.place}"], ""
        elif self.name_at in ("top", "sidebar"):
            is_side = self.name_at == "sidebar"
            yield "lines", [self.name, street, town], "right" if is_side else ""
        pairs = [(label[k] + self.mark, values[k]) for k in keys]
        is_title = head in ("title", "titled")
        own = [
            p for k, p in zip(keys, pairs, strict=True) if k in ("customer", "order", "delivery")
        ]
        if head == "beside":
            yield "beside", self.to, pairs
        else:
            yield "lines", self.to, ""
        if head == "title":
            yield "lines", [text("place_day")], "right"
        yield "title", text("title_line") if is_title and "number" in keys else title
        if head in ("right", "left"):
            yield "pairs", pairs, head
        elif head in ("table", "above", "boxes"):
            wide = {"table": len(pairs), "above": 2, "boxes": 3}[head]
            for at in range(0, len(pairs), wide):
                some = pairs[at : at + wide]
                yield "table", [[n.rstrip(" :") for n, _ in some], [v for _, v in some]], "head"
        elif head == "inline":
            yield "lines", [self.rng.choice(("   ", " | ")).join(map(" ".join, pairs))], ""
        elif head == "title":
            yield "pairs", own, "left"
        elif head == "titled":
            yield "pairs", [p for k, p in zip(keys, pairs, strict=True) if k != "number"], "right"
        elif head == "split":
            yield "pairs", pairs[:2], "left"
        yield "lines", [text("hello")], ""
        if head == "sentence":
            yield "lines", [text("sentence")], ""
        if kind != "invoice":
            yield "lines", [text("refers")], ""
        is_bare = self.money_form == "9"
        columns = self.words["columns"].split("|")
        columns[-1] += f" ({self.currency})" if is_bare else ""
        table = [columns]
        sign = -1 if amounts["total"] < 0 else 1
        for goods, n, price in items if kind != "reminder" else ():
            table.append([goods, f"{n}", self._number(price), self._number(sign * n * price)])
        name = {k: label[k].format(r=f"{self.rate:g}") for k in amounts}
        if is_bare:
            name["total"] += f" {self.currency}"
        shown = [(name[k] + self.mark, self._money(v)) for k, v in amounts.items()]
        if kind == "reminder" or self.sums in ("right", "left", "ladder"):
            if self.sums == "ladder" and kind != "reminder":  # the last item stands apart
                part = round(amounts["net"] - 1.5 * sign, 2)
                first = [
                    (columns[0], self._money(part)),
                    (self.words["goods"].split("|")[4], self._money(1.5 * sign)),
                ]
                shown = [*first, *shown]
            yield from [("table", table, "goods")] if len(table) > 1 else []
            yield "pairs", shown, "left" if self.sums == "left" else "right"
        elif self.sums == "rows":
            rows = [["", "", key, value] for key, value in shown]
            yield "table", [*table, *rows], "goods"
        elif self.sums == "rates":
            yield "table", table, "goods"
            names = ["%", *(name[k].replace(f" {self.currency}", "") for k in amounts)]
            yield (
                "table",
                [names, [f"{self.rate:g}%", *(self._number(v) for v in amounts.values())]],
                "head",
            )
            yield "pairs", shown[-1:], "right"
        elif self.sums == "included":
            yield "table", table, "goods"
            yield "pairs", [shown[2], shown[1]], "right"
        else:
            yield "table", table, "goods"
            yield "lines", ["   ".join(map(" ".join, shown[:2]))], "right"
            yield "lines", [" ".join(shown[2])], "right"
        if head == "split":
            yield "pairs", pairs[2:], "left"
        if head == "title" and kind != "credit note":
            yield "lines", [text("due_line")], ""
        yield "lines", [text("bye"), *([self.name] if self.name_at == "end" else [])], ""
        foot = [f"{self.name}, {self.place}"] if self.name_at == "foot" else []
        yield "lines", [*foot, *self.foot], ""

    # --- files

    def _file(self, blocks: Sequence[Any], title: str) -> bytes:
        if self.file == "pdf":
            return _pdf(blocks)
        if self.file == "docx":
            return docx(*_office_blocks(blocks))
        text = "\n".join(_lines(blocks))
        if self.file == "txt":
            return text.encode()
        mail = EmailMessage()
        address = f"{'.'.join(filter(str.isascii, self.name.lower().split()))}@example.com"
        mail["From"] = f'"{self.name}" <{address.replace("&", "and")}>'
        mail["To"], mail["Subject"] = "office@calder.example", title
        mail["Date"] = "Mon, 06 Dec 2027 08:00:00 +0000"
        mail.set_content(text)
        return mail.as_bytes()


def _lines(blocks: Sequence[Any]) -> Iterator[str]:
    for what, some, *how in blocks:
        if what == "title":
            yield some
        elif what == "lines":
            yield from (f"{'' if how[0] == '' else ' ' * 40}{line}" for line in some)
        elif what == "pairs":
            wide = max((len(k) for k, _ in some), default=0) + 2
            yield from (f"{' ' * 40 * (how[0] == 'right')}{k:<{wide}}{v}" for k, v in some)
        elif what == "beside":
            rows = max(len(some), len(how[0]))
            left = [*some, *[""] * (rows - len(some))]
            right = [f"{k} {v}" for k, v in how[0]] + [""] * (rows - len(how[0]))
            yield from (f"{a:<44}{b}".rstrip() for a, b in zip(left, right, strict=True))
        else:
            wides = [max(map(len, column)) + 3 for column in zip(*some, strict=True)]
            for row in some:
                yield "".join(f"{c:<{w}}" for c, w in zip(row, wides, strict=True)).rstrip()
        yield ""


def _office_blocks(blocks: Sequence[Any]) -> Iterator[Any]:
    for what, some, *how in blocks:
        if what == "title":
            yield f"# {some}"
        elif what == "lines":
            yield from some
        elif what == "pairs" and how[0] == "left":
            yield from (f"{k} {v}" for k, v in some)
        elif what == "beside":
            yield from some
            yield [[*pair] for pair in how[0]]
        elif some:
            yield [[*row] for row in some]


def _pdf(blocks: Sequence[Any]) -> bytes:
    from fpdf import FPDF

    paper, y = FPDF(format="A4"), 20.0
    paper.add_page()

    def put(x: float, text: str, size: float = 10, *, is_right: bool = False) -> None:
        text = text.replace("€", "EUR")
        paper.set_font("Helvetica", size=size)
        paper.text(x - (paper.get_string_width(text) if is_right else 0), y, text)

    for what, some, *how in blocks:
        if what == "title":
            put(20, some, 15)
            y += 8
        elif what == "lines":
            for line in some:
                put(120 if how[0] else 20, line)
                y += 5
        elif what == "pairs":
            for k, v in some:
                put(120 if how[0] == "right" else 20, k)
                put(190 if how[0] == "right" else 75, v, is_right=how[0] == "right")
                y += 5
        elif what == "beside":
            for n in range(max(len(some), len(how[0]))):
                put(20, some[n] if n < len(some) else "")
                k, v = how[0][n] if n < len(how[0]) else ("", "")
                put(120, k)
                put(160, v)
                y += 5
        else:
            for row in some:
                for n, cell in enumerate(row):
                    if how[0] == "goods" and n:
                        put((0, 115, 150, 190)[n], cell, 9, is_right=True)
                    else:
                        put(20 + n * 170 / len(row), cell, 9)
                y += 5
        y += 5
    return bytes(paper.output())
