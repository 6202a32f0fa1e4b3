"""Filed items: their documents were moved away, by a step or by a hot folder's watch.

Filed is not deleted: entries and rows stay, and `rows` of `files.write` gets the results of filed
items with those of this run, whatever becomes of the files. All else that reads a block's results,
such as a digest, gets this run's alone, and is left as it is where nothing is new.

An item is known by its key and its content: other content under the name of a filed document is
another item, `a.pdf#2`. A document that was moved by a run which did not finish its item is an item
where it lies; so is a filed one that would come out otherwise, if it is as it was filed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from paddock.engine.system import no_links
from paddock.engine.system.text import ordered_json
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.bind.step_reads import outer_references, read_by
from paddock.runner.ledger import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.filed_store import (
    MOVED_BY_WATCH,
    FiledRow,
    FiledStore,
    ListOrder,
    list_order,
)
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import WHOLE
from paddock.steps.files.scan import file_at, modified_at

from .block_items import (
    block_list,
    is_file_value,
    item_content,
    item_names,
    raw_item_keys,
    split_by_where,
    without_time,
)
from .dependencies import MovedAway, dependencies_of
from .parts import CONTENT, ordered_digest
from .source_folders import SourceFolder


@dataclass(frozen=True, slots=True)
class FiledItems:
    """The filed items of a block that are not in its list, as a run found them."""

    rows: Mapping[str, FiledRow] = field(default_factory=dict)
    """By their keys."""
    new: tuple[FiledRow, ...] = ()
    """Those of `rows` that the ledger does not have as they are now."""
    earlier: frozenset[str] = frozenset()
    """Keys of those that would come out otherwise now, and cannot be read again."""
    away: frozenset[str] = frozenset()
    """Keys of those that are no longer where they went."""
    taken_over: tuple[tuple[str, str], ...] = ()
    """Scope and key of what blocks had filed that the pipeline no longer has."""
    n_of_results: int = 0
    """How many of `rows` were made of results of filed items, and have no document."""
    parts: Mapping[str, FiledRow] = field(default_factory=dict)
    """By key, the rows of listed items whose pipelines filed documents."""
    order: Mapping[str, ListOrder] = field(default_factory=dict)
    """By key, the order of all items in a list that has filed ones, too."""


class BlockFiling:
    """What is filed of one block, and the keys of its items by that. Blocking."""

    def __init__(
        self,
        index: OutputIndex,
        scope: str,
        roots: Sequence[SourceFolder],
        block: BoundBlock,
        seen: Scope,
        former: Collection[str] = (),
    ) -> None:
        """`roots`: the folders that the block's list is of; `seen`: what its `key` sees.

        `former`: scopes of blocks that the pipeline no longer has. What they filed of these folders
        is this block's.
        """
        self._index, self._ledger, self._scope = index, index.ledger, scope
        self._roots, self._block, self._seen = [source.root for source in roots], block, seen
        self._is_hot = any(source.is_hot for source in roots)
        self._store = FiledStore(self._ledger)
        self.rows = {row.key: row for row in self._store.of(scope)}
        self.new: dict[str, FiledRow] = {}
        """Those of `rows` that the ledger does not have as they are."""
        self.taken_over: list[tuple[str, str]] = []
        """Scope and key of what a former block had filed."""
        for other in former:
            for row in self._store.of(other):
                if self._relpath(row) is None:
                    continue
                self.taken_over.append((other, row.key))
                filed = {other.sha256 for other in self.rows.values() if other.name == row.name}
                if row.sha256 not in filed:
                    key = _free_key(row.name, self.rows)
                    row = row._replace(key=key, made_by="", outdated_by="")
                    self.rows[key] = self.new[key] = row
        self.unfinished = self._store.unfinished(scope)
        """Moves of documents by runs that did not finish their items."""
        self.moved: dict[str, tuple[FiledRow, Any]] = {}
        """Those documents, as items where they lie, after `look`."""
        self.names: dict[str, str] = {}
        """By key, the name of each listed document that goes by another key."""
        self.again: list[str] = []
        """Names of documents that came again with the content of a filed one."""

    def look(self) -> None:
        """Find the documents of `unfinished` moves."""
        for move in self.unfinished:
            row = FiledRow(move.key, move.key, move.path, move.sha256, move.target)
            # Where something lies at the old path, it may be the document, not moved yet.
            is_back = os.path.lexists(self._index.absolute(move.path))
            value = self.value(row) if is_back else self._lies_at(row)
            if value is not None:
                name = raw_item_keys(self._block, self._seen, [value])[0]
                self.moved[move.key] = row._replace(name=name, sha256=value["sha256"]), value

    def keys(
        self,
        names: Sequence[str],
        listed: Sequence[Any],
        kept: Collection[str],
        entries: Mapping[str, Entry],
    ) -> list[str]:
        """Return the keys of the listed items; file what left the list since.

        `kept` are the names of items that are there and that the list leaves out.
        """
        there = {
            name: (self._index.stored(item["path"]), item["sha256"])
            for name, item in zip(names, listed, strict=True)
            if is_file_value(item) and isinstance(item.get("path"), str)
        }
        self._file_those_that_left(there, {*names, *kept}, entries)
        self.moved = {key: pair for key, pair in self.moved.items() if key not in self.rows}
        self.names |= {key: moved.name for key, (moved, _) in self.moved.items()}
        filed: dict[str, dict[str, str]] = {}
        keys, taken = [], set(names)
        for row in (*self.rows.values(), *(row for row, _ in self.moved.values())):
            if row.name in taken and row.path:
                filed.setdefault(row.name, {})[row.sha256] = row.key
        for name in names:
            known = filed.get(name, {}) if name in there else {}
            key = known.get(there[name][1]) if known else name
            if key is None and name not in known.values():
                key = name
            elif key is None:
                key = _free_key(name, {*known.values(), *taken})
            elif known:
                self.again.append(name)
                self.moved.pop(key, None)
            if key != name:
                self.names[key] = name
            keys.append(key)
        return keys

    def _file_those_that_left(
        self,
        there: Mapping[str, tuple[str, str]],
        present: Collection[str],
        entries: Mapping[str, Entry],
    ) -> None:
        """File the items that are done and whose document is no longer the one that is listed."""
        done = {key for key, e in entries.items() if e.gone is None and e.state in WHOLE}
        moved = self._store.moves_from([there[key][0] for key in done & there.keys()])
        came_back = {path for path, _ in moved}
        gone = [
            key
            for key in done
            if key not in present or (key in there and there[key][0] in came_back)
        ]
        made = LineageStore(self._ledger).of_scope(self._scope, gone) if gone else {}
        sources = {
            key: (row.made["source"]["path"], row.made["source"]["sha256"])
            for key, row in made.items()
            if row.source is not None
        }
        rows = {key: self.rows[key] for key in sources if key in self.rows}
        known = {key: row for key, row in rows.items() if row.path}  # it came again
        sources |= {key: (row.path, row.sha256) for key, row in known.items()}
        moves = self._store.moves_from([path for path, _ in sources.values()])
        places: dict[tuple[str, str], str] = {}
        for key, (path, sha256) in sources.items():
            entry = entries[key]
            if there.get(key) == (path, sha256):
                continue
            move = moves.get((path, sha256))
            if move is None and (by_watch := moves.get((path, MOVED_BY_WATCH))) is not None:
                move = by_watch if by_watch.at >= entry.at else None
            is_away = any(dep.path == path for dep in dependencies_of(entry, MovedAway))
            is_out = is_away or key in known or (self._is_hot and key not in present)
            if move is None and not is_out:
                continue
            if move is None and is_away and not places:  # an older Paddock noted where to
                noted = self._ledger.rows(queries.MOVED_OF_SCOPE, scope=self._scope)
                places = {(k, sha): p for k, p, intended in noted for sha in json.loads(intended)}
            target = places.get((key, sha256)) if move is None else move.target
            is_deleted = move is not None and target is None
            filed = FiledRow(key, key, path, sha256, target, is_deleted)
            if key in known and move is None:
                filed = known[key]
            of_parts = rows[key] if key in rows.keys() - known.keys() else None
            filed = filed._replace(
                name=raw_item_keys(self._block, self._seen, [self.described(filed)])[0],
                returns=(of_parts or entry).returns,
                returns_object=(of_parts or entry).returns_object,
            )
            self.rows[key] = self.new[key] = filed

    def value(self, row: FiledRow) -> Any:
        """Return a filed document as an item, where it lies; None: it is not as it was filed."""
        value = self._lies_at(row)
        return value if value is not None and value["sha256"] == row.sha256 else None

    def _lies_at(self, row: FiledRow) -> Any:
        relpath = self._relpath(row)
        if row.target is None or relpath is None:
            return None
        return file_at(Path(self._index.absolute(row.target)), relpath)

    def described(self, row: FiledRow) -> Any:
        """Return a filed document as an item, as it was when it was listed."""
        relpath = self._relpath(row) or row.name
        name = PurePosixPath(relpath)
        modified = ""
        if row.target is not None and self._relpath(row) is not None:
            with contextlib.suppress(OSError):
                facts = no_links.facts_of(Path(self._index.absolute(row.target)))
                modified = modified_at(facts.st_mtime)
        return {
            "path": self._index.absolute(row.path), "relpath": relpath, "name": name.name,
            "stem": name.stem, "suffix": name.suffix, "size": 0, "modified": modified,
            "sha256": row.sha256,
        }  # fmt: skip

    def _relpath(self, row: FiledRow) -> str | None:
        path = Path(self._index.absolute(row.path))
        roots = (root for root in self._roots if path.is_relative_to(root))
        return next((path.relative_to(root).as_posix() for root in roots), None)

    def away(self) -> frozenset[str]:
        """Return the keys of filed documents that are not where they went."""
        rows: Iterable[FiledRow] = self.rows.values()
        found = {row.key for row in rows if row.is_deleted}
        last_at = {row.target: row.key for row in rows}
        if len(last_at) < len(self.rows):  # of several in one place, the last has it
            rows = sorted(rows, key=lambda row: (len(row.key), row.key))
            last_at = {row.target: row.key for row in rows}
            found |= {r.key for r in rows if r.target is not None and last_at[r.target] != r.key}
        last_at.pop(None, None)
        there = set[str | None]()
        for folder in {target.rpartition("/")[0] for target in last_at if target is not None}:
            with contextlib.suppress(OSError):
                names = os.listdir(self._index.absolute(folder))  # noqa: PTH208 - 100,000
                there.update([f"{folder}/{name}" for name in names] if folder else names)
        return frozenset(found.union([last_at[target] for target in last_at.keys() - there]))


def _free_key(name: str, taken: Collection[str]) -> str:
    numbered = (f"{name}#{n}" for n in itertools.count(2))
    return next(key for key in itertools.chain([name], numbered) if key not in taken)


@dataclass(frozen=True, slots=True)
class ListWithFiled:
    """A block's list over results, where some of those are of filed items.

    What was made of the filed ones is kept: they are the block's items only as long as they are not
    done. Items of one name keep their numbers by their content.
    """

    keys: Sequence[str]
    """Of the run's own items, in their order."""
    filed: Mapping[str, Any]
    """The others by their keys."""
    excluded: Sequence[Any]
    """What `where` leaves out."""
    order: Mapping[str, ListOrder]

    @classmethod
    def of(
        cls, block: BoundBlock, scope: Scope, listed: Sequence[Any], ledger: Ledger, scope_id: str
    ) -> ListWithFiled | None:
        """Return the list; `listed` are the run's own items. None: none in it is of filed ones."""
        references = read_by(block.over, block.where)
        whole = scope.with_filed({name for path in references for name in path[1:2]})
        if whole is None:
            return None
        every, excluded = split_by_where(block, whole, block_list(block, whole))
        names = item_names(block, whole, every)
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            groups.setdefault(name, []).append(index)
        numbered = {
            name: [name, *(f"{name}#{n}" for n in range(2, len(group) + 1))]
            for name, group in groups.items()
            if len(group) > 1
        }
        known = ledger.entries(scope_id, set().union(*numbered.values())) if numbered else {}
        keys = list(names)
        for name, free in numbered.items():
            left: dict[str, list[int]] = {}
            for index in groups[name]:
                content = item_content(every[index], without_time(block.item_attributes))
                left.setdefault(ordered_digest(content), []).append(index)
            for key in [key for key in free if key in known]:
                if same := left.get(json.loads(known[key].parts).get(CONTENT.name)):
                    keys[same.pop(0)] = key
                    free.remove(key)
            for index, key in zip(sorted(itertools.chain(*left.values())), free, strict=True):
                keys[index] = key
            groups[name].sort(key=lambda index: list_order(name, keys[index]))
        own: list[str] = []
        for name, item in reversed([*zip(item_names(block, scope, listed), listed, strict=True)]):
            group = groups.get(name, [])
            equal = next((index for index in reversed(group) if every[index] == item), None)
            if equal is not None:  # of several, the last came last
                group.remove(equal)
            own.append(_free_key(name, groups) if equal is None else keys[equal])
        rest = sorted(itertools.chain(*groups.values()))
        order = {key: ("", index, "") for index, key in enumerate(keys)}
        filed = {keys[index]: every[index] for index in rest}
        return cls(own[::-1], filed, excluded, order)


