"""Expressions and templates: compiled once, their references known, rendered in the sandbox.

Knows no steps and no files; scope values are plain JSON data and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.runtime import Undefined

from .references import Reference, chain_of, references, refusals
from .sandbox import NotThere, Refused, count_turns, environment

__all__ = [
    "Expression",
    "ExpressionError",
    "Path",
    "Reference",
    "Template",
    "Value",
]

Path = tuple[str | int, ...]
"""Where a value stands within another: keys and indexes."""

MAX_SOURCE_CHARS = 1024 * 1024
_MARKS = re.compile(r"\{\{|\{%|\{#")
_BARE_STEP = re.compile(r"steps(\.[a-z][a-z0-9_]*)+\Z")
_RESULT = "result"


class ExpressionError(Exception):
    """An expression that cannot be read, or that failed: one plain sentence, and what to do."""

    def __init__(
        self, message: str, remedy: str = "", *, path: Path = (), line: int | None = None
    ) -> None:
        self.message = message
        self.remedy = remedy
        self.path = path
        """Where within a nested value."""
        self.line = line
        """The line within the template, from 1."""
        super().__init__(f"{message}. {remedy}".strip() if remedy else message)


@dataclass(frozen=True)
class Compiled:
    """A parsed template or expression; its code is made when it is first needed."""

    source: str
    tree: nodes.Template
    references: frozenset[Reference]
    is_expression: bool
    chain: Reference | None = None
    """The path, where the expression is nothing but one."""

    @cached_property
    def _code(self) -> Any:
        return environment().from_string(self.tree)

    def run(self, scope: Mapping[str, Any]) -> Any:
        """Evaluate the expression, or render the template.

        Raises:
            ExpressionError: always this, whatever went wrong.
        """
        if self.chain is not None:
            found = _walk(scope, self.chain)
            if found is not _ABSENT:
                return found
        try:
            with environment().metering(scope):
                return self._value(scope) if self.is_expression else self._code.render(scope)
        except ExpressionError:
            raise
        except Exception as error:
            raise _translated(self.source, error) from error

    def _value(self, scope: Mapping[str, Any]) -> Any:
        context = self._code.new_context(dict(scope))
        for _ in self._code.root_render_func(context):
            pass
        value = context.vars[_RESULT]
        if isinstance(value, Undefined):
            str(value)  # raises, with the name
        return plain(value)


_ABSENT = object()


def _walk(scope: Mapping[str, Any], chain: Reference) -> Any:
    value: Any = scope
    for name in chain:
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def plain(value: Any) -> Any:
    """Make plain JSON data of what an expression gave: tuples and generators become lists."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, Undefined):
        str(value)
    if hasattr(value, "__iter__") and not callable(value):
        return [plain(item) for item in value]
    raise Refused("it gives something that is no value")


def _translated(source: str, error: Exception) -> ExpressionError:
    shown = _shown(source)
    if isinstance(error, NotThere):
        return ExpressionError(f"{error.message} (in '{shown}')", error.remedy)
    if isinstance(error, Refused):
        return ExpressionError(f"'{shown}' is refused: {error}")
    if isinstance(error, RecursionError | MemoryError | SyntaxError):
        return ExpressionError(f"'{shown}' is refused: it is nested too deeply")
    return ExpressionError(f"'{shown}' failed: {error or type(error).__name__}")


def _shown(source: str, line_number: int | None = None) -> str:
    """Give a text in one short line, or only that line of it."""
    lines = source.splitlines()
    if line_number is not None and 0 < line_number <= len(lines):
        source = lines[line_number - 1]
    line = " ".join(source.split())
    return line if len(line) <= 80 else line[:79] + "…"


def _compile(source: str, *, bare: bool) -> Compiled:
    if len(source) > MAX_SOURCE_CHARS:
        raise ExpressionError(f"the text has more than {MAX_SOURCE_CHARS:,} characters")
    try:
        if bare:
            return _finish(source, _parse_bare(source), is_bare=True)
        return _finish(source, environment().parse(source), is_bare=False)
    except TemplateSyntaxError as error:
        raise _syntax(source, error, bare=bare) from error
    except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise _translated(source, error) from error


def _parse_bare(source: str) -> nodes.Expr:
    parser = Parser(environment(), source, state="variable")
    found = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError(f"unexpected '{parser.stream.current.value}'", 1)
    return found


def _finish(source: str, found: nodes.Expr | nodes.Template, *, is_bare: bool) -> Compiled:
    lone = found if is_bare else _lone(source, found)
    tree = found
    if lone is not None:
        target = nodes.Name(_RESULT, "store", lineno=1)
        assign = nodes.Assign(target, lone, lineno=1)
        tree = nodes.Template([assign], lineno=1)
    assert isinstance(tree, nodes.Template)
    for message, remedy, line in refusals(tree):
        shown = _shown(source, line)
        raise ExpressionError(f"'{shown}' is refused: {message}", remedy, line=line)
    read = references(tree if lone is None else lone)
    chain = chain_of(lone) if lone is not None else None
    count_turns(tree)
    return Compiled(source, tree, read, lone is not None, chain)


def _lone(source: str, found: nodes.Node) -> nodes.Expr | None:
    """Give the expression of a text that is exactly one `{{ }}`."""
    if not (source.startswith("{{") and source.endswith("}}")):
        return None
    match found:
        case nodes.Template(body=[nodes.Output(nodes=[nodes.Expr() as only])]):
            return None if isinstance(only, nodes.TemplateData) else only
    return None


def _syntax(source: str, error: TemplateSyntaxError, *, bare: bool) -> ExpressionError:
    if bare and source.lstrip().startswith("{{"):
        inner = source.strip().removeprefix("{{").removesuffix("}}").strip()
        return ExpressionError(
            f"'{_shown(source)}' stands in braces where a bare expression is expected",
            f"Write `{_shown(inner)}`.",
        )
    what = str(error.message or "it ends too early")
    for theirs, ours in (
        ("end of print statement", "}}"),
        ("end of statement block", "%}"),
        ("end of template", "the end"),
        ("Unexpected end of template.", "It ends too early."),
    ):
        what = what.replace(theirs, ours)
    return ExpressionError(
        f"cannot read the expression '{_shown(source, error.lineno)}': {what}",
        "Correct it; the language is Jinja2's.",
        line=error.lineno,
    )


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
        return cls(source, _compile(source, bare=True))

    @property
    def references(self) -> frozenset[Reference]:
        """The paths that it reads."""
        return self._compiled.references

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
        return _compile(text, bare=True)
    if _BARE_STEP.match(text):
        raise ExpressionError(f"'{text}' is only a text here", f"Did you mean `{{{{ {text} }}}}`?")
    return _compile(text, bare=False) if _MARKS.search(text) else None


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
        self, source: str, compiled: Compiled, file: str | None, scope: Mapping[str, Any]
    ) -> None:
        self.source = source
        self.file = file
        self._compiled = compiled
        self._scope = scope

    @classmethod
    def of(cls, source: str, file: str | None = None) -> Template:
        """Compile a text, bound to an empty scope.

        Raises:
            ExpressionError: it cannot be read, or reaches for what is closed.
        """
        compiled = _compile(source, bare=False)
        return cls(source, compiled, file, {})

    @property
    def references(self) -> frozenset[Reference]:
        """The paths that it reads."""
        return self._compiled.references

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


def _template(value: Any) -> Template:
    if isinstance(value, Template):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text, or {file: PATH}")  # noqa: TRY004 - Pydantic's protocol
    try:
        return Template.of(value)
    except ExpressionError as error:
        raise ValueError(str(error)) from error
