"""What is known of a text before a run: it reads nothing but inputs that have a value by then."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from paddock.pipelines.expressions import Expression, ExpressionError, Reference, Value

ONLY_LATER = object()
"""In place of a value that is not known before a run."""


class KnownInputs:
    """Inputs by their names, as far as they are known; null counts as a value."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._scope = {"inputs": values, "python": sys.executable}

    @classmethod
    def that_are_given(cls, values: Mapping[str, Any]) -> KnownInputs:
        """Leave out those that are null: their values may come later."""
        return cls({name: value for name, value in values.items() if value is not None})

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def are_enough(self, references: Iterable[Reference]) -> bool:
        """Return whether nothing else is read."""
        return all(
            path[0] == "python" or (path[0] == "inputs" and path[1:] and path[1] in self._values)
            for path in references
        )

    def value_of(self, written: Any) -> Any:
        """Return a value with the inputs filled in, or `ONLY_LATER`; faults are told elsewhere.

        >>> known = KnownInputs({"out": "sums"})
        >>> known.value_of("{{ inputs.out }}/a"), known.value_of("{{ doc.name }}") is ONLY_LATER
        ('sums/a', True)
        """
        value, errors = Value.scan(written)
        if errors or not self.are_enough(value.references):
            return ONLY_LATER
        try:
            return value.render(self._scope)
        except ExpressionError:
            return ONLY_LATER

    def holds(self, condition: Expression) -> bool:
        """Return whether a condition is known to hold."""
        try:
            return self.are_enough(condition.references) and bool(condition.evaluate(self._scope))
        except ExpressionError:
            return False
