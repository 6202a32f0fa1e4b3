"""Collects the faults of one document: tables, expressions, values, each at its place."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from .checking.check import Check
from .errors import Fault
from .expressions import Expression, ExpressionError, Path, Value
from .keys import Keys
from .sentences import faults_of
from .source import Document

K = TypeVar("K", bound=Keys)


class Checks:
    """What was found wrong so far. Every method gives None where it found a fault."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults: list[Fault] = []

    def add(self, at: Path, message: str, remedy: str = "", *, is_key: bool = False) -> None:
        """Note a fault of what stands at `at`, or of the key that leads there."""
        mark = self.document.key_mark(at) if is_key else self.document.mark(at)
        self.faults.append(Fault(f"{message}.", remedy, mark))

    def table(self, table: type[K], data: Any, at: Path) -> K | None:
        """Check a mapping against its table of keys."""
        try:
            return table.model_validate(data)
        except ValidationError as error:
            self.faults += faults_of(error, table, data, self.document, at)
            return None

    def expression(self, source: Any, at: Path) -> Expression | None:
        """Compile a bare expression; anything but text was refused by its table."""
        if isinstance(source, bool):
            source = "true" if source else "false"
        if not isinstance(source, str):
            return None
        try:
            return Expression.of(source)
        except ExpressionError as error:
            self.failed(error, at)
            return None

    def check(self, source: Any, at: Path) -> Check | None:
        """Compile an expression that may call check functions."""
        if isinstance(source, bool):
            source = "true" if source else "false"
        try:
            return Check.of(source)
        except ExpressionError as error:
            if source.count("(") != source.count(")"):
                # `[words(output.text, most=80)]`: YAML ends a bare text in a list at its comma.
                error.remedy = (
                    "Put the whole expression in quotes: in YAML's lists a comma ends it."
                )
            self.failed(error, at)
            return None

    def value(self, data: Any, at: Path, *, bare: bool = False) -> Value:
        """Compile every text of nested data; those at fault stay as they are."""
        value, errors = Value.scan(data, bare=bare)
        for error in errors:
            self.failed(error, (*at, *error.path))
        return value

    def failed(self, error: ExpressionError, at: Path) -> None:
        """Note an expression's fault."""
        self.add(at, error.message, error.remedy)
