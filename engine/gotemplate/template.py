"""A template: read once, carried out many times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from . import tree
from .functions import BUILTINS, Function
from .interpreter import execute
from .parser import parse


class GoTemplate:
    """One source, with the templates that it defines.

    Args:
        source: the text.
        functions: what it may call beside Go's own functions.

    Raises:
        GoTemplateSyntaxError: it cannot be read.
    """

    def __init__(self, source: str, functions: Mapping[str, Function]) -> None:
        self.source = source
        self._functions = functions
        self._templates = parse(source, BUILTINS | functions.keys())

    @cached_property
    def names(self) -> frozenset[str]:
        """The fields that it speaks of."""
        return frozenset(name for block in self._templates.values() for name in tree.names(block))

    def execute(self, data: Any) -> str:
        """Give what it prints.

        Raises:
            GoTemplateError: it cannot be carried out.
        """
        return execute(self._templates, data, self._functions)

    def execute_until(self, name: str, data: Any) -> str:
        """Give what it prints up to the first printing of a field, that included.

        Raises:
            GoTemplateError: it cannot be carried out.
        """
        block, _ = tree.cut_after(self._templates[""], name)
        return execute({**self._templates, "": block}, data, self._functions)

    def with_field(self, name: str) -> GoTemplate:
        """Give this template with a field printed at its end."""
        return GoTemplate(f"{self.source}{{{{ .{name} }}}}", self._functions)
