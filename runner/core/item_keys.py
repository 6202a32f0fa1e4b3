"""Keys of a block's items, which stay the same while others come, go or change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.scope import Scope

from .fingerprints import default_key, file_path_of


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
    names = item_names(block, scope, listed)
    if block.key is None and len(set(names)) < len(names):
        seen: Counter[str] = Counter()
        for index, name in enumerate(names):  # what equals an earlier one is numbered
            seen[name] += 1
            if seen[name] > 1 and file_path_of(listed[index]) is None:
                names[index] = f"{name}#{seen[name]}"
    return names


def item_names(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return what the items' keys are, but for the numbers of those that have the same one."""
    if block.key is None:
        return [default_key(item) for item in listed]
    return [str(block.key.evaluate(scope.child(block.var, item))) for item in listed]


def _duplicate_key_fault(block: BoundBlock, keys: Sequence[str], listed: Sequence[Any]) -> Fault:
    key = next(key for key, count in Counter(keys).items() if count > 1)
    first, second = [index for index, other in enumerate(keys) if other == key][:2]
    both = f"{item_label(listed[first], first)} and {item_label(listed[second], second)}."
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


def item_label(item: Any, index: int) -> str:
    """Return an item's place in its list, with its path if it has one."""
    place = item.get("path") if isinstance(item, Mapping) else None
    return f"number {index + 1}" + (f" ('{place}')" if isinstance(place, str) else "")
