r"""Formulas in linear form: `1/2`, `3 3/4`, `sqrt(16)`, `x^2`, `(a+b)/(c+d)`, `[1, 2; 3, 4]`.

For those of Office (OMML, elements of lxml) and of pages (MathML, tags of BeautifulSoup). Text of a
formula is escaped, as all text of these kinds is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.text_marks import escaped

MATH_NS = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_SUM, _FRACTION, _SCRIPT, _ATOM = range(4)
"""How tightly a part holds together; looser ones get brackets as a part of tighter ones."""
_OPERAND = re.compile(r"[+\-−–±]?\d+(?:[.,]\d+)*\s?%?|[^\W\d_]+['\u2032\u2033]*|[^\w\s]")  # noqa: RUF001
_SHORT_SCRIPT = re.compile(r"[+\-−–]?[\w.,]+|.", re.DOTALL)  # noqa: RUF001 - minus signs of texts
_ACCENTS = {
    **dict.fromkeys("^\u02c6\u0302", "hat"),
    **dict.fromkeys("¯‾―\u0304\u0305", "bar"),
    **dict.fromkeys("→⃑\u20d7", "vec"),
    **dict.fromkeys("~\u02dc\u223c\u0303", "tilde"),
    **dict.fromkeys("˙\u0307", "dot"),
    **dict.fromkeys("¨\u0308", "ddot"),
    **dict.fromkeys("⏞⏟︷︸⎴⎵", ""),
}
"""What is drawn over or under a part, as a function of it; braces mean nothing by themselves."""
_PRIMES = "'\u2032\u2033\u2034"
_UNSEEN = {"\u2061": " ", "\u2062": "", "\u2063": "", "\u2064": " "}


class _Part(Struct, frozen=True):
    text: str
    tightness: int = _ATOM
    starts_apart: bool = False
    """Whether a letter, digit or bracket before it would run into it."""
    ends_apart: bool = False
    is_matrix: bool = False

    def within(self, tightness: int) -> str:
        """Return it as a part of something that holds together as tightly as this."""
        return self.text if self.tightness >= tightness else f"({self.text})"


_NOTHING = _Part("")


def omml_text(formula: Any, text_of: Callable[[Any], str] | None = None) -> str:
    """Return a formula of Office, an element of lxml, in linear form.

    `text_of` returns the text of a run and of what is no part of a formula, such as tracked
    changes; without it the text of its `t` elements is taken.
    """

    def own_text(run: Any) -> str:
        return escaped("".join(part.text or "" for part in run.iter("{*}t")))

    return _omml(formula, text_of or own_text).text.strip()


def mathml_text(formula: Any) -> str:
    """Return a formula of a page, a tag of BeautifulSoup, in linear form."""
    return _mathml(formula).text.strip()


def _omml(element: Any, text_of: Callable[[Any], str]) -> _Part:
    name = element.tag.removeprefix(MATH_NS)

    def part(child: str) -> _Part:
        found = element.find(f"{MATH_NS}{child}")
        return _NOTHING if found is None else _omml(found, text_of)

    def value(setting: str, default: str = "") -> str:
        found = element.find(f"{MATH_NS}{name}Pr/{MATH_NS}{setting}")
        return default if found is None else str(found.get(f"{MATH_NS}val", ""))

    match name:
        case "f":
            if value("type") == "noBar":
                return _rows([[part("num")], [part("den")]])
            return _fraction(part("num"), part("den"))
        case "rad":
            return _root(part("e"), part("deg"))
        case "sSup" | "sSub" | "sSubSup" | "nary":
            base = part("e") if name != "nary" else _Part(value("chr", "∫") or "∫")
            scripted = _scripted(base, part("sub"), part("sup"))
            return scripted if name != "nary" else _joined([scripted, part("e")])
        case "limLow":
            return _scripted(part("e"), part("lim"), _NOTHING)
        case "limUpp":
            return _scripted(part("e"), _NOTHING, part("lim"))
        case "sPre":
            return _joined([_scripted(_NOTHING, part("sub"), part("sup")), part("e")])
        case "d":
            parts = [_omml(child, text_of) for child in element.findall(f"{MATH_NS}e")]
            ends = value("begChr", "("), value("endChr", ")")
            return _fenced(parts, *ends, value("sepChr", "|") or "|")
        case "func":
            called = part("fName")
            return _joined([_Part(called.text, _SUM, True, True), part("e")])
        case "acc":
            return _accented(part("e"), value("chr", "\u0302"))
        case "bar":
            return _accented(part("e"), "¯")
        case "m":
            rows = element.findall(f"{MATH_NS}mr")
            return _rows([[_omml(e, text_of) for e in row.findall(f"{MATH_NS}e")] for row in rows])
        case "eqArr":  # `&` is where its lines are aligned
            lines = (_omml(e, text_of).text for e in element.findall(f"{MATH_NS}e"))
            return _rows([[_Part(line.replace("&", ""))] for line in lines])
        case "phant" if value("show", "1") in ("0", "off", "false"):
            return _NOTHING
        case "r" | "t":
            return _plain(text_of(element))
    if name.endswith("Pr"):
        return _NOTHING
    if not element.tag.startswith(MATH_NS):
        return _plain(text_of(element))
    return _joined(_omml(child, text_of) for child in element.iterchildren("*"))


def _mathml(tag: Any) -> _Part:
    name = tag.name.rpartition(":")[2].lower()
    children = [child for child in tag.children if child.name is not None]
    if name in ("mi", "mn", "mo", "mtext", "ms"):
        text = " ".join(tag.get_text().split()) if name != "mtext" else tag.get_text()
        is_word = name in ("mi", "mo") and len(text) > 1 and text.isalpha()
        return replace(_plain(escaped(text)), starts_apart=is_word, ends_apart=is_word)
    if name in ("mphantom", "annotation", "annotation-xml", "none", "mprescripts", "mspace"):
        return _Part(" ") if name == "mspace" else _NOTHING
    if name in ("semantics", "maction"):
        return _mathml(children[0]) if children else _NOTHING
    if name == "mtable":
        return _rows([[_mathml(c) for c in row.children if c.name is not None] for row in children])
    parts = list(map(_mathml, children))
    if name == "mmultiscripts":
        names = [child.name.rpartition(":")[2].lower() for child in children]
        n = names.index("mprescripts") if "mprescripts" in names else len(names)
        places = (parts[:1], parts[1:n:2], parts[2:n:2], parts[n + 1 :: 2], parts[n + 2 :: 2])
        base, lower, upper, low_before, up_before = map(_joined, places)
        return _joined([_scripted(_NOTHING, low_before, up_before), _scripted(base, lower, upper)])
    if name == "mfenced":
        separator = (tag.get("separators", ",").strip() or " ")[0]
        ends = tag.get("open", "("), tag.get("close", ")")
        return _fenced(parts, *ends, f"{separator} " if separator.strip() else "")
    first, second, third = (*parts, *[_NOTHING] * 3)[:3]
    match name:
        case "mfrac":
            is_stacked = re.fullmatch(r"0(?:\.0*)?\D*", tag.get("linethickness", "1").strip())
            return _rows([[first], [second]]) if is_stacked else _fraction(first, second)
        case "msqrt":
            return _root(_joined(parts), _NOTHING)
        case "mroot":
            return _root(first, second)
        case "mover" | "munder" if second.text.replace("\\", "") in _ACCENTS:
            return _accented(first, second.text.replace("\\", ""))
        case "mover" | "msup":
            return _scripted(first, _NOTHING, second)
        case "munder" | "msub":
            return _scripted(first, second, _NOTHING)
        case "msubsup" | "munderover":
            return _scripted(first, second, third)
    return _joined(
        _plain(escaped(node.get_text().strip())) if node.name is None else _mathml(node)
        for node in tag.children
    )


def _plain(text: str) -> _Part:
    for sign, shown in _UNSEEN.items():
        text = text.replace(sign, shown)
    return _Part(text, _ATOM if _OPERAND.fullmatch(text.strip()) else _SUM)


def _joined(parts: Iterable[_Part]) -> _Part:
    """Put parts behind one another, with a space where two would run together."""
    shown = [part for part in parts if part.text]
    if len(shown) < 2:
        return shown[0] if shown else _NOTHING
    text = shown[0].text
    for before, part in pairwise(shown):
        is_beside = (text[-1].isalnum() or text[-1] in ")]}") and (
            part.text[0].isalnum() or part.text[0] in "(["
        )
        is_apart = is_beside and (before.ends_apart or part.starts_apart)
        text += f" {part.text}" if is_apart else part.text
    tightness = _ATOM if _OPERAND.fullmatch(text) else _SUM
    return _Part(text, tightness, shown[0].starts_apart, shown[-1].ends_apart)


def _fraction(top: _Part, bottom: _Part) -> _Part:
    text = f"{top.within(_SCRIPT)}/{bottom.within(_SCRIPT)}"
    return _Part(text, _FRACTION, starts_apart=True, ends_apart=True)


def _root(radicand: _Part, degree: _Part) -> _Part:
    is_square = degree.text.strip() in ("", "2")
    text = f"sqrt({radicand.text})" if is_square else f"root({degree.text}, {radicand.text})"
    return _Part(text, starts_apart=True)


def _scripted(base: _Part, lower: _Part, upper: _Part) -> _Part:
    def script(mark: str, part: _Part) -> str:
        text = part.text.strip()
        is_short = _SHORT_SCRIPT.fullmatch(text)
        return f"{mark}{text if is_short else f'({text})'}" if text else ""

    is_primed = bool(upper.text) and not upper.text.strip(_PRIMES)
    over = upper.text if is_primed else script("^", upper)
    text = f"{base.within(_ATOM) if base.text else ''}{script('_', lower)}{over}"
    return _Part(text, _SCRIPT, starts_apart=text[:1].isdigit(), ends_apart=True)


def _fenced(parts: list[_Part], opening: str, closing: str, separator: str) -> _Part:
    texts = (part.text[1:-1] if part.is_matrix else part.text for part in parts)
    return _Part(f"{opening}{separator.join(texts)}{closing}")


def _accented(base: _Part, accent: str) -> _Part:
    name = _ACCENTS.get(accent, accent)
    return _Part(f"{name}({base.text})", starts_apart=True) if name else base


def _rows(rows: list[list[_Part]]) -> _Part:
    text = "; ".join(", ".join(cell.text.strip() for cell in row) for row in rows)
    return _Part(f"[{text}]", is_matrix=True)
