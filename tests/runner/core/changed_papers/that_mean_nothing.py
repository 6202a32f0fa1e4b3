"""Papers in which one thing is changed that means nothing, and known papers of a second week."""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.runner.core.changed_papers.layouts import (
    ARTICLES,
    LANGUAGES,
    TEMPLATES,
    Bill,
    case,
    decided,
)
from tests.runner.core.changed_papers.that_matter import change, rows

_MONTHS = {
    "en": ["January", "February", "March", "April", "May", "June", "July", "August", "September"],
    "de": ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September"],
    "fr": ["janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre"],
    "es": ["enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre"],
}
_WEEKDAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"],
    "de": ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag"],
    "fr": ["lundi", "mardi", "mercredi", "jeudi", "vendredi"],
    "es": ["lunes", "martes", "miércoles", "jueves", "viernes"],
}
_LONG = {"en": "{} {} {}", "de": "{}. {} {}", "fr": "{} {} {}", "es": "{} de {} de {}"}
_ODD = {
    "en": ("Brochures A4, 24 pages", "Posters A2 (matt)"),
    "de": ("Broschüren A4, 24 Seiten", "Plakate A2 (matt)"),
    "fr": ("Brochures A4, 24 pages", "Affiches A2 (mates)"),
    "es": ("Folletos A4, 24 páginas", "Carteles A2 (mate)"),
}
_DAY_ITEM = {"en": "Course on {}", "de": "Kurs am {}", "fr": "Cours du {}", "es": "Curso del {}"}
_WITH_ITEMS = [layout for layout, template in TEMPLATES.items() if "{items}" in template]
_WITH_LINES = ["labels", "columns", "account", "varied"]
_ALL = list(TEMPLATES)


def _items(*cents: int) -> Callable[[list[Bill]], None]:
    """Return what gives the last bill other articles with these amounts."""

    def change_items(bills: list[Bill]) -> None:
        names = ARTICLES[bills[-1].lang].split("|")
        bills[-1].items = [(names[(5 * i + 4) % 8], c) for i, c in enumerate(cents)]

    return change_items


def _same_articles(bills: list[Bill]) -> None:
    bills[-1].items = [(name, cents + 1150) for name, cents in bills[0].items]


def _same_amounts(bills: list[Bill]) -> None:
    bills[-1].items, bills[-1].discount = bills[0].items, bills[0].discount


def _odd_articles(bills: list[Bill]) -> None:
    bills[-1].items = [(name, 4400 * (i + 2)) for i, name in enumerate(_ODD[bills[-1].lang])]


def _days_in_articles(bills: list[Bill]) -> None:
    for bill in bills:
        day = (bill.day - dt.timedelta(days=3)).strftime(bill.day_form)
        bill.items = [(_DAY_ITEM[bill.lang].format(day), 12000 + 2000 * bill.n)]


def _hours(bills: list[Bill]) -> None:
    for bill in bills:
        bill.quantities = [f"{2 + bill.n} h", f"{5 + bill.n} h"]
        bill.items = [
            (n, 100 * (2 + bill.n) * (5 + bill.n) * (i + 1))
            for i, (n, _) in enumerate(bill.items[:2])
        ]


def _two_columns(head: bool, markdown: bool = False) -> Callable[[list[Bill]], None]:
    """Return what leaves only articles and amounts of the items' columns."""

    def narrow(bills: list[Bill]) -> None:
        for bill in bills:
            before, _, after = bill.template.partition("{items}")
            lines = before.split("\n")
            first = next((n for n, line in enumerate(lines) if "<quantity>" in line), -1)
            lines = lines[:first] if first >= 0 else lines[:-1]
            if markdown:
                lines += ["| <article> | <amount> |", "| --- | --- |"] if head else []
                after = after.replace(" | | | ", " | ")
            elif head:
                lines += ["<article>      <amount>"]
            bill.row_form = "| {0} | {3} |" if markdown else "{0}      {3}"
            bill.template = "\n".join([*lines, "{items}"]) + after

    return narrow


def _discount(bills: list[Bill]) -> None:
    bills[-1].discount = 1500
    if bills[-1].layout != "varied":
        bills[-1].template = bills[-1].template.replace("<net>", "{discount}<net>", 1)
        indent = bills[-1].template.partition("{discount}")[0].rpartition("\n")[2]
        bills[-1].more["discount"] = bills[-1].values()["discount"].lstrip(" ") + indent


def _discount_seen(bills: list[Bill]) -> None:
    _discount([bills[0]])
    _discount([bills[-1]])


def _number(number: str) -> Callable[[list[Bill]], None]:
    def renumber(bills: list[Bill]) -> None:
        bill = bills[-1]
        bill.number = bill.number[: -len(number.lstrip("+"))] + number.lstrip("+")
        if number.startswith("+"):
            bill.number = bills[0].number[:-3] + number[1:]

    return renumber


def _other_year(bills: list[Bill]) -> None:
    bills[-1].day = dt.date(2028, 1, 31)


