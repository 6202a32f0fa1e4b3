"""Whether a value is of the form that a JSON Schema asks for. Alone knows `jsonschema`."""

from __future__ import annotations

from typing import Any

_MOST_CHARS = 160
_MOST_LEVELS = 64  # as of the YAML itself; what goes deeper ends in a RecursionError somewhere
TOO_DEEP = f"It is nested more than {_MOST_LEVELS} levels deep."


def mismatch(value: Any, schema: Any) -> str | None:
    """Say in a sentence what is most wrong with a value; None: it is of the form.

    >>> mismatch({"n": "x"}, {"properties": {"n": {"type": "integer"}}})
    "At /n: 'x' is not of type 'integer'."
    """
    if is_too_deep(value):
        return TOO_DEEP
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
    from referencing import Registry

    # A registry of its own: without one, what a `$ref` names would be fetched from the network.
    validator = Draft202012Validator(schema, registry=Registry())
    error = best_match(validator.iter_errors(value))
    if error is None:
        return None
    place = "".join(f"/{part}" for part in error.absolute_path)
    return f"{f'At {place}: ' if place else ''}{error.message[:_MOST_CHARS]}."


def is_too_deep(value: Any) -> bool:
    """Tell whether lists and mappings lie deeper in each other than anybody means.

    >>> is_too_deep([[{"a": [1]}]])
    False
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MOST_LEVELS + 1):
        held = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for one in held for inner in one if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