def filed_results(ledger: Ledger, filed: FiledItems) -> dict[str, tuple[ListOrder, Any]]:
    """Return by key the order and the result of filed items that have one."""
    rows = [*filed.rows.values(), *filed.parts.values()]
    text = ",".join([row.returns or "null" for row in rows])
    values = json.loads(f"[{text}]")  # at once: for 100,000 half the time
    order = filed.order
    found = {
        row.key: (order[row.key] if order else (row.name, len(row.key), row.key), value)
        for row, value in zip(rows, values, strict=True)
        if value is not None
    }
    for row in [row for row in rows if row.returns_object is not None]:
        at = order.get(row.key) or list_order(row.name, row.key)
        found[row.key] = at, ledger.value(None, row.returns_object)
    return found


def with_filed_rows(step: BoundStep, scope: Scope) -> Mapping[str, Scope]:
    """Return the scope of each parameter of a step that sees the rows of filed items, too."""
    table = step.facts.table
    whole = scope.with_filed() if table in step.written else None
    return {} if whole is None else {table: whole}


def of_own_rows(step: BoundStep, scope: Scope, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return outputs with the run's own rows, where a step marked those of filed items, too."""
    table, marks = step.facts.table, step.facts.marks
    whole = with_filed_rows(step, scope) if marks else {}
    if not whole:
        return outputs
    every, rows = _rows_of(step, whole[table]), _rows_of(step, scope)
    known = {*map(id, every)}
    is_known = all(id(row) in known for row in rows)
    name: Callable[[Any], Any] = id if is_known else ordered_json  # an expression makes new ones
    made: dict[Any, list[Any]] = {}
    for row, marked in zip(every, outputs[marks], strict=True):
        made.setdefault(name(row), []).append(marked)
    found = [made.get(name(row), []) for row in reversed(rows)]
    # A result of which a pipeline filed a part is another one with that
    own = [equal.pop() if equal else None for equal in found][
        ::-1
    ]  # of several, the last came last
    return outputs if None in own else WithFiled({**outputs, marks: own}, outputs)


def _rows_of(step: BoundStep, scope: Scope) -> Sequence[Any]:
    rows: Sequence[Any] = step.params.value.render(scope)[step.facts.table]
    return rows


def reads_new_items(node: BoundNode) -> frozenset[tuple[str, ...]]:
    """Return what a node reads, but for what sees filed items, too."""
    if isinstance(node, BoundBlock):  # its list has the filed ones that it has not done
        return outer_references(node) | read_by(node.if_)
    if not node.facts.table:
        return node.references
    others = (read for path, read in node.params.places().items() if path[0] != node.facts.table)
    return read_by(node.if_).union(*others)
