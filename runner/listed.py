"""The list that a block goes over, and the stable name of each item. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError

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


def chosen_of(
    block: BoundBlock, scope: Scope, listed: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the items for which a block's `where` holds, and those that it leaves out.

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
            message = f"`where` of block '{block.id}', {_shown(item, number)}: {error.message}"
            raise ExpressionError(message, error.remedy) from error
        (chosen if holds else left).append(item)
    return chosen, left


def loop_of(number: int, length: int) -> dict[str, Any]:
    """Return what an item's steps see as `loop`: its place in the list, as in Jinja.

    >>> loop_of(0, 2)
    {'index': 1, 'index0': 0, 'first': True, 'last': False, 'length': 2}
    """
    return {
        "index": number + 1,
        "index0": number,
        "first": number == 0,
        "last": number + 1 == length,
        "length": length,
    }


def keys_of(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys, in the list's order.

    Items without a name of their own go by their content, and equal ones are numbered: a row that
    changes makes no other one stale.

    Raises:
        PipelineError: two items have the same one.
        ExpressionError: the block's `key` failed.
    """
    keys = written_keys(block, scope, listed)
    if len(set(keys)) < len(keys):
        raise PipelineError([_same_key(block, keys, listed)])
    return keys


def written_keys(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys as they come out, also where two are the same."""
    if block.key is None:
        return _numbered([key_of(item) for item in listed], listed)
    return [str(block.key.evaluate(scope.child(block.var, item))) for item in listed]


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
