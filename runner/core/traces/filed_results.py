"""Results of filed items: lists over them, and the twin of a step's outputs that tables read.

Tables get the results of filed items with those of this run; all else gets this run's alone. So a
step that makes outputs of results makes them twice (`WithFiled`), and a block over results has a
list of its own items, and a whole one. What the whole one has besides is made of filed items.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.system.text import free_name, ordered_json
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.node_reads import read_by
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.filed_store import ListOrder, list_order
from paddock.runner.ledger.ledger import Ledger

from .block_items import (
    block_list,
    item_content,
    item_keys,
    item_names,
    split_by_where,
    without_time,
)
from .block_work import FiledItems
from .parts import CONTENT, ordered_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockList:
    """What `for_each` and `where` of a block evaluate to."""

    names: Sequence[str]
    """Keys of the run's own items, but for the numbers of documents (`FiledDocuments.items`)."""
    items: Sequence[Any]
    """The run's own items."""
    excluded: Sequence[Any]
    """Items for which `where` does not hold."""
    of_filed: Mapping[str, Any] = field(default_factory=dict)
    """By key, the items that are made of results of filed items."""
    order: Mapping[str, ListOrder] | None = None
    """By key, the places of all these items; None: nothing that the list reads is filed."""

    @classmethod
    def of(cls, block: BoundBlock, scope: Scope, ledger: Ledger, scope_id: str) -> BlockList:
        """Evaluate a block's list.

        1. The run's own items are those of the list without filed ones. Often that is all.
        2. The whole list is that with filed ones; so are its excluded items.
        3. Where several items of it have one name, each has the number of its content.
        4. An own item has the key of the item in the whole list that equals it: of several the
           last, as it came last. What equals none was made with another result than is filed.
        5. All others are of filed items.

        Raises:
            PipelineError: the list is no list, or two items have the same key.
            ExpressionError: `for_each`, `where` or `key` failed.
        """
        items, excluded = split_by_where(block, scope, block_list(block, scope))  # 1
        read = read_by(block.over, block.where)
        whole = scope.with_filed({name for path in read for name in path[1:2]})
        if whole is None:
            return cls(names=item_keys(block, scope, items), items=items, excluded=excluded)
        every, excluded = split_by_where(block, whole, block_list(block, whole))  # 2
        keys = item_names(block, whole, every)
        same_name: dict[str, list[int]] = {}
        for index, name in enumerate(keys):
            same_name.setdefault(name, []).append(index)
        numbered = [name for name, group in same_name.items() if len(group) > 1]
        known = ledger.entries(
            scope_id, [key for name in numbered for key in _numbers(name, len(same_name[name]))]
        ) if numbered else {}  # fmt: skip
        attributes = without_time(block.reads.item_attributes)
        for name in numbered:  # 3
            group = same_name[name]
            contents = [ordered_digest(item_content(every[i], attributes)) for i in group]
            for index, key in zip(group, keys_by_content(name, contents, known), strict=True):
                keys[index] = key
            group.sort(key=lambda index: list_order(name, keys[index]))
        names: list[str] = []
        for name, item in reversed([*zip(item_names(block, scope, items), items, strict=True)]):
            group = same_name.get(name, [])  # 4
            equal = next((index for index in reversed(group) if every[index] == item), None)
            if equal is not None:
                group.remove(equal)
            names.append(free_name(name, same_name) if equal is None else keys[equal])
        rest = sorted(itertools.chain(*same_name.values()))  # 5
        return cls(
            names=names[::-1],
            items=items,
            excluded=excluded,
            of_filed={keys[index]: every[index] for index in rest},
            order={key: ("", index, "") for index, key in enumerate(keys)},
        )


def _numbers(name: str, n: int) -> list[str]:
    return [name, *(f"{name}#{number}" for number in range(2, n + 1))]


def keys_by_content(
    name: str, contents: Sequence[str], known: Mapping[str, Entry]
) -> Sequence[str]:
    """Return the keys of items of one name, by the digests of their contents.

    A content keeps the key that an entry has for it; the others get what is free, in their order.
    """
    keys, free, waiting = [""] * len(contents), list[str](), dict[str | None, list[int]]()
    for index, content in enumerate(contents):
        waiting.setdefault(content, []).append(index)
    for key in _numbers(name, len(contents)):
        content_then = json.loads(known[key].parts).get(CONTENT.name) if key in known else None
        if same := waiting.get(content_then):
            keys[same.pop(0)] = key
        else:
            free.append(key)
    unused = iter(free)
    return [key or next(unused) for key in keys]


def filed_results(ledger: Ledger, filed: FiledItems) -> dict[str, tuple[ListOrder, Any]]:
    """Return by key the place and the result of filed items that have one."""
    rows, order = [*filed.rows.values(), *filed.within.values()], filed.order or {}
    text = ",".join([row.returns or "null" for row in rows])
    values = json.loads(f"[{text}]")  # at once: for 100,000 half the time
    results = {
        row.key: (order[row.key] if order else (row.name, len(row.key), row.key), value)
        for row, value in zip(rows, values, strict=True)
        if value is not None
    }
    for row in [row for row in rows if row.returns_object is not None]:
        place = order.get(row.key) or list_order(row.name, row.key)
        results[row.key] = place, ledger.value(None, row.returns_object)
    return results


def with_filed_rows(step: BoundStep, scope: Scope) -> Mapping[str, Scope]:
    """Return the scope of each parameter of a step that sees the rows of filed items, too."""
    table = step.facts.table
    whole = scope.with_filed() if table in step.written else None
    return {} if whole is None else {table: whole}


def of_own_rows(step: BoundStep, scope: Scope, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return outputs with the run's own rows, where a step marked those of filed items, too.

    An own row gets the marks of the row that it is, or, where an expression makes new ones, of the
    last row that equals it. A row that equals none was made with another result than is filed: then
    the outputs stay as they are.
    """
    table, marks = step.facts.table, step.facts.marks
    whole = with_filed_rows(step, scope) if marks else {}
    if not whole:
        return outputs
    every, rows = _rows_of(step, whole[table]), _rows_of(step, scope)
    known = {*map(id, every)}
    identity: Callable[[Any], Any] = id if all(id(row) in known for row in rows) else ordered_json
    marked_rows: dict[Any, list[Any]] = {}
    for row, marked in zip(every, outputs[marks], strict=True):
        marked_rows.setdefault(identity(row), []).append(marked)
    equals = [marked_rows.get(identity(row), []) for row in reversed(rows)]
    own = [equal.pop() if equal else None for equal in equals][::-1]
    return outputs if None in own else WithFiled({**outputs, marks: own}, outputs)


def _rows_of(step: BoundStep, scope: Scope) -> Sequence[Any]:
    rows: Sequence[Any] = step.params.value.render(scope)[step.facts.table]
    return rows


def reads_new_items(node: BoundNode) -> frozenset[tuple[str, ...]]:
    """Return what a node reads, but for what sees filed items, too."""
    if isinstance(node, BoundBlock):  # its list has the filed ones that it has not done
        return node.reads.hashed | read_by(node.if_)
    if not node.facts.table:
        return node.reads.all
    others = (read for path, read in node.params.places().items() if path[0] != node.facts.table)
    return read_by(node.if_).union(*others)