def _long_days(weekday: bool) -> Callable[[list[Bill]], None]:
    """Return what writes the days with the names of months, and of weekdays where asked."""

    def rename(bills: list[Bill]) -> None:
        for bill in bills:
            bill.day += dt.timedelta(days=bill.n % 3)
            for slot, day in ("date", bill.day), ("due", bill.day + dt.timedelta(days=30)):
                text = _LONG[bill.lang].format(day.day, _MONTHS[bill.lang][day.month - 1], day.year)
                name = _WEEKDAYS[bill.lang][bill.day.weekday()]
                bill.more[slot] = f"{name}, {text}" if weekday and slot == "date" else text

    return rename


_CHANGES: list[tuple[str, list[str], int, Callable[[list[Bill]], None]]] = [
    ("other items", _WITH_ITEMS, 1, _items(12400, 3600, 8000)),
    ("one item more", _WITH_ITEMS, 1, _items(4400, 3600, 8000, 1200)),
    ("one item alone", _WITH_ITEMS, 2, _items(6400)),
    ("nine items", _WITH_ITEMS, 2, _items(*range(1200, 4800, 400))),
    ("articles with digits", _WITH_ITEMS, 1, _odd_articles),
    ("the same articles", _WITH_ITEMS, 1, _same_articles),
    ("the same amounts", _WITH_ITEMS, 2, _same_amounts),
    ("thousands", _WITH_ITEMS, 1, _items(123456, 1204400)),
    ("thousands in the sums only", _ALL, 2, _items(61200, 58800)),
    ("cents", _ALL, 1, _items(48, 96)),
    ("hours", ["labels", "columns", "table", "foot", "above"], 1, _hours),
    ("days in articles", _WITH_ITEMS, 1, _days_in_articles),
    ("two columns of items with heads", ["labels", "columns", "above"], 1, _two_columns(True)),
    ("two columns of items", ["labels", "columns", "above"], 1, _two_columns(False)),
    ("two columns in a table", ["table", "foot"], 1, _two_columns(True, markdown=True)),
    ("discount for the first time", _WITH_LINES, 1, _discount),
    ("discount seen", _WITH_LINES, 3, _discount_seen),
    ("other digits of the number", _ALL, 1, _number("97")),
    ("one digit more of the number", _ALL, 1, _number("+1002")),
    ("a day of the next year", _ALL, 1, _other_year),
    ("days with weekdays", _ALL, 2, _long_days(True)),
    ("days with months", _ALL, 1, _long_days(False)),
]


def cases() -> Iterator[Mapping[str, Any]]:
    """Yield 28 rows of `nothing.txt` and 22 changes of values, in each language."""
    for n, (what, where, *texts) in enumerate(rows(Path(__file__).with_name("nothing.txt"))):
        for m, (lang, text) in enumerate(zip(LANGUAGES, texts, strict=True)):
            steps = text.split("~")
            layouts = [layout for layout in _ALL if layout != "varied" or len(steps) > 3]
            for step in range(len(layouts)):
                layout = layouts[(n * 3 + m * 5 + step) % len(layouts)]
                bills = decided(layout, lang, len(steps))
                plain = [bill.text() for bill in bills]
                for bill, part in zip(bills, steps, strict=True):
                    if part.strip():
                        change(bill, where, part.strip())
                if [bill.text() for bill in bills] != plain:
                    yield case(f"{n:03} {what}, {lang} {layout}: {text}", bills[:-1], bills[-1])
                    break
    for n, (what, layouts, count, apply) in enumerate(_CHANGES, 100):
        for m, lang in enumerate(LANGUAGES):
            layout = layouts[(n * 3 + m) % len(layouts)]
            bills = decided(layout, lang, 4 if layout == "varied" else count + 1)
            apply(bills)
            yield case(f"{n:03} {what}, {lang} {layout}", bills[:-1], bills[-1])


def second_week() -> Iterator[Mapping[str, Any]]:
    """Yield sixty known papers: other days, numbers, articles and amounts, now and then more."""
    for i in range(60):
        layout, lang = _ALL[i % 8], LANGUAGES[(i // 8 + i) % 4]
        count = 3 if layout == "varied" else 1 + i // 8 % 2
        bills = [*decided(layout, lang, count), Bill(layout, lang, 5 + i // 8)]
        _items(
            *[
                700 + (i * 977 + k * 3313) % (90000 if i % 6 == 0 else 20000)
                for k in range(1 + i % 5)
            ]
        )(bills)
        bills[-1].quantities = (1,)
        if i % 5 == 0 and layout in ("labels", "columns", "above"):
            _two_columns(head=i % 2 == 0)(bills)
        if i % 7 == 0:
            for bill in bills:
                change(bill, "end", f"<page> 1 <of> {1 + bill.n % 3}")
        if i % 9 == 0:
            _long_days(weekday=False)(bills)
        yield case(f"{i:03} second week, {lang} {layout}", bills[:-1], bills[-1])
