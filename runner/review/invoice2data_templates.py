"""Rules as templates of invoice2data: expressions that read in all decided texts what was decided.

Keywords are the sender's cells and the layout's lines as all these texts have them; the template
with the most comes first. Expressions are bounded: a text may be made to take long. A file that
Paddock has not written, or that a person has edited since, is never replaced.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from paddock.engine.system import files, no_links
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import one_line
from paddock.pipelines.checking.cldr import currency_signs
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.filters import slug
from paddock.pipelines.yaml_source import to_yaml
from paddock.runner.core.traces.past_decisions import known_decisions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.rules.cell_values import currencies_in, is_currency
from paddock.runner.rules.document_offers import choices_of
from paddock.runner.rules.field_rules import FieldRule
from paddock.runner.rules.offers import OfferedValue
from paddock.runner.rules.reasons import NoRule
from paddock.runner.rules.sender_layouts import SenderLayout

_MARK = "paddock-template:"
_MOST_BYTES = 16 * 1024 * 1024
_MAX_STEM_CHARS = 48
_SELLERS = ("issuer", "sender", "seller", "supplier", "vendor", "company")
_NAMES = dict.fromkeys(("total", "gross", "payable"), "amount") | {
    "net": "amount_untaxed", "tax": "amount_tax", "due": "date_due", "number": "invoice_number",
}  # fmt: skip
_PARTS = {
    "%d": r"(?:0?[1-9]|[12]\d|3[01])", "%m": r"(?:0?[1-9]|1[0-2])", "%Y": r"\d{4}", "%y": r"\d\d",
    "%B": f"(?:{'|'.join(calendar.month_name[1:])})", ".": r"\.", " ": "[ \u00a0]",
    "%b": f"(?:{'|'.join(calendar.month_abbr[1:])})",
}  # fmt: skip
_DAYS = ["%Y-%m-%d", "%d %B %Y", "%d %b %Y", "%d. %B %Y", "%B %d, %Y", "%b %d, %Y"]
_DAYS += [f"%{a}{m}%{b}{m}%{y}" for m in "./-" for a, b in ("dm", "md") for y in "Yy"]
_DIGITS = r"-?(?:\d{{1,3}}(?:[{0} \u00a0\u202f']\d{{3}}){{1,4}}(?={1}\d)|\d{{1,9}})(?:{1}\d\d?)?"
_FORMS: Mapping[type, Mapping[str, str]] = {
    float: {"": r"-?\d{1,9}", ".": _DIGITS.format(",", r"\."), ",": _DIGITS.format(".", ",")},
    datetime.date: {day: re.sub("%.|[. ]", lambda part: _PARTS[part[0]], day) for day in _DAYS},
}
"""By type, expressions by decimal mark or format; `1,234` alone may have either mark."""
_TURNED = str.maketrans("dm", "md")
_ANY = r"[\s\S]*?"
_CELL = r"(?:^|[^\S\n]{2}|[\t|])[^\w\n]{0,9}"
_BEGINS = rf"(?:{_CELL}|\d[.,;]?[^\S\n][^\w\n]{{0,9}})"
_RATE = r"\d\d?(?:[.,]\d\d?)?\s?%"
_PROSE = r"[^\W\d_]+(?:(?:(?!\s\s)[^\w\n\t|:]){1,2}[^\W\d_]+){5}"
_WORD_BEGINS, _WORD_ENDS = r"(?<![^\W\d_])", r"(?![^\W\d_])"
_APART, _LETTERS = re.compile(r"[^\S\n]{2,}|[\t|\n]"), re.compile(r"[^\W\d_]+")
_REST = r"[ \t\u00a0.,:;|]{0,99}"


class Unsaid(Enum):
    """Why a template lacks a field, or there is none."""

    NO_RULE = "no rule reads a value of it"
    COLUMN = "the head of a column governs it"
    AROUND = "what stands around its number is a part of its form"
    OPEN_FORM = "day and month or the decimal mark could be another's"
    ELSEWHERE = "it does not stand so, right behind its label, in the decided text"
    NAME = "the decided text has no line that begins with just this name"


def ledger_templates(ledger: Ledger, decided: Container[str]) -> Iterator[RuleTemplate]:
    """Yield a template for each sender and layout; `decided`: the ids of decisions that count."""
    store = ReviewStore(ledger)
    reviews = {r.id: r for r in store.decided(is_whole=True) if r.id in decided}
    texts = {
        id_: next(filter(None, map(store.source_text, review.subject.sources)), "")
        for id_, review in reviews.items()
    }
    for layout in (lay for step in known_decisions(ledger).values() for lay in step.rules.layouts):
        of_layout = [texts[taught.id] for taught in layout.decisions if taught.id in texts]
        if len(of_layout) == len(layout.decisions) and not isinstance(layout.shown(), NoRule):
            schema = reviews[layout.decisions[0].id].subject.schema
            yield RuleTemplate.of(layout, of_layout, schema)


class RuleTemplate(Struct):
    layout: SenderLayout
    texts: list[str]
    issuer: str = ""
    keywords: list[str] = field(default_factory=list)
    """Empty: there is no template; `left_out` says why."""
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, Unsaid] = field(default_factory=dict)
    currency: str | None = None
    days: list[str] = field(default_factory=list)
    mark: str = ""

    @classmethod
    def of(cls, layout: SenderLayout, texts: list[str], schema: Any = None) -> RuleTemplate:
        made, names = cls(layout, texts), [name for name, _ in layout.decisions[0].names]
        seller = next((name for name in names if name.lower() in _SELLERS), names[0])
        made.issuer = str((layout.constants or {})[seller])
        cells = [cell for _, cell in layout.decisions[0].names if all(cell in t for t in texts)]
        for line in sorted(line for line in layout.words if cells and line[0] != "¤"):
            written = (found[0] for found in re.finditer(f"(?i){_one_of([line])}", texts[0]))
            cells += [w for w in written if all(w in text for text in texts)][:1]
        made.keywords = [*dict.fromkeys(cells)]
        name = rf'(?:\w+: )?"?({re.escape(made.issuer)})(?=[*"]*(?:$|\s?[,<|(\t]|\s\s))'
        name = f"(?im)\\A(?={_ANY}{_CELL}{name}){made._guard(schema)}"
        if not (cells and all(re.search(name, text) for text in texts)):  # `Mill` is not `Mill Ltd`
            made.keywords, made.left_out[seller] = [], Unsaid.NAME
            return made
        made.fields["partner_name"] = {"parser": "regex", "regex": name}
        for name in dict.fromkeys(name for taught in layout.decisions for name in taught.answer):
            if name != seller:
                made._add(name)
        return made

    @property
    def text(self) -> str:
        unsaid = (f"# left out: {one_line(n)}: {why.value}\n" for n, why in self.left_out.items())
        read = [name for name, how in self.fields.items() if how["parser"] == "regex"]
        marks = {"date_formats": self.days, "decimal_separator": self.mark or "."}
        options = {"currency": self.currency, **marks}
        whole = {"issuer": self.issuer, "keywords": self.keywords, "priority": len(self.keywords)}
        whole |= {"required_fields": ["issuer", *read], "fields": self.fields, "options": options}
        text = f"{''.join(unsaid)}{to_yaml(whole)}"
        return f"{_start(text)}\n{text}"

    def _guard(self, schema: Any) -> str:
        """Return conditions of a whole text, as lookaheads.

        Its lines without digits and labels of pairs are known, but for sentences. It names the
        same currency, and no other choice of a field that is always the same.
        """
        whole, constants = "\n".join(self.texts), self.layout.constants or {}
        cells = _one_of(c for c in _APART.split(whole) if re.fullmatch(r"\D*[^\W\d_]\D*", c))
        known = rf"(?:[^\w\n]*{cells}(?=[^\w\n]*(?:[^\S\n]{{2}}|[\t|]|$)))+[^\w\n]*$"
        lines = rf"(?!{_ANY}^(?!{known}|\W*{_PROSE})[^\d\n]*[^\W\d_][^\d\n]*$)"
        heads = _one_of(re.findall(rf"(?m){_CELL}([^\d\n:|]*):", whole))
        pairs = rf"(?!{_ANY}{_CELL}\b(?!{heads}[^\w\n]*:|{_PROSE})[^\W\d_][^\d\n:|]*:)"
        own = currencies_in(whole)
        same = {*own.values(), *map(str, constants.values())}
        currencies = currencies_in(" ".join(currency_signs())).items()
        others = _one_sign_of(sign for sign, unit in currencies if unit not in same)
        signs = rf"(?={_ANY}{_one_sign_of(own)})" if own else ""
        choices = {(n, str(c)) for n in constants for c in choices_of(SchemaParts.of(schema), n)}
        unnamed = (c for n, c in choices if c != str(constants[n]) and not is_currency(c))
        named = _one_of(c for c in unnamed if not re.search(f"(?i){_one_of([c])}", whole))
        return f"{lines}{pairs}{signs}(?!{_ANY}(?:{named}|{others}))"

    def _add(self, name: str) -> None:
        value, rules = (self.layout.constants or {}).get(name), self.layout.fields.get(name, ())
        if value not in (None, "") and name in self.layout.taught_constants:
            self.fields[name] = {"parser": "static", "value": value}
            if is_currency(str(value)):
                self.currency = str(value)
            return
        labels = {label for rule in rules for _, label in rule.anchors}
        found = [self._expression(name, rule, labels) for rule in rules] or [Unsaid.NO_RULE]
        if unsaid := [why for why in found if isinstance(why, Unsaid)]:
            self.left_out[name] = unsaid[0]
            return
        of, known = rules[0].form.of, _NAMES.get(name.lower(), name)
        how: dict[str, Any] = {"parser": "regex", "regex": found}
        how |= {} if of is str else {"type": "date"}
        how |= {"type": "float", "replace": [r"[\s']", ""]} if of is float else {}
        self.fields[name if known in self.fields else known] = how

    def _expression(self, name: str, rule: FieldRule, labels: set[str]) -> str | Unsaid:
        of, own = rule.form.of, sorted({label for how, label in rule.anchors if how != "above"})
        if not own or (of is float and rule.form.signs != {("", False)}):
            return Unsaid.AROUND if own else Unsaid.COLUMN
        words = {word for taught in self.layout.decisions for word in taught.offers.words}
        signs = "".join(rf"|{re.escape(word[1:])}" for word in sorted(words) if word[0] == "¤")
        gap = rf"(?:[^\S\n]|[.,:;)\]%=|+·…]|{_RATE}{signs}){{0,99}}(?<![\w.,'/])"
        ends = rf"(?={_REST}(?:{signs}){_REST}$)" if of is float else r"(?=[.,:;)|]*(?:\s|$))"
        codes = (r"\d+".join(map(re.escape, shape.split("9"))) for shape in rule.form.shapes)
        orders = {order[0] for order in rule.form.orders}  # `d` or `m` comes first
        same = "".join(rf"(?={_ANY}{_BEGINS}{_one_of([la])}{gap}\1{ends})" for la in own[1:])
        other = rf"(?=[\w(+\u2212\u2013-])(?!{_RATE}|\1{ends})\S*?\d"
        same += f"(?!{_ANY}{_BEGINS}{_one_of(labels)}{gap}{other})"
        right = {
            key: found
            for key, form in _FORMS.get(of, {"": "|".join(sorted(codes))}).items()
            if re.search(f"(?i){form}", self.texts[0])  # compiled once for all senders
            for found in [rf"(?im)\A(?={_ANY}{_BEGINS}{_one_of(own[:1])}{gap}({form}){ends}){same}"]
            if len(orders) > 1 or key[1:2] in ("Y", *orders)
            if self._reads(name, rule, found)
        }
        for key, found in right.items():
            turned, is_other = key.translate(_TURNED), key and self.mark not in ("", key)
            if (of is float and is_other) or (turned != key and turned in (*right, *self.days)):
                return Unsaid.OPEN_FORM
            if of is float:
                self.mark = self.mark or key
            elif key not in ("", *self.days):
                self.days.append(key)
            return found
        return Unsaid.ELSEWHERE

    def _reads(self, name: str, rule: FieldRule, expression: str) -> bool:
        for taught, text in zip(self.layout.decisions, self.texts, strict=True):
            written = (OfferedValue("in", "", e, 0, 0, 0) for e in re.findall(expression, text))
            values, answer = [*map(rule.form.read, written)], taught.answer.get(name)
            if values != [answer] and (values or taught.id in rule.ids):
                return False
        return True


def _start(text: str) -> str:
    """Return the first line of a template, with a digest of the others: a person may edit them."""
    mark = f"{_MARK}{sha256(text.encode()).hexdigest()[:16]}"
    return f"# Made by `paddock review --rules --export`, for invoice2data. {mark}"


class NotOurs(Enum):
    """Why a template does not replace a file."""

    LINK = "is a symbolic link"
    OTHER = "exists, and is no template of Paddock"
    EDITED = "was changed since Paddock wrote it"


def _why_not_ours(file: Path) -> NotOurs | None:
    """Return why a file is no template as it was written; None: it is one, or there is none."""
    try:
        text = no_links.read_file(file, _MOST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError:
        return NotOurs.LINK if file.is_symlink() else NotOurs.OTHER
    start, _, rest = text.replace("\r\n", "\n").partition("\n")
    if _MARK not in start:
        return NotOurs.OTHER
    return None if start == _start(rest) else NotOurs.EDITED


class TemplateFile(Struct, frozen=True):
    sender: str
    name: str | None
    """None: there is no template; `left_out` says why."""
    text: str
    left_out: Mapping[str, Unsaid]


def template_files(templates: Iterable[RuleTemplate]) -> list[TemplateFile]:
    """Return the templates with names by their senders; each name is used once."""
    found, taken = list[TemplateFile](), set[str]()
    for template in templates:
        name, text = None, ""
        if template.keywords:
            stem, text = slug(template.issuer)[:_MAX_STEM_CHARS] or "sender", template.text
            name, n = f"{stem}.yml", 1
            while name in taken:
                n += 1
                name = f"{stem}-{n}.yml"
            taken.add(name)
        found.append(TemplateFile(template.issuer, name, text, template.left_out))
    return found


class TemplateNotReplaced(Exception):
    """A template would replace a file that is not as Paddock wrote it."""

    def __init__(self, name: str, why: NotOurs) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why


def write_templates(templates: Sequence[TemplateFile], folder: Path) -> list[str]:
    """Write all templates, or none; return the names of outdated ones of Paddock in the folder.

    Raises:
        TemplateNotReplaced: nothing was written.
    """
    texts = {template.name: template.text for template in templates if template.name is not None}
    for name in texts:
        if (why := _why_not_ours(folder / name)) is not None:
            raise TemplateNotReplaced(name, why)
    for name, text in texts.items():
        files.write_atomically(folder / name, text, mode=None)
    others = sorted({file.name for file in folder.glob("*.yml")} - texts.keys())
    return [name for name in others if _why_not_ours(folder / name) in (None, NotOurs.EDITED)]


def _one_of(texts: Iterable[str]) -> str:
    """Return an expression of some texts: their words, whatever stands between, or their signs."""
    words = {" ".join(_LETTERS.findall(text)) or text.strip() for text in texts} - {""}
    return f"{_WORD_BEGINS}(?:{'|'.join(map(_words, sorted(words))) or '(?!)'}){_WORD_ENDS}"


def _one_sign_of(signs: Iterable[str]) -> str:
    return f"{_WORD_BEGINS}(?-i:{'|'.join(map(re.escape, sorted(signs)))}){_WORD_ENDS}"


def _words(words: str) -> str:
    apart = (re.escape(word).replace("ss", "(?:ss|ß)") for word in words.split())
    return r"(?:(?!\s\s)[^\w\n\t|]|[\d_]){1,9}".join(apart)
