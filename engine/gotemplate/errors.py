"""What is wrong with a template, and in which of its lines."""

from __future__ import annotations


class GoTemplateError(Exception):
    """A template that cannot be read, or cannot be carried out."""

    def __init__(self, line: int, why: str) -> None:
        self.line = line
        self.why = why
        super().__init__(f"line {line}: {why}")


class GoTemplateSyntaxError(GoTemplateError):
    """A template that cannot be read."""


class GoTemplateExhausted(GoTemplateError):
    """A template that takes more than it may have."""
