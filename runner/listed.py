"""The list that a block goes over, and the stable name of each item. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError

from .binding.bound import BoundBlock
from .freshness import key_of, name_of
from .scope import Scope


def list_of(block: BoundBlock, scope: Scope) -> Sequence[Any]:
    """Give a block's list; of a mapping, its pairs.

    Raises:
        PipelineError: it goes over something else.
        ExpressionError: its expression failed.
    """
    listed = block.over.evaluate(scope)
    if isinstance(listed, Mapping):
        return [{"key": name, "value": value} for name, value in listed.items()]
    if isinstance(listed, (list, tuple)):
        return listed
    what = f"block '{block.id}' goes over {_kind(listed)}, which is no list."
    raise PipelineError([Fault(what, "Name a list, such as `steps.docs.files`.", block.mark)])


def keys_of(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys, in the list's order.

    Items without a name of their own go by their content, and equal ones are numbered: a row that
    changes makes no other one stale.

    Raises:
        PipelineError: two items have the same one.
        ExpressionError: the block's `key` failed.
    """
    if block.key is None:
        keys = _numbered([key_of(item) for item in listed], listed)
    else:
        keys = [str(block.key.evaluate(scope.child(block.var, item))) for item in listed]
    if len(set(keys)) < len(keys):
        raise PipelineError([_same_key(block, keys, listed)])
    return keys


def _numbered(keys: list[str], listed: Sequence[Any]) -> list[str]:
    """Put `#2`, `#3` … behind the keys of items that are equal to an earlier one."""
    if len(set(keys)) == len(keys):
        return keys
    seen: Counter[str] = Counter()
    made = []
    for key, item in zip(keys, listed, strict=True):
        seen[key] += 1
        is_again = seen[key] > 1 and name_of(item) is None
        made.append(f"{key}#{seen[key]}" if is_again else key)
    return made


def _same_key(block: BoundBlock, keys: Sequence[str], listed: Sequence[Any]) -> Fault:
    key = next(key for key, count in Counter(keys).items() if count > 1)
    first, second = [index for index, other in enumerate(keys) if other == key][:2]
    both = f"{_shown(listed[first], first)} and {_shown(listed[second], second)}."
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


def _shown(item: Any, index: int) -> str:
    place = item.get("path") if isinstance(item, Mapping) else None
    return f"number {index + 1}" + (f" ('{place}')" if isinstance(place, str) else "")


_KINDS = {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false"}


def _kind(value: Any) -> str:
    return "nothing" if value is None else _KINDS.get(type(value).__name__, "something else")
