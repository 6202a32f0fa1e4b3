"""Carry out a template on data. Knows Go's rules, not what the data mean.

What a template says is code from elsewhere: it reaches nothing but the data and the functions it
is given, and `Meter` bounds its steps, time, depth and texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, Literal, cast

from . import tree
from .errors import GoTemplateError
from .functions import Function, FunctionFault, builtins
from .meter import Meter
from .values import Struct, is_true, show, type_name

_NOTHING = object()
"""Stands where a command gets no value from one before it."""

Jump = Literal["break", "continue"] | None


def execute(
    templates: Mapping[str, tree.Block], data: Any, functions: Mapping[str, Function]
) -> str:
    """Give what the template "" prints.

    Raises:
        GoTemplateError: it cannot be carried out.
    """
    meter = Meter()
    run = _Run(templates, {**builtins(meter), **functions}, meter)
    try:
        run.template("", data)
    except RecursionError:
        raise GoTemplateError(meter.line, "values or templates go too deep") from None
    return "".join(run.printed)


class _Run:
    """One carrying-out: the variables, and what was printed."""

    def __init__(
        self, templates: Mapping[str, tree.Block], functions: Mapping[str, Function], meter: Meter
    ) -> None:
        self.printed: list[str] = []
        self._templates = templates
        self._functions = functions
        self._meter = meter
        self._variables: list[tuple[str, Any]] = []

    def template(self, name: str, dot: Any) -> None:
        """Carry out one of the templates; of the variables it sees its own alone."""
        outer, self._variables = self._variables, [("$", dot)]
        self._block(self._templates[name], dot)
        self._variables = outer

    def _fail(self, why: str) -> GoTemplateError:
        return GoTemplateError(self._meter.line, why)

    # Nodes.

    def _block(self, block: tree.Block, dot: Any) -> Jump:
        self._meter.enter()
        jump: Jump = None
        for node in block:
            self._meter.step()
            jump = self._node(node, dot)
            if jump:
                break
        self._meter.leave()
        return jump

    def _node(self, node: tree.Node, dot: Any) -> Jump:
        match node:
            case tree.Text(text):
                self._print(text)
            case tree.Action(pipe):
                value = self._pipe(pipe, dot)
                if not pipe.variables:
                    self._print("<no value>" if value is None else show(value))
            case tree.Branch():
                return self._branch(node, dot)
            case tree.Range():
                self._range(node, dot)
            case tree.Call():
                self._call(node, dot)
            case tree.Jump(kind):
                return kind
        return None

    def _print(self, text: str) -> None:
        self._meter.printed(text)
        self.printed.append(text)

    def _branch(self, node: tree.Branch, dot: Any) -> Jump:
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

    def _range(self, node: tree.Range, dot: Any) -> None:
        n_known = len(self._variables)
        items = self._items(self._pipe(node.pipe, dot))
        n_inside = len(self._variables)
        is_empty = True
        for index, value in items:
            is_empty = False
            self._meter.step()
            self._set_loop(node.pipe, index, value)
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
        raise self._fail(f"range can't iterate over {_shown(value)}")

    def _set_loop(self, pipe: tree.Pipe, index: Any, value: Any) -> None:
        """Give a loop's variables their values: `$value`, or `$index, $value`."""
        if not pipe.variables:
            return
        told = [value] if len(pipe.variables) == 1 else [index, value]
        for name, one in zip(pipe.variables, told, strict=True):
            self._assign(name, one)

    def _call(self, node: tree.Call, dot: Any) -> None:
        self._meter.line = node.line
        if node.name not in self._templates:
            raise self._fail(f"template {node.name!r} not defined")
        self.template(node.name, self._pipe(node.pipe, dot) if node.pipe else None)

    # Pipelines.

    def _pipe(self, pipe: tree.Pipe, dot: Any) -> Any:
        value: Any = _NOTHING
        for command in pipe.commands:
            self._meter.step()
            self._meter.line = command.line
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

    def _command(self, command: tree.Command, dot: Any, final: Any) -> Any:
        first, *rest = command.operands
        if isinstance(first, tree.Function):
            return self._function(first.name, rest, dot, final)
        if isinstance(first, tree.Nil):
            raise self._fail("nil is not a command")
        if rest or final is not _NOTHING:
            raise self._fail(f"can't give argument to non-function {_written(first)}")
        return self._value(first, dot)

    def _value(self, operand: tree.Operand, dot: Any) -> Any:
        match operand:
            case tree.Dot():
                return dot
            case tree.Nil():
                return None
            case tree.Constant(value):
                return value
            case tree.Field(names):
                return self._fields(dot, names)
            case tree.Variable(name, names):
                return self._fields_if_any(self._variable(name), names)
            case tree.Chain(inner, names):
                return self._fields_if_any(self._value(inner, dot), names)
            case tree.Function(name):
                return self._function(name, [], dot, _NOTHING)
            case tree.Pipe():
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
        """Give fields of what may be nothing: other than a field's, its fields are nothing, too."""
        return None if value is None else self._fields(value, names)

    def _fields(self, value: Any, names: Iterable[str]) -> Any:
        for name in names:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, Struct) and name in value.fields:
                value = value.fields[name]
            elif value is None:
                raise self._fail(f"nil has no field {name}")
            else:
                raise self._fail(f"can't evaluate field {name} in type {type_name(value)}")
        return value

    def _function(self, name: str, operands: list[tree.Operand], dot: Any, final: Any) -> Any:
        if name in ("and", "or"):
            return self._either(name, operands, dot, final)
        values = [self._value(one, dot) for one in operands]
        if final is not _NOTHING:
            values.append(final)
        function = self._functions[name]
        self._meter.step()
        try:
            _check(function, values)
            value = function(*values)
        except FunctionFault as fault:
            raise self._fail(f"error calling {name}: {fault}") from None
        if isinstance(value, str):
            self._meter.making(len(value))
        return value

    def _either(self, name: str, operands: list[tree.Operand], dot: Any, final: Any) -> Any:
        """Give the first value that decides it, or the last one."""
        if not operands and final is _NOTHING:
            raise self._fail(f"wrong number of args for {name}: want at least 1 got 0")
        value: Any = None
        for operand in operands:
            value = self._value(operand, dot)
            if is_true(value) == (name == "or"):
                return value
        return value if final is _NOTHING else final


def _check(function: Function, values: list[Any]) -> None:
    """Refuse too few and too many arguments."""
    plain = cast(FunctionType, function)
    code = plain.__code__
    n_least = code.co_argcount - len(plain.__defaults__ or ())
    takes_any = bool(code.co_flags & inspect.CO_VARARGS)
    if len(values) < n_least or (len(values) > code.co_argcount and not takes_any):
        wanted = f"at least {n_least}" if takes_any else str(code.co_argcount)
        raise FunctionFault(f"wrong number of args: want {wanted} got {len(values)}")


def _shown(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _written(operand: tree.Operand) -> str:
    match operand:
        case tree.Field(names):
            return "".join(f".{name}" for name in names)
        case tree.Variable(name, names):
            return "".join([name, *(f".{one}" for one in names)])
        case tree.Constant(value):
            return repr(value)
    return "a value"
