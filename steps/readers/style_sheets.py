"""Style sheets: which declarations hold for an element, by CSS's rules of precedence.

As a browser without scripts applies them, in a window of 1,280 by 720. What cannot be decided, such
as a container query or an unknown selector, is kept apart: it may hold. `css_properties.csv` has
the properties of @webref/css 8.7.5, mdn-data 2.37.2 and Chromium 156, and which of their values
hide text, or cannot; any other property could. The only importer of tinycss2 and cssselect2.
"""

from __future__ import annotations

import csv
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
_MOST_TOKENS = 500  # of a value with variables
_UNLAYERED = 1_000_000
_MARKS = ("text-decoration", "vertical-align", "list-style", "list-style-type", "content")
"""Read for what they say, whether or not they hide."""
_WIDE = ("inherit", "initial", "unset", "revert", "revert-layer")
_HARMLESS = ("none", "auto", "normal", *_WIDE)
Tokens = tuple[Any, ...]


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
        how = any if self.where == "box" else all
        if any(_meets(token, text, font_px, how) for token in value for text in self.hides):
            return "hides"
        if self.harmless[:1] and self.harmless[0].startswith("!"):
            unsafe = [text[1:] for text in self.harmless]
            is_safe = not any(
                _meets(token, text, font_px, all) for token in value for text in unsafe
            )
        else:
            safe = (*_HARMLESS, *self.harmless)
            is_safe = all(any(_meets(t, text, font_px, all) for text in safe) for t in value)
        return "" if is_safe else "could"


def _meets(token: Any, condition: str, font_px: float, how: Callable[[Any], bool]) -> bool:
    if condition == "*" or token.type == "literal":
        return condition == "*" or token.value in ",/"
    if token.type == "ident":
        return bool(token.lower_value == condition)
    name, bracket, inner = condition.rstrip(")").partition("(")
    if token.type in ("function", "url"):
        given = token.arguments if token.type == "function" else ()
        called = token.lower_name if token.type == "function" else "url"
        parts = [part for part in solid(given) if part != ","]
        met = (_meets(part, inner, font_px, how) for part in parts)
        return bracket == "(" and called == name and (not inner or (bool(parts) and how(met)))
    if ":" not in condition or bracket:
        return False
    unit = condition.lstrip("-.0123456789:").partition(":")[0].rstrip("-.0123456789")
    least, _, most = (
        condition.replace(unit, "").partition(":") if unit else condition.partition(":")
    )
    number = px_of(token, font_px)
    if token.type == "percentage":
        number = token.value * {"": 0.01, "px": WINDOW_PX[0] / 100, "own": 1.0}.get(unit, 0.0)
    if number is None:
        return False
    return (
        float(least or -inf)
        <= number / (max(font_px, 1.0) if unit == "em" else 1)
        <= float(most or inf)
    )


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


