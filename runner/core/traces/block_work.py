"""A block's items: their verdicts and entries, then what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, field
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.item_states import UNCHANGED, ItemState, Phase
from paddock.runner.progress.reasons import Reason
from paddock.runner.progress.report import ItemReport

from ..failures import Cause, StepFailed
from ..run_records import FiledTotals, StepRecord
from .block_items import (
    AsStored,
    is_file_value,
    item_content,
    kind_suffix,
    loop_value,
    shown_of_file,
)
from .parts import (
    CONTENT,
    PATH,
    PLACE_IN_LIST,
    SUFFIX,
    OuterValue,
    ordered_digest,
    part_digest,
    parts_hash,
)
from .scopes import ItemKey
from .source_folders import MissingSources
from .verdicts import NEW, ItemRequest, ItemVerdict

if TYPE_CHECKING:
    from paddock.runner.ledger.filed_store import FiledRow

    from .past_items import PastItems


class ItemEnd(Struct, frozen=True):
    """How an item ended: in this run, or in one before if there is nothing to do."""

    phase: Phase
    report: ItemReport
    state: ItemState | None = None
    """Of its entry; None: nothing is recorded, and it keeps the entry that it has."""
    reason: Reason | None = None
    """Why it failed, waits or is not asked about."""
    result: Any = None
    """Once it is noted, only where the block's results are read."""
    has_result: bool = False
    n_failures: int = 0
    """Failures in a row for a transient reason."""
    stops_run: StepFailed | None = None
    """The failure with which the run ends, too."""
    is_counted: bool = True
    """Not where a table keeps its former rows: its item is as it was."""


class ItemWork(Struct, kw_only=True, eq=False):
    """One item of a block: what is known of it before, and how it ended."""

    key: str
    name: str
    """Its key, but for the number of a document where others of its name are filed."""
    value: Any
    """It as the list has it."""
    index: int = 0
    """Its place among the items of `BlockWork`."""
    verdict: ItemVerdict = NEW
    hash: str = ""
    own_parts: str = ""
    rule_parts: str = ""
    """Those that all items of the block have, behind its own: one text for 100,000 items."""
    entry: Entry | None = None
    """Of one with the same hash, without parts."""
    position: tuple[int, int] = (0, 1)
    """Its index in the block's list, and the list's length."""
    is_listed: bool = True
    """Whether the list has it, or a run did not finish it; else it is filed."""
    is_counted: bool = True
    """Whether reports count it in any case; a step that asks no model only where it is held or
    blocked."""
    filed: FiledRow | None = None
    """Of a document that a step moved away before: the item is done where that lies."""
    kept: Mapping[str, Any] | None = None
    """By step, what was read of a filed document that is gone or edited since: that stays as it is,
    and the item is done with what its question kept."""
    was_filed: FiledRow | None = None
    """As it was filed before, with a result that stands until it has another."""
    renamed_from: str | None = None
    """The key of a deleted item with the same content."""
    end: ItemEnd | None = None
    expected: Any = None
    """While planning: a placeholder for the result that a run would make."""
    begun: Sequence[StepRecord] = ()
    """Its steps in this run before it was put off."""

    @property
    def parts(self) -> str:
        """A JSON object: part of the hash → its digest."""
        return self.own_parts + self.rule_parts

    @property
    def phase(self) -> Phase:
        return Phase.TO_DO if self.end is None else self.end.phase

    @property
    def result(self) -> Any:
        return self.expected if self.end is None else self.end.result

    @property
    def reason(self) -> Reason | None:
        return None if self.end is None else self.end.reason

    @property
    def reported(self) -> ItemState | None:
        """Its state as reports and the block's `counts` have it."""
        return self.end.report.state if self.end is not None and self.end.is_counted else None

    @property
    def changed(self) -> ItemState | None:
        """Its state as the block's `changed` has it; None: it is not changed."""
        reported = self.reported
        if self.end is None or reported is None or reported in UNCHANGED:
            return None
        is_made = reported is ItemState.HELD and self.verdict.is_work
        return None if self.end.report.is_known else self.verdict.state if is_made else reported

    @property
    def has_ended(self) -> bool:
        """Whether it ended in this run, done or failed, and was not known before."""
        return self.verdict.is_work and self.end is not None

    @property
    def has_result(self) -> bool:
        return self.end is not None and self.end.has_result

    @property
    def is_tried_again(self) -> bool:
        """Whether it failed, and the next run tries it again with nothing changed."""
        return self.end is not None and self.end.state is ItemState.FAILED

    @property
    def has_failed(self) -> bool:
        """Whether it has no result by an error, under `on_error: skip` too."""
        phase = self.phase
        return phase is Phase.FAILED or (phase is Phase.SKIPPED and self.reason is not None)

    def scope_in(self, block: BoundBlock, scope: Scope) -> Scope:
        if not block.var:  # of a step outside of blocks
            return scope
        return scope.child({block.var: self.value, "loop": loop_value(*self.position)})

    @property
    def unchanged_entry(self) -> Entry | None:
        return self.entry if self.entry is not None and self.entry.hash == self.hash else None

    @property
    def n_failures(self) -> int:
        return 0 if self.unchanged_entry is None else self.unchanged_entry.n_failures

    @property
    def has_failed_before(self) -> bool:
        """Whether it was given up with the content that it has now, by whatever version."""
        is_given_up = self.entry is not None and self.entry.state == ItemState.QUARANTINED
        return is_given_up and self.has_same_content

    @property
    def has_same_content(self) -> bool:
        """Whether its entry is of the content that it has now."""
        if self.entry is None or self.entry.hash == self.hash:
            return self.entry is not None
        was, now = json.loads(self.entry.parts), json.loads(self.parts)
        return bool(was.get(CONTENT.name) == now.get(CONTENT.name))

    @property
    def values_digest(self) -> str:
        """Digest of the values that it reads from outside."""
        parts: Mapping[str, str] = json.loads(self.parts)
        return part_digest(
            {n: parts[n] for n in parts if OuterValue(n).root in ("steps", "inputs")}
        )

    def cause(self, cause: Cause) -> Cause:
        """Return the cause under which its failure is recorded.

        A file that was not readable when it was listed is not retried in each run: once it is
        readable it has a digest, and so another hash.
        """
        is_unreadable = isinstance(self.value, Mapping) and self.value.get("sha256", "") is None
        return Cause.OTHER if cause is Cause.IO and is_unreadable else cause


