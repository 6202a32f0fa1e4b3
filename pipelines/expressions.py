"""Expressions, values and templates: what the rest of Paddock sees of the expression language.

Compiled once, their references known, rendered in the sandbox. Knows no steps and no files; scope
values are plain JSON data and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .compiled import Compiled, ExpressionError, Path, compiled
from .references import Reference

if TYPE_CHECKING:
    from jinja2 import nodes

__all__ = ["Expression", "ExpressionError", "Path", "Reference", "Template", "Value"]

_MARKS = re.compile(r"\{\{|\{%|\{#")
_BARE_STEP = re.compile(r"steps(\.[a-z][a-z0-9_]*)+\Z")


@dataclass(frozen=True)
class Expression:
    """A bare expression, as under `if`, `for_each`, `key`, `check` and `returns`."""

    source: str
    _compiled: Compiled = field(repr=False, compare=False)

    @classmethod
    def of(cls, source: str) -> Expression:
        """Compile it.

        Raises:
            ExpressionError: it cannot be read, or reaches for what is closed.
        """
        return cls(source, compiled(source, bare=True))

    @property
    def references(self) -> frozenset[Reference]:
        """The paths that it reads."""
        return self._compiled.references

    @property
    def reads(self) -> frozenset[Reference]:
        """The paths that it reads, and what it reads of the items of lists there."""
        return self._compiled.references | self._compiled.elements

    @property
    def tree(self) -> nodes.Template:
        """Its parsed form, for those who look into it; never to be changed."""
        return self._compiled.tree

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """Give its value.

        Raises:
            ExpressionError: it failed.
        """
        return self._compiled.run(scope)


class Value:
    """Nested data with expressions in it, as under `with` and `returns`."""

    def __init__(self, data: Any, places: Mapping[Path, Compiled]) -> None:
        self.data = data
        """As it is written."""
        self._places = places
        self._render = _renderer(data, (), places)

    @classmethod
    def of(cls, data: Any, *, bare: bool = False) -> Value:
        """Compile every text in `data`; with `bare`, each text is an expression without braces.

        Raises:
            ExpressionError: the first text that cannot be read, with its path.
        """
        value, errors = cls.scan(data, bare=bare)
        if errors:
            raise errors[0]
        return value

    @classmethod
    def scan(cls, data: Any, *, bare: bool = False) -> tuple[Value, list[ExpressionError]]:
        """Compile every text, and give what could not be read beside it."""
        places: dict[Path, Compiled] = {}
        errors: list[ExpressionError] = []
        _scan(data, (), bare, places, errors)
        return cls(data, places), errors

    @property
    def is_constant(self) -> bool:
        """There is no expression in it."""
        return not self._places

    @property
    def references(self) -> frozenset[Reference]:
        """The paths that it reads."""
        return frozenset().union(*(made.references for made in self._places.values()))

    def places(self) -> Mapping[Path, frozenset[Reference]]:
        """Tell which path within the value reads what."""
        return {path: made.references for path, made in self._places.items()}

    def reads(self) -> Mapping[Path, frozenset[Reference]]:
        """Tell the same, with what is read of the items of lists."""
        return {path: made.references | made.elements for path, made in self._places.items()}

    def template(self, name: str) -> Template:
        """Give the text under a key as a template, without compiling it again.

        Raises:
            ExpressionError: it cannot be read.
        """
        source = self.data[name]
        made = self._places.get((name,))
        return Template.of(source) if made is None else Template(source, made, None, {})

    def render(self, scope: Mapping[str, Any]) -> Any:
        """Give the data with every expression's value in its place.

        Raises:
            ExpressionError: with the path within the data.
        """
        return self._render(scope)


def _scan(
    data: Any, path: Path, bare: bool, places: dict[Path, Compiled], errors: list[ExpressionError]
) -> None:
    if isinstance(data, dict):
        for name, item in data.items():
            _scan(item, (*path, name), bare, places, errors)
    elif isinstance(data, list):
        for index, item in enumerate(data):
            _scan(item, (*path, index), bare, places, errors)
    elif isinstance(data, str):
        try:
            made = _compile_text(data, bare=bare)
        except ExpressionError as error:
            error.path = path
            errors.append(error)
        else:
            if made is not None:
                places[path] = made


def _compile_text(text: str, *, bare: bool) -> Compiled | None:
    if bare:
        return compiled(text, bare=True)
    if _BARE_STEP.match(text):
        raise ExpressionError(f"'{text}' is only a text here", f"Did you mean `{{{{ {text} }}}}`?")
    return compiled(text, bare=False) if _MARKS.search(text) else None


def _renderer(
    data: Any, path: Path, places: Mapping[Path, Compiled]
) -> Callable[[Mapping[str, Any]], Any]:
    """Make the function that renders `data`; parts without expressions are given as they are."""
    if path in places:
        return lambda scope: _at(path, places[path], scope)
    if not any(place[: len(path)] == path for place in places):
        return lambda scope: data
    if isinstance(data, dict):
        items = [(name, _renderer(item, (*path, name), places)) for name, item in data.items()]
        return lambda scope: {name: render(scope) for name, render in items}
    parts = [_renderer(item, (*path, index), places) for index, item in enumerate(data)]
    return lambda scope: [render(scope) for render in parts]


def _at(path: Path, made: Compiled, scope: Mapping[str, Any]) -> Any:
    try:
        return made.run(scope)
    except ExpressionError as error:
        error.path = path
        raise


class Template:
    """A text that a step renders itself, bound to the scope of the item it works on.

    A step's `Params` declares `prompt: Template`; the step calls `params.prompt.render(chunk=…)`.
    """

    __slots__ = ("_compiled", "_scope", "file", "source")

    def __init__(
        self, source: str, made: Compiled, file: str | None, scope: Mapping[str, Any]
    ) -> None:
        self.source = source
        self.file = file
        self._compiled = made
        self._scope = scope

    @classmethod
    def of(cls, source: str, file: str | None = None) -> Template:
        """Compile a text, bound to an empty scope.

        Raises:
            ExpressionError: it cannot be read, or reaches for what is closed.
        """
        made = compiled(source, bare=False)
        return cls(source, made, file, {})

    @property
    def references(self) -> frozenset[Reference]:
        """The paths that it reads."""
        return self._compiled.references

    @property
    def reads(self) -> frozenset[Reference]:
        """The paths that it reads, and what it reads of the items of lists there."""
        return self._compiled.references | self._compiled.elements

    def bound(self, scope: Mapping[str, Any]) -> Template:
        """Give the same template over this scope."""
        return Template(self.source, self._compiled, self.file, scope)

    def render(self, **extra: Any) -> str:
        """Give the text; `extra` names stand before those of the scope.

        Raises:
            ExpressionError: it failed.
        """
        made = self._compiled.run({**self._scope, **extra})
        return made if isinstance(made, str) else str(made)

    def texts(self, **extra: Any) -> list[str]:
        """Give the texts that it reads as they are, such as that of `{{ steps.text.text }}`."""
        scope = {**self._scope, **extra}
        found = (_followed(path, scope) for path in sorted(self.references))
        return [text for text in found if isinstance(text, str)]

    def __repr__(self) -> str:
        """Show the source."""
        return f"Template({self.source!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let Pydantic take a `Template`, or a text that is compiled on the spot."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(_template)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Describe text or file to an editor."""
        return dict(TEXT_OR_FILE)


TEXT_OR_FILE: Mapping[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"file": {"type": "string", "description": "Path of a template file."}},
            "required": ["file"],
            "additionalProperties": False,
        },
    ]
}


def _followed(path: Reference, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _template(value: Any) -> Template:
    if isinstance(value, Template):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text, or {file: PATH}")  # noqa: TRY004 - Pydantic's protocol
    try:
        return Template.of(value)
    except ExpressionError as error:
        raise ValueError(str(error)) from error
