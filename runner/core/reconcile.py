"""What became of items that a block's list no longer has: deleted, renamed, or not to be told.

An unmounted share leaves a folder behind that is empty or holds what a program wrote there since,
so files do not count as deleted below a mount point with nothing mounted, in a folder that cannot
be listed, or when the folder is another one. Where outputs would be removed and most documents went
at once, a person is asked first. A renamed document costs no calls, unless its name is part of a
prompt; what was made under the old name goes when the new one is done. No file is read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from paddock.engine.system.text import counted
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep
from paddock.runner.bind.document_folders import PROCESSING, BoundWatch
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.folder_identity import FolderIdentity, folder_identity_at, known_folder
from paddock.runner.folders.missing_files import is_mass_deletion, is_other_folder
from paddock.runner.ledger.entries import Entry, LineageRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.base import OutsideRoots
from paddock.steps.paths import nearest_existing

from .block_items import is_file_value
from .run_options import RunOptions
from .run_records import RENAMED

if TYPE_CHECKING:
    from .block_work import BlockWork
    from .dependencies import World
    from .past_items import PastItems


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A folder that a block's items were listed in."""

    root: Path
    stored: str
    """The folder, as stored in the ledger."""
    watch: BoundWatch | None
    """The watch on this folder."""
    now: FolderIdentity | None
    """Identity of the folder now; None: not readable."""
    before: FolderIdentity | None
    """Identity of the folder when items were last seen in it."""

    @property
    def is_hot(self) -> bool:
        """Whether documents leave the folder when they are done."""
        return self.watch is not None and self.root == self.watch.root / PROCESSING

    @property
    def prunes(self) -> bool:
        """Whether its watch removes outputs of deleted documents."""
        return self.watch is not None and self.watch.keys.deletes.prune

    @property
    def most(self) -> float:
        """The share of its documents that may disappear at once without a question."""
        if self.watch is not None:
            return self.watch.keys.deletes.most
        return MOST_DELETED

    def cannot_list(self, key: str) -> bool:
        """Return whether an item's file lay in a folder that cannot be listed now."""
        folder = nearest_existing((self.root / key).parent)
        return not os.access(folder, os.R_OK | os.X_OK)

    def unmounted(self, key: str) -> str | None:
        """Return the mount point above an item's file that has lost its mount, if one has."""
        if self.now is None or self.before is None:
            return None
        return next((at for at in self.before.lost(self.now) if key.startswith(f"{at}/")), None)


@dataclass(frozen=True, slots=True)
class DeletionDoubt:
    """Why missing documents do not count as deleted until a person confirms it."""

    folder: str
    """The folder as the ledger writes paths."""
    reason: Reason


@dataclass(frozen=True, slots=True)
class MissingSources:
    """Items that a block's list no longer has."""

    deleted: tuple[Entry, ...] = ()
    dropped: tuple[Entry, ...] = ()
    """Entries from before `where` left them out."""
    pruned: frozenset[str] = frozenset()
    """Keys of filed items of which nothing is to be kept, since their documents are away."""
    absences: Mapping[str, Reason] = field(default_factory=dict)
    """Key of each of these → why the list has it no more."""
    doubts: tuple[DeletionDoubt, ...] = ()
    sources: tuple[SourceFolder, ...] = ()
    seen: Mapping[str, FolderIdentity] = field(default_factory=dict)
    """Identity of each folder in which items were seen, by stored path."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Key of a new item → key of the deleted one with the same content."""


