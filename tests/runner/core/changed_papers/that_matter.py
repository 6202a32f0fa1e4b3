"""Papers in which one thing is changed that matters, and the fields that it makes doubtful."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.runner.core.changed_papers.layouts import LANGUAGES, TEMPLATES, Bill, case, decided, pair

_FIELDS = {
    "k": "kind",
    "s": "sender",
    "n": "number",
    "d": "date",
    "t": "total",
    "c": "currency",
    "u": "due",
}


def _insert(bill: Bill, where: str, text: str) -> None:
    lines = bill.template.split("\n")
    side, _, slot = where.partition(":")
    at = next((n for n, line in enumerate(lines) if f"{{{slot}}}" in line), -1)
    if at < 0 or (bill.layout == "foot" and lines[at].startswith("|") and side == "before"):
        return
    if bill.layout == "above" and side == "before" and slot != "sender":
        at -= 1
    new = "\n".join(_line(bill, line, lines[at]) for line in text.split("⏎"))
    if side == "after" and not lines[at].startswith("|"):
        new = f"\n{new}" if bill.layout in ("above", "sentence") else new
    elif lines[at].startswith("|") and not new.startswith("|"):
        new = f"\n{new}"
    elif bill.layout == "above" and slot != "sender":
        new += "\n"
    lines.insert(at + (side == "after"), new)
    bill.template = "\n".join(lines)


def _line(bill: Bill, text: str, beside: str = "") -> str:
    label, parts, value = text.partition(" :: ")
    return pair(bill.layout, label, value, beside) if parts else text


def change(bill: Bill, where: str, text: str) -> None:
    """Change one place of a bill; a place that its layout lacks leaves it as it is."""
    kind, _, name = where.partition(":")
    lines = "\n".join(_line(bill, line) for line in text.split("⏎"))
    if kind in ("before", "after"):
        _insert(bill, where, text)
    elif kind == "body":
        mark = "<hello>" if "<hello>" in bill.template else "Harbour Office Brae"
        bill.template = bill.template.replace(mark, f"{mark}\n\n{lines}")
    elif kind == "end":
        bill.template += f"\n{lines}\n"
    elif kind == "page2":
        bill.template += f"\n<page> 2\n\n{lines}\n"
    elif kind == "top":
        bill.template = f"{lines}\n\n{bill.template}"
    elif kind == "label":
        bill.template = bill.template.replace(f"<{name}>", text)
    elif kind == "sums":
        for slot in ("net", "tax", "total"):
            bill.template = bill.template.replace(f"{{{slot}}}", text.replace("{n", f"{{{slot}_n"))
    elif kind == "swap":
        one, other = name.split(",")
        if one in bill.template and other in bill.template:
            parts = bill.template.replace(one, "\0").replace(other, one).replace("\0", other)
            bill.template = parts
    elif kind == "item" and "{items}" in bill.template:
        label, _, value = text.partition(" :: ")
        wrote = [(n, c) for n, c in bill.items]
        bill.items = [*wrote, (label, int(value) * 100)]
        added = bill.values()["items"]
        bill.items, bill.more["items"] = wrote, added
    elif kind == "sub":
        bill.template = bill.template.replace(name, text)
    elif kind in ("title", "address"):
        bill.template = bill.template.replace(f"<{kind}>", text)
    elif "\n" not in lines or not any(
        f"{{{kind}}}" in line and line.startswith("|") for line in bill.template.split("\n")
    ):
        bill.template = bill.template.replace(f"{{{kind}}}", lines)


def rows(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[part.strip() for part in line.split("¦")] for line in lines if line[:1] not in "# "]


def cases() -> Iterator[Mapping[str, Any]]:
    """Yield each row of `matter.txt` in each language, at the next layout that has its place."""
    layouts = list(TEMPLATES)
    for n, (group, where, asks, *texts) in enumerate(rows(Path(__file__).with_name("matter.txt"))):
        for m, lang in enumerate(LANGUAGES):
            text = (texts * 4)[m] if len(texts) in (1, 4) else ""
            for step in range(len(layouts)):
                layout = layouts[(n * 3 + m * 5 + step) % len(layouts)]
                count = 3 if layout == "varied" else 1 + (n + m) % 2
                bill = Bill(layout, lang, count)
                plain = bill.text()
                for place, part in zip(where.split("+"), text.split("++"), strict=True):
                    change(bill, place, part)
                fields = {_FIELDS[letter] for letter in asks} & set(bill.answer())
                if bill.text() != plain and fields:
                    name = f"{n:03} {group}, {lang} {layout}: {where} {text}"
                    yield case(name, decided(layout, lang, count), bill, sorted(fields))
                    break
