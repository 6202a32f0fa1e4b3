"""Confidence of an answer: the probability of each of its fields, from those of its tokens.

A field's probability is the product over the tokens that its text is made of. Under a schema these
are the probabilities among the allowed tokens, so a token that the schema forces counts nothing;
those of other servers are used as they are. Three things make the product a field's own:

- The token after a number belongs to it: it decides between 84 and 840.
- Of a token that begins before a field, only alternatives with the same beginning count.
- An alternative after which the value must be the same (`"}` in place of `",`) is added.

The runner-up comes from the least sure token: the likeliest of its alternatives that leads to a
valid value. An alternative that leaves more than one way to go on names none, except in numbers,
codes and dates (`_Field._completed`). No model is asked.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct
from paddock.engine.system.text import resolve_ref
from paddock.pipelines.checking.schema_parts import Path, empty_fields
from paddock.pipelines.schema_validation import schema_mismatch

from .token_probabilities import AnswerToken, tokens_with_alternatives

if TYPE_CHECKING:
    from paddock.engine.request import TokenLogprob

N_ALTERNATIVES = 10
"""Likely tokens that are asked for with each token: a label of three can begin in nine ways that
count (SmolLM2); servers elsewhere send up to 20."""
MOST_COMPLETED_CHARS = 64
"""Length of a text to which an alternative is completed."""

_NO_SECOND = {"second": None, "second_p": None, "is_calibrated": False}


def confidence(text: str, logprobs: Sequence[TokenLogprob], output: Any, schema: Any) -> Any:
    """Return the probability of each field, in the shape of `output`, the value of `text`.

    A field is `{p, low, raw, second, second_p, is_calibrated}`; its lower bound `low` is
    `p` until that is calibrated. One that is empty, though the schema requires it, has a `p` of 0
    and `is_empty`. None if the tokens' probabilities are not known.
    """
    tokens = tokens_with_alternatives(text, logprobs)
    if not tokens:
        return None
    raw, starts = text.encode(), [token.start for token in tokens]
    spans, empty = leaf_spans(raw), empty_fields(output, schema)

    def mirrored(value: Any, path: Path, schemas: Sequence[Any]) -> Any:
        if isinstance(value, dict):
            return {
                name: mirrored(child, (*path, name), _below(schemas, name, schema))
                for name, child in value.items()
            }
        if isinstance(value, list) and path in empty:
            return {"p": 0.0, "low": 0.0, "raw": 0.0, **_NO_SECOND, "is_empty": True}
        if isinstance(value, list):
            return [
                mirrored(child, (*path, place), _below(schemas, place, schema))
                for place, child in enumerate(value)
            ]
        span = spans[path]
        first = max(0, bisect_right(starts, span.start) - 1)
        own = tokens[first : bisect_left(starts, span.decided)]
        leaf = _Field(raw, span, value, LeafForm.of(schemas, schema)).confidence(own)
        return {**leaf, "p": 0.0, "low": 0.0, "is_empty": True} if path in empty else leaf

    return mirrored(output, (), _resolved(schema, schema))


def option_confidence(options: Sequence[Any], shares: Sequence[float]) -> dict[str, Any]:
    """Return the confidence of the likeliest of some options by the probability of each."""
    order = sorted(range(len(options)), key=lambda place: -shares[place])
    p = round(min(1.0, shares[order[0]]), 4)
    found = {"p": p, "low": p, "raw": p, **_NO_SECOND}
    if len(order) == 1:
        return found
    second_p = round(min(shares[order[1]], 1.0 - p), 4)
    return found | {"second": options[order[1]], "second_p": second_p}


# Places of fields in the text

_SIGNS = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_NUMBER_START = b"-0123456789"
_FIRST_KEY: Mapping[bytes, int | None] = {b"{": None, b"[": 0}


class LeafSpan(Struct, frozen=True):
    """Where a field that is no object and no list stands in an answer's bytes."""

    start: int
    end: int
    """Of the value itself."""
    decided: int
    """Of the bytes that decide it: a number has ended only with the sign after it."""


