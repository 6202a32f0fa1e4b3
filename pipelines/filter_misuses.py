"""Misuses of filters: missing or unknown arguments, constants of a wrong type.

A filter's arguments are compared with its signature, before anything runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from jinja2 import nodes

from .errors import did_you_mean
from .filters import FILTERS, OWN_FILTERS

_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_REMEDIES = {"sum": "`flatten` makes one list of lists."}


def misuses(node: nodes.Filter) -> Iterator[tuple[str, str]]:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return  # known only at run time
    signature = _signature(node.name)
    keywords: list[Any] = node.kwargs  # Jinja2's types call them pairs
    given: dict[str, Any] = {keyword.key: keyword.value for keyword in keywords}
    unknown = [name for name in given if name not in signature.parameters]
    kinds_taken = {parameter.kind for parameter in signature.parameters.values()}
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds_taken:
        names = list(signature.parameters)[1:]
        remedy = did_you_mean(unknown[0], names, "It takes none.")
        yield f"`{node.name}` takes no `{unknown[0]}`", remedy
        return
    try:
        bound = signature.bind(node.node, *node.args, **given)
    except TypeError as error:
        yield f"`{node.name}` {_reworded(str(error))}", ""
        return
    # Sentence and remedy for each constant of a type that a filter does not take
    hints = _hints(node.name)
    for name, value in bound.arguments.items():
        accepted = hints.get(name, frozenset())
        if accepted and isinstance(value, nodes.Node) and not _may_have_type(value, accepted):
            kinds = " or ".join(_KINDS[kind] for kind in _KINDS if kind in accepted)
            yield f"`{name}` of `{node.name}` must be {kinds}", _REMEDIES.get(node.name, "")


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
    found: dict[str, frozenset[type]] = {}
    for parameter, hint in get_type_hints(OWN_FILTERS[name]).items():
        types = frozenset(get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,))
        if {*_KINDS, NoneType} >= types and loose.isdisjoint(types):  # it takes nothing else
            found[parameter] = types
    return found


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