class JudgedRule(Struct, frozen=True, kw_only=True):
    """A block, or a step outside of blocks as one: what its items have in common."""

    block: BoundBlock
    scope_id: str
    scope: Scope
    """What its list and its steps see."""
    past: PastItems
    request: ItemRequest
    base: str = ""
    """The parts of the items' hash that all share: a JSON object."""
    rule_digest: str = ""
    renewed: list[Entry] = field(default_factory=list)

    def set_parts(self, items: Iterable[tuple[ItemWork, Any]], as_stored: AsStored) -> None:
        """Set the parts of the items' hashes; with each, it as it was when it was listed.

        The parts are JSON: for 10,000 items, so text is joined. Of what is not listed now, the
        place counts that it had then. `as_stored` gives a path as the ledger stores it.
        """
        block, attributes = self.block, self.block.reads.item_attributes
        shown, rule_parts = shown_of_file(block.var, block.reads.shown), self.base[1:]
        for item, listed in items:
            read, is_file = "", is_file_value(listed)
            if block.reads.loop_attributes:
                loop = loop_value(*(item.position if item.is_listed else (0, 1)))
                digest = part_digest({key: loop[key] for key in block.reads.loop_attributes})
                if not item.is_listed and item.entry is not None:
                    digest = json.loads(item.entry.parts).get(PLACE_IN_LIST.name, "")
                read = f'"{PLACE_IN_LIST.name}":"{digest}",'
            for name in shown if is_file else ():
                if name in listed:
                    value = as_stored(listed[name]) if name == PATH.name else listed[name]
                    read += f'"{name}":"{part_digest(value)}",'
            suffix = kind_suffix(listed, item.key, attributes) if is_file else None
            if suffix is not None and block.key is not None:
                read += f'"{SUFFIX.name}":"{part_digest(suffix)}",'
            content = ordered_digest(item_content(listed, attributes))
            item.own_parts, item.rule_parts = f'{{"{CONTENT.name}":"{content}",{read}', rule_parts
            item.hash = parts_hash(item.parts)


class FiledItems(Struct, frozen=True, kw_only=True):
    """What is filed of a block, as a run found it and decided."""

    rows: Mapping[str, FiledRow] = field(default_factory=dict)
    """By key, those of items that the list lacks. Of those that are items again: as they were."""
    earlier: Mapping[str, tuple[Reason, ...]] = field(default_factory=dict)
    """By key, why those would come out otherwise now that cannot be done again."""
    away: frozenset[str] = frozenset()
    """Keys of those that are no longer where they went."""
    new: tuple[FiledRow, ...] = ()
    """Those of `rows` that the ledger does not have as they are now."""
    former: Mapping[ItemKey, str] = field(default_factory=dict)
    """Filed items of blocks that the pipeline no longer has, and their keys in this one."""


class BlockWork(Struct, frozen=True, kw_only=True):
    """All items of a block, in the order of its list."""

    block: BoundBlock
    keys_around: tuple[str, ...]
    """Keys of the items around a nested block."""
    scope_id: str
    items: tuple[ItemWork, ...]
    missing: MissingSources = field(default_factory=MissingSources)
    excluded: frozenset[str] = frozenset()
    """Keys of items that `where` excludes."""
    filed: FiledItems = field(default_factory=FiledItems)
    rule_digest: str = ""
    """Digest of what the items have in common, by which filed ones are compared."""
    unsettled: frozenset[str] = frozenset()
    """Keys of items that later runs do: their file has not settled, or others are lacking."""
    renewed: Sequence[Entry] = ()
    """Entries that are equivalent, by the secrets of now: a run records them."""
    step: BoundStep | None = None
    """The step outside of blocks that is its one item."""

    @property
    def present(self) -> frozenset[str]:
        return self.excluded.union(self.unsettled, (item.key for item in self.items))

    @property
    def edited_paths(self) -> tuple[str, ...]:
        verdicts = (item.verdict for item in self.items if item.verdict.state is ItemState.HELD)
        return tuple(path for verdict in verdicts for path in verdict.edited_paths)

    def filed_documents(self) -> FiledTotals:
        filed, pruned, rows = self.filed, self.missing.pruned, self.filed.rows
        documents = {key: (rows[key].path, rows[key].sha256) for key in rows.keys() - pruned}
        earlier = filed.earlier.keys() - pruned
        return FiledTotals(
            {documents[key] for key in documents.keys() - {item.key for item in self.items}},
            {documents[key] for key in filed.away - pruned},
            {documents.get(key, (self.scope_id, key)) for key in earlier},
            {str(reason): None for key in filed.earlier if key in earlier
             for reason in filed.earlier[key]},
        )  # fmt: skip

    def shown_key(self, key: str) -> str:
        return "/".join((*self.keys_around, key))

    def deletion(self, key: str) -> ItemReport:
        reasons = (self.missing.absences[key],)
        return ItemReport(self.block.id, self.shown_key(key), ItemState.DELETED, reasons=reasons)