def leaf_spans(text: bytes) -> dict[Path, LeafSpan]:
    """Return the places of a JSON text's fields; of several with the same name, the last.

    >>> {path: (one.start, one.end) for path, one in leaf_spans(b'{"a": [1, "x"]}').items()}
    {('a', 0): (7, 8), ('a', 1): (10, 13)}
    """
    spans: dict[Path, LeafSpan] = {}
    path: list[str | int | None] = []  # None: the name of the next field is not known yet
    for found in _SIGNS.finditer(text):
        sign = found[0]
        if sign in _FIRST_KEY:
            path.append(_FIRST_KEY[sign])
        elif sign in (b"}", b"]"):
            path.pop()
        elif sign == b",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else None
        elif path and path[-1] is None:
            path[-1] = str(json.loads(sign))
        elif sign != b":":
            goes_on = sign[:1] in _NUMBER_START and found.end() < len(text)
            span = LeafSpan(found.start(), found.end(), found.end() + goes_on)
            spans[tuple(part for part in path if part is not None)] = span
    return spans


# What the schema says of a field


def _below(schemas: Sequence[Any], name: str | int, root: Any) -> list[Any]:
    found = []
    for schema in schemas:
        if isinstance(name, str):
            child = (schema.get("properties") or {}).get(name, schema.get("additionalProperties"))
        else:
            first = schema.get("prefixItems") or ()
            child = first[name] if name < len(first) else schema.get("items")
        found += _resolved(child, root)
    return found


_MOST_REFS = 32


def _resolved(schema: Any, root: Any, depth: int = 0) -> list[Mapping[str, Any]]:
    """Return the schemas that one stands for: its references and branches followed."""
    if not isinstance(schema, dict) or depth > _MOST_REFS:
        return []
    if isinstance(schema.get("$ref"), str):
        return _resolved(resolve_ref(root, schema["$ref"]), root, depth + 1)
    branches = [branch for name in ("anyOf", "oneOf", "allOf") for branch in schema.get(name) or ()]
    if not branches:
        return [schema]
    found = [resolved for branch in branches for resolved in _resolved(branch, root, depth + 1)]
    return [*found, schema] if {"properties", "items", "enum", "type"} & schema.keys() else found


_WORDS = ((b"true", True), (b"false", False), (b"null", None))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(rb"-?\d[\d.eE+-]*(?=[^\d.eE+-])")
_UNKNOWN = object()


class LeafForm(Struct, frozen=True):
    """What a field may be; `literals` if these are few values that can be listed."""

    schemas: tuple[Mapping[str, Any], ...]
    root: Any
    literals: tuple[tuple[bytes, Any], ...] | None

    @classmethod
    def of(cls, schemas: Sequence[Mapping[str, Any]], root: Any) -> LeafForm:
        listed = [listed_values(schema) for schema in schemas]
        values = [value for options in listed for value in options or ()]
        if not values or None in listed:
            return cls(tuple(schemas), root, None)
        texts = {json.dumps(value, ensure_ascii=False).encode(): value for value in values}
        return cls(tuple(schemas), root, tuple(texts.items()))

    def read(self, begun: bytes) -> Any:
        """Return the value of a text that is begun so, or `_UNKNOWN` if that is still open."""
        if self.literals is not None:
            candidates = [value for word, value in self.literals if _agree(begun, word)]
            return candidates[0] if len(candidates) == 1 else _UNKNOWN
        if not begun:
            return _UNKNOWN
        for word, value in _WORDS:
            if _agree(begun, word):
                return value
        found = _STRING.match(begun) or _NUMBER.match(begun)
        return _UNKNOWN if found is None else _loaded(found[0])

    def allows(self, value: Any) -> bool:
        if self.literals is not None or not self.schemas:
            return True
        defined = {name: self.root[name] for name in ("$defs", "definitions") if name in self.root}
        try:
            return schema_mismatch(value, {"anyOf": list(self.schemas), **defined}) is None
        except Exception:  # a reference to elsewhere in the schema: the library's own exceptions
            return False


