"""The items of a block: its list, their keys, and what of an item decides its result.

Keys stay the same while other items come, go or change.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

from paddock.engine.system.text import canonical_json, listed
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError, Reference
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.plan_walks import steps_of
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry

from .parts import CONTENT, PATH, TIME, ordered_digest, part_digest

N_KEYS_NAMED = 3
"""Keys that a message names: there may be thousands."""
_TYPE_NAMES = {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false",
               "NoneType": "nothing"}  # fmt: skip
# A file's attributes that change without its content; its digest stands for them.
_VOLATILE = frozenset(("path", "modified", "size"))
AsStored = Callable[[str], str]
"""Path → the path as the ledger stores it."""


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
    raise PipelineError.of(what, "Name a list, such as `steps.docs.files`.", block.mark)


def split_by_where(
    block: BoundBlock, scope: Scope, listed: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Return the items for which a block's `where` holds, and the others.

    Raises:
        ExpressionError: it failed for an item.
    """
    assert block.where is not None
    chosen: list[Any] = []
    excluded: list[Any] = []
    for number, item in enumerate(listed):
        try:
            holds = block.where.evaluate(scope.child(block.var, item))
        except ExpressionError as error:
            message = f"`where` of block '{block.id}', {item_label(item, number)}: {error.message}"
            raise ExpressionError(message, error.remedy) from error
        (chosen if holds else excluded).append(item)
    return chosen, excluded


def item_strata(block: BoundBlock, scope: Scope, listed: Sequence[Any], source: str) -> list[str]:
    """Return each item's stratum, the value of an expression as JSON; nothing without one.

    Raises:
        PipelineError: it cannot be read, or failed for an item.
    """
    if not source:
        return []
    strata, place = list[str](), f"`--stratify {source}`"
    try:
        stratum = Expression.of(source)
        for number, item in enumerate(listed):
            place = f"`--stratify {source}`, {item_label(item, number)} of block '{block.id}'"
            inner = scope.child({block.var: item, "item": item})
            strata.append(canonical_json(stratum.evaluate(inner)))
    except ExpressionError as error:
        raise PipelineError.of(f"{place}: {error.message}.", error.remedy) from error
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
    near = difflib.get_close_matches(key, sorted(keys), n=N_KEYS_NAMED)
    if near:
        return "Did you mean " + " or ".join(f"'{near_key}'" for near_key in near) + "?"
    if not keys:
        return "There are no items."
    named = [f"'{known}'" for known in sorted(keys)]
    return f"Known: {listed(named, N_KEYS_NAMED)}."


def item_label(item: Any, index: int) -> str:
    place = item.get("path") if isinstance(item, Mapping) else None
    return f"number {index + 1}" + (f" ('{place}')" if isinstance(place, str) else "")


# --- keys

EntriesOf = Callable[[list[str]], Mapping[str, Entry]]
"""Keys → a block's entries by them."""


def listed_items(
    block: BoundBlock, scope: Scope, known: EntriesOf | None
) -> tuple[list[str], Sequence[Any], frozenset[str]]:
    """Return the keys of a block's items, the items, and the keys of those that `where` excludes.

    `known`: the list may have results of filed documents.

    Raises:
        PipelineError: the list is no list, or two items have the same key.
        ExpressionError: `for_each`, `where` or `key` failed.
    """
    items, excluded = block_list(block, scope), list[Any]()
    if block.where is not None:
        items, excluded = split_by_where(block, scope, items)
    keys = item_keys(block, scope, items, known)
    return keys, items, frozenset(raw_item_keys(block, scope, excluded))


def item_keys(
    block: BoundBlock, scope: Scope, listed: Sequence[Any], known: EntriesOf | None = None
) -> list[str]:
    """Return the items' keys, in the list's order.

    Items without a name of their own go by their content, and equal ones are numbered: a row that
    changes makes no other one stale.

    Raises:
        PipelineError: two items have the same one.
        ExpressionError: the block's `key` failed.
    """
    if known is None:
        keys = raw_item_keys(block, scope, listed)
    else:
        keys = _keys_by_content(block, item_names(block, scope, listed), listed, known)
    if len(set(keys)) == len(keys):
        return keys
    key = next(key for key, count in Counter(keys).items() if count > 1)
    first, second = [index for index, other in enumerate(keys) if other == key][:2]
    both = f"{item_label(listed[first], first)} and {item_label(listed[second], second)}."
    what = f"two items of block '{block.id}' have the same key '{key}': {both}"
    remedy = "Give the block a `key` that differs, such as `key: doc.path`."
    if block.key is not None:
        what = f"`key: {block.key.source}` gives two items of block '{block.id}' the same key "
        what += f"'{key}': {both}"
        remedy = "Write one that differs, or leave it out: items that are equal are then numbered."
    elif listed[first] == listed[second]:
        remedy = "They are equal: leave one out, with `| unique` behind the list."
    raise PipelineError.of(what, remedy, block.mark)


