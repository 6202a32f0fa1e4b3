"""Filters that are called so that they can only fail, found before anything runs.

Compares what is written out in an expression with the filter's own signature: arguments that it
does not take, or does not get, and constants of a type that it refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeGuard, Union, get_args, get_origin, get_type_hints

from jinja2 import nodes

from .errors import known
from .filters import FILTERS, OURS

_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_REMEDIES = {"sum": "`flatten` makes one list of lists."}


def misuses(node: nodes.Filter) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the arguments of a filter, and what to do."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return  # only a run shows them
    signature = _signature(node.name)
    given: dict[str, Any] = {one.key: one.value for one in node.kwargs if _is_named(one)}
    unknown = [name for name in given if name not in signature.parameters]
    if unknown and not _takes_any(signature):
        names = list(signature.parameters)[1:]
        remedy = known(unknown[0], names) if names else "It takes none."
        yield f"`{node.name}` takes no `{unknown[0]}`", remedy
        return
    try:
        bound = signature.bind(node.node, *node.args, **given)
    except TypeError as error:
        yield f"`{node.name}` {_plainly(str(error))}", ""
        return
    hints = _hints(node.name)
    for name, value in bound.arguments.items():
        wanted = hints.get(name, frozenset())
        if wanted and isinstance(value, nodes.Node) and not _may_be(value, wanted):
            kinds = " or ".join(_KINDS[kind] for kind in _KINDS if kind in wanted)
            yield f"`{name}` of `{node.name}` must be {kinds}", _REMEDIES.get(node.name, "")


def _is_named(node: nodes.Node) -> TypeGuard[nodes.Keyword]:
    """Return whether it is a keyword argument, which Jinja2's types call a pair as well."""
    return isinstance(node, nodes.Keyword)


def _may_be(node: nodes.Node, wanted: frozenset[type]) -> bool:
    """Return whether what is written can have one of these types; only a run shows a name's."""
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        return False
    if isinstance(node, nodes.TemplateData) or not isinstance(node, nodes.Const):
        return True
    kind = type(node.value)
    return kind in wanted or (kind is int and float in wanted) or kind is bool


@cache
def _signature(name: str) -> inspect.Signature:
    """Return what a filter takes, without what Jinja2 itself gives it first."""
    signature = inspect.signature(FILTERS[name])
    parameters = list(signature.parameters.values())
    if parameters[0].name in ("context", "environment", "eval_ctx", "env"):
        return signature.replace(parameters=parameters[1:])
    return signature


@cache
def _hints(name: str) -> dict[str, frozenset[type]]:
    """Return by parameter the plain types that a filter of ours takes.

    Most make a text of what should be one, so a text is asked for where nothing else will do.
    """
    if name not in OURS:
        return {}
    loose = {bool} if name in ("split", "fromjson") else {bool, str}
    hints = {one: _plain_types(hint) for one, hint in get_type_hints(OURS[name]).items()}
    return {one: types for one, types in hints.items() if types and loose.isdisjoint(types)}


def _plain_types(hint: Any) -> frozenset[type]:
    """Return the types of an annotation; none where it takes more than plain values."""
    parts = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    plain = frozenset((*_KINDS, NoneType))
    return frozenset(parts) if plain.issuperset(parts) else frozenset()


def _takes_any(signature: inspect.Signature) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def _plainly(fault: str) -> str:
    """Put the words of `Signature.bind` into a sentence about a filter.

    >>> _plainly("missing a required argument: 'count'")
    'needs `count`'
    """
    name = fault.partition("'")[2].rstrip("'")
    if fault.startswith("missing"):
        return f"needs `{name}`"
    if fault.startswith("multiple values"):
        return f"is given `{name}` twice"
    return "is given more than it takes"