def listed_values(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return the values of an enumeration, of yes and no, of null; else None."""
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if "const" in schema:
        return [schema["const"]]
    kinds = schema.get("type")
    own: dict[Any, list[Any]] = {"boolean": [True, False], "null": [None]}
    kind_list = kinds if isinstance(kinds, list) else [kinds]
    if all(kind in own for kind in kind_list):
        return [value for kind in kind_list for value in own[kind]]
    return None


def _agree(begun: bytes, word: bytes) -> bool:
    """Return whether a text that is begun so is, or may become, a JSON word."""
    if len(begun) <= len(word):
        return word.startswith(begun)
    is_number = word[:1] in _NUMBER_START
    return begun.startswith(word) and not (is_number and begun[len(word)] in b"0123456789.eE+-")


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _UNKNOWN


# The probability of one field


class _TokenChoice(Struct, frozen=True):
    p: float
    same: float
    """Probability of the alternatives with which the value is the same."""
    others: Sequence[tuple[bytes, float]]
    """The field's text up to and with each of the other alternatives."""
    token: AnswerToken


class _Field(Struct, frozen=True):
    text: bytes
    """Of the whole answer."""
    span: LeafSpan
    value: Any
    form: LeafForm

    def confidence(self, tokens: Sequence[AnswerToken]) -> dict[str, Any]:
        choices = [self._choice(token) for token in tokens]
        p = 1.0  # from the end: that this token, or what means the same, leads to the value
        for choice in reversed(choices):
            p = choice.same + choice.p * p
        raw = round(min(1.0, p), 4)
        second, second_p = self._runner_up(choices, raw)
        found = {"p": raw, "low": raw, "raw": raw, **_NO_SECOND}
        return found | {"second": second, "second_p": second_p}

    def _choice(self, token: AnswerToken) -> _TokenChoice:
        start = self.span.start
        n_before = max(0, start - token.start)
        before, begun = token.raw[:n_before], self.text[start : max(start, token.start)]
        likely = [
            (raw, p)
            for raw, p in token.others
            # One that is nothing more is another way to write the same signs.
            if raw.startswith(before) and raw[n_before:].strip()
        ]
        norm = token.p + sum(p for _, p in likely) if n_before else 1.0
        if not norm:
            return _TokenChoice(0.0, 0.0, (), token)
        same = 0.0
        others = []
        for raw, p in likely:
            instead = begun + raw[n_before:]
            if _is_same(self.form.read(instead), self.value):
                same += p / norm
            else:
                others.append((instead, p / norm))
        return _TokenChoice(token.p / norm, same, others, token)

    def _runner_up(
        self, choices: Sequence[_TokenChoice], first_p: float
    ) -> tuple[Any, float | None]:
        """Return the likeliest other value at the least sure token, and its probability.

        `first_p`: the probability of the value itself, of all its tokens.
        """
        is_open = [choice for choice in choices if choice.others]
        if not is_open:
            return None, None
        choice = min(is_open, key=lambda choice: choice.p + choice.same)
        shares: dict[str, float] = {}
        found: dict[str, Any] = {}
        for instead, p in choice.others:
            other = self.form.read(instead)
            if other is _UNKNOWN:
                other = self._completed(instead, choice.token)
            if other is _UNKNOWN or _is_same(other, self.value) or not self.form.allows(other):
                continue
            name = json.dumps(other)
            shares[name], found[name] = shares.get(name, 0.0) + p, other
        if not found:
            return None, None
        best = max(shares, key=lambda name: shares[name])
        # Measured as the first value is, over all of its tokens: of what would follow the other
        # token nothing is known, so it counts as what followed the chosen one. Together they are
        # at most 1.
        chosen = choice.p + choice.same
        second_p = first_p * shares[best] / chosen if chosen else 0.0
        return found[best], round(min(second_p, 1.0 - first_p), 4)

    def _completed(self, instead: bytes, token: AnswerToken) -> Any:
        """Return the value of an alternative with what follows the chosen token, or `_UNKNOWN`.

        Digits may stand for as many digits, and at the end of a number, a code or a text of a given
        form anything may. Of words nothing is guessed: what would follow `Lon` is not known.
        """
        text, start, end = self.text, self.span.start, self.span.end
        if self.form.literals is not None or end - start > MOST_COMPLETED_CHARS:
            return _UNKNOWN
        quote = b'"' if text[start : start + 1] == b'"' else b""
        chosen = text[max(start, token.start) : min(end, token.end)].strip(b'"')
        other = instead[max(0, token.start - start) :].strip(b'"')
        if chosen.isdigit() and other.isdigit() and len(chosen) == len(other):
            return _loaded(instead + text[min(token.end, end - len(quote)) : end])
        is_narrow = any({"format", "pattern"} & schema.keys() for schema in self.form.schemas)
        is_code = bool(_HAS_DIGIT(chosen) and _HAS_DIGIT(other))
        if token.end >= end - len(quote) and (not quote or is_narrow or is_code):
            return _loaded(instead + quote)
        return _UNKNOWN


_HAS_DIGIT = re.compile(rb"\d").search


def _is_same(value: Any, other: Any) -> bool:
    """Return whether two values are equal; 1 is not true."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
