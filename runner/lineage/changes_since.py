"""What changed since an output was made: the files of its item now, and the words of `paddock why`.

A run says why it would do an item again ("folder changed"). Of an output that is there, `why` says
what became of its document, of what its item read, and of the output itself. All reasons of a run,
and all states in the ledger, become such changes here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from paddock.engine.system.files import sha256_of
from paddock.runner.core.traces.dependencies import FileRead, current_paths, dependencies_of
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why

from .path_lineage import FileState, LineageChange, LineageFile
from .recorded_items import RecordedItem

_CHANGED_OR_GONE = {
    Why.FILE: (Why.READ_CHANGED, Why.READ_GONE),
    Why.FILE_GONE: (Why.READ_CHANGED, Why.READ_GONE),
    Why.FOLDER: (Why.LISTED_CHANGED, Why.LISTED_GONE),
    Why.STORE: (Why.SEARCHED_CHANGED, Why.SEARCHED_GONE),
    Why.ROWS_LOST: (Why.ROWS_CHANGED, Why.ROWS_GONE),
}
"""For a reason of a run about a path: what is said here where the path is there, and is gone."""
_NO_LONGER_APPLIES = {
    Outdated.SKIPPED: Why.OUTDATED_SKIPPED,
    Outdated.EXCLUDED: Why.OUTDATED_EXCLUDED,
    Outdated.GONE: Why.OUTDATED_GONE,
}


def document_now(item: RecordedItem) -> LineageFile | None:
    """Return the document of an item's output, compared with the file now."""
    document = item.document
    if document is None:
        return None
    path = item.base / document.path
    state: FileState = "changed" if os.path.lexists(path) else "gone"
    with suppress(OSError):
        state = "same" if sha256_of(path) == document.sha256 else state
    return LineageFile(str(path), document.sha256, state)


def files_read_now(item: RecordedItem) -> tuple[LineageFile, ...]:
    """Return the files that an item read, compared with those now."""
    found = []
    for read in dependencies_of(item.entry, FileRead):
        path = str(item.base / read.path)
        is_same = read.is_at(path, lambda path: sha256_of(Path(path)))
        state: FileState = "same" if is_same else "changed" if os.path.lexists(path) else "gone"
        found.append(LineageFile(path, read.sha256, state))
    return tuple(found)


def document_changes(document: LineageFile | None, index: OutputIndex) -> list[LineageChange]:
    """Return what became of an item's document."""
    if document is None or document.state == "same":
        return []
    why = Why.DOCUMENT_CHANGED if document.state == "changed" else Why.DOCUMENT_GONE
    return [LineageChange(why(index.stored(document.path)))]


def worded_changes(
    reasons: Iterable[Reason], index: OutputIndex, subject: str, lines: tuple[str, ...] = ()
) -> list[LineageChange]:
    """Return what became of an item's rule and of what it depended on, by the reasons of a run.

    Lost and edited outputs are left out, since `Origin.condition` has that. `subject` names the
    item; `lines` are the difference of its spec, for the first reason of the rule.
    """
    changes = []
    for reason in reasons:
        if reason.why in _CHANGED_OR_GONE:
            (path,) = reason.about
            changed, gone = _CHANGED_OR_GONE[reason.why]
            is_there = os.path.lexists(index.absolute(str(path)))
            changes.append(LineageChange((changed if is_there else gone)(subject, path)))
        elif not reason.is_loss:
            changes.append(LineageChange(reason, lines))
            lines = ()
    return changes


def no_longer_written(item: RecordedItem) -> LineageChange:
    """Return why a path is no output of its item as that was done last."""
    entry = item.entry
    if entry is None:
        why = Why.WRITTEN_NO_MORE()
    elif entry.state == ItemState.WAITING:
        why = Why.EARLIER_ANSWER(entry.run)
    elif entry.state == ItemState.FAILED:
        why = Why.EARLIER_TRY(entry.run)
    elif entry.state in (ItemState.SKIPPED, ItemState.QUARANTINED):
        why = Why.ITEM_ENDED(entry.run, entry.state)
    elif item.n_rows is None and (paths := sorted(current_paths(entry))):
        why = Why.ITEM_WRITES(entry.run, ", ".join(paths))
    else:
        why = Why.ITEM_WRITES_NOTHING(entry.run)
    return LineageChange(why)


def no_longer_applies(outdated: Outdated) -> LineageChange:
    """Return why an output no longer applies, as a plan has found."""
    return LineageChange(_NO_LONGER_APPLIES.get(outdated, Why.OUTDATED)())
