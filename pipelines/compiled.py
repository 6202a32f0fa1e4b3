"""Compile one text: its tree, what it reads, whether it is one expression; then run it.

Whatever goes wrong, in reading or in running, becomes an `ExpressionError` in plain words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from jinja2 import TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.runtime import Undefined

from .meter import Refused
from .references import Reference, chain_of, element_reads, references, refusals
from .sandbox import NotThere, count_turns, environment

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands within another: keys and indexes."""

MAX_SOURCE_CHARS = 1024 * 1024
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
    elements: frozenset[Reference] = frozenset()
    """What it reads of the items of lists (see `element_reads`)."""
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


def compiled(source: str, *, bare: bool) -> Compiled:
    """Compile a template, or with `bare` an expression without braces.

    Raises:
        ExpressionError: it cannot be read, or contains what is closed.
    """
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
    whole = tree if lone is None else lone
    read = references(whole)
    # Only the results of blocks have fields that are known before a run; most texts read none.
    elements = element_reads(whole) if "results" in source else frozenset[Reference]()
    chain = chain_of(lone) if lone is not None else None
    count_turns(tree)
    return Compiled(source, tree, read, lone is not None, elements, chain)


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
        f"cannot read the expression '{_shown(source, error.lineno)}': {what.rstrip('.')}",
        "Correct it; the language is Jinja2's.",
        line=error.lineno,
    )