def _keys_by_content(
    block: BoundBlock, keys: list[str], listed: Sequence[Any], known: EntriesOf
) -> list[str]:
    """Number those of one name: other content came under the name of a filed document.

    A content keeps the key that its entry has; the others get what is free, in their order.
    """
    same_name: dict[str, list[int]] = {}
    for index, name in enumerate(keys):
        same_name.setdefault(name, []).append(index)
    same_name = {name: group for name, group in same_name.items() if len(group) > 1}
    numbers = {n: [n, *(f"{n}#{i}" for i in range(2, len(same_name[n]) + 1))] for n in same_name}
    entries = dict(known([key for keys in numbers.values() for key in keys])) if numbers else {}
    for name, of_name in numbers.items():  # those of before that the list lacks have numbers too
        while found := known([f"{name}#{i + 1}" for i in range(len(of_name), 2 * len(of_name))]):
            entries |= found
            of_name += [f"{name}#{i + 1}" for i in range(len(of_name), 2 * len(of_name))]
    attributes = block.reads.item_attributes
    for name, group in same_name.items():
        free, waiting = list[str](), dict[str | None, list[int]]()
        for index in group:
            content = ordered_digest(item_content(listed[index], attributes))
            waiting.setdefault(content, []).append(index)
        for key in numbers[name]:
            then = json.loads(entries[key].parts).get(CONTENT.name) if key in entries else None
            if same := waiting.get(then):
                keys[same.pop(0)] = key
            else:
                free.append(key)
        for index in sorted(index for others in waiting.values() for index in others):
            keys[index] = free.pop(0)
    return keys


def raw_item_keys(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    names = item_names(block, scope, listed)
    if block.key is None and len(set(names)) < len(names):
        seen: Counter[str] = Counter()
        for index, name in enumerate(names):  # what equals an earlier one is numbered
            seen[name] += 1
            if seen[name] > 1 and file_path_of(listed[index]) is None:
                names[index] = f"{name}#{seen[name]}"
    return names


def item_names(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys without the numbers of those that share one."""
    if block.key is None:
        return [default_key(item) for item in listed]
    return [str(block.key.evaluate(scope.child(block.var, item))) for item in listed]


def default_key(item: Any) -> str:
    return file_path_of(item) or part_digest(item)


# --- items that are files


def document_readers(block: BoundBlock) -> set[str]:
    """Return the steps that take the path of a block's item, and neither move it nor ask."""
    return {
        step.id
        for step in steps_of(block.body)
        if (block.var, "path") in step.reads.all
        if step.review is None and not step.takes_document
    }


_MAPPINGS = (dict, Mapping)  # most are the first, which is seen ten times as fast


def is_file_value(value: Any) -> bool:
    """Return whether a value describes a file by its content, as `files.scan` does."""
    return isinstance(value, _MAPPINGS) and isinstance(value.get("sha256"), str)


def file_path_of(item: Any) -> str | None:
    if isinstance(item, _MAPPINGS):
        for name in ("relpath", "path"):
            if isinstance(item.get(name), str) and item[name]:
                return str(item[name])
    return None


def item_path(item: Any) -> str | None:
    path = item.get("path") if isinstance(item, _MAPPINGS) else None
    return path if isinstance(path, str) else None


@cache
def _names_of_file(attributes: frozenset[str]) -> Sequence[str]:
    return sorted((attributes - _VOLATILE) | {"sha256"})


def item_content(item: Any, attributes: frozenset[str] | None) -> Any:
    """Return the part of an item that decides the result.

    Of a file neither path, size nor time: where these are read, they are parts of their own.
    `attributes` are those that the block reads; None: the whole item.
    """
    if not is_file_value(item):
        if attributes is None or not isinstance(item, Mapping):
            return item
        return {name: item.get(name) for name in sorted(attributes)}
    if attributes is None:
        return {name: item[name] for name in sorted(item) if name not in _VOLATILE}
    return {name: item.get(name) for name in _names_of_file(attributes)}


def shown_of_file(var: str, shown: Collection[Reference]) -> list[str]:
    """Return which of a file's path and time show in the result.

    `shown` is what is read but for paths of files whose content alone is taken.
    """
    read = {path[1:2] for path in shown if path[0] == var}
    return [name for name in (PATH.name, TIME.name) if not read.isdisjoint(((), (name,)))]


def kind_suffix(item: Any, key: str, attributes: frozenset[str] | None) -> str | None:
    """Return the ending of a file's name, by which it is read; None: its key has it, if any."""
    if attributes is not None and "path" not in attributes:
        return None
    suffix = str(item.get("suffix") or "")
    return None if suffix and key.endswith(suffix) else suffix
