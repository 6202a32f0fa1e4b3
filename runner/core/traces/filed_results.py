"""Results of filed items: lists over them, and the twin of a step's outputs that tables read.

Tables get the results of filed items with those of this run; all else gets this run's alone. So a
step that makes outputs of results makes them twice (`WithFiled`), and a block over results has a
list of its own items, and a whole one. What the whole one has besides is made of filed items.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from paddock.engine.system.records import field, record, replace
from paddock.engine.system.text import free_name, ordered_json
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.node_reads import read_by
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.ledger.entries import FILED, Entry
from paddock.runner.ledger.filed_store import FiledStore, ListOrder, list_order
from paddock.runner.ledger.ledger import Ledger

from .block_items import (
    block_list,
    item_content,
    item_keys,
    item_names,
    split_by_where,
    without_time,
)
from .block_work import FiledItems, ItemWork
from .parts import CONTENT, ordered_digest


@record(frozen=True, slots=True, kw_only=True)
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


@record(slots=True)
class FiledOfBlock:
    """What is filed of a block while it runs, and the results that tables get of it."""

    found: FiledItems
    results: dict[str, tuple[ListOrder, Any]] = field(default_factory=dict)
    """By key, the place and the result of filed items, and of items within which documents are
    filed: as before this run. Only where the block's results are read."""
    _new_results: dict[str, Any] = field(default_factory=dict)
    """By key, results of this run with what pipelines of the item had filed."""
    _without_news: set[str] = field(default_factory=set)
    """Keys of items whose pipelines had filed items alone."""

    async def record(self, ledger: Ledger, scope_id: str, run: str) -> None:
        """Record what the ledger does not have as it was found."""
        store, keys = FiledStore(ledger), [row.key for row in self.found.new]
        entries = await ledger.ask(ledger.entries, scope_id, keys) if keys else {}
        for entry in entries.values():
            if entry.gone is None:
                ledger.record(scope_id, replace(entry, gone=FILED), entry.run)
        for row in self.found.new:
            store.record(scope_id, row, run)
        for taken in self.found.taken_over:
            store.drop(*taken)

    def forget_inner_documents(self, ledger: Ledger, scope_id: str, key: str) -> None:
        """Drop the row of an item within which nothing is filed any more."""
        if key in self.found.rows_of_inner_documents:
            FiledStore(ledger).drop(scope_id, key)

    def take(self, key: str, with_filed: Any, *, did_new_work: bool) -> None:
        """Take what an item came to in this run; `with_filed`: None where nothing within it is."""
        self.drop(key)
        if with_filed is not None:
            self._new_results[key] = with_filed
        if not did_new_work:
            self._without_news.add(key)

    def read_results(self, ledger: Ledger) -> None:
        """Read the results that stand."""
        found, order = self.found, self.found.order or {}
        rows = [*found.rows.values(), *found.rows_of_inner_documents.values()]
        text = ",".join([row.returns or "null" for row in rows])
        values = json.loads(f"[{text}]")  # at once: for 100,000 half the time
        self.results = {
            row.key: (order[row.key] if order else (row.name, len(row.key), row.key), value)
            for row, value in zip(rows, values, strict=True)
            if value is not None
        }
        for row in [row for row in rows if row.returns_object is not None]:
            place = order.get(row.key) or list_order(row.name, row.key)
            self.results[row.key] = place, ledger.value(None, row.returns_object)

    def drop(self, key: str) -> None:
        """Drop what an item came to before."""
        self.results.pop(key, None)

    def _is_as_before(self, key: str) -> bool:
        """Return whether what is filed within an item stands, as it came to it before."""
        return key in self.found.rows_of_inner_documents and key in self.results

    def has_news(self, items: Iterable[ItemWork]) -> bool | None:
        """Return whether any item is new, or has something new; None: nothing is filed."""
        found = self.found
        if not (found.rows or found.rows_of_inner_documents or self._without_news):
            return None
        keys = (item.key for item in items)
        return any(not (key in self._without_news or self._is_as_before(key)) for key in keys)

    def merged(self, items: Iterable[ItemWork]) -> list[Any]:
        """Return the results of filed items and of `items`, which come in place of filed ones."""
        order, by_key = self.found.order or {}, dict(self.results)
        for item in items:
            result = self._new_results.get(item.key, item.result)
            if result is not None and not self._is_as_before(item.key):
                by_key[item.key] = order.get(item.key) or list_order(item.name, item.key), result
        return [result for _, result in sorted(by_key.values(), key=itemgetter(0))]


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
