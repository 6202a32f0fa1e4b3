"""The items of a block: its list, its strata, stable keys."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from paddock.engine.system.text import canonical_json, listed
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.scope import Scope

from .fingerprints import default_key, file_path_of

N_KEYS_NAMED = 3
"""Keys that a message names: there may be thousands."""


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
            message = f"`where` of block '{block.id}', {_item_label(item, number)}: {error.message}"
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
        label = _item_label(listed[len(strata)], len(strata))
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


def item_keys(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys, in the list's order.

    Items without a name of their own go by their content, and equal ones are numbered: a row that
    changes makes no other one stale.

    Raises:
        PipelineError: two items have the same one.
        ExpressionError: the block's `key` failed.
    """
    keys = raw_item_keys(block, scope, listed)
    if len(set(keys)) < len(keys):
        raise PipelineError([_duplicate_key_fault(block, keys, listed)])
    return keys


def raw_item_keys(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys before duplicates are refused."""
    if block.key is None:
        return _numbered_keys([default_key(item) for item in listed], listed)
    return [str(block.key.evaluate(scope.child(block.var, item))) for item in listed]


def _numbered_keys(keys: list[str], listed: Sequence[Any]) -> list[str]:
    """Append `#2`, `#3` … to the keys of items that equal an earlier one."""
    if len(set(keys)) == len(keys):
        return keys
    seen: Counter[str] = Counter()
    made = []
    for key, item in zip(keys, listed, strict=True):
        seen[key] += 1
        is_again = seen[key] > 1 and file_path_of(item) is None
        made.append(f"{key}#{seen[key]}" if is_again else key)
    return made


def _duplicate_key_fault(block: BoundBlock, keys: Sequence[str], listed: Sequence[Any]) -> Fault:
    key = next(key for key, count in Counter(keys).items() if count > 1)
    first, second = [index for index, other in enumerate(keys) if other == key][:2]
    both = f"{_item_label(listed[first], first)} and {_item_label(listed[second], second)}."
    if block.key is not None:
        what = f"`key: {block.key.source}` gives two items of block '{block.id}' the same key "
        remedy = "Write one that differs, or leave it out: items that are equal are then numbered."
        return Fault(f"{what}'{key}': {both}", remedy, block.mark)
    what = f"two items of block '{block.id}' have the same key '{key}': {both}"
    if listed[first] == listed[second]:
        remedy = "They are equal: leave one out, with `| unique` behind the list."
    else:
        remedy = "Give the block a `key` that differs, such as `key: doc.path`."
    return Fault(what, remedy, block.mark)


def _item_label(item: Any, index: int) -> str:
    place = item.get("path") if isinstance(item, Mapping) else None
    return f"number {index + 1}" + (f" ('{place}')" if isinstance(place, str) else "")


_TYPE_NAMES = {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false",
               "NoneType": "nothing"}  # fmt: skip


def nearest_keys(key: str, keys: Collection[str]) -> str:
    """Return a hint with the nearest keys, or the first ones."""
    near = difflib.get_close_matches(key, sorted(keys), n=N_KEYS_NAMED)
    if near:
        return "Did you mean " + " or ".join(f"'{near_key}'" for near_key in near) + "?"
    if not keys:
        return "There are no items."
    named = [f"'{known}'" for known in sorted(keys)]
    return f"Known: {listed(named, N_KEYS_NAMED)}."