_PX = {"px": 1.0, "pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 37.8, "mm": 3.78, "q": 0.945}
_FONT_UNITS = {"em": 1.0, "rem": 1.0, "ex": 0.5, "ch": 0.5, "lh": 1.2, "rlh": 1.2, "ic": 1.0}
_WINDOW_UNITS = {"vw": 0, "vi": 0, "vmax": 0, "vh": 1, "vb": 1, "vmin": 1}


def px_of(token: Any, em_px: float = 16.0, rem_px: float = 16.0) -> float | None:
    """Return a number, or a length in pixels; None: it depends on other things."""
    if token.type == "number" or (token.type == "percentage" and not token.value):
        return float(token.value)
    unit = token.lower_unit if token.type == "dimension" else ""
    if unit in _FONT_UNITS:
        return float(token.value) * _FONT_UNITS[unit] * (rem_px if unit[0] == "r" else em_px)
    if (window := unit.lstrip("sld")) in _WINDOW_UNITS:
        return float(token.value) * WINDOW_PX[_WINDOW_UNITS[window]] / 100
    return float(token.value) * _PX[unit] if unit in _PX else None


def colour_of(token: Any, current: Colour) -> Colour | None:
    """Return a colour; None: the token is none."""
    found = parse_color(token)
    if found == "currentcolor":
        return current
    if found is None:
        is_function = token.type == "function" and token.lower_name in _COLOUR_FUNCTIONS
        word = token.lower_value if token.type == "ident" else ""
        return UNKNOWN if is_function else _SYSTEM_COLOURS.get(word)
    if found.space in ("lab", "lch", "oklab", "oklch"):  # as light as that
        light = found.coordinates[0] or 0.0
        grey = light if found.space[:2] == "ok" else light / 100
        return grey, grey, grey, found.alpha
    if found.space in ("hsl", "hwb"):
        found = found.to("srgb")
    red, green, blue = (min(1.0, max(0.0, part or 0.0)) for part in found.coordinates)
    return red, green, blue, found.alpha


_COLOUR_FUNCTIONS = (
    *("color-mix", "light-dark", "contrast-color", "device-cmyk", "color", "rgb", "rgba", "hsl"),
    *("hsla", "oklch", "oklab", "lab", "lch", "alpha"),  # of other colours
)
_SYSTEM_COLOURS = {
    **dict.fromkeys(("canvastext", "windowtext", "fieldtext", "buttontext", "infotext"), BLACK),
    **dict.fromkeys(("canvas", "window", "field", "buttonface", "infobackground"), WHITE),
}


def parsed(nodes: Iterable[Any]) -> tuple[tuple[str, Tokens, bool], ...]:
    """Return names, values and importance of declarations that say anything here.

    Those that browsers drop are not among them.
    """
    found = list[tuple[str, Tokens, bool]]()
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
    layer: int
    doubt: str
    """Why it may not hold; empty: it does."""
    declarations: tuple[tuple[str, Tokens, bool], ...]


class CssSheet:
    """The rules of one text of CSS, for any number of pages."""

    def __init__(self, css: str) -> None:
        self.matcher = cssselect2.Matcher()
        self.keyframes = dict[str, frozenset[str]]()
        """By the name of an animation, the properties that it changes."""
        self.doubts = dict[str, None]()
        """What of it is not understood and could hide text."""
        self.backgrounds = list[Tokens]()
        self._layers = dict[str, int]()
        if len(css) > MOST_STYLE_CHARS:
            self.doubts[f"styles behind {MOST_STYLE_CHARS:,} characters"] = None
        self._add(tinycss2.parse_stylesheet(css[:MOST_STYLE_CHARS]))

    def _add(
        self,
        nodes: Iterable[Any],
        layer: str = "",
        doubt: str = "",
        around: str = "",
        depth: int = 0,
    ) -> None:
        own = parsed(nodes := list(nodes))
        if own and around:
            self._add_rule(around, own, layer, doubt)
        if depth > _MOST_DEPTH:
            self.doubts["rules within rules"] = None
            return
        for node in nodes:
            if node.type == "qualified-rule":
                selector = tinycss2.serialize(node.prelude).strip()
                if around:
                    within = f":is({around})"
                    is_placed = "&" in selector
                    selector = (
                        selector.replace("&", within) if is_placed else f"{within} {selector}"
                    )
                content = tinycss2.parse_blocks_contents(node.content)
                self._add(content, layer, doubt, selector, depth + 1)
            elif node.type == "at-rule":
                self._add_at_rule(node, layer, doubt, around, depth)

    def _add_at_rule(self, node: Any, layer: str, doubt: str, around: str, depth: int) -> None:
        kind, prelude = node.lower_at_keyword, solid(node.prelude)
        if kind == "import":
            self.doubts["@import"] = None
        if kind == "layer":
            names = tinycss2.serialize(node.prelude).split(",")
            names = [f"{layer}.{name.strip() or len(self._layers)}" for name in names]
            for name in names:
                self._layers.setdefault(name, len(self._layers))
            layer = names[0]
        elif kind.endswith("keyframes") and node.content and prelude:
            frames = tinycss2.parse_rule_list(node.content)
            inner = (tinycss2.parse_blocks_contents(f.content) for f in frames if f.type[0] == "q")
            changed = frozenset(name for found in inner for name, _, _ in parsed(found))
            self.keyframes[getattr(prelude[0], "value", "")] = changed
            return
        elif kind in ("media", "supports"):
            holds = _holds(prelude) if kind == "media" else None if words_of(prelude) else True
            if holds is False:
                return
            doubt = doubt or ("" if holds else f"@{kind}")
        elif kind in ("container", "scope"):
            doubt = f"@{kind}"
        elif kind not in ("import",):  # of fonts, pages, counters, first styles of transitions
            return
        if node.content is not None:
            parse = tinycss2.parse_blocks_contents if around else tinycss2.parse_rule_list
            self._add(parse(node.content), layer, doubt, around, depth + 1)

    def _add_rule(
        self, selector: str, own: tuple[tuple[str, Tokens, bool], ...], layer: str, doubt: str
    ) -> None:
        rule = _Rule(self._layers.get(layer, _UNLAYERED), doubt, own)
        self.backgrounds += (value for name, value, _ in own if name.startswith("background"))
        compiled = []
        with suppress(Exception):  # of the grammar, or of Python's compiler for what is too deep
            if max(map(len, selector.split(","))) <= _MOST_SELECTOR_CHARS:
                compiled = cssselect2.compile_selector_list(selector)
        for found in compiled:
            self.matcher.add_selector(found, rule)
        if not compiled and any(name not in _MARKS for name, _, _ in own):
            self.doubts[f"rule '{selector[:40]}'"] = None


def _holds(query: Sequence[Any]) -> bool | None:
    """Return whether a media query holds on the screen that pages are read for; None: unknown."""
    found: bool | None = not query
    for tokens in _split(query, ","):
        words = [word for word in words_of(tokens) if word not in ("only", "and")]
        types = [word for word in words if word != "not"]
        parts = [_has_feature(solid(t.content)) for t in tokens if t.type == "() block"]
        parts += [word in ("all", "screen") for word in types]
        holds = False if False in parts else None if None in parts else True
        holds = not holds if "not" in words and holds is not None else holds
        if holds or "or" in types:
            return holds
        found = None if holds is None else found
    return found


def _has_feature(tokens: Tokens) -> bool | None:
    (name, *value), px = words_of(tokens) or [""], px_of(tokens[-1]) if tokens else None
    least, _, kind = name.partition("-")
    if least in ("min", "max") and kind in ("width", "height") and px is not None:
        size = WINDOW_PX[kind == "height"]
        return size >= px if least == "min" else size <= px
    return value[0] == _SCREEN[name] if name in _SCREEN and len(value) == 1 else None


_SCREEN = {"prefers-color-scheme": "light", "orientation": "landscape", "hover": "hover"}
_SCREEN |= {"prefers-reduced-motion": "no-preference", "pointer": "fine", "any-hover": "hover"}


def _split(tokens: Iterable[Any], mark: str) -> Iterator[list[Any]]:
    part = list[Any]()
    for token in tokens:
        if token == mark:
            yield part
            part = []
        else:
            part.append(token)
    yield part


class _TooManySteps(Exception):
    """The rules of a page ask for more steps between its elements than are taken."""


class Cascade:
    """Which declarations each element of one page has, its own and those of style sheets."""

    def __init__(self, sheets: Sequence[CssSheet]) -> None:
        self._sheets = [sheet for sheet in sheets if sheet.matcher.order]
        self._n_left: float = _MOST_STEPS
        self._is_matching = False
        self.is_exhausted = False
        """Whether the rules for some elements were not looked up."""
        self._inline = dict[str, tuple[tuple[str, Tokens, bool], ...]]()
        self._found = dict[tuple[Any, ...], dict[str, dict[str, Tokens]]]()
        self._element_class = _counted_elements(self._step) if self._sheets else None

    @property
    def has_rules(self) -> bool:
        return bool(self._sheets)

    def _step(self, n: int = 1) -> None:
        self._n_left -= n
        if self._n_left < 0 and self._is_matching:
            raise _TooManySteps

    def wrapped(self, root: Element) -> Iterator[Any]:
        """Yield the elements of a page, in its order, for `declarations`."""
        return iter(self._element_class.from_html_root(root).iter_subtree())  # type: ignore[union-attr]

    def inline(self, css: str) -> tuple[tuple[str, Tokens, bool], ...]:
        if css not in self._inline:
            self._inline[css] = parsed(tinycss2.parse_blocks_contents(css[:MOST_STYLE_CHARS]))
        return self._inline[css]

    def declarations(
        self, element: Any, hints: tuple[str, ...], style: str
    ) -> dict[str, dict[str, Tokens]]:
        """Return values by properties; of the element `""`, `before`, `after`, and by doubts.

        `hints` are declarations that its name and attributes stand for. Elements for which the same
        rules hold have the same dictionary.
        """
        rules = list[tuple[tuple[int, ...], int, str, _Rule]]()
        self._is_matching = True
        for at, sheet in enumerate(self._sheets if element is not None else ()):
            try:
                found = sheet.matcher.match(element)
                self._step(len(found))
            except _TooManySteps:  # what elements say themselves still holds
                self._n_left, self._sheets, self.is_exhausted, rules = inf, [], True, []
                break
            rules += [(s, at * _UNLAYERED + n, place or "", rule) for s, n, place, rule in found]
        self._is_matching = False
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
                layer = _UNLAYERED if is_inline else -1
                ranked.append(((is_important, layer, is_inline, (), n), "", name, value))
        for specificity, order, pseudo, rule in rules:
            place = f"?{rule.doubt}" if rule.doubt else pseudo
            for name, value, is_important in rule.declarations:
                layer = -rule.layer if is_important else rule.layer
                rank = (is_important, layer, False, specificity, order)
                ranked.append((rank, place, name, value))
        ranked.sort(key=lambda entry: entry[0])
        joined = dict[str, dict[str, Tokens]]()
        for _, place, written, given in ranked:
            values = joined.setdefault(place, {})
            if written == "all":
                values.clear()
            for name, value in _longhands(written, given):
                values.pop(name, None)
                words = words_of(value) if len(value) == 1 else []
                if words[:1] == ["initial"] and name in _INITIAL:
                    values[name] = self.inline(f"{name}: {_INITIAL[name]}")[0][1]
                elif not words or words[0] not in _WIDE:
                    values[name] = value
        return joined


_INITIAL = {"visibility": "visible", "font-size": "16px", "text-indent": "0", "color": "black"}
"""Of properties that an element has from the one around it."""
_SIDES = ("top", "right", "bottom", "left")


def _longhands(name: str, value: Tokens) -> Iterator[tuple[str, Tokens]]:
    """Yield the properties that one sets, on a page in a western script."""
    box, _, axis = name.partition("-")
    if box in ("margin", "padding", "inset") and axis in ("", "block", "inline"):
        ends = {"block": (0, None, 1, None), "inline": (None, 1, None, 0)}.get(axis, range(4))
        for side, end in zip(_SIDES, ends, strict=True):
            at = end
            while at is not None and at >= len(value):
                at = at - 2 if at > 1 else 0
            if at is not None:
                yield (side if box == "inset" else f"{box}-{side}"), value[at : at + 1]
    elif name == "overflow":
        yield "overflow-x", value[:1]
        yield "overflow-y", value[-1:]
    elif name == "background":
        yield "background-color", value
        yield "background-image", value
    elif name == "font":
        for at, token in enumerate(value):
            if token.type in ("dimension", "percentage") or px_of(token) == 0:
                yield "font-size", value[at : at + 1]
                break
    else:
        yield name, value


def resolved(value: Tokens, variables: Mapping[str, Tokens], depth: int = 0) -> Tokens | None:
    """Return a value with its variables replaced; None: one of them is not known, or too long."""
    found = list[Any]()
    for token in value:
        if token.type != "function":
            found.append(token)
            continue
        if depth >= _MOST_DEPTH:
            return None
        if token.lower_name == "var":
            name, *fallback = (token.arguments and solid(token.arguments)) or (None,)
            named = variables.get(getattr(name, "value", ""))
            inner = resolved(tuple(fallback[1:]) if named is None else named, variables, depth + 1)
            if inner is None or (named is None and not fallback):
                return None
            found += solid(inner)
        else:
            inner = resolved(tuple(token.arguments), variables, depth + 1)
            if inner is None:
                return None
            found.append(
                type(token)(token.source_line, token.source_column, token.name, list(inner))
            )
        if len(found) > _MOST_TOKENS:
            return None
    return tuple(found)


def _counted_elements(step: Callable[..., None]) -> Any:
    """Return a class of elements that count the steps between them.

    cssselect2's own previous siblings are as many tuples, made by recursion.
    """

    class Counted(cssselect2.ElementWrapper):  # type: ignore[misc]  # untyped
        def __init__(self, *args: Any, **options: Any) -> None:
            step(5)  # as long as that takes
            super().__init__(*args, **options)

        @property
        def previous_siblings(self) -> Iterator[Any]:
            found = self.previous
            while found is not None:
                step()
                yield found
                found = found.previous

        @property
        def ancestors(self) -> Iterator[Any]:
            found = self.parent
            while found is not None:
                step()
                yield found
                found = found.parent

    return Counted