def reconcile(
    work: BlockWork,
    before: Sequence[Entry],
    made: Mapping[str, LineageRow],
    past: PastItems,
    options: RunOptions,
    world: World,
) -> MissingSources:
    """Decide what became of items that are absent from a block's list. Blocking.

    `before`: those that were there before this job, but for filed ones; `made`: how they were made.

    1. `where` leaves it out: it is dropped.
    2. Documents leave a hot folder when they are done: none is deleted.
    3. A folder that cannot be listed keeps its own.
    4. The folder is another one than before: none is deleted until a person confirms it.
    5. What was seen on a mount that is not there now stays until then, too.
    6. A new document has the content of a deleted one: that was renamed.
    7. Most are gone at once, and their outputs would be removed: only those that were renamed count
       as deleted until a person confirms it.
    8. All others are deleted.
    9. A filed document is away: it is pruned where that is asked, with a question as for 7.
    """
    folders, filed, items = work.missing.sources, work.filed, work.items
    present = work.left_out.union(work.unsettled, (item.key for item in items))
    dropped = tuple(entry for entry in before if entry.key in work.left_out)  # 1
    absent = [entry for entry in before if entry.key not in present]
    deleted = [e for e in absent if not any(folder.cannot_list(e.key) for folder in folders)]  # 3
    seen = {folder.stored: folder.now for folder in folders if folder.now is not None}
    doubts, n_absent = list[DeletionDoubt](), len(absent)
    unconfirmed = () if options.is_confirmed else folders
    if any(folder.is_hot for folder in folders):  # 2
        deleted, seen, unconfirmed = [], {}, ()
    for folder in unconfirmed:  # 4
        n_there = len(before) - n_absent
        if folder.now is None or is_other_folder(folder.before, folder.now, n_absent, n_there):
            seen_there = counted(n_absent, "missing document was", "missing documents were")
            doubts = [DeletionDoubt(folder.stored, Why.OTHER_FOLDER(folder.stored, seen_there))]
            deleted, seen, unconfirmed = [], {}, ()
            break
    for folder in unconfirmed:  # 5
        hidden = {entry.key: folder.unmounted(entry.key) for entry in deleted}
        lost = {at for at in hidden.values() if at is not None}
        deleted = [entry for entry in deleted if hidden[entry.key] is None]
        kept = {at: folder.before.mounts[at] for at in lost} if folder.before else {}
        now = seen[folder.stored]
        seen[folder.stored] = replace(now, mounts={**now.mounts, **kept})
        for at in sorted(lost):
            place = f"{folder.stored}/{at}"
            doubts.append(DeletionDoubt(place, Why.NOT_MOUNTED(place)))
    files = (item for item in items if item.verdict.state is ItemState.NEW)
    new = {item.key: item.item["sha256"] for item in files if is_file_value(item.item)}
    renamed = renamed_items({entry.key for entry in deleted}, new, made)  # 6
    names = {*renamed.values()}
    n_deleted = len(deleted) - sum(entry.key in names for entry in deleted)
    n_known = sum(entry.gone is None for entry in before)
    mass = mass_doubt(folders, n_deleted, n_known, options) if deleted else None
    if mass is not None:  # 7
        deleted = [entry for entry in deleted if entry.key in names]
        doubts.append(mass)
    n_away, n_filed = len(filed.away), len(filed.rows) + len(items)
    pruned = (
        filed.away if options.prune or any(folder.prunes for folder in folders) else frozenset()
    )
    if pruned and not options.is_confirmed and is_mass_deletion(n_away, n_filed, MOST_DELETED):  # 9
        why = Why.FILED_ARE_GONE(n_away, n_filed, work.block.id)
        pruned, doubts = frozenset(), [*doubts, DeletionDoubt(work.block.id, why)]
    absences = dict.fromkeys((entry.key for entry in dropped), Why.WHERE())
    new_names = {old: key for key, old in renamed.items()}
    for key in (entry.key for entry in deleted):
        source, is_now = made[key].source if key in made else None, new_names.get(key)
        if past.changes(key).has_other_key:
            absences[key] = Why.KEY() if is_now is None else Why.KEY_TO(is_now)
        elif is_now is not None:
            absences[key] = Why.RENAMED_TO(is_now)
        else:
            is_gone = source and not os.path.lexists(world.index.absolute(source))
            absences[key] = Why.SOURCE_GONE() if is_gone else Why.UNLISTED()
    absences |= dict.fromkeys(sorted(pruned), Why.FILED_AND_GONE())
    gone = tuple(deleted), dropped, pruned, absences  # 8
    return MissingSources(*gone, tuple(doubts), folders, seen, renamed)


