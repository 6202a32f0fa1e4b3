"""What became of items that a block's list no longer has: deleted, renamed, or not to be told.

An unmounted share leaves a folder behind that is empty or holds what a program wrote there since,
so files do not count as deleted below a mount point with nothing mounted, in a folder that cannot
be listed, or when the folder is another one. Where outputs would be removed and most documents went
at once, a person is asked first. A renamed document costs no calls, unless its name is part of a
prompt; what was made under the old name goes when the new one is done. No file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from paddock.engine.system.records import replace
from paddock.engine.system.text import counted
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.folders.missing_files import is_mass_deletion, is_other_folder
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Why

from ..run_records import read_lineage
from .block_items import is_file_value
from .source_folders import DeletionDoubt, MissingSources, SourceFolder

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import Entry, LineageRow

    from ..run_options import RunOptions
    from .block_work import BlockWork, ItemWork
    from .past_items import PastItems
    from .world import World


def reconcile(
    work: BlockWork,
    before: Sequence[Entry],
    lineage: Mapping[str, LineageRow],
    past: PastItems,
    options: RunOptions,
    world: World,
) -> MissingSources:
    """Decide what became of items that are absent from a block's list. Blocking.

    `before`: those of before this job, but for filed ones; `lineage`: how they were made.

    1. `where` leaves it out: it is dropped.
    2. A folder that cannot be listed keeps its own.
    3. Documents leave a hot folder when they are done: none is deleted.
    4. The folder is another one than before: none is deleted until a person confirms it.
    5. What was seen on a mount that is not there now stays until then, too.
    6. A new document has the content of a deleted one: that was renamed.
    7. Most are gone at once, and their outputs would be removed: only those that were renamed count
       as deleted until a person confirms it.
    8. A filed document is away: it is pruned where that is asked, with a question as for 7.
    9. All others are deleted.
    """
    folders, filed, items, present = work.missing.sources, work.filed, work.items, work.present
    dropped = tuple(entry for entry in before if entry.key in work.excluded)  # 1
    absent = [entry for entry in before if entry.key not in present]
    places = {entry.key: entry.key for entry in absent}  # where no file is known
    places |= {row.key: world.index.absolute(row.source) for row in lineage.values() if row.source}
    n_there = len(before) - len(absent)
    missing = _missing_in(folders, absent, places, n_there, options)  # 2 to 5
    if not (absent or dropped or filed.away):  # nothing else is to be decided
        return missing
    deleted, doubts = missing.deleted, [*missing.doubts]
    renamed = _renames(deleted, items, lineage)  # 6
    new_names = {old: key for key, old in renamed.items()}
    n_deleted = sum(entry.key not in new_names for entry in deleted)
    n_known = sum(entry.gone is None for entry in before)
    mass = mass_doubt(folders, n_deleted, n_known, options) if deleted else None
    if mass is not None:  # 7
        deleted = tuple(entry for entry in deleted if entry.key in new_names)
        doubts.append(mass)
    prunes = options.prune or any(folder.prunes for folder in folders)
    pruned = filed.away if prunes else frozenset()
    n_away, n_all = len(filed.away), len(filed.rows) + len(items)
    if pruned and not options.is_confirmed and is_mass_deletion(n_away, n_all, MOST_DELETED):  # 8
        why = Why.FILED_ARE_GONE(n_away, n_all, work.block.id)
        pruned, doubts = frozenset(), [*doubts, DeletionDoubt(work.block.id, why)]
    absences = dict.fromkeys((entry.key for entry in dropped), Why.WHERE())
    for key in (entry.key for entry in deleted):  # 9
        source, is_now = lineage[key].source if key in lineage else None, new_names.get(key)
        if past.changes(key).has_other_key:
            absences[key] = Why.KEY() if is_now is None else Why.KEY_TO(is_now)
        elif is_now is not None:
            absences[key] = Why.RENAMED_TO(is_now)
        else:
            is_gone = source and not world.is_there(source)
            absences[key] = Why.SOURCE_GONE() if is_gone else Why.UNLISTED()
    absences |= dict.fromkeys(sorted(pruned), Why.FILED_AND_GONE())
    return replace(
        missing,
        deleted=deleted,
        dropped=dropped,
        pruned=pruned,
        absences=absences,
        doubts=tuple(doubts),
        renamed=renamed,
    )


def _missing_in(
    folders: tuple[SourceFolder, ...],
    absent: Sequence[Entry],
    places: Mapping[str, str],
    n_there: int,
    options: RunOptions,
) -> MissingSources:
    """Return which absent items count as deleted, and where items were seen: 2 to 5 of `reconcile`.

    `places`: by key, where their documents were; `n_there`: of known items that are listed.
    """
    seen = {folder.stored: folder.now for folder in folders if folder.now is not None}
    if any(folder.is_hot for folder in folders):  # 3
        return MissingSources(sources=folders)
    deleted = [e for e in absent if not any(f.cannot_list(places[e.key]) for f in folders)]  # 2
    doubts = list[DeletionDoubt]()
    unconfirmed, n_absent = () if options.is_confirmed else folders, len(absent)
    for folder in unconfirmed:  # 4
        was, now = folder.before, folder.now
        if absent and (now is None or is_other_folder(was, now, n_absent, n_there)):
            seen_there = counted(n_absent, "missing document was", "missing documents were")
            why = Why.OTHER_FOLDER(folder.stored, seen_there)
            return MissingSources(doubts=(DeletionDoubt(folder.stored, why),), sources=folders)
    for folder in unconfirmed if absent else ():  # 5
        hidden = {entry.key: folder.unmounted(places[entry.key]) for entry in deleted}
        lost = {at for at in hidden.values() if at is not None}
        deleted = [entry for entry in deleted if hidden[entry.key] is None]
        mounts = {at: folder.before.mounts[at] for at in lost} if folder.before else {}
        now = seen[folder.stored]
        seen[folder.stored] = replace(now, mounts={**now.mounts, **mounts})
        for at in sorted(lost):
            place = f"{folder.stored}/{at}"
            doubts.append(DeletionDoubt(place, Why.NOT_MOUNTED(place)))
        temporary = {entry.key for entry in deleted if folder.is_temporary(places[entry.key])}
        if temporary:
            deleted = [entry for entry in deleted if entry.key not in temporary]
            why = Why.TEMPORARY_NAMES(counted(len(temporary), "document"), folder.stored)
            doubts.append(DeletionDoubt(folder.stored, why))
    return MissingSources(deleted=tuple(deleted), doubts=tuple(doubts), sources=folders, seen=seen)


def _renames(
    deleted: Iterable[Entry], items: Iterable[ItemWork], lineage: Mapping[str, LineageRow]
) -> dict[str, str]:
    """Return new key → old key of renamed documents.

    Also of a run that was killed before it removed what was made under the old one.
    """
    files = (item for item in items if item.verdict.state is ItemState.NEW)
    new = {item.key: item.value["sha256"] for item in files if is_file_value(item.value)}
    known = {key: read_lineage(row) for key, row in lineage.items()}
    contents = {key: of_key.source.sha256 for key, of_key in known.items() if of_key.source}
    gone = {e.key: contents[e.key] for e in deleted if e.key in contents}
    renamed = match_renames(gone, new)
    for key, of_key in known.items():
        if (old := of_key.renamed_from) and gone.get(old) == contents.get(key, ""):
            renamed.setdefault(key, old)
    return renamed


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
