"""Validation of an answer under its JSON Schema, with its faults.

The only importer of `jsonschema`. Patterns and formats are matched by the engine that constrains
local models (`engine.system.schema_patterns`), so that answers of remote models are checked by the
same rules. What the grammar allows is valid here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache, partial
from heapq import nlargest
from math import isfinite
from typing import Any

from paddock.engine.system import schema_patterns
from paddock.engine.system.text import is_shallow, path_text, without_middle

from .reply_check import AnswerFault

_MOST_CHARS = 160
_MOST_FAULTS = 8  # a model mends no more at once
_MOST_LEVELS = 64  # as in YAML; deeper values end in a RecursionError
_FORMS: Mapping[str, str] = {
    "date": " Write it as 2026-10-28.",
    "time": " Write it as 14:30:00Z.",
    "date-time": " Write it as 2026-10-28T14:30:00Z.",
    "duration": " Write it as P1DT2H.",
}
_MOST_CPU_S = 3.0
"""For a small value: 30 levels of two equal `$ref`s are 2³⁰ comparisons."""
_MOST_CPU_S_EACH = 0.001  # for each value in it; most take a twentieth
_TOO_COSTLY = "The schema is too complex to compare it with. Use fewer patterns and `$ref`s."
TOO_DEEP = f"It is nested more than {_MOST_LEVELS} levels deep."


def schema_mismatch(value: Any, schema: Any) -> str | None:
    """Return the faults of a value as sentences, or None.

    >>> schema_mismatch({"n": "x"}, {"properties": {"n": {"type": "integer"}}})
    "At /n: 'x' is not of type 'integer'."
    """
    return " ".join(fault.sentence for fault in value_faults(value, schema)) or None


def value_faults(value: Any, schema: Any, *, is_for_person: bool = False) -> list[AnswerFault]:
    """Return the most relevant faults of a value; a person reads the form of dates, too.

    >>> value_faults("28. Oktober 2026", {"format": "date"}, is_for_person=True)[0].message
    "'28. Oktober 2026' is not a 'date'. Write it as 2026-10-28."
    >>> value_faults("9" * 1000, {"type": "number"})[0].message[-30:]
    "9999' is not of type 'number'."
    """
    if is_nested_too_deep(value):
        return [AnswerFault(TOO_DEEP, TOO_DEEP)]
    faults = []
    try:
        errors = _validator().find_errors(value, schema)
    except _TooCostly:
        return [AnswerFault(_TOO_COSTLY, _TOO_COSTLY)]
    for error in errors:
        place = [str(part) for part in error.absolute_path]
        is_form = is_for_person and error.validator == "format"
        form = _FORMS.get(error.validator_value, "") if is_form else ""
        message = f"{without_middle(error.message, _MOST_CHARS, ' … ')}.{form}"
        sentence = f"At /{'/'.join(place)}: {message}" if place else message
        faults.append(AnswerFault(message, sentence, path_text(error.absolute_path)))
    return faults


class _TooCostly(Exception):
    pass


class _AnswerValidator:
    """Finds errors by jsonschema, for a limited time, with our own checks of five keywords.

    A check gets a validator, the keyword's value, the answer's value, and the schema of both.
    """

    def __init__(self) -> None:
        import jsonschema  # type: ignore[import-untyped]
        from referencing import Registry

        self._exceptions = jsonschema.exceptions
        self._error = jsonschema.ValidationError
        self._ends = threading.local()
        self._formats = jsonschema.FormatChecker(
            formats=("json-pointer", "regex", "relative-json-pointer")
        )
        for name in schema_patterns.FORMATS:
            self._formats.checks(name)(partial(_is_of_format, name))
        self._registry = Registry()  # without one, a `$ref` would be fetched from the network
        checks = {
            **jsonschema.Draft202012Validator.VALIDATORS,
            "pattern": self._pattern,
            "patternProperties": self._pattern_properties,
            "multipleOf": self._multiple_of,
            "uniqueItems": self._unique_items,
            "additionalProperties": self._additional_properties,
        }
        kind = jsonschema.validators.extend(
            jsonschema.Draft202012Validator,
            {name: self._timed(check) for name, check in checks.items()},
        )
        # The library's own `evolve` takes another class at each `$schema`, without these checks
        parts = {part.alias: part.name for part in kind.__attrs_attrs__ if part.init}
        kind.evolve = lambda self, **changes: kind(
            **{alias: getattr(self, name) for alias, name in parts.items()} | changes
        )
        self._kind = kind

    def find_errors(self, value: Any, schema: Any) -> list[Any]:
        """Return the most relevant errors of a value; raises `_TooCostly`."""
        self._ends.at_s = time.thread_time() + _MOST_CPU_S + _MOST_CPU_S_EACH * _n_values(value)
        validator = self._kind(schema, registry=self._registry, format_checker=self._formats)
        relevance, best_match = self._exceptions.relevance, self._exceptions.best_match
        found = nlargest(_MOST_FAULTS, validator.iter_errors(value), key=relevance)
        return [best_match([error]) for error in found]

    def _timed(self, check: Callable[..., Any]) -> Callable[..., Any]:
        def check_in_time(*arguments: Any) -> Any:
            if time.thread_time() > self._ends.at_s:
                raise _TooCostly
            return check(*arguments)

        return check_in_time

    def _pattern(self, validator: Any, pattern: str, value: Any, _: Any) -> Iterator[Any]:
        if isinstance(value, str) and not _has_match(pattern, value):
            yield self._error(f"{value!r} does not match {pattern!r}")

    def _multiple_of(self, validator: Any, step: float, value: Any, _: Any) -> Iterator[Any]:
        """Divide decimals, as the grammar does: in binary 0.07 is no multiple of 0.01."""
        if validator.is_type(value, "number") and not (
            isfinite(value) and (Fraction(repr(value)) / Fraction(repr(step))).denominator == 1
        ):
            yield self._error(f"{value!r} is not a multiple of {step!r}")

    def _unique_items(self, validator: Any, is_unique: bool, value: Any, _: Any) -> Iterator[Any]:
        """Compare hashes: the library compares each pair, which no time limit interrupts."""
        if is_unique and isinstance(value, list) and len({*map(_hashable, value)}) < len(value):
            yield self._error(f"{value!r} has non-unique elements")

    def _pattern_properties(
        self, validator: Any, named: Mapping[str, Any], value: Any, _: Any
    ) -> Iterator[Any]:
        for pattern, schema in named.items() if isinstance(value, dict) else ():
            for name in (key for key in value if _has_match(pattern, key)):
                yield from validator.descend(value[name], schema, path=name, schema_path=pattern)

    def _additional_properties(
        self, validator: Any, rest: Any, value: Any, schema: Mapping[str, Any]
    ) -> Iterator[Any]:
        named, patterns = schema.get("properties") or {}, schema.get("patternProperties") or {}
        extra = [
            name
            for name in (value if isinstance(value, dict) else ())
            if name not in named and not any(_has_match(pattern, name) for pattern in patterns)
        ]
        if rest is not False:
            for name in extra:
                yield from validator.descend(value[name], rest, path=name)
        elif extra:
            verb = "was" if len(extra) == 1 else "were"
            names = ", ".join(map(repr, sorted(extra)))
            yield self._error(f"Additional properties are not allowed ({names} {verb} unexpected)")


@lru_cache(maxsize=1)
def _validator() -> _AnswerValidator:
    """Load the library, which takes 80 ms."""
    return _AnswerValidator()


def _hashable(value: Any) -> Hashable:
    """Return equal forms of equal JSON values: 1 is 1.0, and no boolean is a number."""
    if isinstance(value, dict):
        return dict, frozenset((name, _hashable(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return list, tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value


def _has_match(pattern: str, text: str) -> bool:
    """Return whether a text has a match of a pattern; of one that is not known, none has."""
    try:
        return bool(schema_patterns.matches(pattern)(text))
    except schema_patterns.UnknownPattern:
        return False


def _is_of_format(name: str, value: Any) -> bool:
    """Accept what is not text, too: `type` is responsible for that."""
    return not isinstance(value, str) or schema_patterns.of_format(name)(value)


def _n_values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + (sum(map(_n_values, inner)) if isinstance(value, dict | list) else 0)


def is_nested_too_deep(value: Any) -> bool:
    return not is_shallow(value, _MOST_LEVELS + 1)
