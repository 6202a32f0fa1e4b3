"""Filed items of a block: their documents were moved away, by a step or by a hot folder's watch.

Filed is not deleted: what they came to is among the block's results, whatever becomes of the files.

An item is known by its key and its content: other content under the name of a filed document is
another item, `a.pdf#2`. The ledger has a row for each filed item. Which of them are listed, or left
the list, is found with the list (`FiledDocuments.items`); those that may be items again
(`items_to_verify`) are verified with it, and by their verdicts are so, or stay filed
(`items_and_filed`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import free_name
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.plan_walks import steps_of
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.filed_store import MOVED_BY_WATCH, FiledRow, FiledStore, MoveRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.progress.item_states import BAD, WHOLE, ItemState
from paddock.runner.progress.reasons import Reason, Why

from ..run_records import read_lineage
from .block_items import document_readers, item_path, raw_item_keys
from .block_work import FiledItems, ItemWork, JudgedRule
from .dependencies import FileRead, MovedAway, dependencies_of
from .document_places import Document, DocumentPlaces, document_at
from .node_parts import read_by_all
from .parts import change_reasons, changed_parts
from .past_decisions import PendingReview
from .scopes import ItemKey
from .source_folders import SourceFolder
from .verdicts import FRESH, Case, ItemVerdict
from .world import PreparedWorld


class BlockListing(Struct, frozen=True, kw_only=True):
    """How the items of a block were listed, which tells whether one that is missing is filed."""

    block: BoundBlock
    scope: Scope
    scope_id: str
    sources: Sequence[SourceFolder]
    """The folders in which they are listed."""
    is_of_results: bool
    """Whether the list has results of other blocks, whose documents may leave."""
    may_lack: Callable[[str, Collection[str]], bool]
    """Returns whether an item, by its key, may be of what the list lacks, by the keys it has."""
    undone: Collection[Document]
    """Documents of the blocks before it of which a person took back what they came to."""

    def may_have_filed(self, ledger: Ledger) -> bool:
        """Return whether documents may be filed: some were, or any file was moved. Blocks."""
        if self.is_of_results or any(source.is_hot for source in self.sources):
            return True
        return bool(ledger.rows(queries.MAY_HAVE_FILED, scope=self.scope_id))


class FiledDocuments:
    """Which items of one block are filed, and which of these are items again?"""

    def __init__(
        self, index: OutputIndex, listing: BlockListing, former: Collection[str] = ()
    ) -> None:
        """Read the ledger's rows.

        `former`: scopes of blocks that the pipeline no longer has. What they filed of these folders
        is this block's.
        """
        self._index, self._ledger, self._listing = index, index.ledger, listing
        self._block, self._scope_id = listing.block, listing.scope_id
        self.places = DocumentPlaces(index, [source.root for source in listing.sources])
        self._store = FiledStore(self._ledger)
        self._recorded = {row.key: row for row in self._store.of(self._scope_id)}
        self.former = dict[ItemKey, str]()
        self.rows = dict(self._recorded)
        """By their keys, as they are now; `FiledItems.new` has those that the ledger lacks so."""
        by_content = {(row.name, row.sha256): k for k, row in self.rows.items()} if former else {}
        for former_scope in former:
            for row in self._store.of(former_scope):
                if self.places.relpath(row) is None:
                    continue
                if (row.name, row.sha256) not in by_content:
                    by_content[row.name, row.sha256] = key = free_name(row.name, self.rows)
                    self.rows[key] = row._replace(key=key, made_by="", outdated_by="")
                self.former[former_scope, row.key] = by_content[row.name, row.sha256]

    # --- which are listed, and which left the list

    def _unfinished(self) -> dict[str, ItemWork]:
        """Return by key the items whose documents a run moved, and that it did not finish."""
        unfinished = dict[str, ItemWork]()
        for move in self._store.unfinished(self._scope_id):
            row = FiledRow(move.key, move.key, move.path, move.sha256, move.target)
            document = None if move.key in self.rows else self.places.find(row)
            # Where something lies at the old path, it may be the document, not moved yet.
            is_back = os.path.lexists(self._index.absolute(move.path))
            if document is not None and not (is_back and document["sha256"] != row.sha256):
                name = raw_item_keys(self._block, self._listing.scope, [document])[0]
                row = row._replace(name=name, sha256=document["sha256"])
                item = ItemWork(key=row.key, name=name, value=document, filed=row)
                unfinished[row.key] = item
        return unfinished

    def items(
        self,
        names: Sequence[str],
        values: Sequence[Any],
        excluded: Collection[str],
        entries: Mapping[str, Entry],
    ) -> list[ItemWork]:
        """Return the listed items, then those of unfinished moves.

        Blocking. `excluded`: keys of items for which `where` does not hold.

        1. The items that left the list since are filed. What is filed is no unfinished move.
        2. A listed document that has the name and the content of a filed one is that item again.
        3. Any other item has its name as its key, with a number where a filed document has that.
        """
        found = ((n, document_at(v, self._index)) for n, v in zip(names, values, strict=True))
        documents = {name: document for name, document in found if document is not None}
        self._file_those_that_left(documents, {*names, *excluded}, entries)  # 1
        unfinished = self._unfinished()
        by_content: dict[str, dict[str, str]] = {}
        """By name, the keys of filed documents by their digests."""
        taken = set(names)
        for row in (*self.rows.values(), *(i.filed for i in unfinished.values() if i.filed)):
            if row.name in taken:
                by_content.setdefault(row.name, {})[row.sha256] = row.key
        items = list[ItemWork]()
        for name, item in zip(names, values, strict=True):
            key, same_name = name, by_content.get(name, {}) if name in documents else {}
            if same_name and documents[name][1] in same_name:  # 2
                key = same_name[documents[name][1]]
                unfinished.pop(key, None)
            elif name in same_name.values():  # 3
                key = free_name(name, {*same_name.values(), *taken})
            items.append(ItemWork(key=key, name=name, value=item, was_filed=self.rows.get(key)))
        return [*items, *unfinished.values()]

    def leave_out_unlisted(self, keys: Collection[str]) -> None:
        """Leave out the rows of documents whose results the list has no more; `keys`: its items."""
        rows, may_lack = self.rows, self._listing.may_lack
        self.rows = {key: rows[key] for key in rows if key in keys or may_lack(key, keys)}

    def _file_those_that_left(
        self, listed: Mapping[str, Document], present: Collection[str], entries: Mapping[str, Entry]
    ) -> None:
        """File the items that are done and whose document is no longer the one that is listed.

        1. An item may have left if the list lacks it, or has its document at a path from which a
           file was moved away.
        2. Its document then is in its lineage, or in its row if it was filed and came again.
        3. If that is listed as it was, the item did not leave.
        4. A step moved the document away, or a watch did after the item was done: it is filed where
           it went, or as deleted.
        5. It was filed before, and came again: it is filed as it was.
        6. The list of a hot folder lacks it: it is filed, and no one knows where.
        """
        is_hot = any(source.is_hot for source in self._listing.sources)
        done = [k for k, entry in entries.items() if entry.gone is None and entry.state in WHOLE]
        moves = self.places.moves_from([listed[key][0] for key in done if key in listed])
        vacated = {path for path, _ in moves}
        left = [  # 1
            key
            for key in done
            if (listed[key][0] in vacated if key in listed else key not in present)
        ]
        lineage = LineageStore(self._ledger).of_scope(self._scope_id, left) if left else {}
        documents = dict[str, Document]()
        for key, lineage_row in lineage.items():  # 2
            row, source = self.rows.get(key), read_lineage(lineage_row).source
            if source is not None:
                known = source if row is None else row
                documents[key] = known.path, known.sha256
        moves = self.places.moves_from([path for path, _ in documents.values()])
        for key, document in documents.items():
            if listed.get(key) == document:  # 3
                continue
            was, entry, (path, sha256) = self.rows.get(key), entries[key], document
            move, by_watch = moves.get(document), moves.get((path, MOVED_BY_WATCH))
            if move is None and by_watch is not None and by_watch.at >= entry.at:
                move = by_watch
            if move is not None:  # 4
                row = FiledRow(key, key, path, sha256, move.target)
            elif was is not None:  # 5
                row = was
            elif is_hot and key not in present:  # 6
                row = FiledRow(key, key, path, sha256)
            else:
                continue
            name = key if was is None else was.name
            if not self._listing.is_of_results:  # its list has documents
                value = self.places.as_listed(row, lineage[key])
                name = raw_item_keys(self._block, self._listing.scope, [value])[0]
            row = row._replace(returns=entry.returns, returns_object=entry.returns_object)
            self.rows[key] = row._replace(name=name)

    def _as_filed(self, row: FiledRow) -> Any:
        """Return the document of a row where it lies; None: it is gone, or edited."""
        for _ in range(2):
            at = self.places.find(row)
            if at is not None and at["sha256"] == row.sha256:
                return at
            self._follow([row])
            row = self.rows[row.key]
        return None

    def _without_document(self, item: ItemWork, pending: PendingReview | None) -> ItemWork | None:
        """Return an item whose document is gone or edited as it waits, or is done even so.

        It is done with what its steps read of the document; None: its questions lack that.
        """
        if pending is not None and pending.is_open:
            waiting = ItemVerdict(ItemState.WAITING, (pending.why,), Case.WAITS)
            return replace(item, verdict=waiting)
        store, kept = ReviewStore(self._ledger), dict[str, Any]()
        for step in steps_of(self._block.body):
            review = step.review and store.at(self._scope_id, item.key, step.id)
            for name, digest in (review.subject.read if review else {}).items():
                if (text := self._ledger.objects.get(digest)) is not None:
                    kept[name] = json.loads(text)
        return replace(item, kept=kept) if kept.keys() >= document_readers(self._block) else None

    def _away(self) -> set[str]:
        rows: Iterable[FiledRow] = self.rows.values()
        away = {row.key for row in rows if row.target == ""}
        last_at = {row.target: row.key for row in rows}
        if len(last_at) < len(self.rows):  # of several in one place, the last has it
            rows = sorted(rows, key=lambda row: (len(row.key), row.key))  # as they came
            last_at = {row.target: row.key for row in rows}
            away |= {r.key for r in rows if r.target and last_at[r.target] != r.key}
        missing = self.places.missing(filter(None, last_at))
        left = [last_at[target] for target in missing]
        self._follow(self.rows[key] for key in left)
        return away.union(key for key in left if not self.places.is_there(self.rows[key]))

    def _follow(self, rows: Iterable[FiledRow]) -> None:
        """Note where documents lie that an item of another block has moved on."""
        self.rows.update((row.key, row) for row in self.places.followed(rows))

    # --- which are items again

    def items_to_verify(
        self, rule: JudgedRule, items: Iterable[ItemWork], decided: Collection[str]
    ) -> list[ItemWork]:
        """Return filed documents that may be items again; those that are `NEW` are to be verified.

        `decided`: keys of items on which a person has decided. A document is doubtful if the rule
        is another one than when it was done, a person has decided, it is not whole, or the run is
        forced. If this very rule came to another result before, it would again, and what it
        depended on is not looked at.
        """
        present, request, made_by = {item.key for item in items}, rule.request, rule.rule_digest
        rows = [
            row
            for row in self.rows.values()
            if row.key not in present and request.asks_for(row.key)
            if request.is_forced
            or row.made_by != made_by
            or row.key in decided
            or row.state not in WHOLE
        ]
        entries = self._ledger.entries(self._scope_id, [row.key for row in rows]) if rows else {}
        gone = [row.key for row in rows if not self.places.is_there(row)]
        lineage = LineageStore(self._ledger).of_scope(self._scope_id, gone)
        doubtful = list[ItemWork]()
        for row in rows:
            document, entry = self.places.as_listed(row, lineage.get(row.key)), entries.get(row.key)
            item = ItemWork(key=row.key, name=row.name, value=document, entry=entry, filed=row)
            item.was_filed, item.is_listed = row, False
            rule.set_parts([(item, document)], self._index.stored)
            is_known = row.outdated_by == made_by and (entry is None or entry.state in WHOLE)
            if is_known and not request.is_forced and row.key not in decided:
                why: Sequence[Reason] = ()
                if entry is not None:
                    before, now = json.loads(entry.parts), json.loads(item.parts)
                    why = change_reasons(changed_parts(before, now), before, now)
                item.verdict = ItemVerdict(ItemState.STALE, tuple(why), Case.PARTS)
            doubtful.append(item)
        return doubtful

    def items_and_filed(
        self,
        rule: JudgedRule,
        world: PreparedWorld,
        listed: Iterable[ItemWork],
        doubtful: Sequence[ItemWork],
        filed_within: Collection[str],
    ) -> tuple[list[ItemWork], FiledItems]:
        """Return the items of the run, with filed ones that are so again, and what is filed.

        `filed_within`: keys of items within which documents are filed; blocks there tell which are
        away.

        1. Of a list of results, items have work to do whose source left: those that are done where
           it lies now are so there, and of the others the result stands (`_without_source`).
        2. A doubtful document is an item again if it has work to do and lies as it was filed.
        3. One that a person decided on, or took that back, or that failed or was rejected, is so
           wherever it lies, as far as its questions keep what was read of it; else the latter stay
           as they were.
        4. Else it stays filed, and its row notes the rule by which it is equivalent, or outdated.

        Blocking.
        """
        items, made_by = [*listed], rule.rule_digest
        earlier = dict[str, tuple[Reason, ...]]()
        if self._listing.is_of_results:  # 1
            candidates = {
                item.key: item
                for item in items
                if item.verdict.is_work and item.filed is None
                if item_path(item.value) is not None or item.key not in filed_within
            }
            changed = self._without_source(rule, world, candidates.values())
            items = [changed.get(item.key, item) for item in items]
            for key, item in changed.items():
                if item.verdict is FRESH and item.unchanged_entry is None:  # the rule would make
                    earlier[key] = candidates[key].verdict.reasons  # another result
        present = {item.key for item in items}
        with_work = [self.rows[i.key] for i in doubtful if not i.verdict.is_up_to_date]
        documents = {row.key: at for row in with_work if (at := self._as_filed(row))}
        away = self._away()
        noted = {key: row for key, row in self.rows.items() if key not in present}
        for item in doubtful:
            row, reasons = self.rows[item.key], item.verdict.reasons
            pending = world.pending(self._scope_id, item.key)
            is_same = item.verdict.is_up_to_date or Why.OUTPUT_REPLACED in {r.why for r in reasons}
            again = None if is_same else self._again(item, documents.get(row.key), pending)
            is_other_rule = row.made_by != made_by
            if again is not None:  # 2, 3
                items.append(again)
            elif is_same and is_other_rule:  # 4
                noted[row.key] = row._replace(made_by=made_by, outdated_by="")
            elif not is_same and (is_other_rule or pending is not None):  # 4
                earlier[row.key] = reasons
                if is_other_rule:
                    noted[row.key] = row._replace(outdated_by=made_by)
        undone = self._listing.undone
        taken_back = {
            key: row._replace(returns=None, returns_object=None)
            for key, row in (noted.items() if undone else ())
            if (row.path, row.sha256) in undone
        }
        return items, FiledItems(
            rows=noted | taken_back,
            earlier=earlier,
            away=frozenset(away.difference(item.key for item in items)),
            new=tuple(row for key, row in noted.items() if self._recorded.get(key) != row),
            former=self.former,
        )

    def _again(
        self, item: ItemWork, document: Any, pending: PendingReview | None
    ) -> ItemWork | None:
        """Return a filed item that has work to do, or waits; None: it stays filed.

        `document`: it where it was filed; None: it is not there as it was.
        """
        row = self.rows[item.key]
        if document is not None and item.verdict.case is not Case.NOT_REQUESTED:
            return replace(item, value=document, filed=row)
        is_bad, entry = row.state in BAD, item.entry
        again = self._without_document(item, pending) if pending or is_bad else None
        if again is None and is_bad:
            again = item
            if item.verdict.is_work and entry is not None:
                why = (Why.RECORDED(entry.error or ""),)
                again = replace(
                    item, verdict=ItemVerdict(ItemState.QUARANTINED, why, Case.GIVEN_UP)
                )
        if again is None:
            return None
        made = LineageStore(self._ledger).of_item(self._scope_id, row.key)
        return replace(again, value=self.places.as_listed(row, made))

    def _without_source(
        self, rule: JudgedRule, world: PreparedWorld, work: Collection[ItemWork]
    ) -> dict[str, ItemWork]:
        """Return by key, of items with work to do, those whose source left, as they are then.

        1. Those whose document lies elsewhere as it was listed, or that moved it to where it is
           listed now: they are done there. If it is gone, and what was made of it before is another
           value by now, they are done with what was kept.
        2. Else, or where another file that one read or itself moved is away: its result stands, and
           it is fresh.
        """
        index = self._index
        by_all = {index.stored(index.absolute(path)) for path in read_by_all(rule.block)}
        lost = dict[str, set[str]]()
        for item in work:
            read = (d for d in dependencies_of(item.entry, FileRead) if d.path not in by_all)
            lost[item.key] = {dep.path for dep in read if dep in world.seen.reasons}
            own = item_path(item.value)
            if own is not None and not os.path.lexists(own):
                lost[item.key].add(index.stored(own))
        listed = {item.key: document_at(item.value, index) for item in work}
        away = {i.key: [d.path for d in dependencies_of(i.entry, MovedAway)] for i in work}
        paths = {*chain(*lost.values(), *away.values())}
        paths |= {at for at, _ in filter(None, listed.values())}
        moves = self.places.moves_from(paths)
        vacated, changed = {path for path, _ in moves}, dict[str, ItemWork]()
        for item in work:
            document = listed[item.key]
            found = row = None
            is_there = document is not None and _is_at(item.value, world)
            if document is not None and is_there:  # 1
                path, sha256 = document
                of_own = (moves.get((was, sha256)) for was in away[item.key])
                if move := next((m for m in of_own if m and m.target == path), None):
                    filed = FiledRow(item.key, item.name, move.path, sha256, path)
                    found = replace(item, filed=filed)
            elif document is not None:
                row = self._row_of_left(item, document, moves)
                found = None if row is None else self._elsewhere(item, row, world)
            has_left = row is not None or (bool(away[item.key]) and not is_there)
            has_left |= not vacated.isdisjoint(lost[item.key])
            if found is None and has_left and item.entry and item.entry.state in WHOLE:  # 2
                found = replace(item, verdict=FRESH)
            if found is not None:
                changed[item.key] = found
        return changed

    def _row_of_left(
        self, item: ItemWork, document: Document, moves: Mapping[Document, MoveRow]
    ) -> FiledRow | None:
        """Return where a document went that is no longer as it was listed; None: no one knows."""
        move = moves.get(document) or moves.get((document[0], MOVED_BY_WATCH))
        if move is not None:
            return FiledRow(item.key, item.name, *document, move.target)
        row = item.was_filed
        if row is not None and document[0] in (row.path, row.target):
            self._follow([row])  # a killed run may have moved it on, or only noted that
            row = self.rows[row.key]
        return row if row is not None and row.sha256 == document[1] else None

    def _elsewhere(self, item: ItemWork, row: FiledRow, world: PreparedWorld) -> ItemWork | None:
        """Return an item as it is done where its document lies, or without it; None: it is not."""
        item = replace(item, filed=row)
        at = self.places.find(row, item.value.get("relpath") or item.name)
        if at is not None and at["sha256"] == row.sha256:
            return replace(item, value={**item.value, "path": at["path"]})
        pending = world.pending(self._scope_id, item.key)
        is_other = pending or not item.entry or Why.CONTENT() in item.verdict.reasons
        return self._without_document(item, pending) if is_other else None


def _is_at(value: Any, world: PreparedWorld) -> bool:
    with contextlib.suppress(OSError):
        return bool(world.digest(value["path"]) == value["sha256"])
    return False