def mass_doubt(
    folders: Iterable[SourceFolder], n_deleted: int, n_known: int, options: RunOptions
) -> DeletionDoubt | None:
    """Return why `n_deleted` of `n_known` documents do not count as deleted."""
    for folder in () if options.is_confirmed else folders:
        is_most = is_mass_deletion(n_deleted, n_known, folder.most)
        if is_most and (options.prune or folder.prunes):
            option = "--prune --yes" if options.prune else "--yes"
            why = Why.MOST_ARE_GONE(n_deleted, n_known, folder.stored, option)
            return DeletionDoubt(folder.stored, why)
    return None


def renamed_items(
    deleted: Collection[str], new: Mapping[str, str], made: Mapping[str, LineageRow]
) -> dict[str, str]:
    """Return new key → old key of a block's items."""
    contents = {key: row.made["source"]["sha256"] for key, row in made.items() if row.source}
    gone = {key: contents[key] for key in deleted if key in contents}
    # From a run that was killed before it removed the outputs of the old name.
    before = {key: str(row.made.get(RENAMED)) for key, row in made.items()}
    before = {key: old for key, old in before.items() if gone.get(old) == contents.get(key, "")}
    return before | match_renames(gone, new)


def match_renames(gone: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return new key → old key, by content digest; each key is used once.

    Among several with the same content, files with the same name are matched first.

    >>> match_renames({"a.md": "1", "x/b.md": "2"}, {"c.md": "1", "y/b.md": "2", "d.md": "3"})
    {'c.md': 'a.md', 'y/b.md': 'x/b.md'}
    """
    by_content: dict[str, list[str]] = {}
    for key, sha256 in sorted(gone.items()):
        by_content.setdefault(sha256, []).append(key)
    found: dict[str, str] = {}
    for same_name in (True, False):
        for key, sha256 in sorted(new.items()):
            olds = by_content.get(sha256, [])
            name = PurePosixPath(key).name
            named = (old for old in olds if not same_name or PurePosixPath(old).name == name)
            old = next(named, None)
            if key not in found and old is not None:
                found[key] = old
                olds.remove(old)
    return dict(sorted(found.items()))


# --- the folders of a block


def source_folders(
    bound: BoundPlan, index: OutputIndex, block: BoundBlock, scope: Scope, owner: str
) -> Iterator[SourceFolder]:
    """Yield the folders that a block's items were listed in; `owner` is its scope. Blocking."""
    for step in bound.nodes:
        if not (isinstance(step, BoundStep) and step.facts.lists):
            continue
        if ("steps", step.id) not in {path[:2] for path in block.over.references}:
            continue
        try:
            text = Value.of(step.written[step.facts.lists]).render(scope)
            root = bound.roots.resolve(str(text))
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            root = None
        if root is None:
            continue
        stored, now = index.stored(root), _mounted_folder(root)
        before = known_folder(now, map(FolderIdentity.of_text, index.ledger.roots(owner, stored)))
        watches = (watch for watch in bound.watches if root.is_relative_to(watch.root))
        yield SourceFolder(root, stored, next(watches, None), now, before)


def keep_folders(ledger: Ledger, owner: str, missing: MissingSources, options: RunOptions) -> None:
    """Record the folders in which a block's items were seen. Blocking."""
    for source in missing.sources:
        seen = missing.seen.get(source.stored)
        if seen is not None and seen != source.before:
            ledger.record_root(owner, source.stored, seen.as_text())
        if source.watch is not None and options.is_confirmed:
            folder = _mounted_folder(source.watch.root)
            if folder is not None:
                ledger.record_root(source.watch.name, "", folder.as_text())


def _mounted_folder(root: Path) -> FolderIdentity | None:
    try:
        return folder_identity_at(root)
    except OSError:
        return None
