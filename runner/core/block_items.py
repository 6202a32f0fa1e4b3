"""The items of a block: its list and its strata."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from paddock.engine.system.text import canonical_json, listed
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.scope import Scope

from .item_keys import item_label

N_KEYS_NAMED = 3
"""Keys that a message names: there may be thousands."""
_TYPE_NAMES = {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false",
               "NoneType": "nothing"}  # fmt: skip


def block_list(block: BoundBlock, scope: Scope) -> Sequence[Any]:
    """Return a block's list; a mapping becomes its pairs.

    Raises:
        PipelineError: `for_each` is neither a list nor a mapping.
        ExpressionError: its expression failed.
    """
    listed = block.over.evaluate(scope)
    if isinstance(listed, Mapping):
        return [{"key": name, "value": value} for name, value in listed.items()]
    if isinstance(listed, (list, tuple)):
        return listed
    kind = _TYPE_NAMES.get(type(listed).__name__, "something else")
    what = f"block '{block.id}' goes over {kind}, which is no list."
    raise PipelineError([Fault(what, "Name a list, such as `steps.docs.files`.", block.mark)])


def split_by_where(
    block: BoundBlock, scope: Scope, listed: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the items for which a block's `where` holds, and the others.

    Raises:
        ExpressionError: it failed for an item.
    """
    if block.where is None:
        return listed, ()
    chosen: list[Any] = []
    left: list[Any] = []
    for number, item in enumerate(listed):
        try:
            holds = block.where.evaluate(scope.child(block.var, item))
        except ExpressionError as error:
            message = f"`where` of block '{block.id}', {item_label(item, number)}: {error.message}"
            raise ExpressionError(message, error.remedy) from error
        (chosen if holds else left).append(item)
    return chosen, left


def item_strata(block: BoundBlock, scope: Scope, listed: Sequence[Any], source: str) -> list[str]:
    """Return each item's stratum, the value of an expression as JSON; nothing without one.

    Raises:
        PipelineError: it cannot be read, or failed for an item.
    """
    if not source:
        return []
    strata: list[str] = []
    try:
        stratum = Expression.of(source)
    except ExpressionError as error:
        what = f"`--stratify {source}`: {error.message}."
        raise PipelineError([Fault(what, error.remedy)]) from error
    try:
        for item in listed:
            inner = scope.child({block.var: item, "item": item})
            strata.append(canonical_json(stratum.evaluate(inner)))
    except ExpressionError as error:
        label = item_label(listed[len(strata)], len(strata))
        what = f"`--stratify {source}`, {label} of block '{block.id}': {error.message}."
        raise PipelineError([Fault(what, error.remedy)]) from error
    return strata


def loop_value(number: int, length: int) -> dict[str, Any]:
    """Return the variable `loop` of an item, as Jinja has it.

    >>> loop_value(0, 2)
    {'index': 1, 'index0': 0, 'first': True, 'last': False, 'length': 2}
    """
    return {
        "index": number + 1,
        "index0": number,
        "first": number == 0,
        "last": number + 1 == length,
        "length": length,
    }


def nearest_keys(key: str, keys: Collection[str]) -> str:
    """Return a hint with the nearest keys, or the first ones."""
    near = difflib.get_close_matches(key, sorted(keys), n=N_KEYS_NAMED)
    if near:
        return "Did you mean " + " or ".join(f"'{near_key}'" for near_key in near) + "?"
    if not keys:
        return "There are no items."
    named = [f"'{known}'" for known in sorted(keys)]
    return f"Known: {listed(named, N_KEYS_NAMED)}."
