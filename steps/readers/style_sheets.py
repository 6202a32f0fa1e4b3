"""Style sheets: which declarations hold for an element, by CSS's rules of precedence.

As a browser without scripts applies them, in a window of 1,280 by 720. What is not decided, such as
rules in layers, in containers or within others, is kept apart: it may hold. `css_properties.csv`
has the properties of @webref/css 8.7.5, mdn-data 2.37.2 and Chromium 156, and which of their values
hide text, or cannot; any other property could. The only importer of tinycss2 and cssselect2.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import cssselect2  # type: ignore[import-untyped]
import tinycss2  # type: ignore[import-untyped]
from tinycss2.color4 import parse_color  # type: ignore[import-untyped]

WINDOW_PX = (1280.0, 720.0)
MOST_STYLE_CHARS = 200_000
_MOST_SELECTOR_CHARS = 1_000  # cssselect2 writes each as a Python expression
_MOST_DEPTH = 10  # of rules in one another
_MOST_STEPS = 3_000_000  # from elements to those around them, some seconds
_MOST_TOKENS = 100  # of a variable
_MARKS = ("text-decoration", "vertical-align", "list-style", "list-style-type", "content")
"""Read for what they say, whether or not they hide."""
_WIDE = ("inherit", "initial", "unset", "revert", "revert-layer")
_HARMLESS = ("none", "auto", "normal", *_WIDE)
_GROUPS = ("media", "supports", "layer", "container", "scope")
_SYSTEM_COLOURS = (
    *("canvas", "canvastext", "window", "windowtext", "field", "fieldtext", "buttonface"),
    *("buttontext", "highlight", "highlighttext", "infobackground", "infotext", "mark", "marktext"),
)
Tokens = tuple[Any, ...]
Declaration = tuple[str, Tokens, bool]
"""Name, value and whether it is important."""
Colour = tuple[float, float, float, float]
"""Red, green, blue and how opaque it is, each up to 1."""
BLACK, WHITE = (0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0)
UNKNOWN = (-1.0, 0.0, 0.0, 1.0)


class Property(NamedTuple):
    """What values of a property do to text.

    Conditions are words, ranges of numbers, such as `:-999px`, and functions with those of what
    they are given. A percentage is a part of 1; in `px` of the window, in `own` of the element.
    """

    kind: str = "could-hide"
    """Or `cannot-hide`, `decided`."""
    where: str = ""
    """To what it applies: what is `inherited`, a `box`, `placed`, has a `margin`.

    Or `=` and its other name.
    """
    hides: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    """With `!` those that could hide, as no others do."""

    def effect(self, value: Tokens, font_px: float = 16.0) -> str:
        """Return `hides` or `could`; empty: it cannot hide text."""

        def meets(token: Any, conditions: Iterable[str], how: Callable[[Any], bool] = all) -> bool:
            return any(_meets(token, condition, font_px, how) for condition in conditions)

        if any(meets(token, self.hides, any if self.where == "box" else all) for token in value):
            return "hides"
        unsafe = [text[1:] for text in self.harmless if text.startswith("!")]
        if unsafe:
            return "could" if any(meets(token, unsafe) for token in value) else ""
        return "" if all(meets(token, (*_HARMLESS, *self.harmless)) for token in value) else "could"


_RANGE = re.compile(r"(-?[\d.]*)([a-z]*):(-?[\d.]*)([a-z]*)")


def _meets(token: Any, condition: str, font_px: float, how: Callable[[Any], bool]) -> bool:
    if condition == "*" or token.type == "literal":
        return condition == "*" or token.value in ",/"
    if token.type == "ident":
        return bool(token.lower_value == condition)
    name, bracket, inner = condition.rstrip(")").partition("(")
    if token.type in ("function", "url"):
        called, given = "url", Tokens()
        if token.type == "function":
            called, given = token.lower_name, solid(token.arguments)
        met = [_meets(inside, inner, font_px, how) for inside in given if inside != ","]
        return bracket == "(" and called == name and (not inner or (bool(met) and how(met)))
    found = _RANGE.fullmatch(condition)
    if found is None:
        return False
    unit, number = found[2] or found[4], px_of(token, font_px)
    if token.type == "percentage":
        number = token.value * {"": 0.01, "px": WINDOW_PX[0] / 100, "own": 1.0}.get(unit, 0.0)
    if number is None:
        return False
    number /= max(font_px, 1.0) if unit == "em" else 1.0
    return float(found[1] or -inf) <= number <= float(found[3] or inf)


@cache
def known_properties() -> Mapping[str, Property]:
    with Path(__file__).with_name("css_properties.csv").open(encoding="utf-8") as file:
        return {
            row["property"]: Property(
                row["class"],
                row["where"],
                *(tuple(row[key].split()) for key in ("hides", "harmless")),
            )
            for row in csv.DictReader(file)
        }


@cache
def property_of(written: str) -> tuple[str, Property]:
    """Return the name under which a property is read, and what it can do."""
    known = known_properties()
    if written in known:
        name = known[written].where.removeprefix("=")
        return (name, known[name]) if name != known[written].where else (written, known[written])
    families = (f"{written[:n]}*" for n in range(1, len(written)))
    if found := next((known[family] for family in families if family in known), None):
        return written, found
    prefix, _, base = written[1:].partition("-")
    if base in known and (prefix == "webkit" or known[base].kind == "cannot-hide"):
        return property_of(base)
    return written, Property()


def solid(tokens: Iterable[Any]) -> Tokens:
    return tuple(token for token in tokens if token.type not in ("whitespace", "comment"))


def words_of(value: Iterable[Any]) -> list[str]:
    return [token.lower_value for token in value if token.type == "ident"]


_PX = {"px": 1.0, "pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 37.8, "mm": 3.78}
_PX |= {"vw": WINDOW_PX[0] / 100, "vh": WINDOW_PX[1] / 100}
_EMS = {"em": 1.0, "ex": 0.5, "ch": 0.5}


def px_of(token: Any, em_px: float = 16.0, rem_px: float = 16.0) -> float | None:
    """Return a number, or a length in pixels; None: it depends on other things."""
    if token.type not in ("number", "percentage", "dimension"):
        return None
    unit = token.lower_unit if token.type == "dimension" else ""
    px = {**_PX, "rem": rem_px}.get(unit, _EMS.get(unit, 0.0) * em_px)
    is_known = px or not token.value
    return (
        float(token.value) * (px if unit else 1.0) if is_known or token.type == "number" else None
    )


def colour_of(token: Any, current: Colour = UNKNOWN) -> Colour | None:
    """Return a colour, or `UNKNOWN`, as of a picture; None: the token is none of both."""
    found = parse_color(token)
    if found == "currentcolor":
        return current
    if found is None:
        is_system = token.type == "ident" and token.lower_value in _SYSTEM_COLOURS
        return UNKNOWN if is_system or token.type in ("function", "url") else None
    if found.space not in ("srgb", "hsl", "hwb"):
        return UNKNOWN
    red, green, blue = (min(1.0, max(0.0, part or 0.0)) for part in found.to("srgb").coordinates)
    return red, green, blue, found.alpha


def parsed(nodes: Iterable[Any]) -> tuple[Declaration, ...]:
    """Return declarations that say anything here, without those that browsers drop."""
    found = list[Declaration]()
    for node in nodes:
        if node.type != "declaration":
            continue
        is_variable = node.name.startswith("--")
        name, of = (node.name, None) if is_variable else property_of(node.lower_name)
        if of is not None and of.kind == "cannot-hide" and name not in _MARKS:
            continue
        value = solid(node.value)
        words = () if of is None else (*of.hides, *of.harmless)
        is_closed = name in ("display", "visibility") and words_of(value)[:1] != []
        if value and not (is_closed and words_of(value)[0] not in (*words, *_WIDE)):
            found.append((name, value, node.important))
    return tuple(found)


class _Rule(NamedTuple):
    doubt: str
    """Why it may not hold; empty: it does."""
    declarations: tuple[Declaration, ...]


class CssSheet:
    """The rules of one text of CSS, for any number of pages."""

    def __init__(self, css: str) -> None:
        self.matcher = cssselect2.Matcher()
        self.doubts = dict[str, None]()
        """What of it is not understood and could hide text."""
        if len(css) > MOST_STYLE_CHARS:
            self.doubts[f"styles behind {MOST_STYLE_CHARS:,} characters"] = None
        self._add(tinycss2.parse_stylesheet(css[:MOST_STYLE_CHARS]))

    def _add(self, nodes: Sequence[Any], doubt: str = "", around: str = "", depth: int = 0) -> None:
        if around and (own := parsed(nodes)):
            self._add_rule(around, _Rule(doubt, own))
        if depth > _MOST_DEPTH:
            self.doubts["rules within rules"] = None
            return
        for node in nodes:
            if node.type == "qualified-rule":
                selector, inner = tinycss2.serialize(node.prelude).strip(), doubt
                if around:  # within any element
                    selector = selector.replace("&", "*")
                    selector = f"* {selector}" if selector[:1] in (">", "+", "~") else selector
                    inner = doubt or "rules within rules"
                self._add(tinycss2.parse_blocks_contents(node.content), inner, selector, depth + 1)
            elif node.type == "at-rule" and node.lower_at_keyword == "import":
                self.doubts["@import"] = None
            elif node.type == "at-rule" and node.lower_at_keyword in _GROUPS and node.content:
                kind = node.lower_at_keyword
                holds = _holds(tinycss2.serialize(node.prelude)) if kind == "media" else None
                parse = tinycss2.parse_blocks_contents if around else tinycss2.parse_rule_list
                if holds is not False:
                    inner = doubt or ("" if holds else f"@{kind}")
                    self._add(parse(node.content), inner, around, depth + 1)

    def _add_rule(self, selector: str, rule: _Rule) -> None:
        is_short = max(map(len, selector.split(","))) <= _MOST_SELECTOR_CHARS
        with suppress(Exception):  # of the grammar, or of Python's compiler for what is too deep
            if is_short and ":has(" not in selector.lower():
                for found in cssselect2.compile_selector_list(selector):
                    self.matcher.add_selector(found, rule)
                return
        if any(name not in _MARKS for name, _, _ in rule.declarations):
            self.doubts[f"rule '{selector[:40]}'"] = None


def _holds(query: str) -> bool | None:
    """Return whether a media query holds on the screen that pages are read for; None: unknown."""
    found = list[bool | None]()
    for option in query.lower().split(","):
        words = option.split()
        is_negated = words[:1] == ["not"]
        parts = [_has_feature(part) for part in _AND.split(" ".join(words[is_negated:]))]
        holds = False if False in parts else None if None in parts else True
        found.append(not holds if is_negated and holds is not None else holds)
    return True if True in found else None if None in found else False


_AND = re.compile(r"\band\b")
_SIZE_QUERY = re.compile(r"\((min|max)-(?:device-)?(width|height):(\d*\.?\d+)(px|em|rem)\)")


def _has_feature(written: str) -> bool | None:
    parts = written.split()
    words = "".join(parts[1:] if parts[:1] == ["only"] else parts)
    if not words or words.isalpha():
        return words in ("", "all", "screen")
    if found := _SIZE_QUERY.fullmatch(words):
        window_px = WINDOW_PX[found[2] == "height"]
        px = float(found[3]) * (1.0 if found[4] == "px" else 16.0)
        return window_px >= px if found[1] == "min" else window_px <= px
    return {"(prefers-color-scheme:dark)": False, "(prefers-color-scheme:light)": True}.get(words)


class _TooManySteps(Exception):
    """The rules of a page ask for more steps between its elements than are taken."""


class Cascade:
    """Which declarations each element of one page has, its own and those of style sheets."""

    def __init__(self, sheets: Sequence[CssSheet]) -> None:
        self._sheets = [sheet for sheet in sheets if sheet.matcher.order]
        self._n_left: float = _MOST_STEPS
        self.is_exhausted = False
        """Whether the rules for some elements were not looked up."""
        self._inline = dict[str, tuple[Declaration, ...]]()
        self._found = dict[tuple[Any, ...], dict[str, dict[str, Tokens]]]()

    @property
    def has_rules(self) -> bool:
        return bool(self._sheets)

    def _step(self, n: int = 1) -> None:
        self._n_left -= n
        if self._n_left < 0:
            raise _TooManySteps

    def wrapped(self, root: Element) -> Iterator[Any]:
        """Yield the elements of a page, in its order, for `declarations`.

        Count the steps between them. cssselect2's own neighbours are tuples, made by recursion.
        """

        def towards(name: str) -> property:
            def walk(element: Any) -> Iterator[Any]:
                while (element := getattr(element, name)) is not None:
                    self._step()
                    yield element

            return property(walk)

        neighbours: dict[str, Any] = {
            "previous_siblings": towards("previous"),
            "ancestors": towards("parent"),
        }
        counted: Any = type("Counted", (cssselect2.ElementWrapper,), neighbours)
        return iter(counted.from_html_root(root).iter_subtree())

    def inline(self, css: str) -> tuple[Declaration, ...]:
        if css not in self._inline:
            self._inline[css] = parsed(tinycss2.parse_blocks_contents(css[:MOST_STYLE_CHARS]))
        return self._inline[css]

    def declarations(
        self, element: Any, hints: tuple[str, ...], style: str
    ) -> dict[str, dict[str, Tokens]]:
        """Return values by properties; of the element `""`, `before`, `after`, or with a `?doubt`.

        `hints` are declarations that its name and attributes stand for. Elements for which the same
        rules hold have the same dictionary.
        """
        rules = list[tuple[tuple[int, ...], tuple[int, int], str, _Rule]]()
        for at, sheet in enumerate(self._sheets if element is not None else ()):
            try:
                found = sheet.matcher.match(element)
                self._step(len(found))
            except _TooManySteps:  # what elements say themselves still holds
                self._n_left, self._sheets, self.is_exhausted, rules = inf, [], True, []
                break
            rules += [(s, (at, n), place or "", rule) for s, n, place, rule in found]
        key = (hints, style, *(order for _, order, _, _ in rules))
        if key not in self._found:
            self._found[key] = self._joined(rules, hints, style)
        return self._found[key]

    def _joined(
        self, rules: Iterable[Any], hints: Iterable[str], style: str
    ) -> dict[str, dict[str, Tokens]]:
        ranked = list[tuple[tuple[Any, ...], str, str, Tokens]]()
        for n, (is_inline, css) in enumerate([*((False, hint) for hint in hints), (True, style)]):
            for name, value, is_important in self.inline(css) if css else ():
                ranked.append(((is_important, is_inline, (), (0, n)), "", name, value))
        for specificity, order, pseudo, rule in rules:
            place = f"?{rule.doubt}" if rule.doubt else pseudo
            for name, value, is_important in rule.declarations:
                ranked.append(((is_important, False, specificity, order), place, name, value))
        ranked.sort(key=lambda entry: entry[0])
        joined = dict[str, dict[str, Tokens]]()
        for _, place, written, given in ranked:
            values = joined.setdefault(place, {})
            for name, value in _longhands(written, given):
                values.pop(name, None)
                word = (words_of(value) if len(value) == 1 else [])[:1]
                if word == ["initial"] and name in _INITIAL:
                    values[name] = self.inline(f"{name}: {_INITIAL[name]}")[0][1]
                elif not word or word[0] not in _WIDE:
                    values[name] = value
        plain = joined.get("", {})
        return {p: plain | values if p[:1] == "?" else values for p, values in joined.items()}


_INITIAL = {"visibility": "visible", "font-size": "16px", "text-indent": "0", "color": "black"}
"""Of properties that an element has from the one around it."""


def _longhands(name: str, value: Tokens) -> Iterator[tuple[str, Tokens]]:
    """Yield the properties that one sets."""
    if name in ("margin", "padding"):
        places = {1: (0, 0, 0, 0), 2: (0, 1, 0, 1), 3: (0, 1, 2, 1)}.get(len(value), range(4))
        for side, at in zip(("top", "right", "bottom", "left"), places, strict=True):
            yield f"{name}-{side}", value[at : at + 1]
    elif name == "overflow":
        yield "overflow-x", value[:1]
        yield "overflow-y", value[-1:]
    elif name == "background":
        yield "background-color", value
        yield "background-image", ()
    elif name == "font":
        is_size = (t.type in ("dimension", "percentage") or px_of(t) == 0 for t in value)
        at = next((at for at, is_it in enumerate(is_size) if is_it), len(value))
        yield "font-size", value[at : at + 1]
    else:
        yield name, value


def resolved(value: Tokens, variables: Mapping[str, Tokens], depth: int = 0) -> Tokens:
    """Return a value with its variables replaced; empty: one is not known, or it is too long."""
    found = list[Any]()
    for token in value if len(value) <= _MOST_TOKENS and depth <= _MOST_DEPTH else ():
        inner: Tokens = (token,)
        if token.type == "function" and token.lower_name == "var":
            name, *fallback = solid(token.arguments) or (None,)
            given = variables.get(getattr(name, "value", ""))
            inner = resolved(tuple(fallback[1:]), variables, depth + 1) if given is None else given
        elif token.type == "function" and token.arguments:
            arguments = resolved(tuple(token.arguments), variables, depth + 1)
            made = type(token)(token.source_line, token.source_column, token.name, list(arguments))
            inner = (made,) if arguments else ()
        if not inner:
            return ()
        found += inner
    return tuple(found) if len(found) <= _MOST_TOKENS else ()
