"""Misuses of filters: missing or unknown arguments, constants of a wrong type.

A filter's arguments are compared with its signature, before anything runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeGuard, Union, get_args, get_origin, get_type_hints

from jinja2 import nodes

from .errors import did_you_mean
from .filters import FILTERS, OWN_FILTERS

_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_REMEDIES = {"sum": "`flatten` makes one list of lists."}


def misuses(node: nodes.Filter) -> Iterator[tuple[str, str]]:
    """Yield sentence and remedy for each wrong argument of a filter."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return  # known only at run time
    signature = _signature(node.name)
    given: dict[str, Any] = {pair.key: pair.value for pair in node.kwargs if _is_named(pair)}
    unknown = [name for name in given if name not in signature.parameters]
    if unknown and not _takes_any(signature):
        names = list(signature.parameters)[1:]
        remedy = did_you_mean(unknown[0], names) if names else "It takes none."
        yield f"`{node.name}` takes no `{unknown[0]}`", remedy
        return
    try:
        bound = signature.bind(node.node, *node.args, **given)
    except TypeError as error:
        yield f"`{node.name}` {_reworded(str(error))}", ""
        return
    # Sentence and remedy for each constant of a type that a filter does not take
    filter_name = node.name
    hints = _hints(filter_name)
    for name, value in bound.arguments.items():
        accepted = hints.get(name, frozenset())
        if accepted and isinstance(value, nodes.Node) and not _may_have_type(value, accepted):
            kinds = " or ".join(_KINDS[kind] for kind in _KINDS if kind in accepted)
            yield f"`{name}` of `{filter_name}` must be {kinds}", _REMEDIES.get(filter_name, "")


def _is_named(node: nodes.Node) -> TypeGuard[nodes.Keyword]:
    """Return whether it is a keyword argument; Jinja2's types also call it a pair."""
    return isinstance(node, nodes.Keyword)


def _may_have_type(node: nodes.Node, accepted: frozenset[type]) -> bool:
    """Return whether an argument may have one of these types; a name may have any."""
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        return False
    if isinstance(node, nodes.TemplateData) or not isinstance(node, nodes.Const):
        return True
    kind = type(node.value)
    return kind in accepted or (kind is int and float in accepted) or kind is bool


@cache
def _signature(name: str) -> inspect.Signature:
    """Return a filter's signature, without what Jinja2 passes first."""
    signature = inspect.signature(FILTERS[name])
    parameters = list(signature.parameters.values())
    if parameters[0].name in ("context", "environment", "eval_ctx", "env"):
        return signature.replace(parameters=parameters[1:])
    return signature


@cache
def _hints(name: str) -> dict[str, frozenset[type]]:
    """Return the plain types that each parameter of our own filters takes.

    Most make a text of what should be one, so a text is asked for where nothing else will do.
    """
    if name not in OWN_FILTERS:
        return {}
    loose = {bool} if name in ("split", "fromjson") else {bool, str}
    hints = {name: _plain_types(hint) for name, hint in get_type_hints(OWN_FILTERS[name]).items()}
    return {name: types for name, types in hints.items() if types and loose.isdisjoint(types)}


def _plain_types(hint: Any) -> frozenset[type]:
    """Return the types of an annotation; none if it takes more than plain values."""
    parts = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    plain = frozenset((*_KINDS, NoneType))
    return frozenset(parts) if plain.issuperset(parts) else frozenset()


def _takes_any(signature: inspect.Signature) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def _reworded(fault: str) -> str:
    """Rewrite a message of `Signature.bind` as a sentence about a filter.

    >>> _reworded("missing a required argument: 'count'")
    'needs `count`'
    """
    name = fault.partition("'")[2].rstrip("'")
    if fault.startswith("missing"):
        return f"needs `{name}`"
    if fault.startswith("multiple values"):
        return f"is given `{name}` twice"
    return "takes fewer arguments"
