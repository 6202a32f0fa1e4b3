"""A `check`: an expression over an answer that must be true, and the fault if it is not.

The functions that a check may call return plain sentences, which a model can read. Knows no model:
the caller passes the scope.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jinja2 import nodes
from jinja2.runtime import Undefined

from paddock.engine.system.records import Struct

from .errors import did_you_mean
from .expressions import Expression, Reference, chain_of

if TYPE_CHECKING:
    from .checking.functions import CheckFunction


def is_refused(result: object) -> bool:
    """Return whether a check function says what is wrong."""
    return result is False or isinstance(result, str)


_GLOBALS = frozenset(("range", "dict", "namespace"))
_SHOWN_CHARS = 200
_SHORT_CHARS = 40
_ANSWER_NAMES = ("output", "text", "evidence")


class AnswerFault(Struct, frozen=True):
    message: str
    sentence: str
    """The same with its field, as a model or a person reads it."""
    path: str = ""
    """The field, `lines.0.price`; empty: the whole answer."""


class CheckCall(Struct, frozen=True):
    name: str
    positional: tuple[Any, ...]
    """Its arguments where they are literals; else `...`."""
    named: Mapping[str, Any]
    is_open: bool
    """It has `*` or `**` arguments, so they are unknown."""
    first: Reference | None


class Check(Struct, frozen=True):
    expression: Expression
    calls: tuple[CheckCall, ...]

    @classmethod
    def of(cls, source: str) -> Check:
        expression = Expression.of(source)
        return cls(expression, tuple(_calls(expression)))

    @property
    def source(self) -> str:
        return self.expression.source

    @property
    def references(self) -> frozenset[Reference]:
        called = {(call.name,) for call in self.calls}
        return self.expression.references - called

    @property
    def reads_evidence(self) -> bool:
        has_call = any(call.name == "located" for call in self.calls)
        return has_call or any(path[0] == "evidence" for path in self.references)

    def faults(self, functions: Mapping[str, CheckFunction]) -> Iterator[tuple[str, str]]:
        """Yield sentence and remedy for each call that cannot work, whatever the values."""
        for call in self.calls:
            if call.name not in functions:
                what = f"there is no check function '{call.name}'"
                yield what, did_you_mean(call.name, sorted(functions))
            elif not call.is_open:
                function = functions[call.name]
                wrong = _mismatch(call, function)
                if wrong is not None:
                    yield f"`{call.name}`: {wrong}", f"It takes {_parameters(function)}"
                    continue
                fault = _fault_in_advance(call, function)
                if fault is not None:
                    yield f"`{call.name}`: {fault}", ""

    def failures(
        self, scope: Mapping[str, Any], functions: Mapping[str, CheckFunction]
    ) -> list[str]:
        """Return why it is not true, in plain sentences; [] if it is true."""
        return [fault.sentence for fault in self.answer_faults(scope, functions)]

    def answer_faults(
        self, scope: Mapping[str, Any], functions: Mapping[str, CheckFunction]
    ) -> list[AnswerFault]:
        """Return what is wrong with the answer, and with which field; [] if it is true."""
        found = self._evaluated(scope, functions)
        if found is None:
            return []
        if found.sentences:
            return self._explained(found)
        known_values = {**found.values, **dict(self._read(scope))}
        values = "; ".join(f"{name} is {value}" for name, value in known_values.items())
        what = f"This must be true: {self.source}" + (f" ({values})." if values else ".")
        return [AnswerFault(what, what)]

    def explanations(
        self, scope: Mapping[str, Any], functions: Mapping[str, CheckFunction]
    ) -> list[str] | None:
        found = self._evaluated(scope, functions)
        return None if found is None else [fault.sentence for fault in self._explained(found)]

    def _evaluated(
        self, scope: Mapping[str, Any], functions: Mapping[str, CheckFunction]
    ) -> _CheckFindings | None:
        found = _CheckFindings()
        names = {call.name for call in self.calls} & functions.keys()
        ready = {name: found.watching(name, functions[name], scope) for name in names}
        return None if self.expression.evaluate({**scope, **ready}) else found

    def _explained(self, found: _CheckFindings) -> list[AnswerFault]:
        firsts = (call.first or () for call in self.calls)
        fields = {path[1] for path in firsts if len(path) > 1 and path[0] == "output"}
        field = next(iter(fields)) if len(fields) == 1 else ""
        return [
            AnswerFault(text, f"`{field}`: {text}" if field else text, field)
            for text in found.sentences
        ]

    def _read(self, scope: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield short values from outside the answer: the model does not know them."""
        for path in sorted(path for path in self.references if path[0] not in _ANSWER_NAMES):
            value: Any = scope
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if isinstance(value, bool | int | float) or (
                isinstance(value, str) and len(value) <= _SHORT_CHARS and "\n" not in value
            ):
                yield ".".join(path), json.dumps(value, ensure_ascii=False)


class _CheckFindings:
    def __init__(self) -> None:
        self.sentences: dict[str, None] = {}
        self.values: dict[str, str] = {}

    def watching(
        self, name: str, function: CheckFunction, scope: Mapping[str, Any]
    ) -> Callable[..., object]:
        arguments = {key: scope[key] for key in _from_scope(function) if key in scope}
        return partial(self._called, name, partial(function, **arguments))

    def _called(self, name: str, function: CheckFunction, *args: Any, **named: Any) -> object:
        for value in (*args, *named.values()):
            if isinstance(value, Undefined):
                str(value)  # raises, with its name
        result = function(*args, **named)
        if isinstance(result, str):
            self.sentences[result] = None
            return False
        if result is None or isinstance(result, bool):
            return result is not False
        self.values[name] = str(result)[:_SHOWN_CHARS]
        return result


def _calls(expression: Expression) -> Iterator[CheckCall]:
    for node in expression.tree.find_all(nodes.Call):
        if not isinstance(node.node, nodes.Name) or node.node.name in _GLOBALS:
            continue
        yield CheckCall(
            name=node.node.name,
            positional=tuple(map(_literal, node.args)),
            named={keyword.key: _literal(keyword.value) for keyword in node.kwargs},
            is_open=node.dyn_args is not None or node.dyn_kwargs is not None,
            first=chain_of(node.args[0]) if node.args else None,
        )


def _literal(node: nodes.Expr) -> Any:
    return node.value if isinstance(node, nodes.Const) else ...


def _mismatch(call: CheckCall, function: CheckFunction) -> str | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function without a signature
        return None
    try:
        signature.bind(*call.positional, **call.named)
    except TypeError as error:
        return str(error)
    return None


def _fault_in_advance(call: CheckCall, function: CheckFunction) -> str | None:
    """Call a function's `in_advance` with the literal arguments."""
    foresees = getattr(function, "in_advance", None)
    if foresees is None:
        return None
    try:
        fault = foresees(*call.positional, **call.named)
    except Exception as error:  # a plug-in may raise anything
        return f"{type(error).__name__}: {error}"
    return None if fault is None else str(fault)


def _from_scope(function: CheckFunction) -> tuple[str, ...]:
    return tuple(getattr(function, "from_scope", ()))


def _parameters(function: CheckFunction) -> str:
    known = inspect.signature(function).parameters.values()
    names = [p for p in known if p.name not in _from_scope(function)]
    return ", ".join(f"`{'*' if p.kind == p.VAR_POSITIONAL else ''}{p.name}`" for p in names) + "."
