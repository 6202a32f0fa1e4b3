"""Go templates: parsed once, executed many times, with Go's built-in functions.

A template is untrusted code: it reaches only its data and the functions passed in, and a meter
limits steps, time, depth and output.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import FunctionType
from typing import Any, Literal, cast

from paddock.engine.system.template_limits import TemplateLimitExceeded, TemplateMeter
from paddock.engine.system.text import shorten

from . import syntax
from .go_values import GoStruct, go_text, is_true, sprint, sprintf, type_name
from .syntax import GoTemplateError, GoTemplateExhausted, parse

GoFunction = Callable[..., Any]
"""A Python function with positional parameters; raises `GoFunctionError`."""


class GoFunctionError(Exception):
    """Arguments that a function refuses; the interpreter adds the line."""


def _comparison_kind(value: Any) -> str:
    """Return the kind by which values compare; empty: they are not comparable."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"  # Go separates them, but reads all numbers in JSON as floats
        case str():
            return "string"
    return ""


def _equals(first: Any, *others: Any) -> bool:
    """Return whether the first equals any of the others."""
    if not others:
        raise GoFunctionError("missing argument for comparison")
    return any(_is_same(first, other) for other in others)


def _is_same(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    kinds = _comparison_kind(left), _comparison_kind(right)
    if kinds[0] != kinds[1]:
        raise GoFunctionError("incompatible types for comparison")
    if not kinds[0]:
        raise GoFunctionError(f"non-comparable types {type_name(left)} and {type_name(right)}")
    return bool(left == right)


def _is_less(left: Any, right: Any) -> bool:
    kinds = _comparison_kind(left), _comparison_kind(right)
    if "bool" in kinds or "" in kinds:
        raise GoFunctionError("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise GoFunctionError("incompatible types for comparison")
    return bool(left < right)


def _is_at_most(left: Any, right: Any) -> bool:
    return _is_less(left, right) or _is_same(left, right)


def _length(value: Any) -> int:
    """Return the number of a list's or map's values, or of a text's bytes."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list | dict):
        return len(value)
    if value is None:
        raise GoFunctionError("len of nil pointer")
    raise GoFunctionError(f"len of type {type_name(value)}")


def _index(value: Any, *places: Any) -> Any:
    """Return `value[1][2][3]` for `index value 1 2 3`; nil for a missing key of a map."""
    if value is None:
        raise GoFunctionError("index of untyped nil")
    for place in places:
        match value:
            case dict():
                if not isinstance(place, str):
                    raise GoFunctionError(f"value has type {type_name(place)}; should be string")
                value = value.get(place)
            case list():
                value = value[_checked_index(place, len(value) - 1)]
            case str():
                raw = value.encode("utf-8", "surrogatepass")
                value = raw[_checked_index(place, len(raw) - 1)]
            case None:
                raise GoFunctionError("index of nil pointer")
            case _:
                raise GoFunctionError(f"can't index item of type {type_name(value)}")
    return value


def _checked_index(place: Any, last: int) -> int:
    if isinstance(place, bool) or not isinstance(place, int):
        raise GoFunctionError(f"cannot index slice/array with type {type_name(place)}")
    if not 0 <= place <= last:
        raise GoFunctionError(f"index out of range: {place}")
    return place


def _slice(value: Any, *places: Any) -> Any:
    """Return `value[1:2]` for `slice value 1 2`; of a text, its bytes."""
    if value is None:
        raise GoFunctionError("slice of untyped nil")
    if not isinstance(value, str | list):
        raise GoFunctionError(f"can't slice item of type {type_name(value)}")
    if len(places) > (2 if isinstance(value, str) else 3):
        raise GoFunctionError(f"too many slice indexes: {len(places)}")
    whole = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    edges = [_checked_index(place, len(whole)) for place in places]
    start, end = (*edges[:2], *(0, len(whole))[len(edges) :])
    if start > end or (edges[2:] and end > edges[2]):
        raise GoFunctionError(f"invalid slice index: {start} > {end}")
    if isinstance(whole, bytes):
        return whole[start:end].decode("utf-8", "replace")
    return type(whole)(whole[start:end])


def builtins(meter: TemplateMeter) -> dict[str, GoFunction]:
    """Return the functions except `and` and `or`, which the interpreter evaluates lazily."""

    def printed(*values: Any) -> str:
        meter.add_text(sum(len(value) if isinstance(value, str) else 16 for value in values))
        return sprint(values)

    def printed_line(*values: Any) -> str:
        return " ".join(map(go_text, values)) + "\n"

    def formatted(spec: Any, *values: Any) -> str:
        if not isinstance(spec, str):
            raise GoFunctionError(f"wrong type for value; expected string; got {type_name(spec)}")
        return sprintf(spec, values, meter.add_text)

    return {
        "not": lambda value: not is_true(value),
        "eq": _equals,
        "ne": lambda left, right: not _is_same(left, right),
        "lt": _is_less,
        "le": _is_at_most,
        "gt": lambda left, right: not _is_at_most(left, right),
        "ge": lambda left, right: not _is_less(left, right),
        "len": _length,
        "index": _index,
        "slice": _slice,
        "print": printed,
        "println": printed_line,
        "printf": formatted,
    }


BUILTINS = frozenset({"and", "or", *builtins(TemplateMeter())})


_MISSING = object()
"""The piped value of a pipeline's first command."""

MAX_DEPTH = 100  # of nested blocks and templates; each takes at most 6 Python frames

LoopJump = Literal["break", "continue"] | None


def execute(
    templates: Mapping[str, syntax.Block],
    data: Any,
    functions: Mapping[str, GoFunction],
    meter: TemplateMeter,
) -> str:
    """Return the output of the template "".

    Raises:
        GoTemplateError: its execution fails.
    """
    run = _Execution(templates, {**builtins(meter), **functions}, meter)
    try:
        run.template("", data)
    except RecursionError:
        raise GoTemplateError(run.line, "values or templates go too deep") from None
    except TemplateLimitExceeded as error:
        raise GoTemplateExhausted(run.line, str(error)) from None
    return "".join(run.printed)


class _Execution:
    """One execution: its variables and output."""

    def __init__(
        self,
        templates: Mapping[str, syntax.Block],
        functions: Mapping[str, GoFunction],
        meter: TemplateMeter,
    ) -> None:
        self.printed: list[str] = []
        self.line = 1
        """The line in execution."""
        self._depth = 0
        self._templates = templates
        self._functions = functions
        self._meter = meter
        self._variables: list[tuple[str, Any]] = []

    def template(self, name: str, dot: Any) -> None:
        """Execute one of the templates, with variables of its own."""
        outer, self._variables = self._variables, [("$", dot)]
        self._block(self._templates[name], dot)
        self._variables = outer

    def _fail(self, why: str) -> GoTemplateError:
        return GoTemplateError(self.line, why)

    # Nodes.

    def _block(self, block: syntax.Block, dot: Any) -> LoopJump:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TemplateLimitExceeded(f"it goes deeper than {MAX_DEPTH} levels")
        jump: LoopJump = None
        for node in block:
            self._meter.step()
            jump = self._node(node, dot)
            if jump:
                break
        self._depth -= 1
        return jump

    def _node(self, node: syntax.Node, dot: Any) -> LoopJump:
        match node:
            case syntax.Text(text):
                self._print(text)
            case syntax.Action(pipe):
                value = self._pipe(pipe, dot)
                if not pipe.variables:
                    self._print("<no value>" if value is None else go_text(value))
            case syntax.Branch():
                n_known = len(self._variables)
                body, inner = node.otherwise, dot
                for pipe, arm in node.arms:
                    value = self._pipe(pipe, dot)
                    if is_true(value):
                        body, inner = arm, value if node.kind == "with" else dot
                        break
                jump = self._block(body, inner)
                del self._variables[n_known:]
                return jump
            case syntax.Range():
                self._range(node, dot)
            case syntax.TemplateCall():
                self.line = node.line
                if node.name not in self._templates:
                    raise self._fail(f"template {node.name!r} not defined")
                self.template(node.name, self._pipe(node.pipe, dot) if node.pipe else None)
            case syntax.Jump(kind):
                return kind
        return None

    def _print(self, text: str) -> None:
        self._meter.add_output(len(text))
        self.printed.append(text)

    def _range(self, node: syntax.Range, dot: Any) -> None:
        n_known = len(self._variables)
        items = self._items(self._pipe(node.pipe, dot))
        n_inside = len(self._variables)
        is_empty = True
        for index, value in items:
            is_empty = False
            self._meter.step()
            if names := node.pipe.variables:  # `$value`, or `$index, $value`
                for name, bound in zip(names, (index, value)[-len(names) :], strict=True):
                    self._assign(name, bound)
            jump = self._block(node.body, value)
            del self._variables[n_inside:]
            if jump == "break":
                break
        if is_empty:
            self._block(node.otherwise, dot)
        del self._variables[n_known:]

    def _items(self, value: Any) -> Iterable[tuple[Any, Any]]:
        match value:
            case None:
                return ()
            case bool():
                pass
            case int():
                return ((number, number) for number in range(value))
            case list():
                return enumerate(value)
            case dict():
                return sorted(value.items())
        raise self._fail(f"range can't iterate over {shorten(go_text(value), 58)}")

    # Pipelines.

    def _pipe(self, pipe: syntax.Pipe, dot: Any) -> Any:
        value: Any = _MISSING
        for command in pipe.commands:
            self._meter.step()
            self.line = command.line
            value = self._command(command, dot, value)
        for name in pipe.variables:
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        return value

    def _assign(self, name: str, value: Any) -> None:
        for place in range(len(self._variables) - 1, -1, -1):
            if self._variables[place][0] == name:
                self._variables[place] = (name, value)
                return
        raise self._fail(f"undefined variable: {name}")

    def _command(self, command: syntax.PipeCommand, dot: Any, final: Any) -> Any:
        first, *rest = command.operands
        if isinstance(first, syntax.FunctionName):
            return self._function(first.name, rest, dot, final)
        if isinstance(first, syntax.Nil):
            raise self._fail("nil is not a command")
        if rest or final is not _MISSING:
            raise self._fail(f"can't give argument to non-function {_written_operand(first)}")
        return self._value(first, dot)

    def _value(self, operand: syntax.Operand, dot: Any) -> Any:
        match operand:
            case syntax.Dot():
                return dot
            case syntax.Nil():
                return None
            case syntax.Constant(value):
                return value
            case syntax.Field(names):
                return self._fields(dot, names)
            case syntax.Variable(name, names):
                return self._fields_if_any(self._variable(name), names)
            case syntax.Chain(inner, names):
                return self._fields_if_any(self._value(inner, dot), names)
            case syntax.FunctionName(name):
                return self._function(name, [], dot, _MISSING)
            case syntax.Pipe():
                n_known = len(self._variables)
                value = self._pipe(operand, dot)
                del self._variables[n_known:]
                return value

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise self._fail(f"undefined variable: {name}")

    def _fields_if_any(self, value: Any, names: Iterable[str]) -> Any:
        """Return a field of a value; nil for a field of nil."""
        return None if value is None else self._fields(value, names)

    def _fields(self, value: Any, names: Iterable[str]) -> Any:
        for name in names:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, GoStruct) and name in value.fields:
                value = value.fields[name]
            elif value is None:
                raise self._fail(f"nil has no field {name}")
            else:
                raise self._fail(f"can't evaluate field {name} in type {type_name(value)}")
        return value

    def _function(self, name: str, operands: list[syntax.Operand], dot: Any, final: Any) -> Any:
        if name in ("and", "or"):
            if not operands and final is _MISSING:
                raise self._fail(f"wrong number of args for {name}: want at least 1 got 0")
            value: Any = None
            for operand in operands:
                value = self._value(operand, dot)
                if is_true(value) == (name == "or"):
                    return value
            return value if final is _MISSING else final
        values = [self._value(operand, dot) for operand in operands]
        if final is not _MISSING:
            values.append(final)
        function = cast(FunctionType, self._functions[name])
        self._meter.step()
        code = function.__code__
        n_least = code.co_argcount - len(function.__defaults__ or ())
        takes_any = bool(code.co_flags & inspect.CO_VARARGS)
        if len(values) < n_least or (len(values) > code.co_argcount and not takes_any):
            expected = f"at least {n_least}" if takes_any else str(code.co_argcount)
            why = f"wrong number of args: want {expected} got {len(values)}"
            raise self._fail(f"error calling {name}: {why}")
        try:
            value = function(*values)
        except GoFunctionError as fault:
            raise self._fail(f"error calling {name}: {fault}") from None
        if isinstance(value, str):
            self._meter.add_text(len(value))
        return value


def _written_operand(operand: syntax.Operand) -> str:
    match operand:
        case syntax.Field(names):
            return "".join(f".{name}" for name in names)
        case syntax.Variable(name, names):
            return "".join([name, *(f".{part}" for part in names)])
        case syntax.Constant(value):
            return repr(value)
    return "a value"


class GoTemplate:
    """A compiled Go template.

    `functions`: those that it may call, besides Go's built-in ones.

    Raises:
        GoTemplateSyntaxError: it cannot be parsed.
    """

    def __init__(self, source: str, functions: Mapping[str, GoFunction]) -> None:
        self.source = source
        self._functions = functions
        self._templates = parse(source, BUILTINS | functions.keys())

    @cached_property
    def names(self) -> frozenset[str]:
        return syntax.field_names(tuple(self._templates.values()))

    def execute(self, data: Any, meter: TemplateMeter | None = None) -> str:
        """Return its output; several executions may share a meter.

        Raises:
            GoTemplateError: its execution fails.
        """
        return execute(self._templates, data, self._functions, meter or TemplateMeter())

    def execute_until(self, name: str, data: Any, meter: TemplateMeter | None = None) -> str:
        """Return its output up to and including the first action that prints a field.

        Raises:
            GoTemplateError: its execution fails.
        """
        block, _ = syntax.cut_after_field(self._templates[""], name)
        templates = {**self._templates, "": block}
        return execute(templates, data, self._functions, meter or TemplateMeter())

    def with_field(self, name: str) -> GoTemplate:
        return GoTemplate(f"{self.source}{{{{ .{name} }}}}", self._functions)
